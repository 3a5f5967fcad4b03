//! A broker that cannot be reached is told by its URL, never by its password.

use std::net::TcpListener;
use std::time::Duration;

use inferq::broker::amqp::{self, ConnectError, Connectivity, Subscription};
use inferq::broker::topology::Topology;
use inferq::broker::{Consumer, Queues};
use inferq::settings::BrokerSettings;

use crate::support::rabbitmq::virtual_host;
use crate::support::{broker_settings, soon};

const NOTHING: Topology = Topology { exchanges: Vec::new(), queues: Vec::new() };

async fn apply_nothing(url: String) -> ConnectError {
    let settings = BrokerSettings { connect_timeout: Duration::from_secs(2), ..broker_settings(url.into()) };
    soon("an error", amqp::apply(&settings, &NOTHING)).await.unwrap_err()
}

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn nobody_answers() {
    let port = free_port();
    let error = apply_nothing(format!("amqp://acme:canary-4711@127.0.0.1:{port}/jobs")).await;
    assert!(matches!(error, ConnectError::NoAnswer { .. }) && !error.is_lasting(), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with(&format!("no broker answers at amqp://acme@127.0.0.1:{port}/jobs: ")), "{message}");
    assert!(!message.contains("canary"), "{message}");
}

#[tokio::test]
async fn somebody_listens_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = apply_nothing(format!("amqp://acme:canary@127.0.0.1:{port}")).await;
    assert_eq!(error.to_string(), format!("no broker answers at amqp://acme@127.0.0.1:{port}: no answer within 2s"));
}

#[tokio::test]
async fn the_broker_does_not_let_us_in() {
    use secrecy::ExposeSecret as _;

    let url = virtual_host().await.url().expose_secret().to_owned();
    for wrong in [url.replacen("guest:guest", "guest:canary-4711", 1), format!("{url}-canary")] {
        let error = apply_nothing(wrong).await;
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.starts_with("the broker at amqp://guest@127.0.0.1:"), "{message}");
        assert!(!message.contains("4711"), "{message}");
    }
}

#[tokio::test]
async fn a_worker_tries_again_and_again() {
    let settings = broker_settings(format!("amqp://acme:canary-4711@127.0.0.1:{}", free_port()).into());
    let subscription =
        Subscription { topology: NOTHING, queues: Queues::default(), connection_name: "a test".to_owned() };
    let (consumer, _publisher, mut connectivity) = amqp::start(&settings, subscription).unwrap();
    let thrice = |now: &Connectivity| matches!(now, Connectivity::Connecting { failures: 3.., .. });
    let told = soon("three attempts", connectivity.wait_for(thrice)).await.unwrap().clone();
    let Connectivity::Connecting { reason, .. } = told else { panic!("{told:?}") };
    assert!(reason.starts_with("no broker answers at amqp://acme@") && !reason.contains("canary"), "{reason}");
    soon("closing", consumer.close()).await;
}
