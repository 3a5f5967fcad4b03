//! The arithmetic of an LSTM: a product of rows with the input weights, and the recurrence with its gates.
//!
//! Called by `fused`. A tile of a few rows times the four gates of a block of units stays in registers over the whole
//! depth of a product, and the gates are taken right there: nothing of a step goes through memory but its states.
//! The instructions are chosen when it runs, so that one build serves every machine; everything inside is
//! `inline(always)`, since only what is inlined where they are chosen uses them.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, dispatch};

use super::gates::{GATES, cell};
use super::weights::Weights;

/// Rows of a tile where registers are many; half as many where they are few.
const MAX_TILE: usize = 6;

/// The vectors of the four gates of a block.
type Gates<S> = [<S as Simd>::f32s; GATES];

/// Preactivations of inputs: `outputs` = `inputs` times the input weights, plus the bias.
#[derive(Debug)]
pub struct Projection<'a> {
    /// The weights.
    pub weights: &'a Weights,
    /// Rows of features.
    pub inputs: &'a [f32],
    /// As many rows of columns, in the order of the kernel.
    pub outputs: &'a mut [f32],
}

/// The recurrence over all steps.
#[derive(Debug)]
pub struct Recurrence<'a> {
    /// The weights.
    pub weights: &'a Weights,
    /// Rows that are run at once; never 0.
    pub rows: usize,
    /// What a [`Projection`] has made.
    pub projected: &'a [f32],
    /// For each step and row, its row of `projected`.
    pub places: &'a [usize],
    /// Hidden states before the first step.
    pub initial: &'a [f32],
    /// Cells: before the first step, and then after the last.
    pub cells: &'a mut [f32],
    /// Hidden states, by step and row.
    pub hidden: &'a mut [f32],
}

/// The recurrence over all steps of which only a weighted sum is wanted: rows that have ended take no part any more.
#[derive(Debug)]
pub struct Summation<'a> {
    /// The weights.
    pub weights: &'a Weights,
    /// For each step, how many rows go on: the first so many; never more than in the step before.
    pub active: &'a [usize],
    /// What a [`Projection`] has made.
    pub projected: &'a [f32],
    /// For each step and row that goes on, its row of `projected`.
    pub places: &'a [usize],
    /// For each step and row that goes on, what its hidden state counts in the sum.
    pub scales: &'a [f32],
    /// Hidden states: before the first step, and then after a row's last.
    pub hidden: &'a mut [f32],
    /// Cells, likewise.
    pub cells: &'a mut [f32],
    /// What the sum of each row is added to.
    pub sums: &'a mut [f32],
}

impl Projection<'_> {
    /// Runs it with the instructions that its weights are laid out for.
    pub fn run(self) {
        dispatch!(self.weights.level, simd => self.run_with(simd));
    }

    #[inline(always)]
    fn run_with<S: Simd>(self, simd: S) {
        let Self { weights, inputs, outputs } = self;
        let mut packed = vec![0.0; weights.features * MAX_TILE];
        let mut inputs = inputs.chunks_exact(weights.features);
        let mut outputs = outputs.chunks_exact_mut(weights.columns());
        for rows in tiles(inputs.len(), S::f32s::LEN) {
            let (input, output) = (inputs.by_ref(), outputs.by_ref());
            match rows {
                1 => project::<S, 1>(simd, weights, input, output, &mut packed),
                2 => project::<S, 2>(simd, weights, input, output, &mut packed),
                3 => project::<S, 3>(simd, weights, input, output, &mut packed),
                4 => project::<S, 4>(simd, weights, input, output, &mut packed),
                5 => project::<S, 5>(simd, weights, input, output, &mut packed),
                _ => project::<S, MAX_TILE>(simd, weights, input, output, &mut packed),
            }
        }
    }
}

/// Projects the next `R` rows of `inputs`.
#[inline(always)]
fn project<'a, S: Simd, const R: usize>(
    simd: S,
    weights: &Weights,
    inputs: impl Iterator<Item = &'a [f32]>,
    outputs: impl Iterator<Item = &'a mut [f32]>,
    packed: &mut [f32],
) {
    let wide = S::f32s::LEN * GATES;
    let inputs = pack::<R>(inputs, packed);
    let mut outputs: [_; R] = first(outputs.map(|row| row.chunks_exact_mut(wide)));
    let panels = weights.input.as_slice().chunks_exact(weights.features * wide);
    for (panel, bias) in panels.zip(weights.bias.as_slice().chunks_exact(wide)) {
        let sums = product::<S, R>(simd, [load::<S>(simd, bias); R], panel, inputs);
        for (output, sums) in outputs.iter_mut().zip(sums) {
            let vectors = output.next().unwrap_or_default().chunks_exact_mut(S::f32s::LEN);
            for (sum, own) in sums.iter().zip(vectors) {
                sum.store_slice(own);
            }
        }
    }
}

impl Recurrence<'_> {
    /// Runs it with the instructions that its weights are laid out for.
    pub fn run(self) {
        dispatch!(self.weights.level, simd => self.run_with(simd));
    }

    #[inline(always)]
    fn run_with<S: Simd>(self, simd: S) {
        let Self { weights, rows, projected, places, initial, cells, hidden } = self;
        let mut packed = vec![0.0; weights.hidden * MAX_TILE];
        let mut before = initial;
        for (places, after) in places.chunks_exact(rows).zip(hidden.chunks_exact_mut(rows * weights.hidden)) {
            let mut step = Step {
                weights,
                projected,
                places: places.iter(),
                before: Some(before.chunks_exact(weights.hidden)),
                cells: cells.chunks_exact_mut(weights.hidden),
                states: &mut *after,
                summed: None,
            };
            step.advance_all(simd, rows, &mut packed);
            before = after;
        }
    }
}

impl Summation<'_> {
    /// Runs it with the instructions that its weights are laid out for.
    pub fn run(self) {
        dispatch!(self.weights.level, simd => self.run_with(simd));
    }

    #[inline(always)]
    fn run_with<S: Simd>(self, simd: S) {
        let Self { weights, active, projected, places, scales, hidden, cells, sums } = self;
        let mut packed = vec![0.0; weights.hidden * MAX_TILE];
        let (mut places, mut scales) = (places, scales);
        for rows in active {
            let (own_places, later_places) = places.split_at(*rows);
            let (own_scales, later_scales) = scales.split_at(*rows);
            let mut step = Step {
                weights,
                projected,
                places: own_places.iter(),
                before: None,
                cells: cells.chunks_exact_mut(weights.hidden),
                states: &mut *hidden,
                summed: Some((own_scales.iter(), sums.chunks_exact_mut(weights.hidden))),
            };
            step.advance_all(simd, *rows, &mut packed);
            (places, scales) = (later_places, later_scales);
        }
    }
}

/// The rows of one step that have not been advanced yet.
struct Step<'a> {
    weights: &'a Weights,
    projected: &'a [f32],
    places: std::slice::Iter<'a, usize>,
    /// Hidden states before; those in `states` where there are none.
    before: Option<std::slice::ChunksExact<'a, f32>>,
    cells: std::slice::ChunksExactMut<'a, f32>,
    /// Hidden states after.
    states: &'a mut [f32],
    /// What a row's state counts, and what it is added to.
    summed: Option<(std::slice::Iter<'a, f32>, std::slice::ChunksExactMut<'a, f32>)>,
}

impl Step<'_> {
    /// Advances `rows` rows, tile by tile.
    #[inline(always)]
    fn advance_all<S: Simd>(&mut self, simd: S, rows: usize, packed: &mut [f32]) {
        for rows in tiles(rows, S::f32s::LEN) {
            match rows {
                1 => self.advance::<S, 1>(simd, packed),
                2 => self.advance::<S, 2>(simd, packed),
                3 => self.advance::<S, 3>(simd, packed),
                4 => self.advance::<S, 4>(simd, packed),
                5 => self.advance::<S, 5>(simd, packed),
                _ => self.advance::<S, MAX_TILE>(simd, packed),
            }
        }
    }

    /// Advances the next `R` rows.
    #[inline(always)]
    fn advance<S: Simd, const R: usize>(&mut self, simd: S, packed: &mut [f32]) {
        let Self { weights, projected, .. } = *self;
        let (lanes, wide) = (S::f32s::LEN, S::f32s::LEN * GATES);
        let row_of = |place: &usize| projected.get(place * weights.columns()..).unwrap_or_default().chunks_exact(wide);
        let mut inputs: [_; R] = first(self.places.by_ref().map(row_of));
        let (own, later) = std::mem::take(&mut self.states).split_at_mut(R * weights.hidden);
        self.states = later;
        let before = match &mut self.before {
            Some(before) => pack::<R>(before, packed),
            None => pack::<R>(own.chunks_exact(weights.hidden), packed),
        };
        let mut after: [_; R] = first(own.chunks_exact_mut(weights.hidden).map(|row| row.chunks_exact_mut(lanes)));
        let mut cells: [_; R] = first(self.cells.by_ref().map(|row| row.chunks_exact_mut(lanes)));
        let mut summed: Option<[_; R]> = self.summed.as_mut().map(|(scales, sums)| {
            first(scales.zip(sums).map(|(scale, sums)| (S::f32s::splat(simd, *scale), sums.chunks_exact_mut(lanes))))
        });
        for panel in weights.recurrent.as_slice().chunks_exact(weights.hidden * wide) {
            let mut sums = [[S::f32s::splat(simd, 0.0); GATES]; R];
            for (sums, input) in sums.iter_mut().zip(&mut inputs) {
                if let Some(input) = input.next() {
                    *sums = load::<S>(simd, input);
                }
            }
            let sums = product::<S, R>(simd, sums, panel, before);
            let mut states = [S::f32s::splat(simd, 0.0); R];
            for (((cells, after), sums), state) in cells.iter_mut().zip(&mut after).zip(sums).zip(&mut states) {
                if let (Some(own), Some(after)) = (cells.next(), after.next()) {
                    let (hidden, next) = cell(simd, sums, S::f32s::from_slice(simd, own));
                    hidden.store_slice(after);
                    next.store_slice(own);
                    *state = hidden;
                }
            }
            for ((scale, sums), state) in summed.iter_mut().flatten().zip(states) {
                if let Some(own) = sums.next() {
                    scale.mul_add(state, S::f32s::from_slice(simd, own)).store_slice(own);
                }
            }
        }
    }
}

/// `sums` plus the product of `R` packed rows with a panel: the loop in which an LSTM spends its time.
///
/// Gate by gate: a gate's weights are done with before the next gate's are loaded, so that sums, numbers and one vector of
/// weights fill the registers of AVX2 exactly (12 + 3 + 1). Row by row, four weights would be held, and sums be spilled.
#[inline(always)]
fn product<S: Simd, const R: usize>(
    simd: S,
    mut sums: [Gates<S>; R],
    panel: &[f32],
    rows: &[[f32; R]],
) -> [Gates<S>; R] {
    for (weights, numbers) in panel.chunks_exact(S::f32s::LEN * GATES).zip(rows) {
        // Not by `map`: its closure would be compiled for the least machine.
        let mut spread = [S::f32s::splat(simd, 0.0); R];
        for (vector, number) in spread.iter_mut().zip(numbers) {
            *vector = S::f32s::splat(simd, *number);
        }
        for (gate, weight) in load::<S>(simd, weights).into_iter().enumerate() {
            for (sums, number) in sums.iter_mut().zip(spread) {
                if let Some(sum) = sums.get_mut(gate) {
                    *sum = weight.mul_add(number, *sum);
                }
            }
        }
    }
    sums
}

/// The vectors of the gates in `numbers`, which are as many as they hold.
#[inline(always)]
fn load<S: Simd>(simd: S, numbers: &[f32]) -> Gates<S> {
    let lanes = S::f32s::LEN;
    let (input, rest) = numbers.split_at(lanes);
    let (output, rest) = rest.split_at(lanes);
    let (forget, cell) = rest.split_at(lanes);
    [
        S::f32s::from_slice(simd, input),
        S::f32s::from_slice(simd, output),
        S::f32s::from_slice(simd, forget),
        S::f32s::from_slice(simd, cell),
    ]
}

/// Lays the next `R` rows side by side: what a step of the product takes stands together.
#[inline(always)]
fn pack<'a, 'b, const R: usize>(rows: impl Iterator<Item = &'a [f32]>, packed: &'b mut [f32]) -> &'b [[f32; R]] {
    let (packed, _) = packed.as_chunks_mut::<R>();
    let mut depth = 0;
    for (index, row) in rows.take(R).enumerate() {
        depth = row.len();
        for (numbers, number) in packed.iter_mut().zip(row) {
            if let Some(own) = numbers.get_mut(index) {
                *own = *number;
            }
        }
    }
    packed.get(..depth).unwrap_or_default()
}

/// The next `R` of `items`, of which there are as many.
#[inline(always)]
fn first<T, const R: usize>(mut items: impl Iterator<Item = T>) -> [T; R] {
    std::array::from_fn(|_| items.next().expect("a tile has as many rows as are left"))
}

/// Sizes of the tiles that `rows` are cut into: as few as registers allow, and as even as can be.
fn tiles(rows: usize, lanes: usize) -> impl Iterator<Item = usize> {
    // Instructions with vectors of this length have twice as many of them.
    let most = if lanes >= 16 { MAX_TILE } else { MAX_TILE / 2 };
    let count = rows.div_ceil(most);
    (0..count).map(move |tile| rows * (tile + 1) / count - rows * tile / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_even_and_hold_every_row() {
        for (lanes, most) in [(8, 3), (16, 6)] {
            for rows in 0..70 {
                let sizes: Vec<usize> = tiles(rows, lanes).collect();
                assert_eq!(sizes.iter().sum::<usize>(), rows);
                let (least, largest) = (sizes.iter().min(), sizes.iter().max());
                assert!(largest.zip(least).is_none_or(|(largest, least)| *largest <= most && largest - least <= 1));
            }
        }
    }
}
