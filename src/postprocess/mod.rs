//! From a row's outputs to a response.
