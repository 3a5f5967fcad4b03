//! Models: what they are (`spec`), where they lie (`repository`), one that is ready to serve (`loaded`), and how one takes the
//! place of another while jobs run (`watcher`).
//!
//! Used by the worker for every job and by `inferq models`. The only part that knows both preprocessing and backends.

mod aliases;
mod announced;
mod aside;
mod check;
mod error;
mod explain;
mod golden;
mod loaded;
mod optimize;
mod register;
mod repository;
mod sample;
mod slot;
mod snapshot;
mod spec;
mod trial;
mod units;
mod warm_up;
mod watcher;

use crate::telemetry::labels::ModelChange;

pub use aliases::{Alias, AliasTable, Aliases, STABLE, check_shares};
pub use error::ModelError;
pub use explain::ExplainRequest;
pub use loaded::{ChangeObserver, LoadedModel, ModelOptions, Wrap};
pub use optimize::{Optimization, Optimized, Subject, Tried, Verdict, optimize, register_optimized};
pub use register::{About, Registered, Registration, register};
pub use repository::{ModelRepository, find_versions};
pub use sample::Sampled;
pub use spec::ModelSpec;
pub use trial::{Agreement, Figures};
pub use watcher::Watcher;
