//! A word in the file that asks for its embedding to be folded into the LSTM behind it.
//!
//! An ONNX file cannot say it by its graph: an `LSTM` multiplies its inputs itself. So the weights stay as they are, other
//! runtimes do not look at the word, and the operator of ours multiplies the table once, when the file is loaded.

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, StringStringEntryProto};

use super::{initializer, operator};
use crate::limits::MAX_FOLDED_EMBEDDING_BYTES;

const KEY: &str = "inferq.fold_embedding";

/// Whether the file asks for it.
pub(in crate::backend::tract) fn is_marked(model: &ModelProto) -> bool {
    model.metadata_props.iter().any(|entry| entry.key == KEY && entry.value == "true")
}

/// Marks the file where there is something to fold; tells what, and the memory that it will take.
pub(super) fn mark(model: &mut ModelProto) -> Option<(String, u64)> {
    if is_marked(model) {
        return None;
    }
    let (words, columns) = model.graph.as_ref().and_then(foldable)?;
    let bytes = words * columns * size_of::<f32>() as u64;
    if bytes > MAX_FOLDED_EMBEDDING_BYTES {
        return None;
    }
    model.metadata_props.push(StringStringEntryProto { key: KEY.to_owned(), value: "true".to_owned() });
    Some((format!("{words} words x {columns} columns, multiplied when the file is loaded"), bytes))
}

/// Rows of a table that is looked up for an LSTM, and columns of that LSTM's input weights.
fn foldable(graph: &GraphProto) -> Option<(u64, u64)> {
    graph.node.iter().filter(|node| operator(node) == Some("LSTM")).find_map(|lstm| {
        let [inputs, weights, ..] = lstm.input.as_slice() else { return None };
        let mut producer = producer(graph, inputs)?;
        if operator(producer) == Some("Transpose") {
            producer = self::producer(graph, producer.input.first()?)?;
        }
        let looked_up = producer.input.first().filter(|_| operator(producer) == Some("Gather"))?;
        let table = wide(graph, looked_up)?.first().and_then(|axis| u64::try_from(*axis).ok())?;
        let columns = wide(graph, weights)?.get(1).and_then(|axis| u64::try_from(*axis).ok())?;
        Some((table, columns))
    })
}

fn producer<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a NodeProto> {
    graph.node.iter().find(|node| node.output.iter().any(|output| output == name))
}

/// The shape of a constant, which may be one that is widened first.
fn wide<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a [i64]> {
    let own = initializer(graph, name).map(|tensor| tensor.dims.as_slice());
    own.or_else(|| {
        let cast = producer(graph, name).filter(|node| operator(node) == Some("Cast"))?;
        initializer(graph, cast.input.first()?).map(|tensor| tensor.dims.as_slice())
    })
}
