//! The producer's side.
