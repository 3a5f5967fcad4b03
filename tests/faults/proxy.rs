//! A TCP proxy between a worker and its broker, which resets connections when it is told to.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// Counts the resets: a connection ends when it changes.
    resets: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `broker`.
    pub async fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (resets, seen) = watch::channel(0);
        Self { address, resets, accepting: tokio::spawn(accept(listener, broker, seen)) }
    }

    /// Breaks every connection with a TCP reset; how many there were.
    pub fn reset_all(&self) -> usize {
        // One receiver belongs to the accepting task.
        let connections = self.resets.receiver_count().saturating_sub(1);
        self.resets.send_modify(|count| *count += 1);
        connections
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, broker: SocketAddr, resets: watch::Receiver<u64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (worker, _) = accepted.unwrap();
                let mut resets = resets.clone();
                resets.mark_unchanged();
                connections.spawn(forward(worker, broker, resets));
            }
            Some(ended) = connections.join_next() => ended.unwrap(),
        }
    }
}

async fn forward(mut worker: TcpStream, broker: SocketAddr, mut resets: watch::Receiver<u64>) {
    // A broker that is not there ends the connection, as it would without a proxy.
    let Ok(mut upstream) = TcpStream::connect(broker).await else { return };
    worker.set_nodelay(true).unwrap();
    upstream.set_nodelay(true).unwrap();
    let reset = tokio::select! {
        _either = copy_bidirectional(&mut worker, &mut upstream) => false,
        changed = resets.changed() => changed.is_ok(),
    };
    if reset {
        // Closing without lingering sends RST instead of FIN. The socket may have been closed by its peer meanwhile.
        let _either = (worker.set_zero_linger(), upstream.set_zero_linger());
    }
}
