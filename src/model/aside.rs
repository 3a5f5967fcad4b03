//! Work that must not be felt by the jobs beside it: on a thread of its own, of the least priority.
//!
//! Used by the watcher to build models. A thread of a pool would keep the priority that it was given.

use rustix::process::setpriority_process;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The least priority that there is: it runs when nothing else would.
const LEAST: i32 = 19;

/// Runs `work` on such a thread, inside the runtime; nothing comes of work that panics.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let runtime = Handle::current();
    let on_thread = move || {
        let _inside = runtime.enter();
        // Linux has a priority for each thread; where it cannot be set, the work is done all the same.
        if let Err(error) = setpriority_process(None, LEAST) {
            tracing::debug!(%error, "a thread keeps its priority");
        }
        // Whoever waited may have gone.
        drop(done.send(work()));
    };
    std::thread::Builder::new().name("model-build".to_owned()).spawn(on_thread).ok()?;
    result.await.ok()
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn the_priority_is_the_threads_own() {
        let before = getpriority_process(None).unwrap();
        assert_eq!(aside(|| getpriority_process(None).unwrap()).await, Some(LEAST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn a_panic_is_no_result() {
        assert_eq!(aside(|| -> u8 { panic!("as told") }).await, None);
    }
}
