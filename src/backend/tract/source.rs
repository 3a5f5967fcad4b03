//! What plans of fixed shapes are compiled from.

use std::collections::HashMap;

use tract_onnx::prelude::{Symbol, ToDim as _, TractResult, TypedModel};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::concrete::Shapes;
use super::graph::Graph;
use super::plans::{Plan, compile};

/// What concrete plans are made of.
#[derive(Debug)]
pub(super) enum Source {
    /// The simplified graph with a symbol for its batch axis: a plan costs milliseconds.
    Typed { model: Box<TypedModel>, batch: Symbol },
    /// The parsed graph, because tract refuses it with symbols: a plan costs a whole load.
    Parsed { graph: Box<Graph>, refusal: String },
}

impl Source {
    /// Compiles the plan for inputs of `shapes`.
    pub(super) fn compile(&self, shapes: &Shapes) -> TractResult<Plan> {
        match self {
            Self::Typed { model, batch } => {
                let Some(rows) = shapes.first().and_then(|shape| shape.first()) else { bail!("no input has rows") };
                compile(model.set_symbols(&HashMap::from([(batch.clone(), rows.to_dim())]))?)
            }
            Self::Parsed { graph, refusal } => graph
                .concrete(shapes)
                .and_then(compile)
                .map_err(|error| anyhow!("{error:#}; with open axes tract says: {refusal}")),
        }
    }
}
