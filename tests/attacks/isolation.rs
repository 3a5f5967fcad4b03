//! Rows that share a batch: what one tenant sends does not reach what another gets.
//!
//! The bound is that of the order of floating-point sums: a kernel adds in another order when the batch has another size, and
//! float32 keeps 24 bits. Sums of a few hundred products of values around 1 differ by some 1e-6; 1e-4 is allowed.

use std::sync::Arc;

use inferq::batch::batcher::SubmitOptions;
use inferq::batch::pool::JobClass;
use inferq::model::LoadedModel;
use inferq::protocol::request::{InferenceRequest, RequestBounds};
use inferq::protocol::tensor::TensorData;
use tokio::time::Instant;

use super::house::House;
use super::text_request;

const BOUND: f32 = 1e-4;
const SENTINEL: &str = "the goalie stopped every shot in overtime";

/// The logits of `text`, asked for by `tenant`.
async fn logits(model: Arc<LoadedModel>, tenant: &'static str, text: String) -> Vec<f32> {
    let request =
        InferenceRequest::decode(text_request(&text).as_bytes(), None, &RequestBounds { max_rows: 1 }).unwrap();
    let rows = model.prepare(request).await.unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    let options = SubmitOptions { deadline, class: JobClass::Normal, tenant: tenant.into(), alone: false };
    let inferred = model.infer(rows, options).await.unwrap();
    match inferred[0].output.outputs[0].elements() {
        TensorData::Fp32(logits) => logits.clone(),
        other => panic!("{:?}", other.datatype()),
    }
}

#[tokio::test]
async fn a_neighbour_in_the_batch_changes_no_answer() {
    let house = House::build();
    let model = house.parts.models.resolve("topic", None, "a job").await.unwrap();
    let alone = logits(Arc::clone(&model), "sentinel", SENTINEL.to_owned()).await;
    let neighbours = [
        "x".to_owned(),
        "god ".repeat(200),
        "windows ".repeat(3),
        "\u{fffd}\u{200b} emoji 🏒 and NaN inf -0".to_owned(),
        format!("{SENTINEL} not"),
    ];
    let mut farthest = 0_f32;
    for neighbour in &neighbours {
        let mut tasks = Vec::new();
        for place in 0..16 {
            let (model, neighbour) = (Arc::clone(&model), neighbour.clone());
            tasks.push(tokio::spawn(async move {
                if place % 4 == 0 {
                    Some(logits(model, "sentinel", SENTINEL.to_owned()).await)
                } else {
                    logits(model, "neighbour", neighbour).await;
                    None
                }
            }));
        }
        for task in tasks {
            for (one, other) in task.await.unwrap().into_iter().flatten().zip(&alone) {
                farthest = farthest.max((one - other).abs());
            }
        }
    }
    assert!(farthest <= BOUND, "a neighbour moved an output by {farthest}");
    assert_eq!(logits(model, "sentinel", SENTINEL.to_owned()).await, alone, "and nothing is left behind");
}
