//! A connection that is closed whatever becomes of its owner.
//!
//! lapin closes a connection when its last handle is dropped. A request whose limit was over before its answer came keeps
//! such a handle: a consumer that the broker grants late then stands on a connection that nobody knows any more, and holds
//! as many messages as its prefetch allows for as long as the process lives. So every connection is closed in so many words.

use std::ops::Deref;
use std::sync::Arc;

use lapin::Connection;
use tokio::runtime::Handle;

use super::connect::goodbye;

/// An open connection. Dropped, it says goodbye in the background, and what was not written before may be lost.
#[derive(Debug)]
pub(super) struct Connected(Arc<Connection>);

impl Connected {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Arc::new(connection))
    }

    /// Closes it: what was written before has reached the broker when this returns.
    pub(super) async fn close(self) {
        goodbye(&self.0).await;
    }
}

impl Deref for Connected {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if !self.status().connected() {
            return;
        }
        // Nobody owns this task: whoever would await it has gone without a word, which is why it is needed, and may not wait in a
        // drop. It ends within the limit of a goodbye, and nothing but this connection depends on it.
        // Without a runtime the process is at its end, and its sockets with it.
        if let Ok(runtime) = Handle::try_current() {
            let connection = Arc::clone(&self.0);
            runtime.spawn(async move { goodbye(&connection).await });
        }
    }
}
