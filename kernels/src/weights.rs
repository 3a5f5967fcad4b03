//! The weights of an LSTM, laid out once for the vectors of this machine.
//!
//! Made by `fused` from the tensors of ONNX, read by `kernel`. A block is a vector of units; for each block the weights
//! stand in the order in which the kernel takes them: by depth, and for each depth the four gates of the block.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch};

use super::gates::GATES;

/// Units that a hidden size has to be a multiple of: no vector is longer.
const UNITS: usize = 16;

/// Bytes of a cache line: a vector that crosses one costs two loads.
const LINE_BYTES: usize = 64;
const LINE: usize = LINE_BYTES / size_of::<f32>();

/// Numbers that begin on a cache line.
#[derive(Debug)]
pub struct Aligned {
    numbers: Vec<f32>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// `length` zeros.
    #[must_use]
    pub fn zeros(length: usize) -> Self {
        let numbers = vec![0.0; length + LINE];
        // Where it cannot be told, nothing but speed is lost.
        let start = numbers.as_ptr().align_offset(LINE_BYTES).min(LINE);
        Self { numbers, start, length }
    }

    /// The numbers.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        self.numbers.get(self.start..self.start + self.length).unwrap_or_default()
    }

    /// The numbers, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.numbers.get_mut(self.start..self.start + self.length).unwrap_or_default()
    }
}

/// The tensors of ONNX: gates in the order input, output, forget, cell; one direction.
#[derive(Debug, Clone, Copy)]
pub struct OnnxWeights<'a> {
    /// Units.
    pub hidden: usize,
    /// Width of an input.
    pub features: usize,
    /// `W`: gates times units, features.
    pub input: &'a [f32],
    /// `R`: gates times units, units.
    pub recurrent: &'a [f32],
    /// `B`: of the input, then of the recurrence; empty for none.
    pub bias: &'a [f32],
}

/// Weights in the order of the kernel.
#[derive(Debug)]
pub struct Weights {
    /// The instructions that the layout is for.
    pub level: Level,
    /// Units.
    pub hidden: usize,
    /// Width of an input.
    pub features: usize,
    /// By block, feature, gate and unit.
    pub input: Aligned,
    /// By block, unit before, gate and unit.
    pub recurrent: Aligned,
    /// By block, gate and unit: the sum of both biases.
    pub bias: Aligned,
}

impl Weights {
    /// Lays out `onnx` for the instructions of `level`; nothing where the sizes do not fit each other or the vectors.
    #[must_use]
    pub fn lay_out(onnx: OnnxWeights<'_>, level: Level) -> Option<Self> {
        let OnnxWeights { hidden, features, .. } = onnx;
        let columns = hidden * GATES;
        let fits = hidden > 0
            && hidden.is_multiple_of(UNITS)
            && features > 0
            && onnx.input.len() == columns * features
            && onnx.recurrent.len() == columns * hidden
            && (onnx.bias.is_empty() || onnx.bias.len() == 2 * columns);
        if !fits {
            return None;
        }
        let lanes = dispatch!(level, simd => lanes(simd));
        if !UNITS.is_multiple_of(lanes) {
            return None;
        }
        let (of_input, of_recurrence) = onnx.bias.split_at(onnx.bias.len() / 2);
        let mut bias: Vec<f32> = of_input.iter().zip(of_recurrence).map(|(a, b)| a + b).collect();
        bias.resize(columns, 0.0);
        Some(Self {
            level,
            hidden,
            features,
            input: panels(onnx.input, features, hidden, lanes),
            recurrent: panels(onnx.recurrent, hidden, hidden, lanes),
            bias: panels(&bias, 1, hidden, lanes),
        })
    }

    /// Preactivations of a step of one row.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.hidden * GATES
    }
}

/// `weights`, by gate and unit and depth, in the order block, depth, gate, unit.
fn panels(weights: &[f32], depth: usize, hidden: usize, lanes: usize) -> Aligned {
    let mut panels = Aligned::zeros(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        let (column, at) = (index / depth, index % depth);
        let (gate, unit) = (column / hidden, column % hidden);
        let (block, lane) = (unit / lanes, unit % lanes);
        let place = ((block * depth + at) * GATES + gate) * lanes + lane;
        if let Some(own) = panels.as_mut_slice().get_mut(place) {
            *own = *weight;
        }
    }
    panels
}

/// How many numbers a vector holds.
#[inline(always)]
fn lanes<S: Simd>(_: S) -> usize {
    S::f32s::LEN
}

/// Every kind of instructions that this machine has.
#[must_use]
pub fn levels() -> Vec<Level> {
    let best = Level::new();
    #[cfg(target_arch = "x86_64")]
    let others =
        [best.as_sse2().map(Level::Sse2), best.as_sse4_2().map(Level::Sse4_2), best.as_avx2().map(Level::Avx2)];
    #[cfg(not(target_arch = "x86_64"))]
    let others: [Option<Level>; 0] = [];
    others.into_iter().flatten().chain([best]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_on_a_cache_line() {
        for length in [0, 1, 15, 64, 1_000] {
            let aligned = Aligned::zeros(length);
            assert_eq!(aligned.as_slice().len(), length);
            assert_eq!(aligned.as_slice().as_ptr().align_offset(LINE_BYTES), 0);
        }
    }

    #[test]
    fn a_block_has_its_gates_side_by_side() {
        // Two features; the weight of gate g, unit u, feature k is 1000 g + 10 u + k.
        let weight = |index: usize| (index / 64) * 1_000 + (index % 64) / 2 * 10 + index % 2;
        let weights: Vec<f32> = (0..256).map(|index| f32::from(u16::try_from(weight(index)).unwrap())).collect();
        let panels = panels(&weights, 2, 32, 16);
        let panels = panels.as_slice();
        assert_eq!(panels[..3], [0.0, 10.0, 20.0]);
        assert_eq!(panels[16], 1_000.0, "the second gate of the first feature");
        assert_eq!(panels[64], 1.0, "the second feature");
        assert_eq!(panels[128], 160.0, "the second block");
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let (input, recurrent) = (vec![0.0; 64 * 3], vec![0.0; 64 * 16]);
        let onnx = OnnxWeights { hidden: 16, features: 3, input: &input, recurrent: &recurrent, bias: &[] };
        assert!(Weights::lay_out(onnx, Level::new()).is_some());
        assert!(Weights::lay_out(OnnxWeights { bias: &[0.0; 64], ..onnx }, Level::new()).is_none());
        assert!(Weights::lay_out(OnnxWeights { features: 4, ..onnx }, Level::new()).is_none());
        let (input, recurrent) = (vec![0.0; 32 * 3], vec![0.0; 32 * 8]);
        let small = OnnxWeights { hidden: 8, features: 3, input: &input, recurrent: &recurrent, bias: &[] };
        assert!(Weights::lay_out(small, Level::new()).is_none(), "half a vector");
    }
}
