//! What a text costs on one core: the reference model as it is served, as tract alone runs it, and in onnxruntime.
//!
//! Run by `make bench-tract`. The texts are the labelled samples in `models/topic/samples`, cut or repeated to a length, or as
//! long as they are. All three run in turn on the same batches; printed are medians of the thread's CPU time, which load
//! from others moves less than the clock, and medians of the ratios within a turn. Answers have to agree.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use inferq::backend::Backend;
use inferq::backend::tract::{GraphSpec, Padding, TractBackend};
use inferq::batch::row::{Batch, BatchOutput, Row};
use inferq::protocol::tensor::{Datatype, Tensor, TensorData};
use inferq::protocol::tensor_spec::TensorSpec;
use rustix::time::{ClockId, clock_gettime};

const MODEL: &str = "models/topic/1/model.onnx";
const TEXTS: &str = "models/topic/samples/ids.json";
const LONGEST: usize = 128;
/// Lengths that texts are brought to; `None` for those that they have, up to the longest.
const LENGTHS: [Option<usize>; 3] = [Some(32), Some(LONGEST), None];
const BATCHES: [usize; 5] = [1, 4, 8, 16, 32];
/// Texts that each runs for a figure.
const TEXTS_PER_FIGURE: usize = 640;
/// How far answers may be apart.
const TOLERANCE: f32 = 1e-4;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let onnx = fs::read(MODEL)?;
    let texts: BTreeMap<String, Vec<i64>> = serde_json::from_slice(&fs::read(TEXTS)?)?;
    let texts: Vec<Vec<i64>> = texts.into_values().filter(|text| !text.is_empty()).collect();
    let inputs = [TensorSpec { name: "input_ids".into(), datatype: Datatype::Int64, shape: vec![-1, -1] }];
    let outputs = [TensorSpec { name: "logits".into(), datatype: Datatype::Fp32, shape: vec![-1, 5] }];
    let padding = Padding { value: 0, longest: Some(LONGEST) };
    let spec = GraphSpec { inputs: &inputs, outputs: &outputs, padding };
    let (served, alone) = (TractBackend::load(&onnx, spec)?, TractBackend::load_unfused(&onnx, spec)?);
    let mut beside = Beside::start()?;
    println!("ms of CPU per text, medians; below 1 the model as served is the faster\n");
    println!(
        "{:>8} {:>6} {:>8} {:>12} {:>12} {:>14} {:>15}",
        "tokens", "batch", "served", "tract alone", "onnxruntime", "served / tract", "served / onnxr."
    );
    for length in LENGTHS {
        for size in BATCHES {
            let mut turns = Vec::new();
            for round in 0..(TEXTS_PER_FIGURE / size).clamp(20, 100) {
                let batch = Batch { rows: rows(&texts, round * size, size, length)? };
                let (ours, own) = run(&served, &batch)?;
                let (theirs, _) = run(&alone, &batch)?;
                let (peers, peer) = beside.run(&batch)?;
                check(&own, &peer)?;
                turns.push([ours, theirs, peers].map(|took| took / size as f64));
            }
            let of = |figure: fn(&[f64; 3]) -> f64| median(turns.iter().map(figure).collect());
            let told = length.map_or_else(|| "as posted".to_owned(), |length| length.to_string());
            println!(
                "{told:>9} {size:>5} {:>8.3} {:>12.3} {:>12.3} {:>14.2} {:>15.2}",
                of(|turn| turn[0]),
                of(|turn| turn[1]),
                of(|turn| turn[2]),
                of(|turn| turn[0] / turn[1]),
                of(|turn| turn[0] / turn[2]),
            );
        }
    }
    beside.stop()
}

/// onnxruntime in a process beside this one.
struct Beside {
    process: Child,
    batches: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Beside {
    fn start() -> Result<Self> {
        let python = std::env::var_os("TRACT_PYTHON").ok_or("TRACT_PYTHON is not set; run `make bench-tract`")?;
        let mut process = Command::new(python)
            .args(["benches/tract/beside.py", MODEL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let batches = process.stdin.take().ok_or("the process beside has no input")?;
        let answers = BufReader::new(process.stdout.take().ok_or("the process beside has no output")?);
        Ok(Self { process, batches, answers })
    }

    /// Milliseconds of CPU that the batch took, and its answers.
    fn run(&mut self, batch: &Batch) -> Result<(f64, Vec<f32>)> {
        let length = batch.padded_length();
        let padded = |row: &Row| -> Vec<i64> {
            let filling = std::iter::repeat_n(0, length - row.length);
            ids(row).iter().copied().chain(filling).collect()
        };
        let rows: Vec<Vec<i64>> = batch.rows.iter().map(padded).collect();
        writeln!(self.batches, "{}", serde_json::to_string(&rows)?)?;
        self.batches.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn stop(self) -> Result<()> {
        let Self { mut process, batches, .. } = self;
        drop(batches);
        if process.wait()?.success() { Ok(()) } else { Err("the process beside has failed".into()) }
    }
}

fn ids(row: &Row) -> &[i64] {
    match row.inputs.first().map(Tensor::elements) {
        Some(TensorData::Int64(ids)) => ids,
        Some(_) | None => &[],
    }
}

/// Rows of `length` ids each, or of their own length, from the texts from `start` on.
fn rows(texts: &[Vec<i64>], start: usize, size: usize, length: Option<usize>) -> Result<Vec<Row>> {
    let mut rows = Vec::with_capacity(size);
    for text in texts.iter().cycle().skip(start % texts.len()).take(size) {
        let length = length.unwrap_or_else(|| text.len().min(LONGEST));
        let ids: Vec<i64> = text.iter().copied().cycle().take(length).collect();
        let tensor = Tensor::new(vec![length], TensorData::Int64(ids))?;
        rows.push(Row { inputs: vec![tensor], length, may_be_padded: true });
    }
    Ok(rows)
}

/// Milliseconds of this thread's CPU that the batch took, and its answers.
fn run(backend: &TractBackend, batch: &Batch) -> Result<(f64, BatchOutput)> {
    let start = cpu_ms();
    let output = backend.run(batch)?;
    let took = cpu_ms() - start;
    if output.rows.len() == batch.rows.len() { Ok((took, output)) } else { Err("rows were lost".into()) }
}

/// Whether both answer alike.
fn check(own: &BatchOutput, peer: &[f32]) -> Result<()> {
    let logits = own.rows.iter().flat_map(|row| match row.outputs.first().map(Tensor::elements) {
        Some(TensorData::Fp32(logits)) => logits.clone(),
        Some(_) | None => Vec::new(),
    });
    let logits: Vec<f32> = logits.collect();
    let worst = logits.iter().zip(peer).map(|(own, peer)| (own - peer).abs()).fold(0.0, f32::max);
    if logits.len() == peer.len() && worst <= TOLERANCE {
        Ok(())
    } else {
        Err(format!("{} answers and {} differ by {worst:e}", logits.len(), peer.len()).into())
    }
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
