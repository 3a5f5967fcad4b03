//! Arbitrary tensors for the property tests of requests and responses.

use super::tensor::{Tensor, TensorData};
use half::f16;
use proptest::collection::vec;
use proptest::prelude::*;

/// A tensor of `rows`, one to three axes and any datatype; finite floats, BYTES of text.
pub(super) fn tensor(rows: usize) -> impl Strategy<Value = Tensor> {
    vec(0_usize..4, 0..3).prop_flat_map(move |tail| {
        let shape: Vec<usize> = std::iter::once(rows).chain(tail).collect();
        let count = shape.iter().product();
        elements(count).prop_map(move |elements| Tensor::new(shape.clone(), elements).unwrap())
    })
}

fn elements(count: usize) -> impl Strategy<Value = TensorData> {
    prop_oneof![
        vec(any::<bool>(), count).prop_map(TensorData::Bool),
        vec(any::<i8>(), count).prop_map(TensorData::Int8),
        vec(any::<i16>(), count).prop_map(TensorData::Int16),
        vec(any::<i32>(), count).prop_map(TensorData::Int32),
        vec(any::<i64>(), count).prop_map(TensorData::Int64),
        vec(any::<u8>(), count).prop_map(TensorData::Uint8),
        vec(any::<u16>(), count).prop_map(TensorData::Uint16),
        vec(any::<u32>(), count).prop_map(TensorData::Uint32),
        vec(any::<u64>(), count).prop_map(TensorData::Uint64),
        vec(finite(any::<u16>().prop_map(f16::from_bits), |x| x.is_finite()), count).prop_map(TensorData::Fp16),
        vec(finite(any::<u32>().prop_map(f32::from_bits), |x| x.is_finite()), count).prop_map(TensorData::Fp32),
        vec(finite(any::<u64>().prop_map(f64::from_bits), |x| x.is_finite()), count).prop_map(TensorData::Fp64),
        vec("\\PC{0,8}".prop_map(String::into_bytes), count).prop_map(TensorData::Bytes),
    ]
}

fn finite<T: std::fmt::Debug>(
    any: impl Strategy<Value = T>,
    is_finite: impl Fn(&T) -> bool,
) -> impl Strategy<Value = T> {
    any.prop_filter("finite", is_finite)
}
