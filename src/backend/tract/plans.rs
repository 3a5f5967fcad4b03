//! The compiled forms of a graph, bounded in number.
//!
//! Where a length is open and tract takes the graph with symbols, one plan serves all shapes: for recurrent models it is
//! as fast as a concrete one. Where only the batch axis is open, plans are made per batch size, since concrete plans
//! of convolutions are several times faster; a batch is run in parts of 1, 2, 4, 8... rows, so that a handful of plans
//! serves every size. Where tract refuses symbols altogether, the graph is shaped anew for each concrete shape.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::prelude::{IntoRunnable as _, TractResult, TypedModel, TypedRunnableModel};
use tract_onnx::tract_hir::internal::anyhow;

use super::concrete::{Concrete, PlanBounds, Shapes};
use super::graph::Graph;
use super::source::Source;
use crate::limits::{MAX_PLANS, MAX_PLANS_BYTES};
use crate::protocol::tensor_spec::TensorSpec;

/// A compiled graph; shared between threads, run with a state of its own each time.
pub(super) type Plan = Arc<TypedRunnableModel>;

/// The plans of one model.
#[derive(Debug)]
pub(super) enum Plans {
    /// One plan for all shapes.
    Symbolic(Plan),
    /// One plan for each shape.
    Concrete(Concrete),
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
        let concrete = Concrete::new(source, PlanBounds { count: MAX_PLANS, bytes: MAX_PLANS_BYTES });
        if let Some(shapes) = one_row {
            concrete.plan(&shapes)?;
        }
        Ok(Self::Concrete(concrete))
    }

    /// What to fill an open axis of `length` up to, where it may be filled up to `longest`: no plan for every length there is.
    pub(super) fn padded(&self, length: usize, longest: usize) -> usize {
        match self {
            Self::Symbolic(_) => length,
            Self::Concrete(_) => length.next_power_of_two().min(longest.max(length)),
        }
    }
}

/// The sizes that a batch of `rows` rows is run in: powers of two, the largest first.
pub(super) fn part_sizes(rows: usize) -> impl Iterator<Item = usize> {
    (0..usize::BITS).rev().map(|power| 1 << power).filter(move |size| rows & size != 0)
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

/// The shape of an input of one row, where it is known.
fn one_row(input: &TensorSpec) -> Option<Vec<usize>> {
    std::iter::once(Some(1)).chain(input.row_axes()).collect()
}

/// Compiles a graph as it is.
pub(super) fn compile(model: TypedModel) -> TractResult<Plan> {
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
    }

    #[test]
    fn batches_are_run_in_powers_of_two() {
        let parts = |rows| part_sizes(rows).collect::<Vec<_>>();
        assert_eq!([parts(0), parts(1), parts(8), parts(13)], [vec![], vec![1], vec![8], vec![8, 4, 1]]);
    }

    #[test]
    fn what_tract_refuses_with_symbols_is_shaped_anew() {
        let plans = plans("lstm.onnx", &[-1, 3, 2], &[-1, 2]);
        assert!(matches!(concrete(&plans).source, Source::Parsed { .. }));
    }
}
