//! How a job reaches each worker and its answer comes back: one question, one label, whoever is asked.

use std::time::Duration;

use inferq::broker::amqp::pool::ChannelPool;
use inferq::client::{Client, Job, Prediction, connect};
use inferq::envelope::ProducerKeys;
use inferq::protocol::response::ResponseBody;
use inferq::settings::{LoadOptions, Override, Settings};

use super::http::HttpRoad;
use super::plain::PlainRoad;
use super::{Fault, Result};

/// No job takes longer than this unless something is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Channels on which jobs are published at the same time: enough that confirms never hold the generator back.
const CHANNELS: usize = 32;

/// The way to one worker.
pub(crate) enum Road {
    /// The client of this project: seals each job, publishes it confirmed, opens its reply.
    Inferq(Box<Client<ChannelPool>>),
    /// Plain JSON over AMQP.
    Plain(Box<PlainRoad>),
    /// HTTP.
    Http(HttpRoad),
}

impl Road {
    /// The way to inferq, as the tenant whose `keys` these are.
    pub(crate) async fn to_inferq(keys: ProducerKeys) -> Result<Self> {
        let channels = Override {
            key: "broker.publisher_channels".to_owned(),
            value: CHANNELS.to_string(),
            option: "the generator".to_owned(),
        };
        let (settings, _) = Settings::load(&LoadOptions { file: None, overrides: vec![channels] })?;
        Ok(Self::Inferq(Box::new(connect(&settings, keys).await?)))
    }

    /// Asks for the topic of `text` and waits for the label.
    pub(crate) async fn ask(&self, text: &str) -> Result<String> {
        match self {
            Self::Inferq(client) => {
                let job = Job::texts("topic".parse()?, &[text]);
                match client.predict(&job, LIMIT).await? {
                    ResponseBody::Result(response) => {
                        let first = Prediction::read_all(&response).into_iter().next();
                        first.map(|one| one.label).ok_or_else(|| Fault::from("a response without a prediction"))
                    }
                    ResponseBody::Error(error) => Err(format!("{}: {}", error.code, error.error).into()),
                }
            }
            Self::Plain(road) => road.ask(text).await,
            Self::Http(road) => road.ask(text).await,
        }
    }

    /// Closes what is open.
    pub(crate) async fn close(self) {
        match self {
            Self::Inferq(client) => client.close().await,
            Self::Plain(road) => road.close().await,
            Self::Http(_) => {}
        }
    }
}
