//! `/metrics`, `/livez` and `/readyz` over HTTP.
//!
//! Started by the worker, asked by Prometheus, by an orchestrator and by `inferq health`. It only reads: nothing that
//! comes in over it changes the worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::health::Readiness;
use super::metrics::Metrics;

/// How long answers under way may take once the server is asked to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The server; stopped by [`TelemetryServer::stop`], or at once when it is dropped.
#[derive(Debug)]
pub struct TelemetryServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

/// Listens on `listen` (port 0 for a free one) and answers until it is stopped.
///
/// # Errors
/// When the address cannot be listened on; the error names it.
pub async fn serve(listen: SocketAddr, metrics: Arc<Metrics>, readiness: Readiness) -> io::Result<TelemetryServer> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("`telemetry.listen` {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(named)?;
    let address = listener.local_addr().map_err(named)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        // The sender sends or is dropped: both mean to stop.
        let signal = async move { _ = stopped.await };
        if let Err(error) = axum::serve(listener, routes(metrics, readiness)).with_graceful_shutdown(signal).await {
            tracing::error!(%error, "the telemetry server has failed");
        }
    });
    Ok(TelemetryServer { address, stop, task })
}

impl TelemetryServer {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening and lets answers under way end.
    pub async fn stop(self) {
        let Self { stop, mut task, .. } = self;
        drop(stop);
        if tokio::time::timeout(STOP_GRACE, &mut task).await.is_err() {
            // A peer that does not read its answer does not keep the worker.
            task.abort();
        }
    }
}

fn routes(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(exposition))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics, readiness })
}

async fn exposition(State(shared): State<Shared>) -> Response {
    ([(CONTENT_TYPE, OPENMETRICS)], shared.metrics.exposition()).into_response()
}

async fn alive(State(shared): State<Shared>) -> Response {
    match shared.readiness.state() {
        state if state.is_alive() => "alive\n".into_response(),
        state => (StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")).into_response(),
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    let state = shared.readiness.state();
    let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{state}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::super::health::State as Health;
    use super::*;

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_follows_the_worker_and_says_why_not() {
        let (setter, readiness) = Readiness::channel("loading models");
        let server = serve(ANY_PORT, Arc::new(Metrics::new("w", &[])), readiness).await.unwrap();
        let answer = ask(server.address(), "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: loading models\n"), "{answer}");
        setter.set(Health::Ready);
        let answer = ask(server.address(), "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nready\n"), "{answer}");
        setter.set(Health::Draining);
        assert!(ask(server.address(), "/readyz").await.starts_with("HTTP/1.1 503"));
        assert!(ask(server.address(), "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(ask(server.address(), "/elsewhere").await.starts_with("HTTP/1.1 404"));
        server.stop().await;
    }

    #[tokio::test]
    async fn a_worker_that_has_to_be_replaced_is_not_alive() {
        let (setter, readiness) = Readiness::channel("starting");
        let server = serve(ANY_PORT, Arc::new(Metrics::new("w", &[])), readiness).await.unwrap();
        assert!(ask(server.address(), "/livez").await.starts_with("HTTP/1.1 200"));
        setter.set(Health::Dead("a run does not end".to_owned()));
        let answer = ask(server.address(), "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("dead: a run does not end\n"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn metrics_come_as_openmetrics() {
        let (_setter, readiness) = Readiness::channel("starting");
        let metrics = Arc::new(Metrics::new("w", &["topic".to_owned()]));
        metrics.received("topic", false);
        let server = serve(ANY_PORT, metrics, readiness).await.unwrap();
        let answer = ask(server.address(), "/metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
        assert!(answer.contains("inferq_jobs_received_total{model=\"topic\"} 1\n"), "{answer}");
        assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_does_not_hold_up_the_stop() {
        let (_setter, readiness) = Readiness::channel("starting");
        let server = serve(ANY_PORT, Arc::new(Metrics::new("w", &[])), readiness).await.unwrap();
        let address = server.address();
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET /met").await.unwrap();
        tokio::time::timeout(STOP_GRACE * 3, server.stop()).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = TcpListener::bind(ANY_PORT).await.unwrap();
        let address = taken.local_addr().unwrap();
        let (_setter, readiness) = Readiness::channel("starting");
        let error = serve(address, Arc::new(Metrics::new("w", &[])), readiness).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("`telemetry.listen` {address}: ")), "{error}");
    }
}
