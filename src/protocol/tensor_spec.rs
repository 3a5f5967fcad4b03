//! What a model says of a tensor that it takes or gives: name, datatype, and a shape with open axes.

use serde::{Deserialize, Serialize};

use super::tensor::Datatype;

/// A tensor as `model.toml` declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The graph's own name for it.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its axes, the batch axis first; -1 for an open one.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// The axes of one row: without the batch axis, `None` for an open one.
    pub fn row_axes(&self) -> impl Iterator<Item = Option<usize>> {
        self.shape.iter().skip(1).map(|axis| usize::try_from(*axis).ok())
    }

    /// Whether a row has an open axis.
    #[must_use]
    pub fn has_open_row_axis(&self) -> bool {
        self.row_axes().any(|axis| axis.is_none())
    }

    /// Whether one row may have this shape.
    #[must_use]
    pub fn takes_row(&self, shape: &[usize]) -> bool {
        let mut axes = self.row_axes();
        shape.iter().all(|own| axes.next().is_some_and(|axis| axis.is_none_or(|axis| axis == *own)))
            && axes.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_axes_take_anything_and_fixed_ones_only_themselves() {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 3, -1] };
        assert!(spec.takes_row(&[3, 7]) && spec.takes_row(&[3, 0]) && spec.has_open_row_axis());
        for shape in [&[][..], &[3], &[2, 7], &[3, 7, 1]] {
            assert!(!spec.takes_row(shape), "{shape:?}");
        }
    }
}
