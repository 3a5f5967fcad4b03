//! `inferq submit`: seals texts as jobs, publishes them, prints the replies.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, stdin, stdout};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::campaign::Campaign;
use super::explained::{weighed, words};
use super::failure::{Exit, Failure};
use super::output::{merged, print, print_table};
use super::tally::Tally;
use super::{Context, block_on};
use crate::client::{ClientError, Finished, Job, Prediction, Window, connect};
use crate::envelope::{Keyring, ProducerKeys};
use crate::protocol::model_ref::ModelRef;
use crate::protocol::response::{InferenceResponse, ResponseBody};
use crate::protocol::tensor::TensorData;
use crate::settings::Settings;

/// Send jobs and print their replies
///
/// One job a text. Texts are given as arguments, as a file, or as JSON lines {"id": ..., "text": ...}. Many jobs are sent
/// at once, as many as --window; their replies are printed in the order of the texts. Exit code 1 when a job was
/// answered with an error or no worker serves the model, 5 when a reply did not come in time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    /// Texts to classify, one job each
    #[arg(value_name = "TEXT", required_unless_present_any = ["file", "jsonl"])]
    texts: Vec<String>,
    /// Send the content of this file as one text; may be repeated
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Send every line of this file, {"id": ..., "text": ...}; - for standard input
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// The model, and a version where the highest is not wanted
    #[arg(long, value_name = "NAME[:VERSION]", default_value = "topic")]
    model: ModelRef,
    /// Whose keys to use [default: the only tenant of the key ring]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print the K most probable labels instead of the best
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    top: Option<u16>,
    /// Ask why: what each word adds to the probability of the label, shown in colours
    #[arg(long, value_name = "METHOD", num_args = 0..=1, default_missing_value = "occlusion", require_equals = true)]
    #[arg(conflicts_with = "top")]
    explain: Option<Method>,
    /// How long to wait for each reply
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout_s: u64,
    /// Milliseconds within which a job must be run; later it is answered with DEADLINE_EXCEEDED
    #[arg(long, value_name = "MILLISECONDS")]
    deadline_ms: Option<u64>,
    /// Jobs under way at once
    #[arg(long, value_name = "JOBS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Send the jobs without asking the workers whether there is such a model
    #[arg(long)]
    no_discovery: bool,
    /// Print one JSON object a job, and a summary on standard error
    #[arg(long)]
    json: bool,
}

/// How words are weighed; docs/models.md says what each costs.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Method {
    /// What is lost without a word and its neighbours
    Occlusion,
    /// What a word adds, on average over orders in which the words come
    Shapley,
}

const EXAMPLES: &str = "\
Examples:
  inferq submit \"the goalie stopped every shot\"
  inferq submit --model topic:1 --top 3 --file letter.txt
  inferq submit --explain=shapley \"the goalie stopped every shot\"
  inferq submit --jsonl models/topic/samples/posts.jsonl --json > replies.jsonl
  tail -f events.jsonl | head -1000 | inferq submit --jsonl -";

/// A text with the name that its reply is printed under.
struct Item {
    id: String,
    text: String,
}

pub(super) fn run(args: SubmitArgs, context: &Context) -> Result<(), Failure> {
    let items = read_items(&args)?;
    if items.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no text to send"));
    }
    let mut settings = context.settings.clone();
    if args.no_discovery {
        settings.discovery.answer_wait = None;
    }
    let tenant = tenant_or_only(args.tenant.as_ref(), &settings)?;
    let keys = ProducerKeys::load(&settings.keys.directory, &tenant)?;
    let jobs: Vec<Job> = items.iter().map(|item| job(&args, &item.text)).collect();
    let window = Window { size: args.window as usize, limit: Duration::from_secs(args.timeout_s) };
    let Campaign { finished, tally, elapsed } = block_on(async {
        let client = connect(&settings, keys).await?;
        let campaign = match client.check_model(&args.model).await {
            Ok(()) => Ok(Campaign::run(&client, jobs, window, context.quiet).await),
            Err(error) => Err(unknown_model(&error)),
        };
        client.close().await;
        campaign
    })?;
    report(&args, &items, &finished)?;
    if items.len() > 1 && !context.quiet {
        summarise(&args, &tally, elapsed);
    }
    conclude(&tally)
}

fn unknown_model(error: &ClientError) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
        .with_help("`inferq models list --remote` shows what workers serve; --no-discovery sends the job all the same")
}

fn read_items(args: &SubmitArgs) -> Result<Vec<Item>, Failure> {
    let mut items: Vec<Item> = args
        .texts
        .iter()
        .enumerate()
        .map(|(index, text)| Item { id: (index + 1).to_string(), text: text.clone() })
        .collect();
    for path in &args.file {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error.to_string()))?;
        items.push(Item { id: path.display().to_string(), text });
    }
    if let Some(path) = &args.jsonl {
        items.extend(read_lines(path)?);
    }
    Ok(items)
}

#[derive(Deserialize)]
struct Line {
    id: Option<Value>,
    text: String,
}

fn read_lines(path: &PathBuf) -> Result<Vec<Item>, Failure> {
    let source: Box<dyn BufRead> = if path.as_os_str() == "-" {
        if stdin().is_terminal() {
            eprintln!("reading JSON lines from standard input; end with Ctrl-D");
        }
        Box::new(stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(|error| unreadable(path, &error.to_string()))?))
    };
    let mut items = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let line = line.map_err(|error| unreadable(path, &error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let number = number + 1;
        let read: Line = serde_json::from_str(&line)
            .map_err(|_| unreadable(path, &format!("line {number} is no JSON object with a string `text`")))?;
        let id = match read.id {
            Some(Value::String(id)) => id,
            Some(other) => other.to_string(),
            None => number.to_string(),
        };
        items.push(Item { id, text: read.text });
    }
    Ok(items)
}

fn unreadable(path: &std::path::Path, reason: &str) -> Failure {
    Failure::new(Exit::Usage, format!("`{}` cannot be read: {reason}", path.display()))
}

/// The tenant that was named, or the only one of the key ring.
pub(super) fn tenant_or_only(named: Option<&String>, settings: &Settings) -> Result<String, Failure> {
    match named {
        Some(tenant) => Ok(tenant.clone()),
        None => only_tenant(&Keyring::load(&settings.keys.directory)?),
    }
}

/// The tenant to submit as when the command line names none.
fn only_tenant(keyring: &Keyring) -> Result<String, Failure> {
    let tenants: Vec<&str> = keyring.tenants().collect();
    match tenants.as_slice() {
        [only] => Ok((*only).to_owned()),
        several => {
            let message = format!("the key ring has {} tenants: {}", several.len(), several.join(", "));
            Err(Failure::new(Exit::Usage, message).with_help("say whose keys to use with --tenant NAME"))
        }
    }
}

fn job(args: &SubmitArgs, text: &str) -> Job {
    let mut job = Job::texts(args.model.clone(), &[text]);
    if let Some(k) = args.top {
        job = job.with_top("label", usize::from(k));
    }
    if let Some(method) = args.explain {
        let word = match method {
            Method::Occlusion => "occlusion",
            Method::Shapley => "shapley",
        };
        job.request.parameters.insert("explain".to_owned(), word.into());
    }
    if let Some(milliseconds) = args.deadline_ms {
        job = job.with_deadline(Duration::from_millis(milliseconds));
    }
    job
}

fn report(args: &SubmitArgs, items: &[Item], finished: &[Finished]) -> Result<(), Failure> {
    let named = || items.iter().zip(finished);
    if args.json {
        let lines: Vec<String> = named().map(|(item, one)| json_line(&item.id, one).to_string()).collect();
        return print(&(lines.join("\n") + "\n"));
    }
    print_table(["ID", "ANSWER", "MILLISECONDS"], named().map(|(item, one)| human_row(&item.id, one)))?;
    if args.explain.is_none() {
        return Ok(());
    }
    for (item, one) in named() {
        if let Ok(ResponseBody::Result(response)) = &one.reply {
            print(&words(&item.id, &item.text, response, stdout().is_terminal()))?;
        }
    }
    Ok(())
}

fn json_line(id: &str, finished: &Finished) -> Value {
    let outcome = match &finished.reply {
        Ok(ResponseBody::Result(response)) => json!({
            "model": format!("{}:{}", response.model_name, response.model_version),
            "predictions": Prediction::read_all(response),
            "top": top_labels(response),
            "words": weighed(response),
            "parameters": response.parameters,
        }),
        Ok(ResponseBody::Error(error)) => json!({ "error": { "code": error.code, "message": error.error } }),
        Err(error) => json!({ "error": { "code": error.kind(), "message": error.to_string() } }),
    };
    let named = json!({
        "id": id,
        "message_id": finished.message_id,
        "latency_ms": finished.latency.as_secs_f64() * 1e3,
    });
    merged(named, outcome)
}

fn human_row(id: &str, finished: &Finished) -> [String; 3] {
    let answer = match &finished.reply {
        Ok(ResponseBody::Result(response)) => match top_labels(response) {
            Some(top) => top.join("  "),
            None => {
                let predictions = Prediction::read_all(response);
                let words = predictions.iter().map(|p| format!("{} {:.1}%", p.label, p.probability * 100.0));
                words.collect::<Vec<_>>().join(", ")
            }
        },
        Ok(ResponseBody::Error(error)) => format!("{}: {}", error.code, error.error),
        Err(error) => error.to_string(),
    };
    [id.to_owned(), answer, format!("{:.1}", finished.latency.as_secs_f64() * 1e3)]
}

/// The classification extension's answer, `probability:index:label` each.
fn top_labels(response: &InferenceResponse) -> Option<Vec<String>> {
    match response.outputs.as_slice() {
        [only] if only.tensor.shape().len() == 2 => match only.tensor.elements() {
            TensorData::Bytes(labels) => {
                Some(labels.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect())
            }
            _ => None,
        },
        _ => None,
    }
}

fn summarise(args: &SubmitArgs, tally: &Tally, elapsed: Duration) {
    if args.json {
        eprintln!("{}", tally.to_json(elapsed));
        return;
    }
    let (p50, p99) = (tally.latency(0.5).as_secs_f64() * 1e3, tally.latency(0.99).as_secs_f64() * 1e3);
    eprintln!(
        "{} answered in {:.2} s: {:.0} jobs/s, p50 {p50:.1} ms, p99 {p99:.1} ms, mean batch size {:.1}",
        tally.answered(),
        elapsed.as_secs_f64(),
        tally.jobs_per_second(elapsed),
        tally.mean_batch_size(),
    );
}

/// The exit code says how the worst job ended.
fn conclude(tally: &Tally) -> Result<(), Failure> {
    let failed: u64 = tally.failed().values().sum();
    if failed == 0 {
        return Ok(());
    }
    let words: Vec<String> = tally.failed().iter().map(|(code, count)| format!("{count} {code}")).collect();
    let timed_out = ClientError::TimedOut(Duration::ZERO).kind();
    let exit = if tally.failed().contains_key(timed_out) { Exit::TimedOut } else { Exit::Failed };
    let failure = Failure::new(exit, format!("{failed} jobs got no result: {}", words.join(", ")));
    Err(match exit {
        Exit::TimedOut => {
            failure.with_help("check that a worker serves the model (`inferq health`), and its dead letters")
        }
        _ => failure.with_help("docs/errors.md says what each code means and what to do"),
    })
}
