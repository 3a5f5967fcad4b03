//! Many jobs of one command: submitted under a progress bar, counted as they end. Used by `submit` and `demo`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::tally::Tally;
use crate::broker::Publisher;
use crate::client::{Client, Finished, Job, Window};

/// How many jobs ended.
#[derive(Debug)]
pub(super) struct Campaign {
    /// Every job, in the order in which they were given.
    pub(super) finished: Vec<Finished>,
    /// What they came to.
    pub(super) tally: Tally,
    /// From the first submission to the last reply.
    pub(super) elapsed: Duration,
}

impl Campaign {
    /// Submits all `jobs` and waits for them.
    pub(super) async fn run<P: Publisher>(client: &Client<P>, jobs: Vec<Job>, window: Window, quiet: bool) -> Self {
        let progress = progress_bar(jobs.len(), quiet);
        let (mut finished, mut tally) = (Vec::with_capacity(jobs.len()), Tally::new());
        let began = Instant::now();
        client
            .submit_all(jobs, window, |one| {
                tally.count(&one);
                finished.push(one);
                progress.inc(1);
            })
            .await;
        let elapsed = began.elapsed();
        progress.finish_and_clear();
        finished.sort_by_key(|one| one.index);
        Self { finished, tally, elapsed }
    }
}

/// A progress bar on standard error; hidden for a single job, and where nobody looks.
fn progress_bar(jobs: usize, quiet: bool) -> ProgressBar {
    if quiet || jobs < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} jobs  {per_sec}  {elapsed} (about {eta} left)")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(jobs as u64).with_style(style)
}
