//! Many jobs with a window: as many under way as the window holds, each timed from its submission to its reply.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::{Client, ClientError, Job};
use crate::broker::Publisher;
use crate::protocol::response::ResponseBody;

/// How one job of many ended.
#[derive(Debug)]
pub struct Finished {
    /// Its place in the input.
    pub index: usize,
    /// Its id, once it was published.
    pub message_id: Option<String>,
    /// Its reply, or why there is none.
    pub reply: Result<ResponseBody, ClientError>,
    /// From before it was sealed to when its reply was opened.
    pub latency: Duration,
}

/// How many jobs at once, and for how long each is waited.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Jobs under way at most.
    pub size: usize,
    /// Longest wait for one reply.
    pub limit: Duration,
}

impl<P: Publisher> Client<P> {
    /// Submits all `jobs`, and tells `on_each` of every one as it ends, in whatever order that is.
    pub async fn submit_all(
        &self,
        jobs: impl IntoIterator<Item = Job>,
        window: Window,
        mut on_each: impl FnMut(Finished),
    ) {
        let timed = |(index, job): (usize, Job)| async move {
            let began = Instant::now();
            let (message_id, reply) = match self.submit(&job).await {
                Ok(submitted) => {
                    let message_id = submitted.message_id().to_owned();
                    (Some(message_id), submitted.reply(window.limit).await)
                }
                Err(error) => (None, Err(error)),
            };
            Finished { index, message_id, reply, latency: began.elapsed() }
        };
        let mut finished = stream::iter(jobs).enumerate().map(timed).buffer_unordered(window.size.max(1));
        while let Some(one) = finished.next().await {
            on_each(one);
        }
    }
}
