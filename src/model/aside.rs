//! Work that must not be felt by the jobs beside it: on a thread of its own, of the least priority.
//!
//! Used by the watcher to build models, and for what they leave behind. A thread of a pool would keep the priority that it was given.

use std::ops::Deref;

use rustix::process::setpriority_process;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The least priority that there is: it runs when nothing else would.
const LEAST: i32 = 19;

/// Why nothing came of such work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AsideError {
    #[error("it panicked")]
    Panicked,
    #[error("there is no thread for it: {0}")]
    NoThread(String),
}

/// Runs `work` on such a thread, inside the runtime.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AsideError> {
    let (done, result) = oneshot::channel();
    let runtime = Handle::current();
    let on_thread = move || {
        let _inside = runtime.enter();
        lower_priority();
        // Whoever waited may have gone.
        drop(done.send(work()));
    };
    std::thread::Builder::new()
        .name("model-build".to_owned())
        .spawn(on_thread)
        .map_err(|error| AsideError::NoThread(error.to_string()))?;
    result.await.map_err(|_| AsideError::Panicked)
}

/// Linux has a priority for each thread; where it cannot be set, the work is done all the same.
fn lower_priority() {
    if let Err(error) = setpriority_process(None, LEAST) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// What takes long to drop, such as the weights of a model: whoever lets go last, be it a job, does not wait for that.
#[derive(Debug)]
pub(super) struct DropsAside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> DropsAside<T> {
    pub(super) const fn new(content: T) -> Self {
        Self(Some(content))
    }
}

impl<T: Send + 'static> Deref for DropsAside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send + 'static> Drop for DropsAside<T> {
    fn drop(&mut self) {
        let content = self.0.take();
        let on_thread = move || {
            lower_priority();
            drop(content);
        };
        // Where there is no thread to be had, it is dropped here.
        drop(std::thread::Builder::new().name("model-drop".to_owned()).spawn(on_thread));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn the_priority_is_the_threads_own() {
        let before = getpriority_process(None).unwrap();
        assert_eq!(aside(|| getpriority_process(None).unwrap()).await, Ok(LEAST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn a_panic_is_no_result() {
        assert_eq!(aside(|| -> u8 { panic!("as told") }).await, Err(AsideError::Panicked));
    }

    /// Tells on which thread, and with what priority, it is dropped.
    struct Telling(mpsc::SyncSender<(std::thread::ThreadId, i32)>);

    impl Drop for Telling {
        fn drop(&mut self) {
            self.0.send((std::thread::current().id(), getpriority_process(None).unwrap())).unwrap();
        }
    }

    #[test]
    fn what_is_dropped_aside_is_dropped_elsewhere() {
        let (told, hears) = mpsc::sync_channel(1);
        drop(DropsAside::new(Telling(told)));
        let (thread, priority) = hears.recv().unwrap();
        assert!(thread != std::thread::current().id() && priority == LEAST);
    }
}
