//! `inferq models optimize`: what can be made smaller or faster, by measurement, as a new version.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::check::unmeasured;
use super::evaluate::{read_samples, unusable};
use crate::backend::tract::Step;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{merged, print, print_json, print_table};
use crate::cli::{Context, block_on};
use crate::evaluation::check_labels;
use crate::model::{
    Figures, ModelError, Optimization, Optimized, Subject, Tried, Verdict, find_versions, optimize, register_optimized,
};
use crate::protocol::model_ref::ModelRef;

#[derive(Debug, Args)]
pub(super) struct OptimizeArgs {
    /// A model of the repository, the highest version unless told; or an ONNX file, with --output
    #[arg(value_name = "NAME[:VERSION]|FILE")]
    subject: String,
    /// The steps to try, in order [default: all]
    #[arg(long = "step", value_name = "STEP")]
    steps: Vec<NamedStep>,
    /// Labelled texts, JSON lines of `text` and `label`: accuracy is compared, too
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Accuracy that may be lost; without --data the share of rows that may get another class
    #[arg(long, value_name = "SHARE", default_value_t = 0.002)]
    max_loss: f64,
    /// How far a lossy step may move an output, absolute up to 1, relative beyond; the others may by 0.001
    #[arg(long, value_name = "DIFFERENCE", default_value_t = 0.05)]
    max_difference: f64,
    /// Write the ONNX file here instead of adding a version; a file that is there is not overwritten
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measure, and write nothing
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON: `steps`, `before`, `after`, `agreement`, `memory_bytes`, `rows`, `written`
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  inferq models optimize topic --data models/topic/samples/posts.jsonl
  inferq models optimize topic:1 --step half --max-loss 0.001 --data test.jsonl
  inferq models optimize resnet.onnx --output smaller.onnx";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NamedStep {
    /// Compute what does not depend on the inputs, drop what nobody reads
    Fold,
    /// Multiply the embedding with the LSTM's input weights when the model is loaded: faster, and more memory
    Embedding,
    /// Weights in half precision on disk
    Half,
}

impl From<NamedStep> for Step {
    fn from(step: NamedStep) -> Self {
        match step {
            NamedStep::Fold => Self::Fold,
            NamedStep::Embedding => Self::Embedding,
            NamedStep::Half => Self::Half,
        }
    }
}

pub(super) fn run(args: &OptimizeArgs, context: &Context) -> Result<(), Failure> {
    let directory = args.directory.as_ref().unwrap_or(&context.settings.models.directory);
    let subject = subject(args, directory)?;
    if let Some(path) = args.output.as_ref().filter(|path| path.exists()) {
        return Err(Failure::new(Exit::Usage, format!("`{}` is there already", path.display()))
            .with_help("name a file that is not there with --output"));
    }
    let steps = args.steps.iter().map(|step| Step::from(*step)).collect::<Vec<_>>();
    let asked = Optimization {
        steps: if steps.is_empty() { Step::ALL.to_vec() } else { steps },
        max_loss: args.max_loss,
        max_difference: args.max_difference,
        texts: texts(args, &subject)?,
    };
    let optimized = optimize(&subject, &asked)?;
    let is_better = optimized.after.is_some();
    let written = if is_better { write(args, context, (directory, &subject), &optimized)? } else { None };
    if args.json {
        let told = serde_json::to_value(&optimized).unwrap_or(Value::Null);
        print_json(&merged(told, json!({"written": written})))?;
    } else {
        print_page(&optimized, written.as_deref())?;
    }
    if is_better {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("no step was kept of {}: {}", args.subject, reasons(&optimized.steps)))
        .with_help("--max-loss and --max-difference are the bounds; nothing was written"))
}

/// A file where the word names one, else a version of the repository.
fn subject(args: &OptimizeArgs, directory: &Path) -> Result<Subject, Failure> {
    let path = Path::new(&args.subject);
    if path.extension().is_some_and(|extension| extension == "onnx") || path.is_file() {
        if args.output.is_none() && !args.dry_run {
            return Err(Failure::new(Exit::Usage, "an ONNX file needs --output, or --dry-run")
                .with_help("`inferq models add` puts the result into the repository"));
        }
        return Ok(Subject::file(path)?);
    }
    let asked: ModelRef = args
        .subject
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, format!("`{}`: {error}", args.subject)).with_help(EXAMPLE_NAME))?;
    let fits = |name: &str, version: u32| name == asked.name && asked.version.is_none_or(|own| own == version);
    let versions = find_versions(directory)?;
    let Some((.., folder)) = versions.into_iter().rev().find(|(name, version, _)| fits(name, *version)) else {
        return Err(Failure::new(Exit::Invalid, format!("the repository has no model `{asked}`"))
            .with_help("`inferq models list` shows what it has"));
    };
    Ok(Subject::version(&folder)?)
}

const EXAMPLE_NAME: &str = "such as topic, topic:1, or the path of an ONNX file";

fn texts(args: &OptimizeArgs, subject: &Subject) -> Result<Vec<(String, String)>, Failure> {
    let Some(path) = &args.data else { return Ok(Vec::new()) };
    let samples = read_samples(path)?;
    if subject.labels().is_empty() {
        return Err(Failure::new(Exit::Usage, "--data is for classifiers of texts")
            .with_help("`inferq models show NAME` tells what a model takes and answers"));
    }
    check_labels(&samples, subject.labels()).map_err(|error| unusable(path, &error))?;
    Ok(samples.into_iter().map(|sample| (sample.text, sample.label)).collect())
}

/// Writes what was asked for; says where.
fn write(
    args: &OptimizeArgs,
    context: &Context,
    (directory, subject): (&Path, &Subject),
    optimized: &Optimized,
) -> Result<Option<String>, Failure> {
    if let Some(path) = &args.output {
        let fault = |source| ModelError::Write { path: path.clone(), source };
        std::fs::write(path, &optimized.onnx).map_err(fault)?;
        return Ok(Some(path.display().to_string()));
    }
    if args.dry_run {
        return Ok(None);
    }
    let options = unmeasured(&context.settings.batching);
    let (folder, _) = block_on(async { Ok(register_optimized(directory, subject, optimized, &options)?) })?;
    Ok(Some(folder.display().to_string()))
}

fn reasons(steps: &[Tried]) -> String {
    let reasons: Vec<String> = steps.iter().map(|tried| format!("{} {}", tried.step.as_str(), tried.reason)).collect();
    reasons.join("; ")
}

fn print_page(optimized: &Optimized, written: Option<&str>) -> Result<(), Failure> {
    print_table(["STEP", "", "FILE", "TIME", "DIFFERENCE", "CLASSES", ""], optimized.steps.iter().map(step_row))?;
    let Some(after) = &optimized.after else { return Ok(()) };
    let agreement = optimized.agreement.as_ref();
    print("\n")?;
    let share = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{share:.4}"));
    let figure = |name: &str, of: &dyn Fn(&Figures) -> String| [name.to_owned(), of(&optimized.before), of(after)];
    let batch = format!("ms a row of {}", after.batch_size);
    let in_batch = |own: &Figures| own.row_in_batch_ms.map_or_else(String::new, |ms| format!("{ms:.3}"));
    let rows = [
        figure("bytes on disk", &|own| own.file_bytes.to_string()),
        figure("ms a row alone", &|own| format!("{:.3}", own.row_ms)),
        figure(&batch, &in_batch),
        figure("accuracy", &|own| share(own.accuracy)),
    ];
    print_table(["", "BEFORE", "AFTER"], rows.into_iter().filter(|[_, before, _]| !before.is_empty()))?;
    let worst = agreement.map_or(0.0, |agreement| agreement.max_difference);
    let classes = agreement.and_then(|agreement| agreement.equal_classes);
    let alike =
        classes.map_or_else(String::new, |share| format!(", {:.2}% of the classes are the same", share * 100.0));
    print(&format!("\n{} rows compared: answers differ by at most {worst:.1e}{alike}\n", optimized.rows))?;
    if optimized.memory_bytes > 0 {
        print(&format!("the loaded model takes {} bytes more\n", optimized.memory_bytes))?;
    }
    written.map_or(Ok(()), |place| print(&format!("written to {place}\n")))
}

fn step_row(tried: &Tried) -> [String; 7] {
    let verdict = match tried.verdict {
        Verdict::Kept => "kept",
        Verdict::Nothing => "nothing to do",
        Verdict::Useless => "no gain",
        Verdict::Refused => "refused",
    };
    let agreement = tried.agreement.as_ref();
    let ratios = tried.time_ratio.iter().flatten().map(|ratio| format!("{ratio:.2}x")).collect::<Vec<_>>();
    [
        tried.step.as_str().to_owned(),
        verdict.to_owned(),
        tried.file_bytes.map_or_else(String::new, |bytes| bytes.to_string()),
        ratios.join(" "),
        agreement.map_or_else(String::new, |own| format!("{:.1e}", own.max_difference)),
        agreement.and_then(|own| own.equal_classes).map_or_else(String::new, |share| format!("{:.2}%", share * 100.0)),
        tried.reason.clone(),
    ]
}
