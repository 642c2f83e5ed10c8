//! Hearing what happens, in this process.
//!
//! Every stream of events has its own place in what the pond remembers of late, so that a slow one costs the others nothing; one
//! that falls too far behind is told that it missed something, and goes on. A listener is a stream with a function, in a task of
//! its own: if it fails or panics, that is counted, and the next event comes all the same.

mod adaptors;
mod listener;
mod order;

pub use adaptors::{Batch, Debounce, Throttle};
pub use listener::{Heard, Listener};
pub(crate) use order::Order;

use crate::Pond;
use listener::{run_async, run_sync};
use model::{Event, EventFilter, EventId};
use order::Place;
use std::{future::Future, time::Duration};

/// Something that yields items one after the other; [`EventStream`] and what is made of it.
pub trait Stream: Send + 'static {
    /// What comes.
    type Item: Send;

    /// The next item; `None` when the pond has closed. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Self::Item>> + Send;

    /// Once nothing has come for `quiet`, the newest item. Everything before it is left out.
    fn debounce(self, quiet: Duration) -> Debounce<Self>
    where
        Self: Sized,
    {
        Debounce::new(self, quiet)
    }

    /// An item at once, and from then on at most one in each `span`: the newest.
    fn throttle(self, span: Duration) -> Throttle<Self>
    where
        Self: Sized,
    {
        Throttle::new(self, span)
    }

    /// Items in lists of up to `max`; a list that is not full comes `wait` after its first item.
    fn batch(self, max: usize, wait: Duration) -> Batch<Self>
    where
        Self: Sized,
    {
        Batch::new(self, max, wait)
    }

    /// Calls `listener` with every item, in a task of its own, until the guard is dropped. It may return nothing or a `Result`. It
    /// should not block: for that there is [`Stream::on_async`]. Must be called inside a tokio runtime.
    fn on<F, R>(self, listener: F) -> Listener
    where
        Self: Sized,
        F: FnMut(Self::Item) -> R + Send + 'static,
        R: Heard + 'static,
    {
        Listener::spawn(|notes| run_sync(self, listener, notes))
    }

    /// The same with an async function; the next item waits for its end.
    fn on_async<F, R>(self, listener: F) -> Listener
    where
        Self: Sized,
        F: FnMut(Self::Item) -> R + Send + 'static,
        R: Future<Output: Heard> + Send + 'static,
    {
        Listener::spawn(|notes| run_async(self, listener, notes))
    }
}

/// The events that a filter wants, from now on.
pub struct EventStream {
    source: crate::backend::Events,
    filter: EventFilter,
    missed: u64,
    on_missed: Option<Box<dyn FnMut(EventId) + Send>>,
    place: Place,
}

impl EventStream {
    /// Hears each event before streams of higher order do; the default is 0. The others wait for it, but not long: one that takes
    /// more than 100 ms is passed, and no longer waited for until it has caught up.
    #[must_use]
    pub fn order(mut self, order: i32) -> Self {
        self.place.set_order(order);
        self
    }

    /// Hears each event before those that do not say so: [`EventStream::order`] of -1.
    #[must_use]
    pub fn before_others(self) -> Self {
        self.order(-1)
    }

    /// Calls `told` when events were missed because this stream was read too slowly; what is behind the id follows.
    #[must_use]
    pub fn on_missed(mut self, told: impl FnMut(EventId) + Send + 'static) -> Self {
        self.on_missed = Some(Box::new(told));
        self
    }

    /// How often events were missed.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Stream for EventStream {
    type Item = Event;

    async fn next(&mut self) -> Option<Event> {
        // Whoever asks for the next has done with the one before.
        self.place.done();
        loop {
            match self.source.next().await? {
                Ok(event) if self.filter.wants(&event) => {
                    self.place.turn(event.id).await;
                    return Some(event);
                }
                Ok(event) => self.place.passed(event.id),
                Err(gone) => {
                    self.missed += 1;
                    self.place.passed(gone.since);
                    if let Some(told) = &mut self.on_missed {
                        told(gone.since);
                    }
                }
            }
        }
    }
}

impl Pond {
    /// The events that `filter` wants, from now on: a pattern of queue names (`"mail.*"`), an [`crate::EventKind`], a
    /// [`crate::State`], or an [`EventFilter`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), millpond::Error> {
    /// use millpond::{EventFilter, EventKind, Pond, State, Stream};
    ///
    /// let pond = Pond::in_memory().await?;
    /// let mut dead = pond.events(EventFilter::from("mail.*").state(State::Dead));
    /// let listener = pond.on(EventKind::Added, |event| println!("new in {}", event.queue));
    /// # let mail = pond.queue::<u32>("mail.eu")?;
    /// # mail.push(&1).attempts(1).await?;
    /// # let worker = mail.worker(|_, _| async { Err::<(), _>("no") }).start()?;
    /// let event = dead.next().await.expect("the pond is open");
    /// assert_eq!(event.queue.as_str(), "mail.eu");
    /// drop(listener); // unsubscribes
    /// # worker.stop().await;
    /// # pond.close().await }
    /// ```
    pub fn events(&self, filter: impl Into<EventFilter>) -> EventStream {
        EventStream {
            source: self.inner.backend.events(),
            filter: filter.into(),
            missed: 0,
            on_missed: None,
            place: self.inner.order.place(),
        }
    }

    /// Calls `listener` with every event that `filter` wants, until the guard is dropped: [`Pond::events`] and [`Stream::on`].
    pub fn on<R: Heard + 'static>(
        &self,
        filter: impl Into<EventFilter>,
        listener: impl FnMut(Event) -> R + Send + 'static,
    ) -> Listener {
        self.events(filter).on(listener)
    }

    /// The same with an async function.
    pub fn on_async<R: Future<Output: Heard> + Send + 'static>(
        &self,
        filter: impl Into<EventFilter>,
        listener: impl FnMut(Event) -> R + Send + 'static,
    ) -> Listener {
        self.events(filter).on_async(listener)
    }

    /// Calls `listener` with the first event that `filter` wants, unless the guard is dropped before.
    pub fn once<R: Heard + 'static>(
        &self,
        filter: impl Into<EventFilter>,
        listener: impl FnOnce(Event) -> R + Send + 'static,
    ) -> Listener {
        let (events, mut listener) = (self.events(filter), Some(listener));
        Listener::spawn(|notes| {
            let first = move |event| listener.take().map(|listener| listener(event));
            run_sync(adaptors::First::new(events), first, notes)
        })
    }
}
