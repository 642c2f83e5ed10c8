//! Which worker processes are lost. The registry knows when each was last heard of; what it works on, its jobs say.

use super::session::Session;
use crate::{
    http::App,
    registry::{Door, in_hand},
};
use compact_str::{CompactString, format_compact};
use model::{Actor, Command, Crash, Envelope, LeaseRef, Outcome, Settlement, limits};
use node::CallError;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked for workers that were not heard of for [`crate::registry::SILENCE`].
const EVERY: Duration = Duration::from_secs(5);
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

/// Looks after the workers, for ever.
pub(super) async fn keep(app: &App) {
    // Those that had jobs when the server was started may not come back.
    match in_hand(app, is_ours).await {
        Ok(held) => held.iter().for_each(|held| drop(app.registry.hear(&held.worker, Door::Faktory))),
        Err(error) => tracing::warn!(%error, "cannot see which Faktory workers had jobs"),
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let silent = app.registry.lost(Door::Faktory);
        if silent.is_empty() {
            continue;
        }
        if let Err(error) = hand_back(app, silent).await {
            tracing::warn!(%error, "jobs of lost Faktory workers stay until their reservations end");
        }
    }
}

/// The jobs of lost workers go back, each counted as one that lost its worker.
async fn hand_back(app: &App, silent: Vec<Actor>) -> Result<(), CallError> {
    let mut lost: HashMap<Actor, Vec<LeaseRef>> =
        silent.into_iter().map(|worker| (worker, Vec::new())).collect();
    let names: Arc<HashSet<Actor>> = Arc::new(lost.keys().cloned().collect());
    for held in in_hand(app, move |worker| names.contains(worker)).await? {
        lost.entry(held.worker).or_default().push(held.lease);
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

impl Session<'_> {
    /// Notes that the client is alive, if it is a worker.
    pub(super) fn hear(&self) {
        if self.is_worker {
            self.app.registry.hear(&self.worker, Door::Faktory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{QueueName, State};
    use std::time::Duration;

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
        let left = in_hand(&app, is_ours).await.unwrap();
        assert_eq!(left.iter().map(|held| &held.worker).collect::<Vec<_>>(), [&there]);
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
