//! Which worker processes live. All that is remembered is when each was last heard of; what it works on, its jobs say.

use super::session::Session;
use crate::http::App;
use compact_str::{CompactString, format_compact};
use millpond_core::{ListQuery, Shard};
use model::{
    Actor, Command, Crash, Envelope, JobRef, LeaseRef, Outcome, QueueName, Settlement, State, limits,
};
use node::CallError;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A worker that is not heard of for so long is gone, and its jobs go back.
const SILENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Workers that are remembered; of others the jobs go back when their reservations end.
const WORKERS_MAX: usize = 100_000;
/// Queues that one look at the pond goes through.
const QUEUES_PAGE: usize = 500;
/// How the names of workers of this door begin.
const MARK: &str = "faktory";

/// The name of a worker process in the pond; without an id, of all clients that are none.
pub(super) fn name(wid: Option<&str>) -> Actor {
    wid.map_or_else(|| Actor::new(MARK), |wid| Actor::new(&format_compact!("{MARK}:{wid}")))
}

/// Whether this is the name of a worker process of this door, with or without its token's before it.
fn is_ours(worker: &Actor) -> bool {
    let name = worker.as_str();
    let own = name.split_once('/').map_or(name, |(_, own)| own);
    [name, own].iter().any(|name| name.strip_prefix(MARK).is_some_and(|rest| rest.starts_with(':')))
}

/// How far a worker is on its way to its end. There is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Stage {
    /// It takes jobs.
    #[default]
    Running,
    /// It ends what it has.
    Quiet,
    /// It ends.
    Terminate,
}

impl Stage {
    pub(super) fn takes_jobs(self) -> bool {
        self == Stage::Running
    }

    /// What the worker is told; nothing as long as all is well.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Stage::Running => None,
            Stage::Quiet => Some("quiet"),
            Stage::Terminate => Some("terminate"),
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "quiet" => Stage::Quiet,
            "terminate" => Stage::Terminate,
            _ => Stage::Running,
        }
    }
}

#[derive(Debug)]
struct Worker {
    heard: Instant,
    stage: Stage,
}

/// The worker processes that live.
#[derive(Debug, Default)]
pub(super) struct Workers(Mutex<HashMap<Actor, Worker>>);

impl Workers {
    /// A panic meanwhile leaves times that are still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<Actor, Worker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker was heard of, and says perhaps how far it is.
    fn hear(&self, worker: &Actor, said: Option<&str>, now: Instant) -> Stage {
        let said = said.map_or(Stage::Running, Stage::named);
        let mut workers = self.lock();
        if let Some(known) = workers.get_mut(worker) {
            known.heard = now;
            known.stage = known.stage.max(said);
            return known.stage;
        }
        if workers.len() < WORKERS_MAX {
            workers.insert(worker.clone(), Worker { heard: now, stage: said });
        }
        said
    }

    /// Takes those away that have been silent for too long.
    fn silent(&self, now: Instant) -> Vec<Actor> {
        let mut workers = self.lock();
        let is_silent = |worker: &Worker| now.saturating_duration_since(worker.heard) >= SILENCE;
        let silent: Vec<_> =
            workers.iter().filter(|(_, worker)| is_silent(worker)).map(|(name, _)| name.clone()).collect();
        workers.retain(|_, worker| !is_silent(worker));
        silent
    }

    /// Looks after the workers, for ever.
    pub(super) async fn keep(&self, app: &App) {
        // Those that had jobs when the server was started may not come back.
        match held(app, is_ours).await {
            Ok(held) => {
                let now = Instant::now();
                for (worker, _) in held {
                    self.hear(&worker, None, now);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot see which Faktory workers had jobs"),
        }
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let silent = self.silent(Instant::now());
            if silent.is_empty() {
                continue;
            }
            if let Err(error) = hand_back(app, silent).await {
                tracing::warn!(%error, "jobs of lost Faktory workers stay until their reservations end");
            }
        }
    }
}

/// The jobs of lost workers go back, each counted as one that lost its worker.
async fn hand_back(app: &App, silent: Vec<Actor>) -> Result<(), CallError> {
    let mut lost: HashMap<Actor, Vec<LeaseRef>> =
        silent.into_iter().map(|worker| (worker, Vec::new())).collect();
    let names: Arc<HashSet<Actor>> = Arc::new(lost.keys().cloned().collect());
    for (worker, lease) in held(app, move |worker| names.contains(worker)).await? {
        lost.entry(worker).or_default().push(lease);
    }
    for (worker, leases) in lost {
        tracing::info!(%worker, jobs = leases.len(), "a Faktory worker was not heard of for 60 s");
        for some in leases.chunks(limits::BATCH_MAX) {
            let outcome = Outcome::Crash(Crash {
                stderr: CompactString::const_new("the worker was not heard of for 60 s"),
                ..Crash::default()
            });
            let settlement = |lease: &LeaseRef| Settlement {
                lease: lease.clone(),
                outcome: outcome.clone(),
                push: Vec::new(),
            };
            let command = Command::Settle { settlements: some.iter().map(settlement).collect() };
            // What was settled meanwhile is refused, each by itself.
            let envelope = Envelope { actor: worker.clone(), idempotency_key: None, command };
            app.node.call(envelope, app.rules.durability).await?;
        }
    }
    Ok(())
}

/// The leases of those workers for which `wanted` holds. A page at a time, so that the pond goes on meanwhile.
async fn held(
    app: &App,
    wanted: impl Fn(&Actor) -> bool + Clone + Send + 'static,
) -> Result<Vec<(Actor, LeaseRef)>, CallError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let from = after.take();
        let page = app.node.read(move |shard| busy(shard, from.as_ref())).await?;
        let Some((queues, last)) = page else { return Ok(all) };
        for queue in queues {
            let mut cursor = None;
            loop {
                let (name, wanted) = (queue.clone(), wanted.clone());
                let (leases, next) =
                    app.node.read(move |shard| leases_of(shard, &name, cursor, wanted)).await?;
                all.extend(leases);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        after = Some(last);
    }
}

/// Some queues that have jobs under way, and where to go on.
fn busy(shard: &Shard, after: Option<&QueueName>) -> Option<(Vec<QueueName>, QueueName)> {
    let queues = shard.queues(after, QUEUES_PAGE);
    let last = queues.last()?.name.clone();
    let busy = queues.into_iter().filter(|queue| queue.counts.of(State::Active) > 0);
    Some((busy.map(|queue| queue.name).collect(), last))
}

type Leases = (Vec<(Actor, LeaseRef)>, Option<u64>);

fn leases_of(
    shard: &Shard,
    queue: &QueueName,
    cursor: Option<u64>,
    wanted: impl Fn(&Actor) -> bool,
) -> Leases {
    let query = ListQuery { state: Some(State::Active), limit: 1_000, cursor, ..ListQuery::default() };
    let Ok(page) = shard.list(queue, &query) else { return Leases::default() };
    let leases = page.jobs.into_iter().filter_map(|view| {
        let worker = view.worker.filter(&wanted)?;
        let job = JobRef { queue: Some(view.queue), id: view.id };
        Some((worker, LeaseRef { job, token: view.lease_token }))
    });
    (leases.collect(), page.next)
}

impl Session<'_> {
    /// Notes that the client is alive, if it is a worker; and how far it is on its way to its end.
    pub(super) fn beat(&self, said: Option<&str>) -> Stage {
        if !self.is_worker {
            return Stage::Running;
        }
        self.hall.workers.hear(&self.worker, said, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_never_goes_back_to_work() {
        let (workers, worker, now) = (Workers::default(), name(Some("w1")), Instant::now());
        for (said, stage) in [
            (None, Stage::Running),
            (Some("quiet"), Stage::Quiet),
            (None, Stage::Quiet),
            (Some("running"), Stage::Quiet),
            (Some("terminate"), Stage::Terminate),
            (Some("quiet"), Stage::Terminate),
        ] {
            assert_eq!(workers.hear(&worker, said, now), stage, "{said:?}");
        }
    }

    #[test]
    fn who_is_silent_for_a_minute_is_gone_and_who_spoke_is_not() {
        let (workers, now) = (Workers::default(), Instant::now());
        let (one, two) = (name(Some("one")), name(Some("two")));
        workers.hear(&one, None, now);
        workers.hear(&two, None, now);
        workers.hear(&two, None, now + SILENCE / 2);
        assert_eq!(workers.silent(now + SILENCE), [one]);
        assert!(workers.silent(now + SILENCE).is_empty());
        assert_eq!(workers.silent(now + SILENCE * 2), [two]);
    }

    #[test]
    fn workers_of_this_door_are_known_by_their_names() {
        for (worker, ours) in [
            ("faktory:w1", true),
            ("web/faktory:w1", true),
            ("faktory", false),
            ("web/faktory", false),
            ("factory:w1", false),
            ("faktoryx:w1", false),
        ] {
            assert_eq!(is_ours(&Actor::new(worker)), ours, "{worker}");
        }
    }

    #[tokio::test]
    async fn the_jobs_of_a_lost_worker_go_back_and_those_of_others_stay() {
        let node = node::Handle::in_memory(node::Options::default()).unwrap();
        let config = crate::config::Config { memory: true, ..crate::config::Config::default() };
        let keeper = crate::access::Keeper::new(None, None).unwrap();
        let app = App::new(node, crate::serve::rules(&config), keeper.into());
        let mail = QueueName::new("mail").unwrap();
        let jobs = vec![model::NewJob::new(mail.clone(), "1"), model::NewJob::new(mail.clone(), "2")];
        let push =
            Envelope { actor: Actor::default(), idempotency_key: None, command: Command::Push { jobs } };
        let level = app.rules.durability;
        app.node.call(push, level).await.unwrap();
        let (lost, there) = (name(Some("lost")), name(Some("there")));
        for worker in [&lost, &there] {
            let queues = vec![mail.clone()];
            app.node.fetch(worker.clone(), queues, 1, 0, Duration::ZERO, level).await.unwrap();
        }
        hand_back(&app, vec![lost.clone()]).await.unwrap();
        let left = held(&app, is_ours).await.unwrap();
        assert_eq!(left.iter().map(|(worker, _)| worker).collect::<Vec<_>>(), [&there]);
        let back = app.node.jobs(mail, State::Retrying).await.unwrap();
        assert_eq!(
            back.iter().map(|job| (job.crashes, job.attempt)).collect::<Vec<_>>(),
            [(1, 0)],
            "no attempt is used"
        );
        let said = &back[0].error.as_ref().unwrap().stack;
        assert!(said.contains("not heard of"), "{said}");
    }
}
