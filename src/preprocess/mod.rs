//! From a request to rows.
