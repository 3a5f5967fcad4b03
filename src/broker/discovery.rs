//! Exchanges and queues by which workers say which models they serve, and clients ask for it.
//!
//! A query goes to every worker; an announcement goes to every reader of its tenant. Both lie in queues that end with the
//! connection of their reader, are bounded, and forget what is old: nothing here fills up.

use super::Address;
use super::topology::{Argument, Binding, Names, Queue, Topology, milliseconds};
use crate::limits::{
    DISCOVERY_MESSAGE_TTL, MAX_WAITING_ANNOUNCEMENT_BYTES, MAX_WAITING_ANNOUNCEMENTS, MAX_WAITING_QUERIES,
};

/// The one routing key of queries: every worker listens to it.
const QUERY_KEY: &str = "query";

impl Names {
    /// Where workers publish their announcements, with the tenant's name as routing key.
    #[must_use]
    pub fn models_exchange(&self) -> String {
        self.beginning("models")
    }

    /// Where clients ask which models there are.
    #[must_use]
    pub fn queries_exchange(&self) -> String {
        self.beginning("queries")
    }

    /// Where an announcement for `tenant` goes.
    #[must_use]
    pub fn announcement(&self, tenant: &str) -> Address {
        Address::new(&self.models_exchange(), tenant)
    }

    /// Where a query goes.
    #[must_use]
    pub fn query(&self) -> Address {
        Address::new(&self.queries_exchange(), QUERY_KEY)
    }

    /// The queue of the queries for the worker `instance`.
    #[must_use]
    pub fn query_queue(&self, instance: &str) -> String {
        self.beginning(&format!("queries.{instance}"))
    }
}

impl Topology {
    /// What a worker declares to be asked: its queue of queries, and both exchanges.
    #[must_use]
    pub fn for_queries(names: &Names, queue: &str) -> Self {
        let binding = Binding { exchange: names.queries_exchange(), routing_key: QUERY_KEY.to_owned() };
        let bounds = vec![("x-max-length", Argument::Integer(MAX_WAITING_QUERIES.into()))];
        Self::for_reader(names, queue, binding, bounds)
    }

    /// What a client of `tenant` declares to hear announcements: its queue of them, and both exchanges.
    #[must_use]
    pub fn for_announcements(names: &Names, queue: &str, tenant: &str) -> Self {
        let binding = Binding { exchange: names.models_exchange(), routing_key: tenant.to_owned() };
        let bounds = vec![
            ("x-max-length", Argument::Integer(MAX_WAITING_ANNOUNCEMENTS.into())),
            ("x-max-length-bytes", Argument::Integer(MAX_WAITING_ANNOUNCEMENT_BYTES.into())),
        ];
        Self::for_reader(names, queue, binding, bounds)
    }

    fn for_reader(names: &Names, queue: &str, binding: Binding, bounds: Vec<(&'static str, Argument)>) -> Self {
        let mut arguments = bounds;
        arguments.push(("x-message-ttl", Argument::Integer(milliseconds(DISCOVERY_MESSAGE_TTL))));
        // A virtual host may make quorum queues of all that do not say.
        arguments.push(("x-queue-type", Argument::Text("classic".to_owned())));
        let queue = Queue { name: queue.to_owned(), is_exclusive: true, arguments, bindings: vec![binding] };
        Self { exchanges: vec![names.models_exchange(), names.queries_exchange()], queues: vec![queue] }
    }
}
