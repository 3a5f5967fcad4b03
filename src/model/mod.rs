//! Models: what they are (`spec`), where they lie (`repository`), and one that is ready to serve (`loaded`).
//!
//! Used by the worker for every job and by `inferq models`. The only part that knows both preprocessing and backends.

mod check;
mod error;
mod golden;
mod loaded;
mod register;
mod repository;
mod sample;
mod spec;

pub use error::ModelError;
pub use loaded::{LoadedModel, ModelOptions, Substitute};
pub use register::{About, Registered, Registration, register};
pub use repository::{ModelRepository, find_versions};
pub use sample::Sampled;
pub use spec::ModelSpec;
