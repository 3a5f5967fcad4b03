//! Inputs that crash, and the worker that crashes on them: this program, started again.
//!
//! The worker is inferq's own, built from the library, with one difference: its backend looks at the first element of every
//! row, and panics, aborts the process, or never returns where that is a mark. The released binary has no such backend, and
//! no setting that brings it in.

use std::process::ExitCode;
use std::sync::Arc;

use inferq::backend::{Backend, BackendError};
use inferq::batch::row::{Batch, BatchOutput, Row};
use inferq::cli::Exit;
use inferq::protocol::tensor::{Tensor, TensorData};
use inferq::settings::{LoadOptions, Settings};
use inferq::worker::{Parts, ServeError, serve_parts};

/// First element of a row that makes the backend panic.
pub const PANIC: f32 = -1.0;
/// First element of a row that ends the process.
pub const ABORT: f32 = -2.0;
/// First element of a row whose run never ends.
pub const HANG: f32 = -3.0;
/// Set in the environment of a process that is such a worker.
pub const WORKER: &str = "FAULTS_WORKER";

/// A backend that crashes on marked rows, and does what another does on all others.
struct Misbehaving(Arc<dyn Backend>);

impl Backend for Misbehaving {
    fn run(&self, batch: &Batch) -> Result<BatchOutput, BackendError> {
        let marked = |mark: f32| batch.rows.iter().any(|row| first(row) == Some(mark));
        if marked(ABORT) {
            std::process::abort();
        }
        assert!(!marked(PANIC), "an input makes the backend panic");
        while marked(HANG) {
            std::thread::park();
        }
        self.0.run(batch)
    }

    fn planned_shape(&self, rows: usize, length: usize) -> (usize, usize) {
        self.0.planned_shape(rows, length)
    }

    fn is_warm(&self, rows: usize, length: usize) -> bool {
        self.0.is_warm(rows, length)
    }

    fn prepare(&self, rows: usize, length: usize) -> bool {
        self.0.prepare(rows, length)
    }
}

fn first(row: &Row) -> Option<f32> {
    match row.inputs.first().map(Tensor::elements) {
        Some(TensorData::Fp32(elements)) => elements.first().copied(),
        Some(_) | None => None,
    }
}

/// Serves until SIGTERM, as `inferq worker` does.
pub async fn serve() -> ExitCode {
    // What the panics say is no news here.
    std::panic::set_hook(Box::new(|_| {}));
    let settings = Settings::load(&LoadOptions::default()).unwrap().0;
    let parts = Parts::load_with(&settings, Arc::new(|_, backend| Arc::new(Misbehaving(backend)))).unwrap();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let stop = async {
        terminate.recv().await;
    };
    match serve_parts(&settings, parts, inferq::worker::KeyReload::default(), stop).await {
        Ok(_drained) => ExitCode::SUCCESS,
        // At once: a runtime waits for threads that never end.
        Err(ServeError::Overdue { .. }) => std::process::exit(i32::from(Exit::Overdue.code())),
        Err(error) => panic!("{error}"),
    }
}
