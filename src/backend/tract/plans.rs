//! The compiled forms of a graph, bounded in number.
//!
//! Where a length is open and tract takes the graph with symbols, one plan serves all shapes: for recurrent models it is
//! as fast as a concrete one. Where only the batch axis is open, plans are made per batch size, since concrete plans
//! of convolutions are several times faster; a batch is run in parts of 1, 2, 4, 8... rows, so that a handful of plans
//! serves every size. Where tract refuses symbols altogether, the graph is shaped anew for each concrete shape.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tract_onnx::prelude::{IntoRunnable as _, Symbol, ToDim as _, TractResult, TypedModel, TypedRunnableModel};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::graph::Graph;
use crate::limits::MAX_PLANS;
use crate::protocol::tensor_spec::TensorSpec;

/// A compiled graph; shared between threads, run with a state of its own each time.
pub(super) type Plan = Arc<TypedRunnableModel>;

/// The shapes of all inputs, the batch axis first.
type Shapes = Vec<Vec<usize>>;

/// The plans of one model.
#[derive(Debug)]
pub(super) enum Plans {
    /// One plan for all shapes.
    Symbolic(Plan),
    /// One plan for each shape.
    Concrete(Concrete),
}

/// Plans by shape, the most recently used last.
#[derive(Debug)]
pub(super) struct Concrete {
    source: Source,
    compiled: Mutex<Vec<(Shapes, Cell)>>,
}

/// A plan that is there, or is being compiled by whoever asked first.
type Cell = Arc<OnceLock<Result<Plan, String>>>;

/// What concrete plans are made of.
#[derive(Debug)]
enum Source {
    /// The simplified graph with a symbol for its batch axis: a plan costs milliseconds.
    Typed { model: Box<TypedModel>, batch: Symbol },
    /// The parsed graph, because tract refuses it with symbols: a plan costs a whole load.
    Parsed { graph: Box<Graph>, refusal: String },
}

impl Plans {
    /// The plans for `graph`, with the first one compiled where its shape is known.
    pub(super) fn new(graph: Graph) -> TractResult<Self> {
        let has_open_axis = graph.inputs().iter().any(TensorSpec::has_open_row_axis);
        let one_row: Option<Shapes> = graph.inputs().iter().map(one_row).collect();
        let source = match guarded(|| graph.symbolic()) {
            Ok((model, batch)) => {
                if has_open_axis && let Ok(plan) = guarded(|| compile(model.clone())) {
                    return Ok(Self::Symbolic(plan));
                }
                if has_open_axis {
                    Source::Parsed { graph: Box::new(graph), refusal: "no plan of open shapes".to_owned() }
                } else {
                    Source::Typed { model: Box::new(model), batch }
                }
            }
            Err(error) => {
                let refusal = format!("{error:#}");
                tracing::debug!(refusal, "tract refuses the graph with open axes; it is compiled shape by shape");
                Source::Parsed { graph: Box::new(graph), refusal }
            }
        };
        let concrete = Concrete { source, compiled: Mutex::new(Vec::new()) };
        if let Some(shapes) = one_row {
            concrete.plan(&shapes)?;
        }
        Ok(Self::Concrete(concrete))
    }

    /// How many rows of a batch of `rows` to run at once.
    pub(super) const fn part_size(&self, rows: usize) -> usize {
        match self {
            Self::Symbolic(_) => rows,
            // The largest power of two that is not larger.
            Self::Concrete(_) => 1 << rows.ilog2(),
        }
    }

    /// What to fill an open axis of `length` up to, where it may be filled up: no plan for every length there is.
    pub(super) fn padded(&self, length: usize, longest: usize) -> usize {
        match self {
            Self::Symbolic(_) => length,
            Self::Concrete(_) => length.next_power_of_two().min(longest.max(length)),
        }
    }

    /// The plan for inputs of `shapes`.
    pub(super) fn plan(&self, shapes: &Shapes) -> TractResult<Plan> {
        match self {
            Self::Symbolic(plan) => Ok(Arc::clone(plan)),
            Self::Concrete(concrete) => concrete.plan(shapes),
        }
    }
}

#[cfg(test)]
impl Plans {
    /// Names of the operators of the plan for all shapes.
    pub(super) fn operators(&self) -> Vec<String> {
        match self {
            Self::Symbolic(plan) => plan.model().nodes().iter().map(|node| node.op.name().into_owned()).collect(),
            Self::Concrete(_) => Vec::new(),
        }
    }
}

impl Concrete {
    fn plan(&self, shapes: &Shapes) -> TractResult<Plan> {
        // Compiled outside of the lock: other shapes go on, and whoever needs the same one waits for it.
        let compiled = self.cell(shapes);
        let plan = compiled.get_or_init(|| guarded(|| self.compile(shapes)).map_err(|error| format!("{error:#}")));
        plan.clone().map_err(|error| anyhow!("no plan for inputs of shape {shapes:?}: {error}"))
    }

    fn cell(&self, shapes: &Shapes) -> Cell {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let found = compiled.iter().position(|(own, _)| own == shapes).map(|position| compiled.remove(position));
        if compiled.len() >= MAX_PLANS {
            compiled.remove(0);
        }
        let (shapes, cell) = found.unwrap_or_else(|| (shapes.clone(), Cell::default()));
        compiled.push((shapes, Arc::clone(&cell)));
        cell
    }

    fn compile(&self, shapes: &Shapes) -> TractResult<Plan> {
        match &self.source {
            Source::Typed { model, batch } => {
                let Some(rows) = shapes.first().and_then(|shape| shape.first()) else { bail!("no input has rows") };
                compile(model.set_symbols(&HashMap::from([(batch.clone(), rows.to_dim())]))?)
            }
            Source::Parsed { graph, refusal } => graph
                .concrete(shapes)
                .and_then(compile)
                .map_err(|error| anyhow!("{error:#}; with open axes tract says: {refusal}")),
        }
    }
}

/// The shape of an input of one row, where it is known.
fn one_row(input: &TensorSpec) -> Option<Vec<usize>> {
    std::iter::once(Some(1)).chain(input.row_axes()).collect()
}

fn compile(model: TypedModel) -> TractResult<Plan> {
    model.into_optimized()?.into_runnable()
}

/// Runs `step`; tract panics on a few graphs that it cannot take.
pub(super) fn guarded<T>(step: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(anyhow!("tract panicked on the graph")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tensor::Datatype;

    fn spec(name: &str, shape: &[i64]) -> Vec<TensorSpec> {
        vec![TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() }]
    }

    fn plans(file: &str, input: &[i64], output: &[i64]) -> Plans {
        let path = format!("{}/tests/fixtures/onnx/{file}", env!("CARGO_MANIFEST_DIR"));
        let onnx = std::fs::read(path).unwrap();
        Plans::new(Graph::parse(&onnx, &spec("x", input), &spec("y", output)).unwrap()).unwrap()
    }

    fn concrete(plans: &Plans) -> &Concrete {
        match plans {
            Plans::Concrete(concrete) => concrete,
            Plans::Symbolic(_) => panic!("the plan is symbolic"),
        }
    }

    #[test]
    fn an_open_length_is_served_by_one_plan() {
        assert!(matches!(plans("scale.onnx", &[-1, -1], &[-1, -1]), Plans::Symbolic(_)));
    }

    #[test]
    fn fixed_rows_have_a_plan_for_each_batch_size() {
        let plans = plans("scale.onnx", &[-1, 4], &[-1, 4]);
        assert!(matches!(concrete(&plans).source, Source::Typed { .. }));
        assert_eq!([1, 2, 3, 7, 8, 31].map(|rows| plans.part_size(rows)), [1, 2, 2, 4, 8, 16]);
    }

    #[test]
    fn what_tract_refuses_with_symbols_is_shaped_anew() {
        let plans = plans("lstm.onnx", &[-1, 3, 2], &[-1, 2]);
        assert!(matches!(concrete(&plans).source, Source::Parsed { .. }));
    }

    #[test]
    fn plans_are_bounded_and_the_stalest_goes_first() {
        let plans = plans("scale.onnx", &[-1, 4], &[-1, 4]);
        let concrete = concrete(&plans);
        for rows in 1..MAX_PLANS + 3 {
            // The plan for one row stays in use.
            concrete.plan(&vec![vec![1, 4]]).unwrap();
            concrete.plan(&vec![vec![rows, 4]]).unwrap();
        }
        let kept = concrete.compiled.lock().unwrap();
        assert_eq!(kept.len(), MAX_PLANS);
        assert!(kept.iter().any(|(shapes, _)| shapes == &[[1, 4]]), "a plan in use was dropped");
        assert!(!kept.iter().any(|(shapes, _)| shapes == &[[2, 4]]), "the stalest plan was kept");
    }
}
