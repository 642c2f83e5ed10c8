//! What workers have in hand, as their jobs say.

use crate::http::App;
use kit::Timestamp;
use millpond_core::{ListQuery, Shard};
use model::{Actor, JobRef, LeaseRef, QueueName, State};
use node::CallError;

/// Queues that one look at the pond goes through.
const QUEUES_PAGE: usize = 500;
/// Jobs of one look.
const JOBS_PAGE: usize = 1_000;

/// A job under way.
#[derive(Debug, Clone)]
pub(crate) struct InHand {
    pub(crate) worker: Actor,
    pub(crate) lease: LeaseRef,
    /// When its attempt began.
    pub(crate) since: Option<Timestamp>,
    pub(crate) lease_until: Option<Timestamp>,
}

/// What those workers have in hand for which `wanted` holds. A page at a time, so that the pond goes on meanwhile.
pub(crate) async fn in_hand(
    app: &App,
    wanted: impl Fn(&Actor) -> bool + Clone + Send + 'static,
) -> Result<Vec<InHand>, CallError> {
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
                let (some, next) = app.node.read(move |shard| of_queue(shard, &name, cursor, wanted)).await?;
                all.extend(some);
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

fn of_queue(
    shard: &Shard,
    queue: &QueueName,
    cursor: Option<u64>,
    wanted: impl Fn(&Actor) -> bool,
) -> (Vec<InHand>, Option<u64>) {
    let query = ListQuery { state: Some(State::Active), limit: JOBS_PAGE, cursor, ..ListQuery::default() };
    let Ok(page) = shard.list(queue, &query) else { return (Vec::new(), None) };
    let some = page.jobs.into_iter().filter_map(|view| {
        let worker = view.worker.filter(&wanted)?;
        let job = JobRef { queue: Some(view.queue), id: view.id };
        let lease = LeaseRef { job, token: view.lease_token };
        Some(InHand { worker, lease, since: view.started_at, lease_until: view.due_at })
    });
    (some.collect(), page.next)
}
