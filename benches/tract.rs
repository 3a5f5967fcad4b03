//! What a text costs on one core: the reference model with the fused LSTM beside the model as tract alone runs it.
//!
//! Run by `make bench-tract`. The texts are the labelled samples in `models/topic/samples`, cut or repeated to the length.
//! Both forms run in turn on the same batches; printed are medians of the thread's CPU time, which load from others
//! moves less than the clock, and their ratio.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use inferq::backend::Backend;
use inferq::backend::tract::{GraphSpec, Padding, TractBackend};
use inferq::batch::row::{Batch, Row};
use inferq::protocol::tensor::{Datatype, Tensor, TensorData};
use inferq::protocol::tensor_spec::TensorSpec;
use rustix::time::{ClockId, clock_gettime};

const MODEL: &str = "models/topic/1/model.onnx";
const TEXTS: &str = "models/topic/samples/ids.json";
const LENGTHS: [usize; 2] = [32, 128];
const BATCHES: [usize; 5] = [1, 4, 16, 32, 64];
/// Texts that each form runs for a figure.
const TEXTS_PER_FIGURE: usize = 640;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let onnx = fs::read(MODEL)?;
    let texts: BTreeMap<String, Vec<i64>> = serde_json::from_slice(&fs::read(TEXTS)?)?;
    let texts: Vec<Vec<i64>> = texts.into_values().collect();
    let inputs = [TensorSpec { name: "input_ids".into(), datatype: Datatype::Int64, shape: vec![-1, -1] }];
    let outputs = [TensorSpec { name: "logits".into(), datatype: Datatype::Fp32, shape: vec![-1, 5] }];
    let padding = Padding { value: 0, longest: Some(128) };
    let spec = GraphSpec { inputs: &inputs, outputs: &outputs, padding };
    let (fused, unfused) = (TractBackend::load(&onnx, spec)?, TractBackend::load_unfused(&onnx, spec)?);
    println!(
        "ms of CPU per text, medians\n\n{:>6} {:>6} {:>8} {:>8} {:>7}",
        "tokens", "batch", "unfused", "fused", "ratio"
    );
    for length in LENGTHS {
        for size in BATCHES {
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..(TEXTS_PER_FIGURE / size).clamp(12, 100) {
                let batch = Batch { rows: rows(&texts, round * size, size, length)? };
                for (backend, times) in [&unfused, &fused].into_iter().zip(&mut times) {
                    times.push(run_ms(backend, &batch)? / size as f64);
                }
            }
            let [unfused, fused] = times.map(median);
            println!("{length:>6} {size:>6} {unfused:>8.3} {fused:>8.3} {:>6.2}x", unfused / fused);
        }
    }
    Ok(())
}

/// Rows of `length` ids each, from the texts from `start` on.
fn rows(texts: &[Vec<i64>], start: usize, size: usize, length: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::with_capacity(size);
    for text in texts.iter().cycle().skip(start % texts.len()).filter(|text| !text.is_empty()).take(size) {
        let ids: Vec<i64> = text.iter().copied().cycle().take(length).collect();
        let tensor = Tensor::new(vec![length], TensorData::Int64(ids))?;
        rows.push(Row { inputs: vec![tensor], length, may_be_padded: true });
    }
    Ok(rows)
}

/// Milliseconds of this thread's CPU that the batch took.
fn run_ms(backend: &TractBackend, batch: &Batch) -> Result<f64> {
    let start = cpu_ms();
    let output = backend.run(batch)?;
    let took = cpu_ms() - start;
    if output.rows.len() == batch.rows.len() { Ok(took) } else { Err("rows were lost".into()) }
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
