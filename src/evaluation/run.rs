//! Labelled texts through a loaded model, as a worker takes jobs: prepare, batch, run, shape.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde_json::Map;
use tokio::time::Instant;

use super::{Answered, Sample};
use crate::batch::batcher::SubmitOptions;
use crate::batch::pool::JobClass;
use crate::error::JobError;
use crate::model::LoadedModel;
use crate::protocol::request::{InferInput, InferenceRequest, RequestedOutput};
use crate::protocol::response::InferenceResponse;
use crate::protocol::tensor::{Tensor, TensorData};

/// More classes than any model has: all of them.
const ALL_CLASSES: usize = 1 << 20;
/// No text waits as long.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// A request for all classes of `text`.
#[must_use]
pub fn request(text: &str) -> InferenceRequest {
    let tensor = Tensor::new(vec![1], TensorData::Bytes(vec![text.as_bytes().to_vec()])).expect("one text is one row");
    InferenceRequest {
        id: None,
        parameters: Map::new(),
        inputs: vec![InferInput { name: "text".to_owned(), tensor, binary_data: false }],
        outputs: vec![RequestedOutput {
            name: "label".to_owned(),
            classification: Some(ALL_CLASSES),
            binary_data: false,
        }],
    }
}

/// Runs `samples`, `window` at a time, and answers in their order; `on_each` is told of every one that is done.
pub async fn run(model: &LoadedModel, samples: &[Sample], window: usize, mut on_each: impl FnMut()) -> Vec<Answered> {
    let tenant: Arc<str> = "evaluation".into();
    let timed = |sample: &Sample| {
        let (request, tenant) = (request(&sample.text), Arc::clone(&tenant));
        async move {
            let began = Instant::now();
            match one(model, request, tenant).await {
                Ok(response) => Answered::read(&response, began.elapsed()),
                Err(error) => Answered::refused(error.code.as_str(), &error.message, began.elapsed()),
            }
        }
    };
    // Buffered in order would hold back what is done behind a slow one.
    let asked = samples.iter().enumerate().map(|(index, sample)| {
        let answered = timed(sample);
        async move { (index, answered.await) }
    });
    let mut under_way = stream::iter(asked).buffer_unordered(window.max(1));
    let mut answers = Vec::with_capacity(samples.len());
    while let Some(answered) = under_way.next().await {
        answers.push(answered);
        on_each();
    }
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answered)| answered).collect()
}

async fn one(model: &LoadedModel, request: InferenceRequest, tenant: Arc<str>) -> Result<InferenceResponse, JobError> {
    let facts = request.facts();
    let rows = model.prepare(request).await?;
    let options = SubmitOptions { deadline: Instant::now() + PATIENCE, class: JobClass::Normal, tenant, alone: false };
    let answered = model.infer(rows, options).await?;
    model.shape(answered, &facts)
}
