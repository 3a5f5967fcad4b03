//! Explanations: what they add to a reply, that they sum up, and that the words they name are those that matter.
//!
//! `INFERQ_EXPLAIN_POSTS` sets how many posts the faithfulness test explains; `make explain` sets it to 200 and prints the figures.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod house;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use house::House;
use inferq::backend::{Backend, BackendError};
use inferq::batch::row::{Batch, BatchOutput, Row};
use inferq::broker::memory::MemoryPublisher;
use inferq::client::{Client, Job};
use inferq::protocol::response::{InferenceResponse, ResponseBody};
use inferq::protocol::tensor::TensorData;
use inferq::seeded::Seeded;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

async fn ask(client: &Client<MemoryPublisher>, text: &str, explain: Option<Value>) -> ResponseBody {
    let mut job = Job::texts("topic".parse().unwrap(), &[text]);
    if let Some(explain) = explain {
        job.request.parameters.insert("explain".to_owned(), explain);
    }
    client.predict(&job, PATIENCE).await.unwrap()
}

async fn explained(client: &Client<MemoryPublisher>, text: &str, explain: Value) -> InferenceResponse {
    match ask(client, text, Some(explain)).await {
        ResponseBody::Result(response) => response,
        ResponseBody::Error(error) => panic!("{error:?}"),
    }
}

fn floats<'a>(response: &'a InferenceResponse, name: &str) -> &'a [f32] {
    match response.outputs.iter().find(|output| output.name == name).unwrap().tensor.elements() {
        TensorData::Fp32(elements) => elements,
        other => panic!("{other:?}"),
    }
}

fn tokens(response: &InferenceResponse) -> Vec<String> {
    match response.outputs.iter().find(|output| output.name == "tokens").unwrap().tensor.elements() {
        TensorData::Bytes(elements) => elements.iter().map(|e| String::from_utf8(e.clone()).unwrap()).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reply_tells_what_each_word_adds() {
    let house = House::build();
    let worker = house.start();
    let client = house.client();
    let text = "It was the goalie, who stopped every shot!";
    let occlusion = explained(&client, text, json!("occlusion")).await;
    assert_eq!(tokens(&occlusion), ["It", "was", "the", "goalie", "who", "stopped", "every", "shot"]);
    let weights = floats(&occlusion, "attributions");
    let best = (0..weights.len()).max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap();
    assert!(["goalie", "shot", "stopped"].contains(&tokens(&occlusion)[best].as_str()), "{weights:?}");
    let told = &occlusion.parameters["explain"];
    // The answer itself, eight words alone and six windows of three.
    assert_eq!(
        (&told["label"], &told["runs"], &told["completeness_error"]),
        (&"recreation".into(), &15.into(), &Value::Null)
    );
    assert!(occlusion.outputs.iter().any(|output| output.name == "label"), "the answer is there as well");

    let asked = json!({"method": "shapley", "budget": 200, "seed": 3});
    let shapley = explained(&client, text, asked.clone()).await;
    let told = &shapley.parameters["explain"];
    assert!(told["completeness_error"].as_f64().unwrap() < 1e-5, "{told}");
    // Twenty-eight walks of seven steps, and what all begin and end with.
    assert_eq!(told["runs"], 198, "{told}");
    let again = explained(&client, text, asked.clone()).await;
    for (a, b) in floats(&shapley, "attributions").iter().zip(floats(&again, "attributions")) {
        assert!((a - b).abs() < 1e-5, "one seed, one explanation");
    }
    let least = explained(&client, text, json!({"method": "shapley", "budget": 1})).await;
    assert_eq!(least.parameters["explain"]["runs"], 9, "one walk of seven steps is made, whatever the budget");
    let one = explained(&client, "goalie", asked).await;
    assert_eq!((&one.parameters["explain"]["runs"], floats(&one, "attributions").len()), (&2.into(), 1));
    drop(client.stop().await);
    worker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_explained_is_refused() {
    let house = House::build();
    let worker = house.start();
    let client = house.client();
    for (explain, code) in [
        (json!("magic"), "MALFORMED_REQUEST"),
        (json!({"method": "shapley", "budget": 5_000}), "MALFORMED_REQUEST"),
        (json!({"method": "shapley", "budget": 0}), "MALFORMED_REQUEST"),
        (json!({"method": "shapley", "seed": -1}), "MALFORMED_REQUEST"),
        (json!({"method": "shapley", "seeds": 1}), "MALFORMED_REQUEST"),
        (json!(true), "MALFORMED_REQUEST"),
    ] {
        match ask(&client, "orbit", Some(explain.clone())).await {
            ResponseBody::Error(error) => assert_eq!(error.code, code, "{explain}"),
            ResponseBody::Result(_) => panic!("{explain} was answered"),
        }
    }
    let mut several = Job::texts("topic".parse().unwrap(), &["orbit", "church"]);
    several.request.parameters.insert("explain".to_owned(), json!("occlusion"));
    match client.predict(&several, PATIENCE).await.unwrap() {
        ResponseBody::Error(error) => assert_eq!(error.error, "an explained request has one row, 2 came"),
        ResponseBody::Result(_) => panic!("two rows were explained"),
    }
    drop(client.stop().await);
    worker.stop().await;
}

/// Which batches were begun; those of texts without some of their words wait for a gate.
#[derive(Debug, Default)]
struct Watched {
    /// Rows, and whether they are of an explanation.
    begun: Mutex<Vec<(usize, bool)>>,
    is_open: Mutex<bool>,
    opened: Condvar,
}

struct Gated {
    backend: Arc<dyn Backend>,
    watched: Arc<Watched>,
}

/// Whether a word was taken away: the others of these tests are all known.
fn lacks_a_word(row: &Row) -> bool {
    matches!(row.inputs[0].elements(), TensorData::Int64(ids) if ids.contains(&1))
}

impl Backend for Gated {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        let explains = batch.rows.iter().any(lacks_a_word);
        self.watched.begun.lock().unwrap().push((batch.rows.len(), explains));
        if explains {
            let is_open = self.watched.is_open.lock().unwrap();
            drop(self.watched.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        }
        self.backend.run(batch)
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        self.backend.planned_shape(rows, length)
    }

    fn is_warm(&self, rows: usize, length: usize) -> bool {
        self.backend.is_warm(rows, length)
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        self.backend.prepare(rows, length)
    }
}

/// Lets everything run until `is_so`.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn jobs_overtake_explanations() {
    const JOBS: usize = 6;
    const EXPLANATIONS: usize = 3;
    let watched = Arc::new(Watched::default());
    let watching = Arc::clone(&watched);
    let wrap = Arc::new(move |_: &str, backend| -> Arc<dyn Backend> {
        Arc::new(Gated { backend, watched: Arc::clone(&watching) })
    });
    let house = House::build_with(wrap, &[("batching.executors", "1"), ("batching.max_batch_size", "1")]);
    let worker = house.start();
    let client = house.client();
    let waiting = |rows: usize| {
        house.parts.metrics.exposition().contains(&format!("inferq_batch_waiting_rows{{model=\"topic\"}} {rows}\n"))
    };
    let explanations = (0..EXPLANATIONS).map(|seed| {
        let asked = json!({"method": "shapley", "budget": 100, "seed": seed});
        explained(&client, "it was the goalie who stopped every shot in the game", asked)
    });
    let jobs = async {
        // One explanation's batch runs, all others wait.
        until(|| watched.begun.lock().unwrap().iter().any(|(_, explains)| *explains)).await;
        until(|| waiting(EXPLANATIONS - 1)).await;
        let held = watched.begun.lock().unwrap().len();
        let answers = join_all((0..JOBS).map(|_| ask(&client, "the orbit of the moon", None)));
        let open = async {
            until(|| waiting(EXPLANATIONS - 1 + JOBS)).await;
            *watched.is_open.lock().unwrap() = true;
            watched.opened.notify_all();
        };
        (held, join(answers, open).await.0)
    };
    let (explained, (held, answers)) = join(join_all(explanations), jobs).await;
    assert!(answers.iter().all(|answer| matches!(answer, ResponseBody::Result(_))), "{answers:?}");
    let begun = watched.begun.lock().unwrap().clone();
    let mut after = begun[held..].iter();
    let overtook: usize = after.by_ref().take_while(|(_, explains)| !explains).map(|(rows, _)| rows).sum();
    assert_eq!(overtook, JOBS, "behind the batch that ran they were next: {begun:?}");
    for response in explained {
        let runs = response.parameters["explain"]["runs"].as_u64().unwrap();
        assert!((10..=100).contains(&runs), "{runs}");
    }
    drop(client.stop().await);
    worker.stop().await;
}

/// How many posts are explained.
fn posts() -> usize {
    let Some(written) = std::env::var_os("INFERQ_EXPLAIN_POSTS") else { return 12 };
    written.to_str().unwrap().parse().unwrap()
}

/// The probability of `class` without the words at `places`.
async fn probability_without(
    client: &Client<MemoryPublisher>,
    words: &[String],
    places: &[usize],
    class: usize,
) -> f32 {
    let kept: Vec<&str> =
        words.iter().enumerate().filter(|(place, _)| !places.contains(place)).map(|(_, word)| word.as_str()).collect();
    match ask(client, &kept.join(" "), None).await {
        ResponseBody::Result(response) => floats(&response, "probabilities")[class],
        ResponseBody::Error(error) => panic!("{error:?}"),
    }
}

/// Deleting the words that an explanation names costs more of the probability than deleting as many others.
#[tokio::test]
async fn the_words_that_are_named_are_those_that_matter() {
    const DELETED: usize = 5;
    let house = House::build();
    let worker = house.start();
    let client = house.client();
    let samples =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/models/topic/samples/posts.jsonl")).unwrap();
    let words = |line: &str| -> Vec<String> {
        let post: Value = serde_json::from_str(line).unwrap();
        // Forty words: the cost grows with their square.
        post["text"].as_str().unwrap().split_whitespace().take(40).map(str::to_owned).collect()
    };
    let long: Vec<Vec<String>> = samples.lines().map(words).filter(|words| words.len() >= 2 * DELETED).collect();
    let posts = posts().clamp(1, long.len());
    let chosen: Vec<&Vec<String>> = (0..posts).map(|post| &long[post * long.len() / posts]).collect();
    let mut seeded = Seeded::new(5);
    for (method, budget) in [("occlusion", 1), ("shapley", 200)] {
        let (mut named, mut random, mut runs, mut took, mut count) = (0.0, 0.0, 0, Duration::ZERO, 0);
        for words in &chosen {
            let began = Instant::now();
            let explain = json!({"method": method, "budget": budget, "seed": 1});
            let response = explained(&client, &words.join(" "), explain).await;
            took += began.elapsed();
            let told = &response.parameters["explain"];
            runs += told["runs"].as_u64().unwrap();
            let class = usize::try_from(told["class"].as_u64().unwrap()).unwrap();
            let (weights, whole) = (floats(&response, "attributions"), floats(&response, "probabilities")[class]);
            let mut places: Vec<usize> = (0..weights.len()).collect();
            places.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
            named += whole - probability_without(&client, words, &places[..DELETED], class).await;
            seeded.shuffle(&mut places);
            random += whole - probability_without(&client, words, &places[..DELETED], class).await;
            count += 1;
        }
        let mean = |sum: f32| sum / count as f32;
        println!(
            "{method}: {count} posts, {:.1} model runs and {:.0} ms each; {DELETED} words deleted: probability falls by {:.3}, by \
             {:.3} where they are drawn at random",
            runs as f64 / f64::from(count),
            took.as_secs_f64() * 1e3 / f64::from(count),
            mean(named),
            mean(random),
        );
        assert!(mean(named) > 2.0 * mean(random) && mean(named) > 0.1, "{method}: {} {}", mean(named), mean(random));
    }
    drop(client.stop().await);
    worker.stop().await;
}
