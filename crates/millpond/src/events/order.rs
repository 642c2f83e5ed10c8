//! Who hears an event before whom.

use model::EventId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How long an event waits for those who hear it before.
const PATIENCE: Duration = Duration::from_millis(100);

/// The streams of one pond that are read, and how far each is.
#[derive(Default)]
pub(crate) struct Order(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    next: u64,
    places: HashMap<u64, (i32, watch::Receiver<EventId>)>,
}

impl Order {
    pub(crate) fn place(&self) -> Place {
        let (progress, watch) = watch::channel(EventId::default());
        let mut places = lock(&self.0);
        let number = places.next;
        places.next += 1;
        places.places.insert(number, (0, watch));
        drop(places);
        Place { home: self.0.clone(), number, order: 0, progress, current: None, late: HashMap::new() }
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream's own place.
pub(crate) struct Place {
    home: Arc<Mutex<Places>>,
    number: u64,
    order: i32,
    progress: watch::Sender<EventId>,
    current: Option<EventId>,
    /// Those that did not keep up, and how far they were: not waited for before they move.
    late: HashMap<u64, EventId>,
}

impl Place {
    pub(crate) fn set_order(&mut self, order: i32) {
        self.order = order;
        if let Some((other, _)) = lock(&self.home).places.get_mut(&self.number) {
            *other = order;
        }
    }

    /// The event that was handed out last has been dealt with.
    pub(crate) fn done(&mut self) {
        if let Some(id) = self.current.take() {
            self.progress.send_replace(id);
        }
    }

    /// An event was not wanted here.
    pub(crate) fn passed(&mut self, id: EventId) {
        self.progress.send_replace(id);
    }

    /// Waits until those of lower order have dealt with the event, or are too slow.
    pub(crate) async fn turn(&mut self, id: EventId) {
        self.current = Some(id);
        let before: Vec<_> = {
            let places = lock(&self.home);
            let lower = places.places.iter().filter(|(_, (order, _))| *order < self.order);
            lower.map(|(number, (_, watch))| (*number, watch.clone())).collect()
        };
        if before.is_empty() {
            return;
        }
        let until = Instant::now() + PATIENCE;
        for (number, mut watch) in before {
            let reached = *watch.borrow();
            if reached >= id || self.late.get(&number) == Some(&reached) {
                continue;
            }
            self.late.remove(&number);
            // One that was dropped is not waited for.
            if timeout_at(until, watch.wait_for(|reached| *reached >= id)).await.is_err() {
                let reached = *watch.borrow();
                self.late.insert(number, reached);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.home).places.remove(&self.number);
    }
}
