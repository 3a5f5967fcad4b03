//! Single operators through the runtime, with the inputs that their test cases have; run by `make operators`.

use std::fs;
use std::path::Path;

use half::f16;
use inferq::backend::tract::run_once;
use inferq::protocol::tensor::{Datatype, Tensor, TensorData};
use inferq::protocol::tensor_spec::TensorSpec;
use serde_json::{Value, json};

use super::Result;

/// Runs every case in `cases`, and writes what came out, or why nothing did.
pub(super) fn run(cases: &Path, answers: &Path) -> Result<()> {
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(cases)?)?;
    let mut told = Vec::with_capacity(cases.len());
    for case in &cases {
        told.push(match answer(case) {
            Ok(outputs) => json!({"outputs": outputs}),
            Err(error) => json!({"refused": error.to_string()}),
        });
    }
    Ok(fs::write(answers, serde_json::to_vec(&told)?)?)
}

fn answer(case: &Value) -> Result<Vec<Value>> {
    let onnx = fs::read(case["path"].as_str().ok_or("a case has no path")?)?;
    let listed = |name: &str| case[name].as_array().cloned().unwrap_or_default();
    let inputs = listed("inputs").iter().map(|own| Ok((spec(own)?, tensor(own)?))).collect::<Result<Vec<_>>>()?;
    let outputs = listed("outputs").iter().map(spec).collect::<Result<Vec<_>>>()?;
    let answered = run_once(&onnx, &inputs, &outputs)?;
    Ok(answered.iter().map(|tensor| json!({"shape": tensor.shape(), "bits": bits(tensor)})).collect())
}

fn spec(own: &Value) -> Result<TensorSpec> {
    let datatype: Datatype = serde_json::from_value(own["datatype"].clone())?;
    let rank = own["shape"].as_array().ok_or("a tensor has no shape")?.len();
    Ok(TensorSpec { name: own["name"].as_str().unwrap_or_default().to_owned(), datatype, shape: vec![-1; rank] })
}

/// Elements come as whole numbers: those of floats as their bits.
fn tensor(own: &Value) -> Result<Tensor> {
    let shape: Vec<usize> = serde_json::from_value(own["shape"].clone())?;
    let read = own["bits"].clone();
    let floats = |read: Value| serde_json::from_value::<Vec<u32>>(read);
    let elements = match serde_json::from_value::<Datatype>(own["datatype"].clone())? {
        Datatype::Fp32 => TensorData::Fp32(floats(read)?.into_iter().map(f32::from_bits).collect()),
        Datatype::Fp64 => {
            TensorData::Fp64(serde_json::from_value::<Vec<u64>>(read)?.into_iter().map(f64::from_bits).collect())
        }
        Datatype::Fp16 => {
            TensorData::Fp16(serde_json::from_value::<Vec<u16>>(read)?.into_iter().map(f16::from_bits).collect())
        }
        Datatype::Bool => TensorData::Bool(floats(read)?.into_iter().map(|bit| bit != 0).collect()),
        Datatype::Int8 => TensorData::Int8(serde_json::from_value(read)?),
        Datatype::Int16 => TensorData::Int16(serde_json::from_value(read)?),
        Datatype::Int32 => TensorData::Int32(serde_json::from_value(read)?),
        Datatype::Int64 => TensorData::Int64(serde_json::from_value(read)?),
        Datatype::Uint8 => TensorData::Uint8(serde_json::from_value(read)?),
        Datatype::Uint16 => TensorData::Uint16(serde_json::from_value(read)?),
        Datatype::Uint32 => TensorData::Uint32(serde_json::from_value(read)?),
        Datatype::Uint64 => TensorData::Uint64(serde_json::from_value(read)?),
        Datatype::Bytes => return Err("texts are no input of a graph".into()),
    };
    Ok(Tensor::new(shape, elements)?)
}

fn bits(tensor: &Tensor) -> Value {
    match tensor.elements() {
        TensorData::Fp32(own) => json!(own.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
        TensorData::Fp64(own) => json!(own.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
        TensorData::Fp16(own) => json!(own.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
        TensorData::Bool(own) => json!(own.iter().map(|x| u8::from(*x)).collect::<Vec<_>>()),
        TensorData::Int8(own) => json!(own),
        TensorData::Int16(own) => json!(own),
        TensorData::Int32(own) => json!(own),
        TensorData::Int64(own) => json!(own),
        TensorData::Uint8(own) => json!(own),
        TensorData::Uint16(own) => json!(own),
        TensorData::Uint32(own) => json!(own),
        TensorData::Uint64(own) => json!(own),
        TensorData::Bytes(_) => Value::Null,
    }
}
