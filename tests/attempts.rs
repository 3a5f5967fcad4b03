//! Attempts to connect that nobody answers, as of a broker whose process is frozen or a load balancer with nothing behind it. A program
//! of its own: it counts lapin's threads, and no other test here has any.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use inferq::broker::amqp::{ConnectError, probe};
use inferq::settings::{BrokerSettings, TlsSettings};
use support::certificates::Authority;
use support::{PATIENCE, broker_settings, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::timeout;

const ATTEMPTS: usize = 4;
const LIMIT: Duration = Duration::from_millis(500);

/// Threads of lapin's in this process.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread that ends meanwhile has no name any more.
    tasks
        .filter(|task| std::fs::read_to_string(task.as_ref().unwrap().path().join("comm")).is_ok_and(is_lapins))
        .count()
}

fn is_lapins(name: String) -> bool {
    name.trim_end() == "lapin-io-loop"
}

async fn all_threads_have_ended(case: &str) {
    let ended = timeout(PATIENCE, async {
        while threads() > 0 {
            yield_now().await;
        }
    });
    assert!(ended.await.is_ok(), "{case}: {} threads are left behind", threads());
}

fn settings(scheme: &str, port: u16, ca_file: Option<PathBuf>) -> BrokerSettings {
    let url = format!("{scheme}://guest:guest@127.0.0.1:{port}/%2f");
    let tls = TlsSettings { ca_file, identity: None };
    BrokerSettings { connect_timeout: LIMIT, tls, ..broker_settings(url.into()) }
}

async fn goes_unanswered(settings: &BrokerSettings) {
    let error = soon("an error", probe(settings)).await.unwrap_err();
    assert!(matches!(&error, ConnectError::NoAnswer { reason, .. } if reason == "no answer within 500ms"), "{error:?}");
}

/// The first word of a broker: `connection.start`.
fn start() -> Vec<u8> {
    let mut method = vec![0, 10, 0, 10, 0, 9];
    method.extend([0, 0, 0, 0]);
    for text in ["PLAIN", "en_US"] {
        method.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        method.extend(text.as_bytes());
    }
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(method.len()).unwrap().to_be_bytes());
    frame.extend(method);
    frame.push(0xCE);
    frame
}

/// Several attempts at a listener that says `words` and nothing else.
async fn attempts_end(case: &str, scheme: &str, ca_file: Option<PathBuf>, words: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(scheme, listener.local_addr().unwrap().port(), ca_file);
    let mut taken = Vec::new();
    for _ in 0..ATTEMPTS {
        let take = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(words).await.unwrap();
            socket
        };
        let (socket, ()) = soon(case, async { tokio::join!(take, goes_unanswered(&settings)) }).await;
        taken.push(socket);
    }
    for mut socket in taken {
        // It ends in order or with a reset.
        let _either = soon(case, socket.read_to_end(&mut Vec::new())).await;
    }
    all_threads_have_ended(case).await;
}

/// Regression: lapin's thread waited for ever, with its socket, for the answer of an attempt that had been given up.
#[tokio::test]
async fn an_attempt_that_nobody_answers_leaves_neither_thread_nor_socket() {
    assert_eq!(threads(), 0);
    let authority = Authority::new();
    attempts_end("nothing is said", "amqp", None, &[]).await;
    attempts_end("nothing is said after the first word", "amqp", None, &start()).await;
    attempts_end("nothing is said to TLS", "amqps", Some(authority.ca_file()), &[]).await;

    // Nobody takes the connection: the queue of the listener is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    goes_unanswered(&settings("amqp", address.port(), None)).await;
    all_threads_have_ended("nobody takes the connection").await;
}
