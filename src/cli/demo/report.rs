//! What the demo prints: some predictions, and the figures.

use serde_json::{Value, json};

use super::posts::Post;
use super::{DemoArgs, Outcome};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{merged, print as print_text, print_json, print_table};

/// Predictions shown.
const SHOWN: usize = 10;
/// Characters of a text shown.
const EXCERPT: usize = 44;

pub(super) fn print(args: &DemoArgs, posts: &[Post], outcome: &Outcome) -> Result<(), Failure> {
    let right = posts
        .iter()
        .enumerate()
        .filter(|(index, post)| outcome.prediction(*index).is_some_and(|prediction| prediction.label == post.label));
    let right = right.count();
    #[expect(clippy::cast_precision_loss, reason = "a demo has some hundred posts")]
    let accuracy = right as f64 / posts.len() as f64;
    if args.json {
        print_json(&figures(posts, outcome, accuracy))?;
    } else {
        print_predictions(posts, outcome)?;
        print_figures(posts, outcome, right, accuracy)?;
    }
    match outcome.campaign.tally.failed() {
        failed if failed.is_empty() => Ok(()),
        failed => Err(Failure::new(Exit::Failed, format!("jobs got no result: {failed:?}"))),
    }
}

fn figures(posts: &[Post], outcome: &Outcome, accuracy: f64) -> Value {
    let own = json!({
        "posts": posts.len(),
        "accuracy": (accuracy * 1e4).round() / 1e4,
        "broker": outcome.broker,
    });
    merged(own, outcome.campaign.tally.to_json(outcome.campaign.elapsed))
}

fn print_predictions(posts: &[Post], outcome: &Outcome) -> Result<(), Failure> {
    let row = |(index, post): (usize, &Post)| {
        let prediction = outcome.prediction(index);
        let said = prediction.as_ref().map_or("-".to_owned(), |p| format!("{} {:.1}%", p.label, p.probability * 100.0));
        let verdict = if prediction.is_some_and(|p| p.label == post.label) { "right" } else { "wrong" };
        [post.id.clone(), excerpt(&post.text), post.label.clone(), said, verdict.to_owned()]
    };
    print_table(["POST", "TEXT", "TRUE TOPIC", "PREDICTED", ""], posts.iter().enumerate().take(SHOWN).map(row))
}

fn excerpt(text: &str) -> String {
    let begin: String = text.chars().take(EXCERPT).collect();
    if begin.len() < text.len() { format!("{begin}…") } else { begin }
}

fn print_figures(posts: &[Post], outcome: &Outcome, right: usize, accuracy: f64) -> Result<(), Failure> {
    let tally = &outcome.campaign.tally;
    let milliseconds = |share| tally.latency(share).as_secs_f64() * 1e3;
    print_text(&format!(
        "
broker           {}
posts            {} sealed, {} answered, {:.2} s
accuracy         {:.1}% ({right} of {})
throughput       {:.0} jobs/s
latency          p50 {:.0} ms, p99 {:.0} ms, with the whole window waiting in the queue
mean batch size  {:.1}
",
        outcome.broker,
        posts.len(),
        tally.answered(),
        outcome.campaign.elapsed.as_secs_f64(),
        accuracy * 100.0,
        posts.len(),
        tally.jobs_per_second(outcome.campaign.elapsed),
        milliseconds(0.5),
        milliseconds(0.99),
        tally.mean_batch_size(),
    ))
}
