//! Tasks with a name: a task that panics says so in the log instead of vanishing.
//!
//! What becomes of the program then is for its owner: [`Task::ended`] tells.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// A spawned task. Dropping it leaves the task running.
pub struct Task<T> {
    name: &'static str,
    handle: JoinHandle<T>,
}

/// Spawns a future on the current runtime, in a span of its name. The future is boxed: what is moved about stays small.
pub fn spawn<T: Send + 'static>(name: &'static str, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    let future: std::pin::Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    Task {
        name,
        handle: tokio::spawn(future.instrument(tracing::info_span!("task", task = name))),
    }
}

/// [`spawn`] for a task that must run as long as the program: its end, however it came about, is logged as an error.
pub fn spawn_forever(name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task<()> {
    let watched = spawn(name, future);
    let handle = tokio::spawn(async move {
        if watched.ended().await.is_some() {
            tracing::error!(task = name, "a task that must not end has ended");
        }
    });
    Task { name, handle }
}

impl<T> Task<T> {
    /// Waits for the end. `None`: the task panicked (which is logged) or was aborted.
    pub async fn ended(self) -> Option<T> {
        match self.handle.await {
            Ok(value) => Some(value),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(task = self.name, %error, "a task panicked");
                }
                None
            }
        }
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// A handle that can end the task from elsewhere.
    pub fn abort_handle(&self) -> tokio::task::AbortHandle {
        self.handle.abort_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_end_and_not_lost() {
        assert_eq!(spawn("fine", async { 7 }).ended().await, Some(7));
        assert_eq!(
            spawn("broken", async { panic!("on purpose") }).ended().await,
            None::<()>
        );
        spawn_forever("short", async {}).ended().await;
    }
}
