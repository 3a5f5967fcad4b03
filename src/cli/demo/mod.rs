//! `inferq demo`: real posts, sealed by a producer, through a broker, through the model of two workers, and back.
//!
//! `posts` reads the labelled posts, `processes` runs workers as processes of their own, `embedded` runs them in this
//! process on the embedded broker, `report` prints what came of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::campaign::Campaign;
use super::failure::{Exit, Failure};
use super::{Context, block_on};
use crate::broker::Publisher;
use crate::client::{Client, Job, Prediction, Window};
use crate::envelope::{Grant, ProducerKeys, generate};
use crate::protocol::model_ref::ModelRef;
use crate::protocol::response::ResponseBody;
use crate::settings::Settings;

mod embedded;
mod posts;
mod processes;
mod report;

use posts::Post;

/// Workers that share the queue.
const WORKERS: usize = 2;
const TENANT: &str = "demo";

/// Show the whole way of some hundred jobs, from keys to replies
///
/// Makes keys in a temporary folder, starts two workers, seals and submits real posts whose topics are known, and prints
/// predictions, accuracy, jobs per second, latencies and the mean batch size. Uses the broker of broker.url, or of
/// INFERQ_AMQP_URL, under names of its own that it removes at the end; nothing is left running.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Use the broker inside this process: where no RabbitMQ can be had
    #[arg(long)]
    embedded: bool,
    /// Labelled posts: lines of {"id", "text", "label"}
    #[arg(long, value_name = "FILE", default_value = "models/topic/samples/posts.jsonl")]
    posts: PathBuf,
    /// Jobs under way at once
    #[arg(long, value_name = "JOBS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  make demo                     build, start a private RabbitMQ, run this, stop it again
  inferq demo --embedded        no broker needed
  INFERQ_AMQP_URL=amqps://user:password@broker/%2f inferq demo";

pub(super) fn run(args: DemoArgs, context: &Context) -> Result<(), Failure> {
    let posts = posts::read(&args.posts)?;
    let keys = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Failed, format!("no temporary folder can be made: {error}")))?;
    let settings = demo_settings(&context.settings, keys.path());
    say(context, &format!("keys for tenant `{TENANT}` are made in a temporary folder"));
    generate(keys.path(), TENANT, &Grant::new(TENANT, vec!["topic".to_owned()]))?;
    let keys = ProducerKeys::load(keys.path(), TENANT)?;
    let outcome = block_on(async {
        if args.embedded {
            embedded::run(&settings, keys, &args, context, &posts).await
        } else {
            processes::run(&settings, keys, &args, context, &posts).await
        }
    })?;
    report::print(&args, &posts, &outcome)
}

/// The settings of the demo: its own keys, names and models; one executor a worker, since the workers share the cores.
fn demo_settings(settings: &Settings, keys: &Path) -> Settings {
    let mut settings = settings.clone();
    settings.keys.directory = keys.to_owned();
    settings.models.serve = vec!["topic".to_owned()];
    settings.batching.executors = 1;
    settings.broker.name_prefix = format!("inferq-demo-{}", uuid::Uuid::new_v4().simple());
    settings
}

/// What came of all the posts.
struct Outcome {
    campaign: Campaign,
    broker: String,
}

impl Outcome {
    /// The prediction for the post at `index`, if it got one.
    fn prediction(&self, index: usize) -> Option<Prediction> {
        match &self.campaign.finished.get(index)?.reply {
            Ok(ResponseBody::Result(response)) => Prediction::read_all(response).into_iter().next(),
            Ok(ResponseBody::Error(_)) | Err(_) => None,
        }
    }
}

/// Submits every post through `client`, showing progress.
async fn submit_posts<P: Publisher>(
    client: &Client<P>,
    args: &DemoArgs,
    context: &Context,
    posts: &[Post],
    broker: String,
) -> Outcome {
    say(context, &format!("submitting {} posts, {} under way at once", posts.len(), args.window));
    let model = ModelRef { name: "topic".to_owned(), version: None };
    let jobs: Vec<Job> = posts.iter().map(|post| Job::texts(model.clone(), &[&post.text])).collect();
    let window = Window { size: args.window as usize, limit: Duration::from_secs(120) };
    let campaign = Campaign::run(client, jobs, window, context.quiet).await;
    Outcome { campaign, broker }
}

/// Says on standard error what is being done.
fn say(context: &Context, words: &str) {
    if !context.quiet {
        eprintln!("demo: {words}");
    }
}
