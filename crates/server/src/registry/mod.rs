//! The workers that are there: who they are, what they ask for, when they were last heard of, and what an operator asked of them.
//!
//! Nothing of it is in the log. What a worker has in hand, the jobs say; the rest is true as long as the worker is connected. A server that
//! is started anew knows those that come back to it, and no longer what was asked of them.

mod hands;

pub(crate) use hands::{InHand, in_hand};

use compact_str::CompactString;
use kit::Timestamp;
use model::{Actor, QueueName, limits};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Workers that are remembered. Those beyond do their work; they are not listed and cannot be asked anything.
const WORKERS_MAX: usize = 100_000;
/// A worker without a connection of its own that is not heard of for so long is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// What a worker says of itself is kept up to this.
const LABELS_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = limits::TAG_BYTES_MAX;

/// How a worker talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Stream,
    Http,
    Faktory,
}

impl Door {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Door::Stream => "stream",
            Door::Http => "http",
            Door::Faktory => "faktory",
        }
    }
}

/// How far a worker is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It gets jobs.
    #[default]
    Running,
    /// It gets none, and ends those that it has.
    Quiet,
    /// The same, and then it ends itself.
    Stopping,
}

impl Stage {
    const ALL: [Stage; 3] = [Stage::Running, Stage::Quiet, Stage::Stopping];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Running => "running",
            Stage::Quiet => "quiet",
            Stage::Stopping => "stopping",
        }
    }

    pub(crate) fn takes_jobs(self) -> bool {
        self == Stage::Running
    }
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    pub(crate) host: CompactString,
    /// 0 if it does not say.
    pub(crate) pid: u64,
    /// Program and version.
    pub(crate) client: CompactString,
    pub(crate) labels: Vec<CompactString>,
}

impl About {
    /// No more than is kept.
    fn within_limits(&self) -> Self {
        Self {
            host: cut(&self.host),
            pid: self.pid,
            client: cut(&self.client),
            labels: self.labels.iter().take(LABELS_MAX).map(|label| cut(label)).collect(),
        }
    }

    /// Whether both say which process they are, and are not the same.
    fn is_another_process(&self, other: &About) -> bool {
        self.pid != 0 && other.pid != 0 && (self.pid, &self.host) != (other.pid, &other.host)
    }
}

fn cut(text: &str) -> CompactString {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

/// What concerns a worker at every message, without a look at the list.
#[derive(Debug)]
pub(crate) struct Live {
    began: Instant,
    /// When its loop was last heard of: milliseconds since `began`.
    heard: AtomicU64,
    stage: AtomicU8,
}

impl Live {
    fn new(began: Instant) -> Arc<Self> {
        let live = Self { began, heard: AtomicU64::new(0), stage: AtomicU8::new(0) };
        live.touch();
        Arc::new(live)
    }

    /// Its loop was heard of.
    pub(crate) fn touch(&self) {
        self.heard.store(since(self.began), Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::ALL.into_iter().find(|stage| *stage as u8 == self.stage.load(Relaxed)).unwrap_or_default()
    }

    fn is_silent(&self) -> bool {
        let silence = since(self.began).saturating_sub(self.heard.load(Relaxed));
        Duration::from_millis(silence) >= SILENCE
    }
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What one connection of a stream asks for in a worker's name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asks {
    pub(crate) queues: Vec<QueueName>,
    /// Jobs at once; 0 if it does not say.
    pub(crate) concurrency: u64,
}

#[derive(Debug)]
struct Worker {
    door: Door,
    about: About,
    /// By connection of a stream; 0 where the door is another one.
    asks: BTreeMap<u64, Asks>,
    rss_bytes: u64,
    since: Instant,
    live: Arc<Live>,
    /// What it says itself; there is no way back.
    said: Stage,
    /// What an operator asked.
    told: Stage,
    /// It has not been heard of for too long, and stays in the list only for what it was told.
    is_lost: bool,
}

impl Worker {
    fn is_connected(&self) -> bool {
        match self.door {
            Door::Stream => !self.asks.is_empty(),
            Door::Http | Door::Faktory => !self.live.is_silent(),
        }
    }

    fn settle_stage(&self) {
        self.live.stage.store(self.said.max(self.told) as u8, Relaxed);
    }

    /// Whether there is no reason to remember it. A stop is over when the process is; quiet stays until it is taken back.
    fn is_over(&self) -> bool {
        match self.told {
            Stage::Running => !self.is_connected(),
            // Its link may only be down.
            Stage::Stopping => !self.is_connected() && self.live.is_silent(),
            Stage::Quiet => false,
        }
    }

    fn view(&self, name: &Actor, now: Timestamp) -> View {
        let at = |ms: u64| Timestamp(now.0.saturating_sub(since(self.live.began).saturating_sub(ms)));
        let mut queues: Vec<QueueName> = Vec::new();
        for queue in self.asks.values().flat_map(|asks| &asks.queues) {
            if !queues.contains(queue) {
                queues.push(queue.clone());
            }
        }
        let connected = self.since.saturating_duration_since(self.live.began).as_millis();
        View {
            name: name.clone(),
            door: self.door,
            stage: self.live.stage(),
            is_connected: self.is_connected(),
            about: self.about.clone(),
            queues,
            concurrency: self.asks.values().map(|asks| asks.concurrency).sum(),
            rss_bytes: self.rss_bytes,
            connected_at: at(u64::try_from(connected).unwrap_or(u64::MAX)),
            heard_at: at(self.live.heard.load(Relaxed)),
        }
    }
}

/// A worker as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) name: Actor,
    pub(crate) door: Door,
    pub(crate) stage: Stage,
    pub(crate) is_connected: bool,
    pub(crate) about: About,
    pub(crate) queues: Vec<QueueName>,
    /// Jobs at once; 0 if it does not say.
    pub(crate) concurrency: u64,
    /// 0 if it does not say.
    pub(crate) rss_bytes: u64,
    pub(crate) connected_at: Timestamp,
    pub(crate) heard_at: Timestamp,
}

/// The workers of one server.
#[derive(Debug)]
pub(crate) struct Registry {
    began: Instant,
    workers: Mutex<BTreeMap<Actor, Worker>>,
    seats: AtomicU64,
    /// Changes whenever an operator asks something of a worker.
    told: watch::Sender<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            workers: Mutex::default(),
            seats: AtomicU64::new(1),
            told: watch::Sender::new(()),
        }
    }
}

impl Registry {
    /// A panic meanwhile leaves what is still good.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Actor, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker was heard of, by this door.
    pub(crate) fn hear(&self, name: &Actor, door: Door) -> Arc<Live> {
        self.change(name, door, |_| {})
    }

    /// The same, with what it says of itself.
    pub(crate) fn greet(&self, name: &Actor, door: Door, about: &About) -> Arc<Live> {
        self.change(name, door, |worker| {
            if worker.told == Stage::Stopping && worker.about.is_another_process(about) {
                worker.told = Stage::Running;
            }
            worker.about = about.within_limits();
        })
    }

    /// The same, with the queues that it asks for.
    pub(crate) fn fetches(&self, name: &Actor, door: Door, queues: &[QueueName]) -> Arc<Live> {
        self.change(name, door, |worker| {
            let asks = worker.asks.entry(0).or_default();
            if asks.queues != queues {
                asks.queues = queues.to_vec();
            }
        })
    }

    /// The same, with how far it is by itself, and the memory that it uses.
    pub(crate) fn beats(&self, name: &Actor, door: Door, said: Stage, rss_bytes: u64) -> Arc<Live> {
        self.change(name, door, |worker| {
            worker.said = worker.said.max(said);
            worker.rss_bytes = rss_bytes;
        })
    }

    /// A worker that is known was heard of.
    pub(crate) fn touch(&self, name: &Actor) {
        if let Some(worker) = self.lock().get(name) {
            worker.live.touch();
        }
    }

    fn change(&self, name: &Actor, door: Door, change: impl FnOnce(&mut Worker)) -> Arc<Live> {
        let mut workers = self.lock();
        if !workers.contains_key(name) {
            if workers.len() >= WORKERS_MAX {
                sweep(&mut workers);
            }
            if workers.len() >= WORKERS_MAX {
                return Live::new(self.began);
            }
        }
        let worker = workers.entry(name.clone()).or_insert_with(|| Worker {
            door,
            about: About::default(),
            asks: BTreeMap::new(),
            rss_bytes: 0,
            since: Instant::now(),
            live: Live::new(self.began),
            said: Stage::Running,
            told: Stage::Running,
            is_lost: false,
        });
        if !worker.is_connected() {
            (worker.since, worker.said) = (Instant::now(), Stage::Running);
        }
        (worker.door, worker.is_lost) = (door, false);
        worker.live.touch();
        change(worker);
        worker.settle_stage();
        worker.live.clone()
    }

    /// A place for a connection of a stream in the worker's name, until it is dropped.
    pub(crate) fn sit(self: &Arc<Self>, name: &Actor, about: &About) -> Seat {
        let live = self.greet(name, Door::Stream, about);
        Seat { registry: self.clone(), name: name.clone(), nth: self.seats.fetch_add(1, Relaxed), live }
    }

    /// Asks something of a worker; false if it is not known.
    pub(crate) fn tell(&self, name: &Actor, stage: Stage) -> bool {
        let mut workers = self.lock();
        let Some(worker) = workers.get_mut(name) else { return false };
        worker.told = stage;
        worker.settle_stage();
        drop(workers);
        self.told.send_replace(());
        true
    }

    /// Changes whenever an operator asks something of a worker.
    pub(crate) fn told(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    /// Resolves once this worker gets no more jobs.
    pub(crate) async fn held_back(&self, worker: &Live) {
        let mut told = self.told();
        while worker.stage().takes_jobs() {
            // The sender lives as long as this registry.
            let _ = told.changed().await;
        }
    }

    /// The workers of that door that were silent for too long, each once.
    pub(crate) fn lost(&self, door: Door) -> Vec<Actor> {
        let mut workers = self.lock();
        let mut lost = Vec::new();
        for (name, worker) in workers.iter_mut().filter(|(_, worker)| worker.door == door) {
            if !worker.is_lost && !worker.is_connected() {
                worker.is_lost = true;
                lost.push(name.clone());
            }
        }
        sweep(&mut workers);
        lost
    }

    /// One worker.
    pub(crate) fn show(&self, name: &Actor, now: Timestamp) -> Option<View> {
        self.lock().get(name).filter(|worker| !worker.is_over()).map(|worker| worker.view(name, now))
    }

    /// Workers by name, after that one.
    pub(crate) fn list(&self, after: Option<&Actor>, limit: usize, now: Timestamp) -> Vec<View> {
        let mut workers = self.lock();
        sweep(&mut workers);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = workers.range((from, Bound::Unbounded)).filter(|(_, worker)| !worker.is_over());
        known.take(limit).map(|(name, worker)| worker.view(name, now)).collect()
    }
}

/// Forgets those that are gone. What a lost Faktory worker had goes back first: see [`Registry::lost`].
fn sweep(workers: &mut BTreeMap<Actor, Worker>) {
    workers.retain(|_, worker| !worker.is_over() || worker.door == Door::Faktory && !worker.is_lost);
}

/// A connection of a stream that asks for jobs in a worker's name.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    name: Actor,
    nth: u64,
    pub(crate) live: Arc<Live>,
}

impl Seat {
    /// What is asked for by this connection now.
    pub(crate) fn asks(&self, asks: Asks) {
        if let Some(worker) = self.registry.lock().get_mut(&self.name) {
            worker.asks.insert(self.nth, asks);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut workers = self.registry.lock();
        let Some(worker) = workers.get_mut(&self.name) else { return };
        worker.asks.remove(&self.nth);
        if worker.is_over() {
            workers.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn actor(name: &str) -> Actor {
        Actor::new(name)
    }

    fn about(pid: u64) -> About {
        About { host: "h".into(), pid, ..About::default() }
    }

    fn names(registry: &Registry) -> Vec<String> {
        registry.list(None, 10, NOW).iter().map(|view| view.name.to_string()).collect()
    }

    /// One that was begun long ago, so that somebody can have been silent.
    fn registry() -> Arc<Registry> {
        let began = Instant::now().checked_sub(SILENCE * 2).unwrap();
        Arc::new(Registry { began, ..Registry::default() })
    }

    /// The worker was not heard of for long.
    fn silence(registry: &Registry, name: &str) {
        registry.lock()[&actor(name)].live.heard.store(0, Relaxed);
    }

    #[test]
    fn a_worker_never_goes_back_to_work_by_itself() {
        let (registry, worker) = (Registry::default(), actor("w"));
        for (said, stage) in [
            (Stage::Running, Stage::Running),
            (Stage::Quiet, Stage::Quiet),
            (Stage::Running, Stage::Quiet),
            (Stage::Stopping, Stage::Stopping),
            (Stage::Quiet, Stage::Stopping),
        ] {
            assert_eq!(registry.beats(&worker, Door::Faktory, said, 0).stage(), stage, "{said:?}");
        }
        // An operator takes back only what an operator asked.
        registry.tell(&worker, Stage::Running);
        assert_eq!(registry.hear(&worker, Door::Faktory).stage(), Stage::Stopping);
    }

    #[test]
    fn who_is_silent_for_a_minute_is_gone_and_who_spoke_is_not() {
        let registry = registry();
        registry.hear(&actor("one"), Door::Faktory);
        registry.hear(&actor("two"), Door::Faktory);
        registry.hear(&actor("three"), Door::Http);
        for name in ["one", "two", "three"] {
            silence(&registry, name);
        }
        registry.touch(&actor("two"));
        assert_eq!(names(&registry), ["two"], "the jobs of `one` are still to go back");
        assert_eq!(registry.lost(Door::Faktory), [actor("one")]);
        assert!(registry.lost(Door::Faktory).is_empty(), "each once");
        silence(&registry, "two");
        assert_eq!(registry.lost(Door::Faktory), [actor("two")]);
    }

    #[test]
    fn quiet_stays_until_it_is_taken_back_and_a_stop_ends_with_the_process() {
        let registry = registry();
        let worker = actor("w");
        assert!(!registry.tell(&worker, Stage::Quiet), "nobody is there");
        let seat = registry.sit(&worker, &about(1));
        seat.asks(Asks::default());
        registry.tell(&worker, Stage::Quiet);
        drop(seat);
        silence(&registry, "w");
        assert_eq!(names(&registry), ["w"]);
        assert!(!registry.show(&worker, NOW).unwrap().is_connected);
        let seat = registry.sit(&worker, &about(2));
        seat.asks(Asks::default());
        assert_eq!(seat.live.stage(), Stage::Quiet, "another process of the same name");
        registry.tell(&worker, Stage::Stopping);
        drop(seat);
        let seat = registry.sit(&worker, &about(2));
        seat.asks(Asks::default());
        assert_eq!(seat.live.stage(), Stage::Stopping, "the link was cut");
        drop(seat);
        let seat = registry.sit(&worker, &about(3));
        seat.asks(Asks::default());
        assert_eq!(seat.live.stage(), Stage::Running, "it was started anew");
        registry.tell(&worker, Stage::Stopping);
        drop(seat);
        assert_eq!(names(&registry), ["w"]);
        silence(&registry, "w");
        assert!(names(&registry).is_empty());
    }

    #[test]
    fn a_worker_of_several_connections_asks_for_what_each_asks_for() {
        let registry = Arc::new(Registry::default());
        let worker = actor("w");
        let queue = |name: &str| QueueName::new(name).unwrap();
        let asks = |queues: &[&str]| Asks {
            queues: queues.iter().map(|name| queue(name)).collect(),
            concurrency: 4,
        };
        let seats: Vec<Seat> = [&["a", "b"][..], &["b", "c"]]
            .map(|queues| {
                let seat = registry.sit(&worker, &about(1));
                seat.asks(asks(queues));
                seat
            })
            .into();
        let view = registry.show(&worker, NOW).unwrap();
        assert_eq!(view.queues, ["a", "b", "c"].map(queue));
        assert_eq!((view.concurrency, view.is_connected), (8, true));
        drop(seats);
        assert!(registry.show(&worker, NOW).is_none());
    }

    #[test]
    fn what_a_worker_says_of_itself_is_cut() {
        let long = About {
            host: "é".repeat(1_000).into(),
            pid: 1,
            client: "x".repeat(1_000).into(),
            labels: vec!["l".repeat(1_000).into(); 1_000],
        };
        let kept = long.within_limits();
        assert!(kept.host.len() <= TEXT_BYTES_MAX && kept.client.len() == TEXT_BYTES_MAX);
        assert!(kept.labels.len() == LABELS_MAX && kept.labels[0].len() == TEXT_BYTES_MAX);
    }

    #[tokio::test]
    async fn who_waits_for_jobs_hears_that_none_come() {
        let registry = Registry::default();
        let (live, other) = (registry.hear(&actor("w"), Door::Http), registry.hear(&actor("v"), Door::Http));
        let ask = async {
            registry.tell(&actor("v"), Stage::Quiet);
            tokio::task::yield_now().await;
            registry.tell(&actor("w"), Stage::Quiet);
        };
        tokio::join!(registry.held_back(&live), ask);
        assert_eq!((live.stage(), other.stage()), (Stage::Quiet, Stage::Quiet));
    }
}
