//! `inferq health`: asks a worker over HTTP whether it takes jobs. It is what a container's health check runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::failure::{Exit, Failure};
use super::output::{print, print_json};
use super::{Context, block_on};

/// The longest answer that is read; a worker's is a line.
const MAX_ANSWER_BYTES: u64 = 16 * 1_024;

/// Ask a running worker whether it takes jobs
///
/// Asks /readyz at telemetry.listen, over loopback where that is every address. Exit code 0 for a worker that consumes
/// jobs, 1 for one that does not, or that does not answer; what it says is printed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HealthArgs {
    /// Where the worker's /readyz is [default: telemetry.listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
    /// How long to wait for its answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2_000)]
    timeout_ms: u64,
    /// Print JSON: {ready, answer}
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  inferq health
  inferq health --address 127.0.0.1:9464 --timeout-ms 500

In a Dockerfile:
  HEALTHCHECK CMD [\"inferq\", \"health\"]";

pub(super) fn run(args: HealthArgs, context: &Context) -> Result<(), Failure> {
    let address = args.address.or(context.settings.telemetry.listen).filter(|address| address.port() != 0);
    let Some(address) = address.map(reachable) else {
        let message = "`telemetry.listen` names no port to ask";
        return Err(Failure::new(Exit::Invalid, message).with_help("set telemetry.listen, or give --address"));
    };
    let limit = Duration::from_millis(args.timeout_ms);
    let answer = block_on(async move {
        match tokio::time::timeout(limit, ask(address)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unanswered(address, &error.to_string())),
            Err(_) => Err(unanswered(address, &format!("no answer within {limit:?}"))),
        }
    })?;
    let (ready, words) = understand(&answer)
        .ok_or_else(|| unanswered(address, "what answers there is no worker: the answer is not HTTP"))?;
    if args.json {
        print_json(&json!({ "ready": ready, "answer": words }))?;
    }
    match (ready, args.json) {
        (true, true) => Ok(()),
        (true, false) => print(&format!("{words}\n")),
        (false, _) => Err(Failure::new(Exit::Failed, format!("the worker at {address} answers: {words}"))),
    }
}

fn unanswered(address: SocketAddr, reason: &str) -> Failure {
    Failure::new(Exit::Failed, format!("no worker answers at {address}: {reason}"))
        .with_help("check that the worker runs, and that its telemetry.listen is this address")
}

/// The address to connect to for one that is listened on: every address includes loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(address, listen.port())
}

/// Whether the worker at `address` consumes jobs; false where nobody answers.
pub(super) async fn is_ready(address: SocketAddr) -> bool {
    let answer = ask(address).await.ok();
    answer.is_some_and(|answer| understand(&answer).is_some_and(|(ready, _)| ready))
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the worker is ready, and its words; `None` for what is no answer of HTTP.
fn understand(answer: &str) -> Option<(bool, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split_whitespace().next()?;
    Some((status == "200", body.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_over_loopback() {
        assert_eq!(reachable("0.0.0.0:9".parse().unwrap()).to_string(), "127.0.0.1:9");
        assert_eq!(reachable("[::]:9".parse().unwrap()).to_string(), "[::1]:9");
        assert_eq!(reachable("10.0.0.1:9".parse().unwrap()).to_string(), "10.0.0.1:9");
    }

    #[test]
    fn only_a_plain_200_is_ready() {
        assert_eq!(understand("HTTP/1.1 200 OK\r\na: b\r\n\r\nready\n"), Some((true, "ready".into())));
        let unready = "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: draining\n";
        assert_eq!(understand(unready), Some((false, "not ready: draining".into())));
        assert_eq!(understand("HTTP/1.1 2001 x\r\n\r\n"), Some((false, String::new())));
        assert_eq!(understand("SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(understand(""), None);
    }
}
