//! What stands with other arguments is told by name, and is left alone.

use inferq::broker::Consumer;
use inferq::broker::amqp::{self, ConnectError, Connectivity};
use inferq::settings::BrokerSettings;

use crate::support::brokers::{MODEL, Rabbit, consuming, names, topology};
use crate::support::rabbitmq::virtual_host;
use crate::support::soon;
use crate::support::steps::job_queue;

/// Changes one of the settings that a topology is made of.
type Adjust = fn(&mut BrokerSettings);

#[tokio::test]
async fn declaring_again_changes_nothing() {
    let rabbit = Rabbit::at(virtual_host().await);
    for _ in 0..2 {
        amqp::apply(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
    }
}

#[tokio::test]
async fn an_argument_that_differs_is_named() {
    let rabbit = Rabbit::at(virtual_host().await);
    amqp::apply(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
    let adjusted: [(&str, Adjust); 2] = [
        ("x-delivery-limit", |settings| settings.delivery_limit = 7),
        ("x-max-length-bytes", |settings| settings.job_queue_max_bytes = 4_711),
    ];
    for (argument, adjust) in adjusted {
        let mut settings = rabbit.settings.clone();
        adjust(&mut settings);
        let error = amqp::apply(&settings, &topology(&settings)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Declare { .. }) && error.is_lasting(), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(argument) && message.contains(&names().job_queue(MODEL)), "{message}");
    }
}

#[tokio::test]
async fn a_worker_that_cannot_declare_says_why_and_waits() {
    let rabbit = Rabbit::at(virtual_host().await);
    let other = BrokerSettings { delivery_limit: 7, ..rabbit.settings.clone() };
    amqp::apply(&other, &topology(&other)).await.unwrap();
    let (consumer, _publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    let twice = |now: &Connectivity| matches!(now, Connectivity::Connecting { failures: 2.., .. });
    let told = soon("two attempts", connectivity.wait_for(twice)).await.unwrap().clone();
    let Connectivity::Connecting { reason, .. } = told else { panic!("{told:?}") };
    assert!(reason.contains("x-delivery-limit"), "{reason}");
    // Set right by the operator, it is well without a restart.
    amqp::remove(&other, &topology(&other)).await.unwrap();
    consuming(&mut connectivity).await;
    consumer.close().await;
}
