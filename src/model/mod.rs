//! Models: what they are (`spec`), where they lie (`repository`), and one that is ready to serve (`loaded`).
//!
//! Used by the worker for every job and by `inferq models`. The only part that knows both preprocessing and backends.

mod check;
mod error;
mod golden;
mod loaded;
mod repository;
mod spec;

pub use error::ModelError;
pub use loaded::{LoadedModel, ModelOptions};
pub use repository::{ModelRepository, find_versions};
pub use spec::ModelSpec;
