//! The decoders of inferq and what they stand on, from their own files, without broker, runtime and commands.
//!
//! For the targets in `fuzz_targets`: every crate is built with a fuzzer's instruments, and these stand on 140 of the 350 crates
//! that the whole would bring, the largest not among them.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "what is left out is what would use it")]

#[path = "../../src/envelope/mod.rs"]
pub mod envelope;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/postprocess/mod.rs"]
pub mod postprocess;
#[path = "../../src/preprocess/mod.rs"]
pub mod preprocess;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;

/// Rows alone.
#[path = "."]
pub mod batch {
    #[path = "../../src/batch/row.rs"]
    pub mod row;
}

/// A producer's reading of responses alone.
#[path = "."]
pub mod client {
    #[path = "../../src/client/prediction.rs"]
    mod prediction;

    pub use prediction::Prediction;
}

/// `model.toml` alone.
#[path = "."]
pub mod model {
    #[path = "../../src/model/check.rs"]
    mod check;
    #[path = "../../src/model/error.rs"]
    mod error;
    #[path = "../../src/model/spec.rs"]
    mod spec;

    pub use error::ModelError;
    pub use spec::ModelSpec;
}
