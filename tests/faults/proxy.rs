//! A TCP proxy between a service and its brokers, which makes the weather: resets, black holes, latency, narrow lines,
//! and writes of a single byte. With several brokers it is their load balancer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Bytes taken from a socket at once.
const CHUNK: usize = 16 << 10;
/// Bytes that a narrow line passes at once.
const NARROW_PIECE: usize = 1 << 10;
/// Chunks under way in one direction: what a line of that latency holds.
const CHUNKS_UNDER_WAY: usize = 64;
/// How long a broker may take to accept before the next one is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What every connection meets from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Nothing passes, and nobody is told.
    pub black_hole: bool,
    /// How long every byte is under way, in each direction.
    pub latency: Duration,
    /// Bytes a second, in each direction; as many as there are where it is none.
    pub bandwidth: Option<u32>,
    /// Bytes of one write; as many as there are where it is none.
    pub slice: Option<usize>,
}

impl Weather {
    /// Everything passes at once.
    pub const FAIR: Self = Self { black_hole: false, latency: Duration::ZERO, bandwidth: None, slice: None };
}

/// What a connection follows.
#[derive(Debug, Clone)]
struct Orders {
    /// Counts the resets: a connection ends when it changes.
    resets: watch::Receiver<u64>,
    weather: watch::Receiver<Weather>,
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    resets: watch::Sender<u64>,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `brokers`, each connection to the next one that accepts.
    pub async fn start(brokers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (resets, seen) = watch::channel(0);
        let (weather, met) = watch::channel(Weather::FAIR);
        let orders = Orders { resets: seen, weather: met };
        Self { address, resets, weather, accepting: tokio::spawn(accept(listener, brokers, orders)) }
    }

    /// Breaks every connection with a TCP reset; how many there were.
    pub fn reset_all(&self) -> usize {
        // One receiver belongs to the accepting task.
        let connections = self.resets.receiver_count().saturating_sub(1);
        self.resets.send_modify(|count| *count += 1);
        connections
    }

    /// Changes the weather for all connections, those that stand and those that come.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, mut brokers: Vec<SocketAddr>, orders: Orders) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (worker, _) = accepted.unwrap();
                let mut orders = orders.clone();
                orders.resets.mark_unchanged();
                connections.spawn(forward(worker, brokers.clone(), orders));
                brokers.rotate_left(1);
            }
            Some(ended) = connections.join_next() => ended.unwrap(),
        }
    }
}

async fn forward(mut worker: TcpStream, brokers: Vec<SocketAddr>, orders: Orders) {
    let Orders { mut resets, mut weather } = orders;
    if weather.wait_for(|now| !now.black_hole).await.is_err() {
        return;
    }
    // A broker that is not there ends the connection, as it would without a proxy.
    let Some(mut upstream) = first_of(&brokers).await else { return };
    worker.set_nodelay(true).unwrap();
    upstream.set_nodelay(true).unwrap();
    let (from_worker, to_worker) = worker.split();
    let (from_broker, to_broker) = upstream.split();
    // The end of one direction is the end of both: AMQP knows no half of a connection.
    let reset = tokio::select! {
        () = carry(from_worker, to_broker, weather.clone()) => false,
        () = carry(from_broker, to_worker, weather) => false,
        changed = resets.changed() => changed.is_ok(),
    };
    if reset {
        // Closing without lingering sends RST instead of FIN. The socket may have been closed by its peer meanwhile.
        let _either = (worker.set_zero_linger(), upstream.set_zero_linger());
    }
}

async fn first_of(brokers: &[SocketAddr]) -> Option<TcpStream> {
    for broker in brokers {
        if let Ok(Ok(stream)) = timeout(CONNECT_LIMIT, TcpStream::connect(broker)).await {
            return Some(stream);
        }
    }
    None
}

/// Carries one direction until it ends, through whatever weather there is.
async fn carry(mut reading: ReadHalf<'_>, mut writing: WriteHalf<'_>, mut weather: watch::Receiver<Weather>) {
    let (chunks, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let met = weather.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = reading.read(&mut buffer).await {
            let due = Instant::now() + met.borrow().latency;
            if chunks.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = waiting.recv().await {
            sleep_until(due).await;
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let Ok(now) = weather.wait_for(|now| !now.black_hole).await.map(|now| *now) else { return };
                let most = now.slice.unwrap_or(if now.bandwidth.is_some() { NARROW_PIECE } else { CHUNK });
                let (piece, later) = rest.split_at(rest.len().min(most));
                if writing.write_all(piece).await.is_err() {
                    return;
                }
                if let Some(bandwidth) = now.bandwidth {
                    sleep(Duration::from_secs_f64(piece.len() as f64 / f64::from(bandwidth))).await;
                }
                rest = later;
            }
        }
    };
    tokio::join!(read, write);
}
