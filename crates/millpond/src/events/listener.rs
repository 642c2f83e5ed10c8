//! A function that hears items in a task of its own.

use super::Stream;
use std::{
    any::Any,
    fmt::Display,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};
use tokio::task::JoinHandle;

/// What a listener may return: nothing, or a `Result` whose error is counted as a failure.
pub trait Heard: Send {
    /// The error's text, if there is one.
    fn failure(self) -> Option<String>;
}

impl Heard for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<T: Send, E: Display + Send> Heard for Result<T, E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:#}"))
    }
}

impl<T: Heard> Heard for Option<T> {
    fn failure(self) -> Option<String> {
        self.and_then(T::failure)
    }
}

/// What is known of a listener's calls.
#[derive(Debug, Default)]
pub(super) struct Notes {
    heard: AtomicU64,
    failures: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Notes {
    fn note(&self, failure: Option<String>) {
        if let Some(text) = failure {
            self.failures.fetch_add(1, Ordering::Relaxed);
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        self.heard.fetch_add(1, Ordering::Release);
    }
}

/// A listener's subscription. Dropping it unsubscribes.
#[derive(Debug)]
#[must_use = "a listener that is dropped hears nothing; keep it, or call `forever`"]
pub struct Listener {
    task: Option<JoinHandle<()>>,
    notes: Arc<Notes>,
}

impl Listener {
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(Arc<Notes>) -> F) -> Self {
        let notes = Arc::new(Notes::default());
        Self { task: Some(tokio::spawn(run(notes.clone()))), notes }
    }

    /// Goes on listening until the pond closes.
    pub fn forever(mut self) {
        self.task = None;
    }

    /// Waits until nothing more will come: the pond has closed, or it was once only and has been.
    pub async fn ended(mut self) {
        if let Some(task) = &mut self.task {
            // A panic of the listener is caught before it gets here.
            let _ = task.await;
        }
    }

    /// How many items it has heard.
    pub fn heard(&self) -> u64 {
        self.notes.heard.load(Ordering::Acquire)
    }

    /// How often it panicked or returned an error.
    pub fn failures(&self) -> u64 {
        self.notes.failures.load(Ordering::Relaxed)
    }

    /// What went wrong the last time.
    pub fn last_failure(&self) -> Option<String> {
        self.notes.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

pub(super) async fn run_sync<S: Stream, R: Heard>(
    mut stream: S,
    mut listener: impl FnMut(S::Item) -> R + Send,
    notes: Arc<Notes>,
) {
    while let Some(item) = stream.next().await {
        let failure = catch_unwind(AssertUnwindSafe(|| listener(item).failure()));
        notes.note(failure.unwrap_or_else(|panic| Some(text_of(&*panic))));
        // A listener with much to hear must not keep the thread from others.
        tokio::task::yield_now().await;
    }
}

pub(super) async fn run_async<S: Stream, R: Future<Output: Heard> + Send>(
    mut stream: S,
    mut listener: impl FnMut(S::Item) -> R + Send,
    notes: Arc<Notes>,
) {
    while let Some(item) = stream.next().await {
        let failure = match catch_unwind(AssertUnwindSafe(|| listener(item))) {
            Ok(future) => guarded(future).await,
            Err(panic) => Some(text_of(&*panic)),
        };
        notes.note(failure);
        tokio::task::yield_now().await;
    }
}

async fn guarded<R: Future<Output: Heard>>(future: R) -> Option<String> {
    let mut future = pin!(future);
    let polled = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(text_of(&*panic))),
    });
    match polled.await {
        Ok(heard) => heard.failure(),
        Err(text) => Some(text),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the listener panicked: {}", text.unwrap_or("with something that is not text"))
}
