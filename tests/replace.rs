//! Models that are replaced while they serve: taken up, refused, retired, aliased, unloaded and loaded again, under load.
//!
//! `INFERQ_SWAPS` sets how many swaps the last test makes under load; `make swaps` sets it to 20 and prints the figures.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inferq::batch::batcher::SubmitOptions;
use inferq::batch::pool::JobClass;
use inferq::error::{ErrorCode, JobError};
use inferq::model::{Alias, Aliases, LoadedModel, ModelOptions, ModelRepository, Watcher};
use inferq::protocol::request::{InferenceRequest, RequestBounds};
use inferq::protocol::response::InferenceResponse;
use inferq::settings::{BatchingPolicy, BatchingSettings, ModelSettings, Objectives};
use inferq::telemetry::labels::ModelChange;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A repository in a folder of its own, and what was told of it.
struct Stand {
    _folder: tempfile::TempDir,
    directory: PathBuf,
    changes: Arc<Mutex<Vec<ModelChange>>>,
}

impl Stand {
    fn new(models: &[(&str, u32)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().to_owned();
        let stand = Self { _folder: folder, directory, changes: Arc::default() };
        models.iter().for_each(|(model, version)| stand.copy(model, *version));
        stand
    }

    /// Copies the shipped version 1 of `model` to `version`.
    fn copy(&self, model: &str, version: u32) {
        let copy = self.folder(model, version);
        fs::create_dir_all(&copy).unwrap();
        for file in fs::read_dir(format!("{ROOT}/models/{model}/1")).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        self.edit(model, version, "version = 1", &format!("version = {version}"));
    }

    fn folder(&self, model: &str, version: u32) -> PathBuf {
        self.directory.join(model).join(version.to_string())
    }

    fn edit(&self, model: &str, version: u32, from: &str, to: &str) {
        let path = self.folder(model, version).join("model.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    fn open(&self, memory_budget_bytes: Option<u64>) -> Arc<ModelRepository> {
        let changes = Arc::clone(&self.changes);
        let options = ModelOptions {
            batching: BatchingSettings {
                max_run: Duration::from_secs(60),
                executors: 2,
                max_batch_size: 32,
                max_waiting_rows: 1_024,
                policy: BatchingPolicy::Adaptive,
                objectives: Objectives { normal: Duration::from_secs(1), urgent: Duration::from_secs(1) },
            },
            observe: Arc::new(|_| Arc::new(|_| {})),
            wrap: Arc::new(|_, backend| backend),
            changed: Arc::new(move |_, change| changes.lock().unwrap().push(change)),
        };
        let directory = self.directory.clone();
        let settings = ModelSettings { directory, serve: Vec::new(), watch_interval: None, memory_budget_bytes };
        Arc::new(ModelRepository::open(&settings, &options).unwrap())
    }

    fn changes(&self) -> Vec<ModelChange> {
        std::mem::take(&mut *self.changes.lock().unwrap())
    }

    fn alias(&self, model: &str, aliases: &[(&str, u32, f64)]) {
        let folder = self.directory.join(model);
        let table = aliases
            .iter()
            .map(|(name, version, share)| ((*name).to_owned(), Alias { version: *version, share: *share }))
            .collect();
        Aliases::read(&folder).unwrap().changed_to(table).write(&folder).unwrap();
    }
}

async fn ask(model: &LoadedModel, request: &Value) -> Result<InferenceResponse, JobError> {
    let request = InferenceRequest::decode(request.to_string().as_bytes(), None, &RequestBounds { max_rows: 16 })?;
    let facts = request.facts();
    let rows = model.prepare(request).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let answered = model
        .infer(rows, SubmitOptions { deadline, class: JobClass::Normal, tenant: "t".into(), alone: false })
        .await?;
    model.shape(answered, &facts)
}

fn numbers() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
}

fn text() -> Value {
    let words = "the shuttle put a satellite into orbit and the crew came back to the station after the launch";
    json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [words]}]})
}

async fn version(repository: &ModelRepository, name: &str, version: Option<u32>) -> u32 {
    repository.resolve(name, version, "a job").await.unwrap().spec().version
}

/// Two looks: a folder is taken up once it rests.
async fn look_twice(watcher: &mut Watcher) {
    watcher.look().await;
    watcher.look().await;
}

#[tokio::test]
async fn a_new_version_serves_once_its_folder_rests_and_pinned_jobs_keep_theirs() {
    let stand = Stand::new(&[("identity", 1)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    look_twice(&mut watcher).await;
    assert_eq!(stand.changes(), [], "nothing has changed");

    let in_flight = repository.resolve("identity", None, "a job").await.unwrap();
    stand.copy("identity", 2);
    watcher.look().await;
    assert_eq!(version(&repository, "identity", None).await, 1, "the folder may still be written");
    watcher.look().await;
    assert_eq!((version(&repository, "identity", None).await, version(&repository, "identity", Some(1)).await), (2, 1));
    assert_eq!(ask(&in_flight, &numbers()).await.unwrap().model_version, "1", "a job keeps what it has resolved");
    assert_eq!(stand.changes(), [ModelChange::TakenUp]);

    // The same version with other files is another model.
    stand.edit("identity", 2, "Answers the four", "Repeats the four");
    look_twice(&mut watcher).await;
    let changed = repository.resolve("identity", Some(2), "a job").await.unwrap();
    assert!(changed.spec().description.starts_with("Repeats"));
    assert_eq!(stand.changes(), [ModelChange::TakenUp]);

    fs::remove_dir_all(stand.folder("identity", 2)).unwrap();
    watcher.look().await;
    assert_eq!(version(&repository, "identity", None).await, 2, "it may be put back in this moment");
    watcher.look().await;
    assert_eq!(version(&repository, "identity", None).await, 1);
    assert_eq!(ask(&changed, &numbers()).await.unwrap().model_version, "2", "a job finishes with what has gone");
    fs::remove_dir_all(stand.folder("identity", 1)).unwrap();
    look_twice(&mut watcher).await;
    assert_eq!(version(&repository, "identity", None).await, 1, "the last version of a model stays");
    assert_eq!(stand.changes(), [ModelChange::Retired]);
}

#[tokio::test]
async fn a_bad_version_is_refused_once_and_the_old_one_serves_on() {
    let stand = Stand::new(&[("identity", 1)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    stand.copy("identity", 2);
    fs::write(stand.folder("identity", 2).join("model.onnx"), b"cut").unwrap();
    look_twice(&mut watcher).await;
    look_twice(&mut watcher).await;
    assert_eq!(stand.changes(), [ModelChange::Refused], "what was refused is not tried again as it is");
    assert_eq!(version(&repository, "identity", None).await, 1);
    let error = repository.resolve("identity", Some(2), "a job").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownModel);

    // A version that serves is spoiled, and serves on as it was.
    let golden = stand.folder("identity", 1).join("golden.json");
    let text = fs::read_to_string(&golden).unwrap();
    fs::write(&golden, text.replace("\"y\": [0, 1", "\"y\": [0, 7")).unwrap();
    look_twice(&mut watcher).await;
    let old = repository.resolve("identity", Some(1), "a job").await.unwrap();
    assert!(ask(&old, &numbers()).await.is_ok());
    assert_eq!(stand.changes(), [ModelChange::Refused]);

    fs::copy(format!("{ROOT}/models/identity/1/model.onnx"), stand.folder("identity", 2).join("model.onnx")).unwrap();
    look_twice(&mut watcher).await;
    assert_eq!(version(&repository, "identity", None).await, 2, "what was mended is taken up");
}

#[tokio::test]
async fn aliases_share_jobs_out_and_follow_their_file() {
    let stand = Stand::new(&[("identity", 1), ("identity", 2), ("identity", 3)]);
    stand.alias("identity", &[("stable", 1, 0.0), ("canary", 2, 0.25)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    let shares = |repository: Arc<ModelRepository>| async move {
        let mut counts = [0; 4];
        for job in 0..2_000 {
            let model = repository.resolve("identity", None, &format!("job-{job}")).await.unwrap();
            counts[model.spec().version as usize] += 1;
        }
        counts
    };
    let counts = shares(Arc::clone(&repository)).await;
    assert!((400..600).contains(&counts[2]) && counts[1] + counts[2] == 2_000, "{counts:?}");
    assert_eq!(version(&repository, "identity", Some(3)).await, 3, "who names a version gets it");

    stand.alias("identity", &[("stable", 3, 0.0)]);
    watcher.look().await;
    assert_eq!(shares(Arc::clone(&repository)).await[3], 2_000);
    stand.alias("identity", &[("stable", 9, 0.0)]);
    look_twice(&mut watcher).await;
    assert_eq!(shares(repository).await[3], 2_000, "aliases of a version that is not there are refused");
    assert_eq!(stand.changes(), [ModelChange::Realiased, ModelChange::Refused]);
}

#[tokio::test]
async fn a_version_and_its_alias_may_come_in_any_order() {
    let stand = Stand::new(&[("identity", 1)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    stand.copy("identity", 2);
    stand.alias("identity", &[("stable", 1, 0.0), ("next", 2, 1.0)]);
    look_twice(&mut watcher).await;
    watcher.look().await;
    assert_eq!(version(&repository, "identity", None).await, 2);
    assert_eq!(stand.changes(), [ModelChange::TakenUp, ModelChange::Realiased]);
}

/// Who goes back to another version does not wait for one that is being loaded, however long that takes.
#[tokio::test(start_paused = true)]
async fn aliases_change_while_a_version_is_loaded() {
    let stand = Stand::new(&[("identity", 1), ("identity", 2)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    stand.copy("identity", 3);
    // A pipe: whoever reads it waits until somebody writes.
    let onnx = stand.folder("identity", 3).join("model.onnx");
    let content = fs::read(&onnx).unwrap();
    fs::remove_file(&onnx).unwrap();
    assert!(Command::new("mkfifo").arg(&onnx).status().unwrap().success());
    watcher.look().await;
    let looking = tokio::spawn(async move { watcher.look().await });
    stand.alias("identity", &[("stable", 1, 0.0)]);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if version(&repository, "identity", None).await == 1 {
            break;
        }
    }
    assert_eq!(version(&repository, "identity", None).await, 1, "the alias waits for the version that is being loaded");
    assert!(!looking.is_finished());
    tokio::task::spawn_blocking(move || fs::write(onnx, content).unwrap()).await.unwrap();
    looking.await.unwrap();
    assert_eq!(version(&repository, "identity", Some(3)).await, 3);
    assert_eq!(stand.changes(), [ModelChange::Realiased, ModelChange::TakenUp]);
}

#[tokio::test]
async fn what_is_beyond_the_budget_is_unloaded_and_loaded_again_on_demand() {
    let stand = Stand::new(&[("identity", 1), ("identity", 2), ("identity", 3)]);
    let one: u64 =
        fs::read_dir(stand.folder("identity", 1)).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let repository = stand.open(Some(2 * one + one / 2));
    let resident = || repository.resident().into_iter().map(|(_, version)| version).collect::<Vec<_>>();
    assert_eq!(resident(), [2, 3], "all were tried, the first one had to go");
    let second = repository.resolve("identity", Some(2), "a job").await.unwrap();
    // Many ask at once for what is not there: it is loaded once.
    let asked = (0..8).map(|_| repository.resolve("identity", Some(1), "a job"));
    let loaded = futures_util::future::join_all(asked).await;
    assert!(loaded.iter().all(|model| model.as_ref().unwrap().spec().version == 1));
    assert_eq!(resident(), [1, 2], "the least recently used one has gone");
    assert_eq!(stand.changes(), [ModelChange::Unloaded, ModelChange::Reloaded, ModelChange::Unloaded]);
    version(&repository, "identity", Some(3)).await;
    assert_eq!(resident(), [1, 3]);
    assert_eq!(ask(&second, &numbers()).await.unwrap().model_version, "2", "a job finishes with what is unloaded");

    // The last one that fits nowhere is kept all the same, as long as it is used.
    let tight = stand.open(Some(1));
    version(&tight, "identity", Some(2)).await;
    assert_eq!(tight.resident(), [("identity".to_owned(), 2)]);
    fs::remove_dir_all(stand.folder("identity", 1)).unwrap();
    let error = tight.resolve("identity", Some(1), "a job").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ModelUnavailable);
}

/// What a round of load came to.
struct Load {
    answered: usize,
    errors: Vec<JobError>,
    p99: Duration,
}

/// Asks with eight at once until `done` ends.
async fn under_load(repository: &Arc<ModelRepository>, done: impl Future<Output = ()>) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let ask_on = |number: usize| {
        let (repository, stop) = (Arc::clone(repository), Arc::clone(&stop));
        async move {
            let mut results = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let job = format!("{number}-{}", results.len());
                let answered = match repository.resolve("topic", None, &job).await {
                    Ok(model) => ask(&model, &text()).await.map(|_| ()),
                    Err(error) => Err(error),
                };
                results.push((began.elapsed(), answered));
            }
            results
        }
    };
    let tasks: Vec<_> = (0..8).map(|number| tokio::spawn(ask_on(number))).collect();
    done.await;
    stop.store(true, Ordering::Relaxed);
    let mut results = Vec::new();
    for task in tasks {
        results.extend(task.await.unwrap());
    }
    let mut latencies: Vec<Duration> = results.iter().map(|(latency, _)| *latency).collect();
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    let errors = results.into_iter().filter_map(|(_, answered)| answered.err()).collect();
    Load { answered: latencies.len(), errors, p99 }
}

/// How many swaps are made under load.
fn swaps() -> u32 {
    let Some(written) = std::env::var_os("INFERQ_SWAPS") else { return 2 };
    written.to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_fail_no_job() {
    let stand = Stand::new(&[("topic", 1)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    // As long as the swaps take, which nobody knows before: as many answers as about fifty batches.
    let quiet = under_load(&repository, async {
        let model = repository.resolve("topic", None, "quiet").await.unwrap();
        for _ in 0..50 * swaps() {
            ask(&model, &text()).await.unwrap();
        }
    });
    let quiet = quiet.await;
    let swapped = under_load(&repository, async {
        for number in 0..swaps() {
            let (from, to) = if number % 2 == 0 { ("English text", "A text") } else { ("A text", "English text") };
            stand.edit("topic", 1, from, to);
            look_twice(&mut watcher).await;
        }
    });
    let swapped = swapped.await;
    let ratio = swapped.p99.as_secs_f64() / quiet.p99.as_secs_f64();
    println!(
        "{} swaps: {} answers, {} errors; p99 {:.1} ms, without swaps {:.1} ms ({} answers): {ratio:.2}x",
        swaps(),
        swapped.answered,
        swapped.errors.len(),
        swapped.p99.as_secs_f64() * 1e3,
        quiet.p99.as_secs_f64() * 1e3,
        quiet.answered,
    );
    assert!(swapped.errors.is_empty() && quiet.errors.is_empty(), "{:?}", swapped.errors);
    assert_eq!(stand.changes().len(), swaps() as usize, "every swap was made");
    let description = repository.resolve("topic", None, "last").await.unwrap().spec().description.clone();
    assert!(description.starts_with(if swaps() % 2 == 1 { "A text" } else { "English text" }), "{description}");
}

/// Where a model lies is told by its folder alone.
#[tokio::test]
async fn a_new_model_is_not_served_before_the_next_start() {
    let stand = Stand::new(&[("identity", 1)]);
    let repository = stand.open(None);
    let mut watcher = Watcher::new(Arc::clone(&repository));
    stand.copy("topic", 1);
    look_twice(&mut watcher).await;
    look_twice(&mut watcher).await;
    assert_eq!((repository.names(), stand.changes()), (vec!["identity".to_owned()], Vec::new()));
    assert!(Path::new(&stand.folder("topic", 1)).is_dir());
}
