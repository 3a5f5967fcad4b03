//! Models, their specs and their repository.
