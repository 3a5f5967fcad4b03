//! Between our rows and tract's batches: stacking with padding one way, taking apart the other.

use half::f16;
use tract_onnx::prelude::{Datum, DatumType, Tensor as TractTensor, TractResult, tract_ndarray};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use crate::protocol::tensor::{Tensor, TensorData};

/// Stacks `rows`, each filled up with `padding` to `shape`, which no row may exceed.
pub(super) fn to_tract(rows: &[&Tensor], shape: &[usize], padding: i64) -> TractResult<TractTensor> {
    let Some(first) = rows.first() else { bail!("a batch has no rows") };
    #[allow(clippy::cast_precision_loss, reason = "padding of float inputs is a small whole number")]
    let float = padding as f32;
    match first.elements() {
        TensorData::Bool(_) => {
            stack(rows, shape, padding != 0, |d| if let TensorData::Bool(v) = d { Some(v) } else { None })
        }
        TensorData::Int8(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Int8(v) = d { Some(v) } else { None })
        }
        TensorData::Int16(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Int16(v) = d { Some(v) } else { None })
        }
        TensorData::Int32(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Int32(v) = d { Some(v) } else { None })
        }
        TensorData::Int64(_) => {
            stack(rows, shape, padding, |d| if let TensorData::Int64(v) = d { Some(v) } else { None })
        }
        TensorData::Uint8(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Uint8(v) = d { Some(v) } else { None })
        }
        TensorData::Uint16(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Uint16(v) = d { Some(v) } else { None })
        }
        TensorData::Uint32(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Uint32(v) = d { Some(v) } else { None })
        }
        TensorData::Uint64(_) => {
            stack(rows, shape, narrow(padding)?, |d| if let TensorData::Uint64(v) = d { Some(v) } else { None })
        }
        TensorData::Fp16(_) => {
            stack(rows, shape, f16::from_f32(float), |d| if let TensorData::Fp16(v) = d { Some(v) } else { None })
        }
        TensorData::Fp32(_) => stack(rows, shape, float, |d| if let TensorData::Fp32(v) = d { Some(v) } else { None }),
        TensorData::Fp64(_) => {
            stack(rows, shape, f64::from(float), |d| if let TensorData::Fp64(v) = d { Some(v) } else { None })
        }
        TensorData::Bytes(_) => bail!("a graph takes numbers, not BYTES"),
    }
}

fn narrow<T: TryFrom<i64>>(padding: i64) -> TractResult<T> {
    T::try_from(padding).map_err(|_| anyhow!("padding {padding} does not fit the input's datatype"))
}

fn stack<T: Datum + Copy>(
    rows: &[&Tensor],
    shape: &[usize],
    padding: T,
    elements: impl Fn(&TensorData) -> Option<&Vec<T>>,
) -> TractResult<TractTensor> {
    let stacked_shape: Vec<usize> = std::iter::once(rows.len()).chain(shape.iter().copied()).collect();
    if let [row] = rows
        && row.shape() == shape
    {
        // One image is large, and there is nothing to put it together with.
        let Some(own) = elements(row.elements()) else { bail!("rows of one input have two datatypes") };
        return TractTensor::from_shape(&stacked_shape, own);
    }
    let row_elements: usize = shape.iter().product();
    let mut stacked = Vec::with_capacity(rows.len() * row_elements);
    for row in rows {
        let Some(own) = elements(row.elements()) else { bail!("rows of one input have two datatypes") };
        if row.shape() == shape {
            stacked.extend_from_slice(own);
        } else {
            fill_up(own, row.shape(), shape, padding, &mut stacked);
        }
    }
    TractTensor::from_shape(&stacked_shape, &stacked)
}

/// The largest of every axis: the least shape that all rows fit into.
pub(super) fn largest<'a>(mut rows: impl Iterator<Item = &'a Tensor>) -> TractResult<Vec<usize>> {
    let mut largest = rows.next().map(|row| row.shape().to_vec()).unwrap_or_default();
    for row in rows {
        if row.shape().len() != largest.len() {
            bail!("rows of one input have shapes {:?} and {:?}", row.shape(), largest);
        }
        largest.iter_mut().zip(row.shape()).for_each(|(most, own)| *most = (*most).max(*own));
    }
    Ok(largest)
}

/// Appends a row of shape `own` filled up to `target`, axis by axis.
fn fill_up<T: Copy>(elements: &[T], own: &[usize], target: &[usize], padding: T, into: &mut Vec<T>) {
    let (Some((own_count, own_rest)), Some((count, rest))) = (own.split_first(), target.split_first()) else {
        into.extend_from_slice(elements);
        return;
    };
    let width: usize = own_rest.iter().product();
    let target_width: usize = rest.iter().product();
    for part in elements.chunks(width.max(1)).take(*own_count) {
        fill_up(part, own_rest, rest, padding, into);
    }
    into.extend(std::iter::repeat_n(padding, (count - own_count) * target_width));
}

/// Takes a batch of `rows` rows apart.
pub(super) fn from_tract(tensor: &TractTensor, rows: usize) -> TractResult<Vec<Tensor>> {
    let count = tensor.shape().first().copied();
    if count != Some(rows) {
        bail!("an output has shape {:?} for a batch of {rows}", tensor.shape());
    }
    let tensor = match tensor.datum_type() {
        DatumType::Bool => whole(tensor, TensorData::Bool),
        DatumType::I8 => whole(tensor, TensorData::Int8),
        DatumType::I16 => whole(tensor, TensorData::Int16),
        DatumType::I32 => whole(tensor, TensorData::Int32),
        DatumType::I64 => whole(tensor, TensorData::Int64),
        DatumType::U8 => whole(tensor, TensorData::Uint8),
        DatumType::U16 => whole(tensor, TensorData::Uint16),
        DatumType::U32 => whole(tensor, TensorData::Uint32),
        DatumType::U64 => whole(tensor, TensorData::Uint64),
        DatumType::F16 => whole(tensor, TensorData::Fp16),
        DatumType::F32 => whole(tensor, TensorData::Fp32),
        DatumType::F64 => whole(tensor, TensorData::Fp64),
        other => bail!("an output is {other:?}, which the protocol has no word for"),
    }?;
    Ok(crate::protocol::tensor_rows::rows(&tensor))
}

fn whole<T: Datum + Copy>(tensor: &TractTensor, wrap: impl Fn(Vec<T>) -> TensorData) -> TractResult<Tensor> {
    let view: tract_ndarray::ArrayViewD<'_, T> = tensor.to_plain_array_view::<T>()?;
    let elements = view.iter().copied().collect();
    Tensor::new(tensor.shape().to_vec(), wrap(elements)).map_err(|error| anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_axis_by_axis() {
        let long = Tensor::new(vec![2, 3], TensorData::Int64(vec![1, 2, 3, 4, 5, 6])).unwrap();
        let short = Tensor::new(vec![1, 2], TensorData::Int64(vec![7, 8])).unwrap();
        let stacked = to_tract(&[&long, &short], &largest([&long, &short].into_iter()).unwrap(), 0).unwrap();
        assert_eq!(stacked.shape(), [2, 2, 3]);
        let elements: Vec<i64> = stacked.to_plain_array_view::<i64>().unwrap().iter().copied().collect();
        assert_eq!(elements, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
    }
}
