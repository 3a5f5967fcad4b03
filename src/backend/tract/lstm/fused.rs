//! The LSTM as an operator of tract's.
//!
//! Made by `Lstm`. It keeps nothing between runs: every run begins at its initial states, which are inputs, or zeros.
//! `absorb` makes of it, where the graph around it allows, one that takes ids instead of their features, and one that
//! answers a weighted sum of its states (`summed`).

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use inferq_kernels::{Aligned, Projection, Recurrence, Weights};
use tract_onnx::prelude::{
    DatumType, IntoTensor as _, TDim, TValue, TVec, Tensor, ToDim as _, TractResult, TypedFact, TypedModel, TypedNode,
    tvec,
};
use tract_onnx::tract_core::internal::{
    DatumExt as _, EvalContext, EvalOp, Op, StaticName, TypedModelPatch, TypedOp, as_op, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use crate::limits::MAX_FOLDED_EMBEDDING_BYTES;

/// The operator. Inputs: those of [`Source`], then the initial hidden state and cell where it has them.
#[derive(Debug, Clone)]
pub(super) struct FusedLstm {
    pub(super) weights: Arc<Weights>,
    pub(super) source: Source,
    /// Where an embedding is kept once it is multiplied with the input weights, if that is wanted.
    pub(super) folded: Option<Folded>,
    pub(super) has_initial_hidden: bool,
    pub(super) has_initial_cell: bool,
    pub(super) outputs: Outputs,
    /// Whether a further input (rows, steps, 1) tells what each step counts, and the output is the weighted sum of the hidden
    /// states (rows, 1, units) instead of `outputs`.
    pub(super) is_summed: bool,
}

/// An embedding multiplied with the input weights, made by whoever needs it first.
pub(super) type Folded = Arc<OnceLock<Aligned>>;

/// What the first input is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Steps, rows, features.
    Inputs,
    /// Ids, whose features are rows of `table`.
    Ids {
        /// Ids, features.
        table: Arc<Tensor>,
        /// The ids are by row and step, not by step and row.
        rows_first: bool,
    },
}

/// Which slot each output has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Outputs {
    /// Steps, 1, rows, units.
    pub(super) hidden: Option<usize>,
    /// 1, rows, units.
    pub(super) last_hidden: Option<usize>,
    /// 1, rows, units.
    pub(super) last_cell: Option<usize>,
}

impl Outputs {
    /// How many there are.
    pub(super) fn count(self) -> usize {
        self.by_slot([(); 3]).len()
    }

    /// Those of `[hidden, last_hidden, last_cell]` that are wanted, by their slots.
    fn by_slot<T>(self, outputs: [T; 3]) -> TVec<T> {
        let slots = [self.hidden, self.last_hidden, self.last_cell];
        let mut wanted: Vec<_> = slots.into_iter().zip(outputs).filter_map(|(slot, o)| Some((slot?, o))).collect();
        wanted.sort_by_key(|(slot, _)| *slot);
        wanted.into_iter().map(|(_, output)| output).collect()
    }
}

/// The steps that rows take part in: the first `active` of `order`, step by step.
pub(super) struct Walk {
    /// For each step, how many rows go on.
    pub(super) active: Vec<usize>,
    /// The rows, those that go on for longest first.
    pub(super) order: Vec<usize>,
}

impl Walk {
    /// All `rows` rows in all `steps` steps.
    fn whole(steps: usize, rows: usize) -> Self {
        Self { active: vec![rows; steps], order: (0..rows).collect() }
    }

    /// The steps and rows in the order in which they are taken.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let of_step = |(step, active): (usize, &usize)| self.order.iter().take(*active).map(move |row| (step, *row));
        self.active.iter().enumerate().flat_map(of_step)
    }
}

/// What the recurrence takes in, projected.
pub(super) struct Projected {
    /// Rows of preactivations.
    pub(super) numbers: Numbers,
    /// For each step and row that is taken, its row of `numbers`.
    pub(super) places: Vec<usize>,
}

/// Preactivations: of this run, or of every word that there is.
pub(super) enum Numbers {
    Own(Aligned),
    Folded(Folded),
}

impl Numbers {
    pub(super) fn as_slice(&self) -> &[f32] {
        match self {
            Self::Own(numbers) => numbers.as_slice(),
            Self::Folded(folded) => folded.get().map(Aligned::as_slice).unwrap_or_default(),
        }
    }
}

impl FusedLstm {
    fn project(&self, inputs: &[f32]) -> Aligned {
        let weights = &self.weights;
        let mut numbers = Aligned::zeros(inputs.len() / weights.features * weights.columns());
        Projection { weights, inputs, outputs: numbers.as_mut_slice() }.run();
        numbers
    }

    /// Steps and rows of `input`.
    pub(super) fn extent(&self, input: &TValue) -> TractResult<(usize, usize)> {
        match (&self.source, input.shape()) {
            (Source::Inputs, &[steps, rows, _]) | (Source::Ids { rows_first: false, .. }, &[steps, rows]) => {
                Ok((steps, rows))
            }
            (Source::Ids { rows_first: true, .. }, &[rows, steps]) => Ok((steps, rows)),
            (_, shape) => bail!("an LSTM's input has shape {shape:?}"),
        }
    }

    pub(super) fn projected(&self, input: &TValue, walk: &Walk) -> TractResult<Projected> {
        match &self.source {
            Source::Inputs => {
                let view = input.to_plain_array_view::<f32>()?;
                let (&[_, rows, features], Some(inputs)) = (view.shape(), view.as_slice()) else {
                    bail!("an LSTM's input has shape {:?}", input.shape());
                };
                if features != self.weights.features {
                    bail!("an LSTM's input has {features} features, its weights have {}", self.weights.features);
                }
                let places = walk.pairs().map(|(step, row)| step * rows + row).collect();
                Ok(Projected { numbers: Numbers::Own(self.project(inputs)), places })
            }
            Source::Ids { table, rows_first } => self.projected_ids((input, *rows_first), table, walk),
        }
    }

    fn projected_ids(&self, (ids, rows_first): (&TValue, bool), table: &Tensor, walk: &Walk) -> TractResult<Projected> {
        let mut ids = ids.to_plain_array_view::<i64>()?;
        if rows_first {
            ids.swap_axes(0, 1);
        }
        let table = table.to_plain_array_view::<f32>()?;
        let Some(table) = table.as_slice() else { bail!("an embedding is not in order") };
        let known = table.len() / self.weights.features;
        let index = |(step, row): (usize, usize)| {
            let Some(id) = ids.get([step, row]) else { bail!("an LSTM's ids have shape {:?}", ids.shape()) };
            // As ONNX has it, an id below 0 counts from the end.
            let index = usize::try_from(if *id < 0 { known as i64 + id } else { *id });
            let index = index.ok().filter(|index| *index < known);
            index.ok_or_else(|| anyhow!("id {id} is not in an embedding of {known}"))
        };
        let indices = walk.pairs().map(index).collect::<TractResult<Vec<usize>>>()?;
        if let Some(folded) = &self.folded {
            return Ok(Projected { numbers: Numbers::Folded(Arc::clone(folded)), places: indices });
        }
        let (inputs, places) = self.distinct(&indices, table);
        Ok(Projected { numbers: Numbers::Own(self.project(&inputs)), places })
    }

    /// The rows of `table` that occur in `indices`, each once, and for each index the place of its row.
    fn distinct(&self, indices: &[usize], table: &[f32]) -> (Vec<f32>, Vec<usize>) {
        let features = self.weights.features;
        let mut place_of: Vec<Option<NonZeroU32>> = vec![None; table.len() / features];
        let (mut inputs, mut occurred) = (Vec::new(), 0_u32);
        let mut places = Vec::with_capacity(indices.len());
        for index in indices {
            let Some(place) = place_of.get_mut(*index) else { continue };
            if place.is_none() {
                inputs.extend_from_slice(table.get(index * features..(index + 1) * features).unwrap_or_default());
                occurred += 1;
                *place = NonZeroU32::new(occurred);
            }
            places.push(place.map_or(0, |place| place.get() as usize - 1));
        }
        (inputs, places)
    }

    /// Multiplies `table` with the input weights into `folded`; whether what is there is of this table.
    pub(super) fn fold(&self, table: &Tensor, folded: &Folded) -> bool {
        let view = table.to_plain_array_view::<f32>();
        let Some(rows) = view.as_ref().ok().and_then(|view| view.as_slice()) else { return false };
        let numbers = rows.len() / self.weights.features * self.weights.columns();
        if (numbers * size_of::<f32>()) as u64 > MAX_FOLDED_EMBEDDING_BYTES {
            return false;
        }
        folded.get_or_init(|| self.project(rows)).as_slice().len() == numbers
    }

    /// The initial state in `input`, or zeros.
    pub(super) fn state(&self, input: Option<&TValue>, rows: usize) -> TractResult<Tensor> {
        let shape = [1, rows, self.weights.hidden];
        let Some(input) = input else { return Tensor::zero::<f32>(&shape) };
        if input.shape() != shape || input.datum_type() != DatumType::F32 {
            bail!("an LSTM's initial state has shape {:?}, its inputs ask for {shape:?}", input.shape());
        }
        Ok(input.clone().into_tensor())
    }

    /// A step's output in the facts: `hidden`, `last_hidden`, `last_cell`.
    fn shapes(&self, steps: &TDim, rows: &TDim) -> TVec<TVec<TDim>> {
        let units = self.weights.hidden.to_dim();
        let last = tvec!(1.to_dim(), rows.clone(), units.clone());
        self.outputs.by_slot([tvec!(steps.clone(), 1.to_dim(), rows.clone(), units), last.clone(), last])
    }
}

impl EvalOp for FusedLstm {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut inputs = inputs.iter();
        let Some(input) = inputs.next() else { bail!("an LSTM has no input") };
        let (steps, rows) = self.extent(input)?;
        let units = self.weights.hidden;
        let initial = self.state(if self.has_initial_hidden { inputs.next() } else { None }, rows)?;
        let mut cells = self.state(if self.has_initial_cell { inputs.next() } else { None }, rows)?;
        if self.is_summed {
            let Some(scales) = inputs.next() else { bail!("nothing tells what a step counts") };
            return Ok(tvec!(self.sum(input, scales, (initial, cells))?.into()));
        }
        let Projected { numbers, places } = self.projected(input, &Walk::whole(steps, rows))?;
        let mut hidden = Tensor::zero::<f32>(&[steps, 1, rows, units])?;
        if rows > 0 {
            let mut cells = cells.try_as_plain_ram_mut()?;
            let mut hidden = hidden.try_as_plain_ram_mut()?;
            Recurrence {
                weights: &self.weights,
                rows,
                projected: numbers.as_slice(),
                places: &places,
                initial: initial.try_as_plain_ram()?.as_slice::<f32>()?,
                cells: cells.as_slice_mut::<f32>()?,
                hidden: hidden.as_slice_mut::<f32>()?,
            }
            .run();
        }
        let last_hidden = match (steps.checked_sub(1), self.outputs.last_hidden) {
            (Some(last), Some(_)) => hidden.slice(0, last, steps)?.into_shape(&[1, rows, units])?,
            (_, _) => initial,
        };
        Ok(self.outputs.by_slot([hidden, last_hidden, cells]).into_iter().map(TValue::from).collect())
    }
}

impl Op for FusedLstm {
    fn name(&self) -> StaticName {
        "FusedLstm".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let Weights { hidden, features, level, .. } = &*self.weights;
        Ok(vec![format!("{features} features, {hidden} units, {level:?}")])
    }

    op_as_typed_op!();
}

impl TypedOp for FusedLstm {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = inputs.first().map(|input| input.shape.to_tvec()).unwrap_or_default();
        let (Some(first), Some(second)) = (shape.first(), shape.get(1)) else {
            bail!("an LSTM's input has shape {shape:?}");
        };
        let (steps, rows) = match self.source {
            Source::Ids { rows_first: true, .. } => (second, first),
            Source::Inputs | Source::Ids { rows_first: false, .. } => (first, second),
        };
        if self.is_summed {
            return Ok(tvec!(f32::fact([rows.clone(), 1.to_dim(), self.weights.hidden.to_dim()])));
        }
        let shapes = self.shapes(steps, rows);
        Ok(shapes.into_iter().map(f32::fact).collect())
    }

    fn declutter(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
        match self.by_ids(model, node)? {
            Some(patch) => Ok(Some(patch)),
            None => self.summed(model, node),
        }
    }
}

impl PartialEq for FusedLstm {
    fn eq(&self, other: &Self) -> bool {
        let same_source = match (&self.source, &other.source) {
            (Source::Inputs, Source::Inputs) => true,
            (Source::Ids { table: a, rows_first: b }, Source::Ids { table: c, rows_first: d }) => {
                Arc::ptr_eq(a, c) && b == d
            }
            (Source::Inputs, Source::Ids { .. }) | (Source::Ids { .. }, Source::Inputs) => false,
        };
        same_source
            && Arc::ptr_eq(&self.weights, &other.weights)
            && self.has_initial_hidden == other.has_initial_hidden
            && self.has_initial_cell == other.has_initial_cell
            && self.outputs == other.outputs
            && self.is_summed == other.is_summed
    }
}

impl Eq for FusedLstm {}

impl Hash for FusedLstm {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.weights).hash(state);
        self.outputs.hash(state);
        self.is_summed.hash(state);
    }
}
