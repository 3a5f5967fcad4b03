//! Ready tensors: every input of the graph under its own name, checked against its spec, parted into rows.

use super::{invalid, quoted};
use crate::batch::row::Row;
use crate::error::JobError;
use crate::protocol::request::InferInput;
use crate::protocol::tensor::Tensor;
use crate::protocol::tensor_rows::rows;
use crate::protocol::tensor_spec::TensorSpec;

/// The rows of `inputs`, whose first axes agree: `protocol` has seen to that.
pub(super) fn prepare(specs: &[TensorSpec], inputs: Vec<InferInput>) -> Result<Vec<Row>, JobError> {
    let expected: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    if let Some(foreign) = inputs.iter().find(|input| !expected.contains(&input.name)) {
        return Err(invalid(format!("the model has no input `{}`; it takes {}", foreign.name, quoted(&expected))));
    }
    let mut columns = Vec::with_capacity(specs.len());
    for spec in specs {
        let input = inputs.iter().find(|input| input.name == spec.name);
        let input = input.ok_or_else(|| invalid(format!("input `{}` is missing", spec.name)))?;
        columns.push(checked_rows(spec, &input.tensor)?.into_iter());
    }
    let length = |inputs: &[Tensor]| open_length(specs, inputs);
    let mut prepared = Vec::new();
    while let Some(inputs) = columns.iter_mut().map(Iterator::next).collect::<Option<Vec<Tensor>>>() {
        prepared.push(Row { length: length(&inputs), inputs, may_be_padded: false });
    }
    Ok(prepared)
}

fn checked_rows(spec: &TensorSpec, tensor: &Tensor) -> Result<Vec<Tensor>, JobError> {
    if tensor.datatype() != spec.datatype {
        let (expected, actual) = (spec.datatype, tensor.datatype());
        return Err(invalid(format!("input `{}` is {actual}, {expected} was expected", spec.name)));
    }
    let row_shape = tensor.shape().get(1..).unwrap_or_default();
    if !spec.takes_row(row_shape) {
        let (expected, actual) = (&spec.shape, tensor.shape());
        return Err(invalid(format!("input `{}` has shape {actual:?}, {expected:?} was expected", spec.name)));
    }
    Ok(rows(tensor))
}

/// The longest open axis; 1 where all are fixed.
fn open_length(specs: &[TensorSpec], inputs: &[Tensor]) -> usize {
    specs
        .iter()
        .zip(inputs)
        .flat_map(|(spec, input)| spec.row_axes().zip(input.shape()))
        .filter_map(|(fixed, actual)| fixed.is_none().then_some(*actual))
        .max()
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tensor::{Datatype, TensorData};

    fn spec() -> Vec<TensorSpec> {
        vec![TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 2] }]
    }

    fn input(name: &str, shape: &[usize], elements: TensorData) -> Vec<InferInput> {
        let tensor = Tensor::new(shape.to_vec(), elements).unwrap();
        vec![InferInput { name: name.into(), tensor, binary_data: false }]
    }

    #[test]
    fn a_batch_axis_becomes_rows() {
        let rows = prepare(&spec(), input("x", &[2, 2], TensorData::Fp32(vec![1.0, 2.0, 3.0, 4.0]))).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].inputs[0].elements(), &TensorData::Fp32(vec![3.0, 4.0]));
        assert_eq!(rows[1].length, 1);
    }

    #[test]
    fn faults_name_the_input_and_both_sides() {
        let cases = [
            (input("y", &[1, 2], TensorData::Fp32(vec![1.0, 2.0])), "the model has no input `y`; it takes `x`"),
            (input("x", &[1, 2], TensorData::Int8(vec![1, 2])), "input `x` is INT8, FP32 was expected"),
            (input("x", &[1, 3], TensorData::Fp32(vec![0.0; 3])), "input `x` has shape [1, 3], [-1, 2] was expected"),
            (Vec::new(), "input `x` is missing"),
        ];
        for (inputs, message) in cases {
            assert_eq!(prepare(&spec(), inputs).unwrap_err().message, message);
        }
    }
}
