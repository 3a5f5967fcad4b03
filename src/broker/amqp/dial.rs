//! Dials the broker for lapin, and hangs up when an attempt is given up. Called by `connect`.
//!
//! lapin goes on with an attempt that nobody waits for any more: its thread holds the connection that is to be, and waits for
//! the other side's next word without a limit; heartbeats begin when the connection is open. Where somebody takes connections and says
//! nothing, each attempt would leave a thread and a socket behind.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use tokio::select;
use tokio::sync::watch;

/// An attempt to connect. Dropped before it was [`answered`](Self::answered), it hangs up, so that lapin's thread ends.
#[derive(Debug)]
pub(super) struct Attempt(Arc<watch::Sender<Stage>>);

/// How far it is.
#[derive(Debug)]
enum Stage {
    Dialling,
    /// A second handle of lapin's socket.
    Open(TcpStream),
    /// Answered or given up.
    Over,
}

impl Attempt {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Stage::Dialling)))
    }

    /// Connects as lapin does by itself.
    pub(super) async fn connect(
        &self,
        uri: AMQPUri,
        properties: ConnectionProperties,
        certificates: OwnedTLSConfig,
    ) -> lapin::Result<Connection> {
        let stage = Arc::clone(&self.0);
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connector(
            uri,
            runtime,
            async move |uri, runtime| {
                let mut stages = stage.subscribe();
                let dialling = async {
                    let (host, port) = (uri.authority.host, uri.authority.port);
                    let addresses = runtime.to_socket_addrs((host.clone(), port));
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(socket) = &stream {
                        keep(&stage, socket.get_ref())?;
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => stream.into_tls(&host, certificates.as_ref()).await,
                    }
                };
                select! {
                    dialled = dialling => Ok(dialled?),
                    _ = stages.wait_for(|stage| matches!(stage, Stage::Over)) => Err(given_up().into()),
                }
            },
            properties,
        )
        .await
    }

    /// The other side has spoken, for or against: what is open now is lapin's alone.
    pub(super) fn answered(self) {
        self.0.send_replace(Stage::Over);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Stage::Open(socket) = self.0.send_replace(Stage::Over) {
            // lapin reads that the connection has ended.
            if let Err(error) = socket.shutdown(Shutdown::Both) {
                tracing::debug!(%error, "a connection that was given up had ended");
            }
        }
    }
}

/// Keeps a second handle of `socket` for the hanging up.
fn keep(stage: &watch::Sender<Stage>, socket: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = TcpStream::from(socket.as_fd().try_clone_to_owned()?);
    let mut kept = false;
    stage.send_if_modified(|stage| {
        kept = !matches!(stage, Stage::Over);
        if kept {
            *stage = Stage::Open(socket);
        }
        false
    });
    if kept { Ok(()) } else { Err(given_up()) }
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the attempt was given up")
}
