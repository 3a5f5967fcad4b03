//! The operator where a weighted sum of its hidden states is wanted: rows in order of their ends, each as far as it counts.

use inferq_kernels::Summation;
use tract_onnx::prelude::{DatumType, TValue, Tensor, TractResult};
use tract_onnx::tract_hir::internal::bail;

use super::fused::{FusedLstm, Projected, Walk};

impl Walk {
    /// The rows that go on for longest first, each up to its last step that counts; `scales` are by row and step.
    fn by_ends(scales: &[f32], steps: usize, rows: usize) -> Self {
        let end = |row: usize| {
            let own = scales.get(row * steps..(row + 1) * steps).unwrap_or_default();
            own.iter().rposition(|scale| *scale != 0.0).map_or(0, |last| last + 1)
        };
        let mut ends: Vec<(usize, usize)> = (0..rows).map(|row| (end(row), row)).collect();
        ends.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        let longest = ends.first().map_or(0, |(end, _)| *end);
        let goes_on = |step: usize| ends.partition_point(|(end, _)| *end > step);
        Self { active: (0..longest).map(goes_on).collect(), order: ends.into_iter().map(|(_, row)| row).collect() }
    }
}

impl FusedLstm {
    /// The sum of the hidden states of each row, every step times what `scales` says.
    pub(super) fn sum(&self, input: &TValue, scales: &TValue, states: (Tensor, Tensor)) -> TractResult<Tensor> {
        let (steps, rows) = self.extent(input)?;
        if *scales.shape() != [rows, steps, 1] || scales.datum_type() != DatumType::F32 {
            bail!("what steps count has shape {:?}, {rows} rows of {steps} steps are given", scales.shape());
        }
        let scales = scales.to_plain_array_view::<f32>()?;
        let Some(scales) = scales.as_slice() else { bail!("what steps count is not in order") };
        let walk = Walk::by_ends(scales, steps, rows);
        let Projected { numbers, places } = self.projected(input, &walk)?;
        let scale = |(step, row): (usize, usize)| scales.get(row * steps + step).copied().unwrap_or(0.0);
        let in_order: Vec<f32> = walk.pairs().map(scale).collect();
        let units = self.weights.hidden;
        let mut hidden = ordered(&states.0, &walk.order, units)?;
        let mut cells = ordered(&states.1, &walk.order, units)?;
        let mut sums = vec![0.0; rows * units];
        Summation {
            weights: &self.weights,
            active: &walk.active,
            projected: numbers.as_slice(),
            places: &places,
            scales: &in_order,
            hidden: &mut hidden,
            cells: &mut cells,
            sums: &mut sums,
        }
        .run();
        let mut by_row = vec![0.0; rows * units];
        for (row, sum) in walk.order.iter().zip(sums.chunks_exact(units)) {
            if let Some(own) = by_row.get_mut(row * units..(row + 1) * units) {
                own.copy_from_slice(sum);
            }
        }
        Tensor::from_shape(&[rows, 1, units], &by_row)
    }
}

/// The rows of a state, in another order.
fn ordered(state: &Tensor, order: &[usize], units: usize) -> TractResult<Vec<f32>> {
    let state = state.to_plain_array_view::<f32>()?;
    let Some(state) = state.as_slice() else { bail!("an LSTM's state is not in order") };
    let rows = order.iter().filter_map(|row| state.get(row * units..(row + 1) * units));
    Ok(rows.flatten().copied().collect())
}
