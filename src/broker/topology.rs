//! Exchanges, queues and bindings, as data: what the worker declares and `inferq topology` shows.
//!
//! Both brokers are built from a [`Topology`]; [`Names`] is the only place that knows how anything is called. No I/O.

use std::fmt;
use std::time::Duration;

use super::Address;
use crate::limits::REPLY_QUEUE_EXPIRES;
use crate::settings::BrokerSettings;

/// The pauses of the retry queues, shortest first: a job's n-th retry waits the n-th of them, later ones the last.
pub const RETRY_PAUSES: [(&str, Duration); 3] =
    [("1s", Duration::from_secs(1)), ("10s", Duration::from_secs(10)), ("60s", Duration::from_secs(60))];

/// Ends of the names of a model's other queues and of their routing keys; a model's name has no dot.
const URGENT: &str = ".high";
const SUSPECTS: &str = ".suspects";

/// Routing key of the undeliverable queue; no model's name begins with a dot.
const UNDELIVERABLE_KEY: &str = ".undeliverable";

/// RabbitMQ 4 drops what a quorum queue has delivered 20 times unless the queue says otherwise; an operator looks at kept
/// messages as often as he likes. (RabbitMQ 3 knows no word for "unlimited".)
const UNLIMITED_DELIVERIES: i64 = 1_000_000_000;

/// How exchanges and queues are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that begin with `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What begins like everything of this service and goes on with `rest`.
    pub(super) fn beginning(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// Where producers publish jobs, with the model's name as routing key.
    #[must_use]
    pub fn jobs_exchange(&self) -> String {
        format!("{}.jobs", self.prefix)
    }

    /// Where the worker publishes replies, with the reply queue's name as routing key.
    #[must_use]
    pub fn replies_exchange(&self) -> String {
        format!("{}.replies", self.prefix)
    }

    fn retry_exchange(&self) -> String {
        format!("{}.retry", self.prefix)
    }

    fn dead_exchange(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The job queue of `model`.
    #[must_use]
    pub fn job_queue(&self, model: &str) -> String {
        format!("{}.jobs.{model}", self.prefix)
    }

    /// The queue of `model`'s urgent jobs: those published with the routing key `<model>.high`.
    #[must_use]
    pub fn urgent_queue(&self, model: &str) -> String {
        format!("{}.jobs.{model}{URGENT}", self.prefix)
    }

    /// The queue of those of `model`'s jobs that are suspected of ending the processes that run them.
    #[must_use]
    pub fn suspects_queue(&self, model: &str) -> String {
        format!("{}.jobs.{model}{SUSPECTS}", self.prefix)
    }

    /// The dead-letter queue of `model`.
    #[must_use]
    pub fn dead_queue(&self, model: &str) -> String {
        format!("{}.dead.{model}", self.prefix)
    }

    /// The queue of replies that nobody took.
    #[must_use]
    pub fn undeliverable_queue(&self) -> String {
        format!("{}.undeliverable", self.prefix)
    }

    /// The model whose jobs `queue` holds.
    #[must_use]
    pub fn model_of_queue<'a>(&self, queue: &'a str) -> &'a str {
        let rest = queue.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix(".jobs.")).unwrap_or(queue);
        rest.split_once('.').map_or(rest, |(model, _)| model)
    }

    /// Whether `queue` is one of urgent jobs.
    #[must_use]
    pub fn is_urgent(&self, queue: &str) -> bool {
        queue == self.urgent_queue(self.model_of_queue(queue))
    }

    /// Whether `queue` is one of suspects.
    #[must_use]
    pub fn holds_suspects(&self, queue: &str) -> bool {
        queue == self.suspects_queue(self.model_of_queue(queue))
    }

    /// Where a suspected job of `model` goes.
    #[must_use]
    pub fn suspects(&self, model: &str) -> Address {
        Address::new(&self.jobs_exchange(), &format!("{model}{SUSPECTS}"))
    }

    /// Where a dead letter of `model` goes.
    #[must_use]
    pub fn dead(&self, model: &str) -> Address {
        Address::new(&self.dead_exchange(), model)
    }

    /// Where a reply goes that nobody took.
    #[must_use]
    pub fn undeliverable(&self) -> Address {
        Address::new(&self.dead_exchange(), UNDELIVERABLE_KEY)
    }

    /// Where a job from `queue` goes that has not been tried yet: a suspect stays among the suspects.
    #[must_use]
    pub fn postponed(&self, queue: &str) -> Address {
        let model = self.model_of_queue(queue);
        if self.holds_suspects(queue) { self.suspects(model) } else { self.retry(model, 0) }
    }

    /// Where a job of `model` waits that has been retried `attempt` times already.
    #[must_use]
    pub fn retry(&self, model: &str, attempt: u32) -> Address {
        let last = RETRY_PAUSES.len() - 1;
        let index = usize::try_from(attempt).map_or(last, |attempt| attempt.min(last));
        let pause = RETRY_PAUSES.get(index).map_or("60s", |(word, _)| *word);
        Address::new(&self.retry_exchange(), &format!("{pause}.{model}"))
    }
}

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Integer(i64),
}

impl fmt::Display for Argument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Integer(number) => write!(formatter, "{number}"),
        }
    }
}

/// A binding of a queue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// A queue with its arguments and bindings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Whether it belongs to the connection that declares it and ends with that; else it is durable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_exclusive: bool,
    /// Its arguments, sorted by name.
    pub arguments: Vec<(&'static str, Argument)>,
    /// Its bindings.
    pub bindings: Vec<Binding>,
}

impl Queue {
    /// The text of argument `name`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find_map(|(own, value)| match value {
            Argument::Text(text) if *own == name => Some(text.as_str()),
            Argument::Text(_) | Argument::Integer(_) => None,
        })
    }

    /// The number in argument `name`.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.arguments.iter().find_map(|(own, value)| match value {
            Argument::Integer(number) if *own == name => Some(*number),
            Argument::Text(_) | Argument::Integer(_) => None,
        })
    }
}

/// Everything that is declared.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Topology {
    /// Durable direct exchanges.
    pub exchanges: Vec<String>,
    /// Queues.
    pub queues: Vec<Queue>,
}

impl Topology {
    /// The topology of a worker that serves `models`.
    #[must_use]
    pub fn for_models(settings: &BrokerSettings, models: &[String]) -> Self {
        let names = Names::new(&settings.name_prefix);
        let exchanges = vec![
            names.jobs_exchange(),
            names.retry_exchange(),
            names.dead_exchange(),
            names.replies_exchange(),
            names.models_exchange(),
            names.queries_exchange(),
        ];
        let mut queues = Vec::new();
        for model in models {
            queues.push(job_queue(settings, &names, model));
            queues.push(urgent_queue(settings, &names, model));
            queues.push(suspects_queue(settings, &names, model));
            queues.push(dead_queue(settings, &names, model));
        }
        queues.extend(RETRY_PAUSES.iter().map(|pause| retry_queue(settings, &names, models, *pause)));
        queues.push(undeliverable_queue(settings, &names));
        Self { exchanges, queues }
    }
}

impl Topology {
    /// What a client declares: its reply queue, and the exchange that it is bound to.
    ///
    /// A classic queue, since it belongs to one client; it goes when nobody has consumed it for a while.
    #[must_use]
    pub fn for_replies(names: &Names, reply_queue: &str) -> Self {
        let exchange = names.replies_exchange();
        let queue = Queue {
            name: reply_queue.to_owned(),
            is_exclusive: false,
            arguments: vec![("x-expires", Argument::Integer(milliseconds(REPLY_QUEUE_EXPIRES)))],
            bindings: vec![Binding { exchange: exchange.clone(), routing_key: reply_queue.to_owned() }],
        };
        Self { exchanges: vec![exchange], queues: vec![queue] }
    }
}

fn job_queue(settings: &BrokerSettings, names: &Names, model: &str) -> Queue {
    // A retried job comes back with the routing key of its retry queue, `<pause>.<model>`.
    let retried = RETRY_PAUSES.iter().map(|(pause, _)| format!("{pause}.{model}"));
    let bindings = std::iter::once(model.to_owned()).chain(retried);
    Queue {
        name: names.job_queue(model),
        is_exclusive: false,
        arguments: job_arguments(settings, names, model),
        bindings: bindings.map(|routing_key| Binding { exchange: names.jobs_exchange(), routing_key }).collect(),
    }
}

fn urgent_queue(settings: &BrokerSettings, names: &Names, model: &str) -> Queue {
    Queue {
        name: names.urgent_queue(model),
        is_exclusive: false,
        arguments: job_arguments(settings, names, model),
        bindings: vec![Binding { exchange: names.jobs_exchange(), routing_key: format!("{model}{URGENT}") }],
    }
}

fn suspects_queue(settings: &BrokerSettings, names: &Names, model: &str) -> Queue {
    let Address { exchange, routing_key } = names.suspects(model);
    Queue {
        name: names.suspects_queue(model),
        is_exclusive: false,
        arguments: job_arguments(settings, names, model),
        bindings: vec![Binding { exchange: exchange.to_string(), routing_key: routing_key.to_string() }],
    }
}

fn job_arguments(settings: &BrokerSettings, names: &Names, model: &str) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-dead-letter-exchange", Argument::Text(names.dead_exchange())),
        ("x-dead-letter-routing-key", Argument::Text(model.to_owned())),
        ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
        ("x-delivery-limit", Argument::Integer(i64::from(settings.delivery_limit))),
        ("x-max-length-bytes", Argument::Integer(integer(settings.job_queue_max_bytes))),
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
        ("x-queue-type", Argument::Text("quorum".to_owned())),
    ]
}

fn retry_queue(
    settings: &BrokerSettings,
    names: &Names,
    models: &[String],
    (pause, ttl): (&'static str, Duration),
) -> Queue {
    Queue {
        name: format!("{}.retry.{pause}", settings.name_prefix),
        is_exclusive: false,
        arguments: vec![
            ("x-dead-letter-exchange", Argument::Text(names.jobs_exchange())),
            ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
            ("x-max-length-bytes", Argument::Integer(integer(settings.job_queue_max_bytes))),
            ("x-message-ttl", Argument::Integer(milliseconds(ttl))),
            ("x-overflow", Argument::Text("reject-publish".to_owned())),
            ("x-queue-type", Argument::Text("quorum".to_owned())),
        ],
        bindings: models
            .iter()
            .map(|model| Binding { exchange: names.retry_exchange(), routing_key: format!("{pause}.{model}") })
            .collect(),
    }
}

fn dead_queue(settings: &BrokerSettings, names: &Names, model: &str) -> Queue {
    kept_queue(names.dead_queue(model), names.dead(model), settings.dead_letter_ttl)
}

fn undeliverable_queue(settings: &BrokerSettings, names: &Names) -> Queue {
    kept_queue(names.undeliverable_queue(), names.undeliverable(), settings.undeliverable_ttl)
}

/// A queue that keeps what it is given for an operator, for a while.
fn kept_queue(name: String, address: Address, ttl: Duration) -> Queue {
    Queue {
        name,
        is_exclusive: false,
        arguments: vec![
            ("x-delivery-limit", Argument::Integer(UNLIMITED_DELIVERIES)),
            ("x-message-ttl", Argument::Integer(milliseconds(ttl))),
            ("x-queue-type", Argument::Text("quorum".to_owned())),
        ],
        bindings: vec![Binding {
            exchange: address.exchange.to_string(),
            routing_key: address.routing_key.to_string(),
        }],
    }
}

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_tells_its_model() {
        let names = Names::new("inferq");
        for model in ["topic", "a-b_c", "high", "suspects"] {
            assert_eq!(names.model_of_queue(&names.job_queue(model)), model);
            assert_eq!(names.model_of_queue(&names.urgent_queue(model)), model);
            assert_eq!(names.model_of_queue(&names.suspects_queue(model)), model);
            assert!(names.is_urgent(&names.urgent_queue(model)) && !names.is_urgent(&names.job_queue(model)));
            assert!(
                names.holds_suspects(&names.suspects_queue(model)) && !names.holds_suspects(&names.job_queue(model))
            );
        }
    }

    #[test]
    fn later_retries_wait_longer() {
        let names = Names::new("inferq");
        let keys: Vec<_> = (0..5).map(|attempt| names.retry("topic", attempt).routing_key.to_string()).collect();
        assert_eq!(keys, ["1s.topic", "10s.topic", "60s.topic", "60s.topic", "60s.topic"]);
    }

    #[test]
    fn a_suspect_that_is_postponed_does_not_come_back_among_the_innocent() {
        let names = Names::new("inferq");
        assert_eq!(names.postponed(&names.suspects_queue("topic")), names.suspects("topic"));
        assert_eq!(names.postponed(&names.job_queue("topic")), names.retry("topic", 0));
        assert_eq!(names.postponed(&names.urgent_queue("topic")), names.retry("topic", 0));
    }
}
