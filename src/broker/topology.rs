//! Exchanges and queues, as data.
