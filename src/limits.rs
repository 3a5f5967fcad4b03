//! Every hard bound.
