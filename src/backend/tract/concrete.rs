//! Plans of fixed shapes: which are compiled, which one a part of a batch runs in, which one goes.
//!
//! Held by `plans` for graphs whose plans are made shape by shape. A run takes what is compiled and fits; compiling is
//! somebody else's turn, unless nothing fits. Bounded in number and in what the plans' constants weigh.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tract_onnx::prelude::TractResult;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::internal::anyhow;

use super::plans::{Plan, guarded};
use super::source::Source;

/// The shapes of all inputs, the batch axis first.
pub(super) type Shapes = Vec<Vec<usize>>;

/// How many plans are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlanBounds {
    /// Plans.
    pub(super) count: usize,
    /// What the constants of those for more than one row may weigh.
    pub(super) bytes: usize,
}

/// Plans by shape.
#[derive(Debug)]
pub(super) struct Concrete {
    pub(super) source: Source,
    bounds: PlanBounds,
    /// Those used most recently last.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    shapes: Shapes,
    cell: Cell,
}

/// A plan that is there, or is being compiled by whoever asked first.
type Cell = Arc<OnceLock<Result<Compiled, String>>>;

#[derive(Debug, Clone)]
struct Compiled {
    plan: Plan,
    bytes: usize,
}

impl Kept {
    fn compiled(&self) -> Option<&Compiled> {
        self.cell.get().and_then(|compiled| compiled.as_ref().ok())
    }

    fn rows(&self) -> usize {
        self.shapes.first().and_then(|shape| shape.first()).copied().unwrap_or(0)
    }

    fn elements(&self) -> usize {
        self.shapes.iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// Whether inputs of `shapes` can be filled up to those of this plan without a row more.
    fn has_room_for(&self, shapes: &Shapes) -> bool {
        let fits = |(own, given): (&Vec<usize>, &Vec<usize>)| {
            own.len() == given.len()
                && own.first() == given.first()
                && own.iter().zip(given).all(|(own, given)| own >= given)
        };
        self.shapes.len() == shapes.len() && self.shapes.iter().zip(shapes).all(fits)
    }
}

impl Concrete {
    pub(super) const fn new(source: Source, bounds: PlanBounds) -> Self {
        Self { source, bounds, kept: Mutex::new(Vec::new()) }
    }

    /// The shapes of the compiled plan that inputs of `shapes` are to run in: their own, or, where they may be filled up, the
    /// smallest that has room for them.
    pub(super) fn warm(&self, shapes: &Shapes, may_be_padded: bool) -> Option<Shapes> {
        let kept = self.kept();
        let fits = |kept: &&Kept| {
            kept.compiled().is_some() && (kept.shapes == *shapes || may_be_padded && kept.has_room_for(shapes))
        };
        kept.iter().filter(fits).min_by_key(|kept| kept.elements()).map(|kept| kept.shapes.clone())
    }

    /// Whether a plan for `rows` rows whose shapes `are_such` is compiled.
    pub(super) fn is_warm(&self, rows: usize, are_such: impl Fn(&Shapes) -> bool) -> bool {
        self.kept().iter().any(|kept| kept.rows() == rows && kept.compiled().is_some() && are_such(&kept.shapes))
    }

    /// The shapes of the plan used last whose shapes `are_such`.
    pub(super) fn latest(&self, are_such: impl Fn(&Shapes) -> bool) -> Option<Shapes> {
        self.kept().iter().rev().find(|kept| are_such(&kept.shapes)).map(|kept| kept.shapes.clone())
    }

    /// The plan for inputs of `shapes`; compiles it, or waits for whoever does, where it is not there.
    pub(super) fn plan(&self, shapes: &Shapes) -> TractResult<Plan> {
        // Compiled outside of the lock: other shapes go on, and whoever needs the same one waits for it.
        let cell = self.cell(shapes);
        let compiled = cell.get_or_init(|| self.compile(shapes));
        let plan = compiled.as_ref().map(|compiled| Arc::clone(&compiled.plan));
        self.make_room(shapes);
        plan.map_err(|error| anyhow!("no plan for inputs of shape {shapes:?}: {error}"))
    }

    fn compile(&self, shapes: &Shapes) -> Result<Compiled, String> {
        let plan = guarded(|| self.source.compile(shapes)).map_err(|error| format!("{error:#}"))?;
        let bytes = constant_bytes(&plan);
        tracing::debug!(?shapes, bytes, "a plan is compiled");
        Ok(Compiled { plan, bytes })
    }

    /// The place of the plan for `shapes`, now the one used last.
    fn cell(&self, shapes: &Shapes) -> Cell {
        let mut kept = self.kept();
        let found = kept.iter().position(|kept| kept.shapes == *shapes).map(|position| kept.remove(position));
        let own = found.unwrap_or_else(|| Kept { shapes: shapes.clone(), cell: Cell::default() });
        let cell = Arc::clone(&own.cell);
        kept.push(own);
        cell
    }

    /// Lets the stalest plans go until the rest is within the bounds. Those for one row go last, since whatever comes can be run
    /// in them; the one for `used` stays.
    fn make_room(&self, used: &Shapes) {
        let mut kept = self.kept();
        loop {
            let several = kept.iter().filter(|kept| kept.rows() > 1);
            let bytes: usize = several.filter_map(|kept| kept.compiled().map(|compiled| compiled.bytes)).sum();
            let is_too_heavy = bytes > self.bounds.bytes;
            if kept.len() <= self.bounds.count && !is_too_heavy {
                return;
            }
            let stalest =
                |most_rows: bool| kept.iter().position(|kept| kept.shapes != *used && (kept.rows() > 1) == most_rows);
            let goes = if is_too_heavy { stalest(true) } else { stalest(true).or_else(|| stalest(false)) };
            let Some(position) = goes else { return };
            kept.remove(position);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the constants of `plan` weigh, weights that were packed for it among them.
fn constant_bytes(plan: &Plan) -> usize {
    let constants = plan.model().nodes().iter().filter(|node| node.op_is::<Const>());
    let facts = constants.flat_map(|node| &node.outputs).map(|outlet| outlet.fact.mem_size());
    facts.filter_map(|bytes| bytes.as_i64()).filter_map(|bytes| usize::try_from(bytes).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::graph::Graph;
    use super::super::plans::Plans;
    use super::*;
    use crate::protocol::tensor::Datatype;
    use crate::protocol::tensor_spec::TensorSpec;

    fn scale(bounds: PlanBounds) -> Concrete {
        fixture("scale.onnx", &[-1, 4], &[-1, 4], bounds)
    }

    fn fixture(file: &str, input: &[i64], output: &[i64], bounds: PlanBounds) -> Concrete {
        let spec = |name: &str, shape: &[i64]| {
            vec![TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() }]
        };
        let onnx = std::fs::read(format!("{}/tests/fixtures/onnx/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let graph = Graph::parse(&onnx, &spec("x", input), &spec("y", output)).unwrap();
        match Plans::new(graph).unwrap() {
            Plans::Concrete(concrete) => Concrete::new(concrete.source, bounds),
            Plans::Symbolic(_) => panic!("the plan is symbolic"),
        }
    }

    fn sizes(concrete: &Concrete) -> Vec<usize> {
        concrete.kept().iter().map(Kept::rows).collect()
    }

    const WIDE: PlanBounds = PlanBounds { count: 4, bytes: usize::MAX };

    #[test]
    fn plans_are_bounded_in_number_and_the_stalest_goes_first() {
        let concrete = scale(WIDE);
        for rows in [1, 2, 4, 8, 2, 16, 32] {
            concrete.plan(&vec![vec![rows, 4]]).unwrap();
        }
        assert_eq!(sizes(&concrete), [1, 2, 16, 32], "the one for a row is the stalest, and stays");
    }

    #[test]
    fn plans_for_one_row_go_where_there_are_no_others() {
        let concrete = fixture("lstm.onnx", &[-1, -1, 2], &[-1, 2], PlanBounds { count: 2, bytes: usize::MAX });
        for length in [1, 2, 4] {
            concrete.plan(&vec![vec![1, length, 2]]).unwrap();
        }
        let lengths: Vec<usize> = concrete.kept().iter().map(|kept| kept.shapes[0][1]).collect();
        assert_eq!(lengths, [2, 4]);
    }

    #[test]
    fn plans_are_bounded_by_what_their_constants_weigh() {
        let weight = |rows: usize| {
            let concrete = fixture("lstm.onnx", &[-1, 3, 2], &[-1, 2], WIDE);
            constant_bytes(&concrete.plan(&vec![vec![rows, 3, 2]]).unwrap())
        };
        let room = weight(2) + weight(4);
        assert!(weight(2) > 0 && weight(4) > 0);
        let concrete = fixture("lstm.onnx", &[-1, 3, 2], &[-1, 2], PlanBounds { count: 32, bytes: room });
        for rows in [1, 2, 4, 8] {
            concrete.plan(&vec![vec![rows, 3, 2]]).unwrap();
        }
        assert!(!sizes(&concrete).contains(&2) && sizes(&concrete).contains(&1), "{:?}", sizes(&concrete));
        let heavy = fixture("lstm.onnx", &[-1, 3, 2], &[-1, 2], PlanBounds { count: 32, bytes: 0 });
        for rows in [1, 2, 4] {
            heavy.plan(&vec![vec![rows, 3, 2]]).unwrap();
        }
        assert_eq!(sizes(&heavy), [1, 4], "the plan that is used is kept, whatever it weighs");
    }

    #[test]
    fn what_is_warm_is_found_by_its_own_shape_or_with_room_to_spare() {
        let concrete = fixture("lstm.onnx", &[-1, -1, 2], &[-1, 2], WIDE);
        for shape in [[2, 8, 2], [2, 16, 2], [1, 4, 2]] {
            concrete.plan(&vec![shape.to_vec()]).unwrap();
        }
        let warm = |shape: [usize; 3], may| concrete.warm(&vec![shape.to_vec()], may).map(|shapes| shapes[0].clone());
        assert_eq!(warm([2, 8, 2], false), Some(vec![2, 8, 2]));
        assert_eq!(warm([2, 5, 2], true), Some(vec![2, 8, 2]), "the smallest that has room");
        assert_eq!(warm([2, 5, 2], false), None, "rows that may not be filled up");
        assert_eq!(warm([2, 17, 2], true), None);
        assert_eq!(warm([1, 8, 2], true), None, "no row is run for nothing");
    }
}
