//! TLS with a real broker: whom each side lets in, and that nothing goes without it beyond this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use inferq::broker::amqp::{self, ConnectError, Endpoint, EndpointError, TlsError};
use inferq::broker::topology::Topology;
use inferq::broker::{Consumer as _, Publisher as _};
use inferq::settings::{BrokerSettings, IdentityFiles, TlsSettings};

use crate::support::brokers::{Rabbit, consuming, topology};
use crate::support::certificates::Authority;
use crate::support::rabbitmq::Node;
use crate::support::steps::{acknowledge, job_queue, jobs, next};
use crate::support::{broker_settings, id_of, message, soon};

const NOTHING: Topology = Topology { exchanges: Vec::new(), queues: Vec::new() };

fn settings(url: String, ca_file: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)>) -> BrokerSettings {
    let identity = identity.map(|(certificate, key)| IdentityFiles { certificate, key });
    BrokerSettings { tls: TlsSettings { ca_file, identity }, ..broker_settings(url.into()) }
}

async fn refused(settings: &BrokerSettings) -> ConnectError {
    soon("a refusal", amqp::apply(settings, &NOTHING)).await.unwrap_err()
}

fn is_untrusted(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Untrusted { .. }) && !error.is_lasting()
}

#[tokio::test]
async fn a_broker_is_trusted_for_its_authority_and_its_name() {
    let authority = Authority::new();
    let node = Node::start_with_tls(authority.folder(), false).await;
    let url = |host: &str| format!("amqps://guest:guest@{host}:{}/t1", node.tls_port());

    let trusted = settings(url("localhost"), Some(authority.ca_file()), None);
    soon("an answer", amqp::apply(&trusted, &NOTHING)).await.unwrap();

    let stranger = Authority::new();
    let error = refused(&settings(url("localhost"), Some(stranger.ca_file()), None)).await;
    assert!(is_untrusted(&error) && error.to_string().contains("UnknownIssuer"), "{error:?}");

    // The authorities of the system have not signed it either. (Where there are none, that is told.)
    let error = refused(&settings(url("localhost"), None, None)).await;
    let no_roots = matches!(error, ConnectError::Endpoint(EndpointError::Tls(TlsError::NoRoots { .. })));
    assert!(is_untrusted(&error) || no_roots, "{error:?}");

    // The certificate is made out to another name.
    let error = refused(&settings(url("127.0.0.1"), Some(authority.ca_file()), None)).await;
    assert!(is_untrusted(&error), "{error:?}");

    // TLS spoken to the port that does without, and the other way round.
    let plain = node.base().replacen("amqp:", "amqps:", 1).replacen("127.0.0.1", "localhost", 1);
    let error = refused(&settings(format!("{plain}/t1"), Some(authority.ca_file()), None)).await;
    assert!(matches!(error, ConnectError::NoAnswer { .. } | ConnectError::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broker_that_demands_a_certificate_gets_one_and_jobs_go_through() {
    let authority = Authority::new();
    let node = Node::start_with_tls(authority.folder(), true).await;
    let url = format!("amqps://guest:guest@localhost:{}/t1", node.tls_port());
    let own = authority.sign("worker.pem", "worker.key", "worker");

    // The broker may hang up before its reason is read.
    let turned_away = |error: &ConnectError| is_untrusted(error) || matches!(error, ConnectError::NoAnswer { .. });
    let error = refused(&settings(url.clone(), Some(authority.ca_file()), None)).await;
    assert!(turned_away(&error), "{error:?}");

    let other = Authority::new();
    let foreign = other.sign("worker.pem", "worker.key", "worker");
    let error = refused(&settings(url.clone(), Some(authority.ca_file()), Some(foreign))).await;
    assert!(turned_away(&error), "{error:?}");

    let rabbit = Rabbit { vhost: node.fresh_vhost(), settings: settings(url, Some(authority.ca_file()), Some(own)) };
    let (mut consumer, publisher, mut connectivity) = rabbit.start(&job_queue(), 4);
    consuming(&mut connectivity).await;
    publisher.publish(&jobs(), message("over TLS")).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(id_of(&delivery.message), "over TLS");
    acknowledge(delivery, &publisher).await;
    soon("closing", consumer.close()).await;
    amqp::remove(&rabbit.settings, &topology(&rabbit.settings)).await.unwrap();
}

#[test]
fn beyond_this_machine_it_is_tls_or_a_word_of_allowance() {
    let url = "amqp://acme:canary-4711@rabbitmq.example:5672/%2f";
    let error = Endpoint::of(&settings(url.to_owned(), None, None)).unwrap_err();
    assert!(matches!(error, EndpointError::Plaintext { .. }), "{error:?}");
    assert!(!error.to_string().contains("4711") && error.remedy().contains("broker.allow_plaintext"), "{error}");

    let allowed = BrokerSettings { allow_plaintext: true, ..settings(url.to_owned(), None, None) };
    Endpoint::of(&allowed).unwrap();
    Endpoint::of(&settings("amqp://guest:guest@127.0.0.1/%2f".to_owned(), None, None)).unwrap();
}

#[tokio::test]
async fn nobody_connects_who_is_not_allowed_to() {
    let settings = settings("amqp://guest:guest@rabbitmq.example/%2f".to_owned(), None, None);
    let error = refused(&settings).await;
    assert!(
        matches!(error, ConnectError::Endpoint(EndpointError::Plaintext { .. })) && error.is_lasting(),
        "{error:?}"
    );
    let error = soon("a refusal", amqp::probe(&settings)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Endpoint(_)), "{error:?}");
    assert!(amqp::pool::ChannelPool::new(&settings).is_err());
    assert!(amqp::letters::LetterBox::open(&settings, "any").await.is_err());
    assert!(amqp::remove(&settings, &NOTHING).await.is_err());
}

#[test]
fn files_that_cannot_serve_are_named_with_their_setting() {
    let authority = Authority::new();
    let url = || "amqps://guest:guest@rabbitmq.example/%2f".to_owned();
    let tls = |ca: PathBuf, identity| match Endpoint::of(&settings(url(), Some(ca), identity)) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    };
    let own = authority.sign("own.pem", "own.key", "own");
    Endpoint::of(&settings(url(), Some(authority.ca_file()), Some(own.clone()))).unwrap();

    let missing = authority.folder().join("missing.pem");
    assert!(tls(missing.clone(), None).starts_with("`broker.tls_ca_file`: `"));
    let told = tls(authority.ca_file(), Some((missing.clone(), own.1.clone())));
    assert!(told.starts_with("`broker.tls_certificate_file`: `") && told.contains("cannot be read"), "{told}");
    // A key where certificates are expected, and a certificate where a key is.
    assert!(tls(own.1.clone(), None).ends_with("holds no certificate in PEM"));
    assert!(tls(authority.ca_file(), Some((own.1.clone(), own.1.clone()))).ends_with("holds no certificate in PEM"));
    assert!(tls(authority.ca_file(), Some((own.0.clone(), own.0.clone()))).ends_with("holds no private key in PEM"));
    // Both are sound, and do not belong together.
    let other = authority.sign("other.pem", "other.key", "other");
    let told = tls(authority.ca_file(), Some((own.0.clone(), other.1)));
    assert!(told.contains("do not go together"), "{told}");
    // A key for everybody.
    std::fs::set_permissions(&own.1, std::fs::Permissions::from_mode(0o604)).unwrap();
    let told = tls(authority.ca_file(), Some(own.clone()));
    assert!(told.contains("has mode 604"), "{told}");
    std::fs::set_permissions(&own.1, std::fs::Permissions::from_mode(0o640)).unwrap();
    Endpoint::of(&settings(url(), Some(authority.ca_file()), Some(own.clone()))).unwrap();
    // Certificates for a URL that makes no use of them.
    let plain = settings("amqp://guest:guest@localhost/%2f".to_owned(), Some(authority.ca_file()), None);
    let told = Endpoint::of(&plain).unwrap_err().to_string();
    assert!(told.starts_with("`broker.tls_ca_file` is set"), "{told}");
}
