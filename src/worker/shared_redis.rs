//! The connection to the Redis that workers share: made anew wherever a command did not succeed on it.
//!
//! Used by `shared`. The crate's own manager connects again where a connection broke. It keeps one that is silent, since to it a timeout
//! breaks nothing, until the kernel gives the socket up after a quarter of an hour; one that leads to a server that is no longer the
//! one to write to; and for ever the refusal of one whose greeting the server did not like. With `shared` the only user of the crate redis.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo as _, RedisError};
use tokio::time::{Instant, timeout};

use crate::limits::SHARED_REPLAY_LIMIT;

/// What an attempt to connect, a pause and another attempt may take: a connection is given as long before another is put in its place.
const CONNECTING: Duration = SHARED_REPLAY_LIMIT.saturating_mul(3);

/// A Redis, connected to when it is first asked. Clones share the connection.
#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    current: Arc<Mutex<Current>>,
}

struct Current {
    manager: ConnectionManager,
    since: Instant,
    /// How many there were before.
    number: u64,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its client holds a password.
        formatter.write_str("Redis")
    }
}

impl Redis {
    /// The Redis at `url`. Needs a tokio runtime.
    ///
    /// # Errors
    /// For a URL that is none.
    pub(super) fn new(url: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(tcp))?;
        let current = Current { manager: lazily_connected(&client)?, since: Instant::now(), number: 0 };
        Ok(Self { client, current: Arc::new(Mutex::new(current)) })
    }

    /// Where it is.
    pub(super) fn address(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    /// What it says to `command`.
    ///
    /// # Errors
    /// What went wrong, in words. The next command has another connection then.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let (mut manager, number) = {
            let current = self.lock();
            (current.manager.clone(), current.number)
        };
        let limit = SHARED_REPLAY_LIMIT * 2;
        let said = match timeout(limit, command.query_async(&mut manager)).await {
            Ok(said) => said.map_err(|error| error.to_string()),
            Err(_) => Err(format!("nothing came within {limit:?}")),
        };
        if said.is_err() {
            self.replace(number);
        }
        said
    }

    /// Puts another connection in the place of number `failed`; for all that fail on it together, and not too often.
    fn replace(&self, failed: u64) {
        let mut current = self.lock();
        if current.number != failed || current.since.elapsed() < CONNECTING {
            return;
        }
        match lazily_connected(&self.client) {
            Ok(manager) => *current = Current { manager, since: Instant::now(), number: failed + 1 },
            Err(error) => tracing::error!(category = error.category(), "no connection to the Redis can be made"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Each change is a single one.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lazily_connected(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(SHARED_REPLAY_LIMIT))
        .set_response_timeout(Some(SHARED_REPLAY_LIMIT));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// More than some silent answers and pauses take.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// What a server says to a command on its connection of that number; nothing where `None`.
    type Server = fn(number: usize, command: &[u8]) -> Option<&'static str>;

    async fn serve(mut connection: TcpStream, number: usize, server: Server) {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = connection.read(&mut bytes).await {
            let read = bytes.get(..count).unwrap_or_default();
            // A command begins with a star, and nothing in these tests has another.
            for command in read.split(|byte| *byte == b'*').filter(|command| !command.is_empty()) {
                let Some(word) = server(number, command) else { continue };
                if connection.write_all(word.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }

    fn is(command: &[u8], name: &str) -> bool {
        command.windows(name.len()).any(|part| part == name.as_bytes())
    }

    /// Asks until it is answered, which it is not at first.
    async fn is_asked_until_it_answers(server: Server) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = Redis::new(&format!("redis://:secret@{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            for number in 0.. {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, number, server));
            }
        });
        let ping = redis::cmd("PING");
        redis.query::<String>(&ping).await.unwrap_err();
        let asked = async {
            while redis.query::<String>(&ping).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asked).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_falls_silent_is_given_up() {
        is_asked_until_it_answers(|number, command| (number > 0 || !is(command, "PING")).then_some("+OK\r\n")).await;
    }

    #[tokio::test]
    async fn a_greeting_that_was_refused_is_tried_again() {
        is_asked_until_it_answers(|number, command| {
            let refused = number < 4 && is(command, "AUTH");
            Some(if refused { "-ERR AUTH called without any password configured\r\n" } else { "+OK\r\n" })
        })
        .await;
    }
}
