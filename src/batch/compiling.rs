//! Compiling beside the jobs what larger batches are run with: one shape at a time, on a thread of tokio's.
//!
//! Owned by the batcher's driver. Bounded in time: between two compilations passes a multiple of what the first took, so that
//! shapes that come and go faster than plans are kept do not take the machine from the jobs.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::limits::{COMPILE_REST, MAX_PLANS};

/// Rows and length of a batch.
type Shape = (usize, usize);

/// What is being compiled, and what cannot be.
pub(super) struct Compiling {
    backend: Arc<dyn Backend>,
    /// One at most.
    going: JoinSet<(Shape, bool, Instant)>,
    /// When the next may begin.
    rested: Option<Instant>,
    /// The last shapes for which it failed.
    failed: Vec<Shape>,
}

impl Compiling {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, going: JoinSet::new(), rested: None, failed: Vec::new() }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.going.is_empty()
    }

    /// Begins with `shape`, unless something else is going on; whoever wants it still will say so again.
    pub(super) fn want(&mut self, shape: Shape, now: Instant) {
        let is_resting = self.rested.is_some_and(|rested| now < rested);
        if self.is_busy() || is_resting || self.failed.contains(&shape) {
            return;
        }
        let backend = Arc::clone(&self.backend);
        self.going.spawn_blocking(move || (shape, backend.prepare(shape.0, shape.1), now));
    }

    /// Resolves when what is compiled is. Cancel safe.
    pub(super) async fn done(&mut self) {
        let Some(ended) = self.going.join_next().await else { return };
        let now = Instant::now();
        match ended {
            Ok((shape, is_warm, began)) => {
                let (rows, length) = shape;
                self.rested = Some(now + (now - began) * COMPILE_REST);
                tracing::debug!(batch.size = rows, length, is_warm, "compiled for batches of another shape");
                if !is_warm {
                    tracing::warn!("batches of {rows} rows of length {length} cannot be compiled; smaller ones run");
                    if self.failed.len() >= MAX_PLANS {
                        self.failed.remove(0);
                    }
                    self.failed.push(shape);
                }
            }
            Err(error) => tracing::error!(%error, "a compiling task was lost"),
        }
    }
}
