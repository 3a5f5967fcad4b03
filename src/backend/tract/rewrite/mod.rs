//! An ONNX file made into another that answers the same and takes less: constants folded, weights halved, an embedding marked
//! to be folded into its LSTM.
//!
//! Used where a model is optimised, and by `graph`, which widens halved weights again. What comes out is a plain ONNX file
//! that any runtime runs. Whether a step pays is not said here: it is measured by whoever asks for it.

use std::collections::BTreeSet;

use prost::Message as _;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::Framework as _;

use super::LoadError;

pub(super) mod embedding;
mod folding;
pub(super) mod halves;

/// One way to rewrite a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Computes what does not depend on the inputs, and drops what nobody reads.
    Fold,
    /// Marks the file so that the embedding is multiplied with the LSTM's input weights once, when it is loaded.
    Embedding,
    /// Keeps weights in half precision; they are widened when the file is loaded.
    Half,
}

impl Step {
    /// All steps, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Fold, Self::Embedding, Self::Half];

    /// Its name on the command line and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fold => "fold",
            Self::Embedding => "embedding",
            Self::Half => "half",
        }
    }

    /// Whether the answers should be the same but for rounding.
    #[must_use]
    pub const fn is_lossless(self) -> bool {
        match self {
            Self::Fold | Self::Embedding => true,
            Self::Half => false,
        }
    }
}

/// A file after a step.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The content of the new file.
    pub onnx: Vec<u8>,
    /// What was done, in words.
    pub done: String,
    /// Memory that the loaded model takes beyond what it took before.
    pub memory_bytes: u64,
}

/// Applies `step` to the content of an ONNX file; nothing where it finds nothing to do.
///
/// # Errors
/// When it is no ONNX file.
pub fn rewrite(onnx: &[u8], step: Step) -> Result<Option<Rewritten>, LoadError> {
    let fault = |error| LoadError(format!("is no ONNX file: {error:#}"));
    let mut model: ModelProto = tract_onnx::onnx().proto_model_for_read(&mut &*onnx).map_err(fault)?;
    let (done, memory_bytes) = match step {
        Step::Fold => (folding::fold(&mut model), 0),
        Step::Embedding => embedding::mark(&mut model).map_or((None, 0), |(done, bytes)| (Some(done), bytes)),
        Step::Half => (model.graph.as_mut().and_then(halves::narrow), 0),
    };
    Ok(done.map(|done| Rewritten { onnx: model.encode_to_vec(), done, memory_bytes }))
}

/// The name of an operator of ONNX itself; nothing for those of others.
fn operator(node: &NodeProto) -> Option<&str> {
    matches!(node.domain.as_str(), "" | "ai.onnx").then_some(node.op_type.as_str())
}

/// Names that the graphs inside of `node`'s attributes read, at any depth.
fn names_inside(node: &NodeProto, found: &mut BTreeSet<String>) {
    for graph in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
        found.extend(graph.output.iter().map(|output| output.name.clone()));
        for inner in &graph.node {
            found.extend(inner.input.iter().cloned());
            names_inside(inner, found);
        }
    }
}

/// Whether `node` holds graphs.
fn has_graphs(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
}

fn initializer<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    graph.initializer.iter().find(|tensor| tensor.name == name)
}

/// How many numbers a tensor has.
fn count(tensor: &TensorProto) -> usize {
    tensor.dims.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).product()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
