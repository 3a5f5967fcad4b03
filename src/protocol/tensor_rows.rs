//! A tensor as rows along its first axis: taken apart for the batcher, put together for a response.

use super::tensor::{Tensor, TensorData};

/// Applies an expression to the elements, whatever their type.
macro_rules! each_datatype {
    ($elements:expr, $bound:ident => $body:expr) => {
        match $elements {
            TensorData::Bool($bound) => TensorData::Bool($body),
            TensorData::Int8($bound) => TensorData::Int8($body),
            TensorData::Int16($bound) => TensorData::Int16($body),
            TensorData::Int32($bound) => TensorData::Int32($body),
            TensorData::Int64($bound) => TensorData::Int64($body),
            TensorData::Uint8($bound) => TensorData::Uint8($body),
            TensorData::Uint16($bound) => TensorData::Uint16($body),
            TensorData::Uint32($bound) => TensorData::Uint32($body),
            TensorData::Uint64($bound) => TensorData::Uint64($body),
            TensorData::Fp16($bound) => TensorData::Fp16($body),
            TensorData::Fp32($bound) => TensorData::Fp32($body),
            TensorData::Fp64($bound) => TensorData::Fp64($body),
            TensorData::Bytes($bound) => TensorData::Bytes($body),
        }
    };
}

/// Takes `tensor` apart along its first axis; nothing comes of a scalar.
#[must_use]
pub fn rows(tensor: &Tensor) -> Vec<Tensor> {
    let Some((count, row_shape)) = tensor.shape().split_first() else { return Vec::new() };
    let width: usize = row_shape.iter().product();
    (0..*count)
        .map(|row| {
            let range = row * width..(row + 1) * width;
            let own = each_datatype!(tensor.elements(), elements => elements.get(range).unwrap_or_default().to_vec());
            Tensor::new(row_shape.to_vec(), own).expect("a row is its share of the elements")
        })
        .collect()
}

/// Puts rows of one shape and datatype together; `None` where they are not, or there are none.
#[must_use]
pub fn stack(rows: &[&Tensor]) -> Option<Tensor> {
    let first = rows.first()?;
    if rows.iter().any(|row| row.shape() != first.shape() || row.datatype() != first.datatype()) {
        return None;
    }
    let elements = rows.iter().skip(1).try_fold(first.elements().clone(), |together, row| append(together, row))?;
    let shape = std::iter::once(rows.len()).chain(first.shape().iter().copied()).collect();
    Tensor::new(shape, elements).ok()
}

fn append(mut together: TensorData, row: &Tensor) -> Option<TensorData> {
    match (&mut together, row.elements()) {
        (TensorData::Bool(all), TensorData::Bool(own)) => all.extend_from_slice(own),
        (TensorData::Int8(all), TensorData::Int8(own)) => all.extend_from_slice(own),
        (TensorData::Int16(all), TensorData::Int16(own)) => all.extend_from_slice(own),
        (TensorData::Int32(all), TensorData::Int32(own)) => all.extend_from_slice(own),
        (TensorData::Int64(all), TensorData::Int64(own)) => all.extend_from_slice(own),
        (TensorData::Uint8(all), TensorData::Uint8(own)) => all.extend_from_slice(own),
        (TensorData::Uint16(all), TensorData::Uint16(own)) => all.extend_from_slice(own),
        (TensorData::Uint32(all), TensorData::Uint32(own)) => all.extend_from_slice(own),
        (TensorData::Uint64(all), TensorData::Uint64(own)) => all.extend_from_slice(own),
        (TensorData::Fp16(all), TensorData::Fp16(own)) => all.extend_from_slice(own),
        (TensorData::Fp32(all), TensorData::Fp32(own)) => all.extend_from_slice(own),
        (TensorData::Fp64(all), TensorData::Fp64(own)) => all.extend_from_slice(own),
        (TensorData::Bytes(all), TensorData::Bytes(own)) => all.extend_from_slice(own),
        (
            TensorData::Bool(_)
            | TensorData::Int8(_)
            | TensorData::Int16(_)
            | TensorData::Int32(_)
            | TensorData::Int64(_)
            | TensorData::Uint8(_)
            | TensorData::Uint16(_)
            | TensorData::Uint32(_)
            | TensorData::Uint64(_)
            | TensorData::Fp16(_)
            | TensorData::Fp32(_)
            | TensorData::Fp64(_)
            | TensorData::Bytes(_),
            _,
        ) => return None,
    }
    Some(together)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_apart_stacks_again() {
        let tensor = Tensor::new(vec![2, 3], TensorData::Int32(vec![1, 2, 3, 4, 5, 6])).unwrap();
        let rows = rows(&tensor);
        assert_eq!(rows[1], Tensor::new(vec![3], TensorData::Int32(vec![4, 5, 6])).unwrap());
        assert_eq!(stack(&rows.iter().collect::<Vec<_>>()), Some(tensor));
    }

    #[test]
    fn unlike_rows_do_not_stack() {
        let a = Tensor::new(vec![1], TensorData::Int32(vec![1])).unwrap();
        let b = Tensor::new(vec![1], TensorData::Int64(vec![1])).unwrap();
        let c = Tensor::new(vec![2], TensorData::Int32(vec![1, 2])).unwrap();
        assert_eq!(stack(&[&a, &b]), None);
        assert_eq!(stack(&[&a, &c]), None);
        assert_eq!(stack(&[]), None);
    }
}
