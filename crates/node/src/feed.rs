//! The newest events of a node, for whoever wants to hear them: a ring that readers go through at their own pace.
//!
//! A reader keeps its own place, so that a slow or dead one costs the others, and the shard's thread, nothing. Who falls behind
//! the end of the ring is told so, and from where it can go on. Nothing is recorded before the first reader comes, and nothing
//! once the last one has been gone for [`LINGER`].

use model::{Effect, Event, EventId};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Events that are remembered at most.
pub const EVENTS_MAX: usize = 65_536;
/// Bytes of events that are remembered at most, roughly.
pub const EVENTS_BYTES_MAX: usize = 16 << 20;
/// Events handed to a reader at once.
const BATCH_MAX: usize = 512;
/// How long recording goes on for a reader that left and may come back to where it was.
const LINGER: Duration = Duration::from_secs(60);

/// A reader has asked for events that are no longer remembered, or never were: those before a restart, or before anybody listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// What is behind this can still be had; the reader goes on from here.
    pub since: EventId,
}

/// The ring.
pub(crate) struct Feed {
    state: Mutex<State>,
    grown: Notify,
    /// Read by the shard's thread before each batch, so that nobody waits for the lock when nobody listens.
    recording: AtomicBool,
}

#[derive(Default)]
struct State {
    readers: usize,
    /// When the last reader left.
    left: Option<Instant>,
    recording: bool,
    closed: bool,
    ring: VecDeque<Arc<[Event]>>,
    events: usize,
    bytes: usize,
    /// Where recording began.
    begun: EventId,
    /// Everything behind this is in the ring.
    since: EventId,
    /// Everything up to this has been told.
    upto: EventId,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), grown: Notify::new(), recording: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events are wanted. Called once for each batch.
    pub(crate) fn recording(&self) -> bool {
        if !self.recording.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        let over = state.readers == 0 && state.left.is_none_or(|left| left.elapsed() >= LINGER);
        if over {
            *state = State { closed: state.closed, ..State::default() };
            self.recording.store(false, Ordering::Release);
        }
        !over
    }

    /// Records from `position` on, if it does not already.
    pub(crate) fn begin(&self, position: u64) {
        let mut state = self.state();
        if !state.recording && state.readers > 0 {
            state.recording = true;
            state.since = EventId::end_of(position);
            (state.begun, state.upto) = (state.since, state.since);
            self.recording.store(true, Ordering::Release);
            self.grown.notify_waiters();
        }
    }

    /// Adds what happened up to `position`.
    pub(crate) fn publish(&self, effects: &[Effect], position: u64) {
        let events = Event::of(effects);
        let mut state = self.state();
        state.upto = EventId::end_of(position);
        debug_assert!(
            events.last().is_none_or(|event| event.id <= state.upto),
            "events are told when they happened"
        );
        if events.is_empty() {
            return;
        }
        for batch in events.chunks(BATCH_MAX) {
            state.events += batch.len();
            state.bytes += batch.iter().map(Event::bytes).sum::<usize>();
            state.ring.push_back(batch.into());
        }
        while (state.events > EVENTS_MAX || state.bytes > EVENTS_BYTES_MAX)
            && let Some(oldest) = state.ring.pop_front()
        {
            state.events -= oldest.len();
            state.bytes -= oldest.iter().map(Event::bytes).sum::<usize>();
            state.since = oldest.last().map_or(state.since, |event| event.id);
        }
        drop(state);
        self.grown.notify_waiters();
    }

    /// Lets every reader end once it has read the rest.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.grown.notify_waiters();
    }
}

/// A reader of events.
pub struct Events {
    feed: Arc<Feed>,
    /// Everything up to this was read; `None` until recording has begun.
    after: Option<EventId>,
    batch: Batch,
    returns: bool,
}

#[derive(Default)]
struct Batch {
    events: Option<Arc<[Event]>>,
    next: usize,
}

impl Events {
    /// A reader of what happens from now on, or behind `after`; and whether recording is still to be begun.
    pub(crate) fn new(feed: Arc<Feed>, after: Option<EventId>) -> (Self, bool) {
        let mut state = feed.state();
        state.readers += 1;
        let begin = !state.recording;
        let after = after.or((!begin).then_some(state.upto));
        drop(state);
        (Self { feed, after, batch: Batch::default(), returns: true }, begin)
    }

    /// This reader will not come back to where it was: nothing is kept for it once it is dropped.
    #[must_use]
    pub fn briefly(mut self) -> Self {
        self.returns = false;
        self
    }

    /// The next event; waits for it. `None` when the pond has stopped. After [`Gone`] it goes on with the oldest that is remembered.
    pub async fn next(&mut self) -> Option<Result<Event, Gone>> {
        loop {
            if let Some(news) = self.ready() {
                return Some(news);
            }
            let feed = self.feed.clone();
            // Registered before the look, so that what comes between look and wait is not missed.
            let grown = feed.grown.notified();
            match self.look() {
                Look::Found => {}
                Look::Gone(gone) => return Some(Err(gone)),
                Look::Closed => return None,
                Look::Nothing => grown.await,
            }
        }
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Result<Event, Gone>> {
        loop {
            if let Some(news) = self.ready() {
                return Some(news);
            }
            match self.look() {
                Look::Found => {}
                Look::Gone(gone) => return Some(Err(gone)),
                Look::Closed | Look::Nothing => return None,
            }
        }
    }

    /// Everything up to here was read, by this reader.
    pub fn position(&self) -> Option<EventId> {
        self.after
    }

    fn ready(&mut self) -> Option<Result<Event, Gone>> {
        let event = self.batch.events.as_ref()?.get(self.batch.next)?.clone();
        self.batch.next += 1;
        self.after = Some(event.id);
        Some(Ok(event))
    }

    fn look(&mut self) -> Look {
        let state = self.feed.state();
        if !state.recording {
            return if state.closed { Look::Closed } else { Look::Nothing };
        }
        // Who came before recording began reads from there.
        let after = self.after.unwrap_or(state.begun);
        // A place ahead of ours is of another life of this directory.
        if after < state.since || after > state.upto {
            self.after = Some(state.since);
            return Look::Gone(Gone { since: state.since });
        }
        let index = state.ring.partition_point(|batch| batch.last().is_none_or(|event| event.id <= after));
        let Some(events) = state.ring.get(index) else {
            // So that a long silence is no distance.
            self.after = Some(after.max(state.upto));
            return if state.closed { Look::Closed } else { Look::Nothing };
        };
        let next = events.partition_point(|event| event.id <= after);
        self.after = Some(after);
        self.batch = Batch { events: Some(events.clone()), next };
        Look::Found
    }
}

enum Look {
    Found,
    Gone(Gone),
    Closed,
    Nothing,
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.feed.state();
        state.readers -= 1;
        if state.readers == 0 && self.returns {
            state.left = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{QueueChange, QueueName};

    fn paused(position: u64) -> Effect {
        let queue = QueueName::new("mail").unwrap();
        Effect::Queue { queue, change: QueueChange::Paused, at: kit::Timestamp(0), position }
    }

    fn reader(feed: &Arc<Feed>, after: Option<&str>) -> Events {
        let (events, begin) = Events::new(feed.clone(), after.map(|id| id.parse().unwrap()));
        if begin {
            feed.begin(10);
        }
        events
    }

    fn rest(events: &mut Events) -> Vec<String> {
        std::iter::from_fn(|| events.try_next())
            .map(|next| match next {
                Ok(event) => event.id.to_string(),
                Err(gone) => format!("gone {}", gone.since.position),
            })
            .collect()
    }

    #[test]
    fn a_reader_hears_what_comes_after_it_and_another_can_go_on_where_one_left() {
        let feed = Arc::new(Feed::new());
        assert!(!feed.recording(), "nobody asked");
        let mut first = reader(&feed, None);
        assert!(feed.recording());
        feed.publish(&[paused(11), paused(11), paused(12)], 12);
        assert_eq!(first.try_next().unwrap().unwrap().id.to_string(), "11.0");
        assert_eq!(rest(&mut first), ["11.1", "12.0"]);
        assert_eq!(rest(&mut first), [""; 0]);
        assert_eq!(rest(&mut reader(&feed, None)), [""; 0], "the past is not told to who did not ask");
        assert_eq!(rest(&mut reader(&feed, Some("11.0"))), ["11.1", "12.0"]);
        assert_eq!(rest(&mut reader(&feed, Some("10"))), ["11.0", "11.1", "12.0"]);
        drop(first);
        feed.publish(&[paused(13)], 14);
        assert!(feed.recording(), "for a while it waits for those who left");
        assert_eq!(rest(&mut reader(&feed, Some("12.0"))), ["13.0"]);
        assert_eq!(rest(&mut reader(&feed, Some("14"))), [""; 0]);
    }

    #[test]
    fn who_asks_for_what_is_not_remembered_is_told_from_where_it_goes_on() {
        let feed = Arc::new(Feed::new());
        let mut old = reader(&feed, Some("9"));
        feed.publish(&[paused(11)], 11);
        assert_eq!(rest(&mut old), ["gone 10", "11.0"]);
        assert_eq!(rest(&mut reader(&feed, Some("12.0"))), ["gone 10", "11.0"], "of another life");
        let many: Vec<_> = (12..12 + EVENTS_MAX as u64 + 5).map(paused).collect();
        for (batch, round) in many.chunks(100).zip(1..) {
            feed.publish(batch, 11 + 100 * round);
        }
        let state = feed.state();
        assert!(state.events <= EVENTS_MAX && state.bytes <= EVENTS_BYTES_MAX);
        assert_eq!(state.events, state.ring.iter().map(|batch| batch.len()).sum());
        drop(state);
        let heard = rest(&mut old);
        assert!(heard[0].starts_with("gone "), "{}", heard[0]);
        assert_eq!(heard.last().unwrap(), &format!("{}.0", 11 + EVENTS_MAX + 5));
        let since = heard[0].strip_prefix("gone ").unwrap().parse::<usize>().unwrap();
        assert_eq!(heard.len() - 1, 11 + EVENTS_MAX + 5 - since, "nothing is missing behind the gap");
    }

    #[test]
    fn when_the_last_reader_has_been_gone_for_long_nothing_is_kept() {
        let feed = Arc::new(Feed::new());
        drop(reader(&feed, None));
        feed.publish(&[paused(11)], 11);
        feed.state().left = Instant::now().checked_sub(LINGER);
        assert!(!feed.recording());
        assert!(feed.state().ring.is_empty());
        drop(reader(&feed, None).briefly());
        assert!(!feed.recording(), "nobody comes back");
        let mut late = reader(&feed, Some("11.0"));
        assert_eq!(rest(&mut late), ["gone 10"]);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_and_ends_with_the_pond() {
        let feed = Arc::new(Feed::new());
        let (mut early, _) = Events::new(feed.clone(), None);
        let hears = tokio::spawn(async move {
            let first = early.next().await.unwrap().unwrap();
            (first.id.to_string(), early.next().await)
        });
        tokio::task::yield_now().await;
        feed.begin(10);
        feed.publish(&[paused(11)], 11);
        feed.close();
        assert_eq!(hears.await.unwrap(), ("11.0".into(), None));
    }
}
