//! HTTP/1.1 over kept connections, for mosec: as little of a client as there can be.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::road::LIMIT;
use super::{Fault, Result};

/// The way to an HTTP server on loopback.
pub(crate) struct HttpRoad {
    port: u16,
    idle: Mutex<Vec<TcpStream>>,
}

impl HttpRoad {
    /// The way to the server on `port`.
    pub(crate) const fn new(port: u16) -> Self {
        Self { port, idle: Mutex::new(Vec::new()) }
    }

    /// Posts `text` and waits for its label.
    pub(crate) async fn ask(&self, text: &str) -> Result<String> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let reply = timeout(LIMIT, post(&mut stream, self.port, &json!({ "text": text }))).await??;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        let label = reply.get("label").and_then(Value::as_str);
        label.map(str::to_owned).ok_or_else(|| Fault::from(format!("mosec: a reply without a label: {reply}")))
    }
}

async fn post(stream: &mut TcpStream, port: u16, body: &Value) -> Result<Value> {
    let body = body.to_string();
    let request = format!(
        "POST /inference HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err("mosec: the connection was closed".into());
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split_whitespace().nth(1)).unwrap_or("no status");
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.ok_or("mosec: a reply without content-length")?;
        if rest.len() >= length {
            if status != "200" {
                return Err(format!("mosec: status {status}: {rest}").into());
            }
            return Ok(serde_json::from_str(rest)?);
        }
    }
}
