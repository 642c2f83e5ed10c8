//! Keeps a caller who may not see all queues to its own, in every command: all that it names is looked at, and what it names by an id alone
//! is tied to the queue where it was found. A queue out of reach is refused by its name, there or not; an id out of reach is answered like
//! one that nothing has.

use super::problem::{self, Problem};
use crate::access::Caller;
use compact_str::ToCompactString;
use millpond_core::Shard;
use model::{
    BulkAction, Command, JobId, JobRef, NamedJob, NewJob, Outcome, QueueName, Reject, ScheduleId, Until,
};
use node::Handle;

/// Something that a command touches.
enum Touched<'c> {
    Queue(&'c QueueName),
    /// One of several that are judged each by itself.
    Lease(&'c mut JobRef),
    Job(&'c mut JobRef),
    Join(&'c JobId),
    /// One that there is, or one that shall be made.
    Schedule(&'c ScheduleId, bool),
    Operation(u64),
    /// What has no queue.
    Pond,
}

/// Refuses a queue that the caller does not reach.
pub(crate) fn check(caller: &Caller, queue: &QueueName) -> Result<(), Problem> {
    if caller.reaches(queue) {
        return Ok(());
    }
    let detail = format!("the token `{}` is not for the queue `{queue}`", caller.name());
    Err(Problem::new(&problem::QUEUE_FORBIDDEN, detail))
}

/// Refuses who does not see all queues.
pub(crate) fn check_whole(caller: &Caller) -> Result<(), Problem> {
    if !caller.is_confined() {
        return Ok(());
    }
    let detail =
        format!("this concerns the whole pond, and the token `{}` is for some queues", caller.name());
    Err(Problem::new(&problem::FORBIDDEN, detail))
}

/// Refuses a command that leads out of the caller's reach, and ties the others to it.
pub(crate) async fn confine(
    caller: &Caller,
    node: &Handle,
    mut command: Command,
) -> Result<Command, Problem> {
    if !caller.is_confined() {
        return Ok(command);
    }
    let mut named = Ok(());
    let mut by_id = false;
    visit(&mut command, &mut |touched| {
        let checked = match touched {
            Touched::Queue(queue) => check(caller, queue),
            Touched::Lease(JobRef { queue: Some(queue), .. })
            | Touched::Job(JobRef { queue: Some(queue), .. }) => check(caller, queue),
            Touched::Pond => check_whole(caller),
            Touched::Lease(_)
            | Touched::Job(_)
            | Touched::Join(_)
            | Touched::Schedule(..)
            | Touched::Operation(_) => {
                by_id = true;
                Ok(())
            }
        };
        if named.is_ok() {
            named = checked;
        }
    });
    named?;
    if !by_id {
        return Ok(command);
    }
    let caller = caller.clone();
    node.read(move |shard| {
        let mut found = Ok(());
        visit(&mut command, &mut |touched| {
            if found.is_ok() {
                found = tie(&caller, shard, touched);
            }
        });
        found.map(|()| command)
    })
    .await?
}

fn tie(caller: &Caller, shard: &Shard, touched: Touched<'_>) -> Result<(), Problem> {
    match touched {
        Touched::Job(job) if job.queue.is_none() => {
            *job = tied(caller, shard, job.clone())
                .ok_or_else(|| Reject::UnknownJob { id: job.id.to_compact_string() })?;
        }
        Touched::Lease(job) if job.queue.is_none() => {
            let queue = shard.queue_of(job);
            job.queue = match queue {
                Some(queue) if !caller.reaches(&queue) => Some(another(&queue)),
                other => other,
            };
        }
        Touched::Join(id) => check_join(caller, shard, id)?,
        Touched::Schedule(id, put) => match shard.schedule_queue(id) {
            Some(queue) if caller.reaches(&queue) => {}
            None if put => {}
            Some(_) if put => {
                let detail = format!("the schedule `{id}` is there already, and pushes to another queue");
                return Err(Problem::new(&problem::QUEUE_FORBIDDEN, detail));
            }
            Some(_) | None => return Err(Reject::UnknownSchedule { id: id.clone() }.into()),
        },
        Touched::Operation(id) => {
            let bulks = shard.bulks();
            let known = bulks.iter().find(|bulk| bulk.id == id);
            if !known.is_some_and(|bulk| reaches_operation(caller, bulk)) {
                return Err(Reject::UnknownOperation { operation: id }.into());
            }
        }
        Touched::Queue(_) | Touched::Lease(_) | Touched::Job(_) | Touched::Pond => {}
    }
    Ok(())
}

/// The job with its queue, if it is there and the caller reaches it.
pub(crate) fn tied(caller: &Caller, shard: &Shard, job: JobRef) -> Option<JobRef> {
    let queue = shard.queue_of(&job)?;
    caller.reaches(&queue).then_some(JobRef { queue: Some(queue), id: job.id })
}

/// A generated id is in one queue only, so that in any other there is nothing.
fn another(queue: &QueueName) -> QueueName {
    let mut names = ["-", "--"].into_iter().filter_map(|name| QueueName::new(name).ok());
    names.find(|name| name != queue).unwrap_or_else(|| queue.clone())
}

/// A join belongs to who reaches all of it.
pub(crate) fn check_join(caller: &Caller, shard: &Shard, id: &JobId) -> Result<(), Problem> {
    let queues = shard.join_queues(id);
    if queues.is_some_and(|queues| queues.iter().all(|queue| caller.reaches(queue))) {
        return Ok(());
    }
    Err(Reject::UnknownJoin { id: id.to_compact_string() }.into())
}

/// A bulk operation belongs to who reaches all of its queues.
pub(crate) fn reaches_operation(caller: &Caller, bulk: &model::BulkView) -> bool {
    let target = match &bulk.asked.action {
        BulkAction::Move { to } => Some(to),
        _ => None,
    };
    target.into_iter().chain([&bulk.asked.queue]).all(|queue| caller.reaches(queue))
}

fn visit(command: &mut Command, on: &mut impl FnMut(Touched<'_>)) {
    match command {
        Command::Push { jobs } => jobs.iter().for_each(|job| on_new(job, on)),
        Command::Fetch { queues, .. } => queues.iter().for_each(|queue| on(Touched::Queue(queue))),
        Command::Renew { leases, .. } => {
            leases.iter_mut().for_each(|lease| on(Touched::Lease(&mut lease.job)));
        }
        Command::Settle { settlements } => {
            for settlement in settlements {
                on(Touched::Lease(&mut settlement.lease.job));
                settlement.push.iter().for_each(|job| on_new(job, on));
                on_outcome(&settlement.outcome, on);
            }
        }
        Command::Cancel { job, .. } | Command::Signal { job, .. } | Command::PatchBody { job, .. } => {
            on(Touched::Job(job));
        }
        Command::Progress { lease, .. } | Command::Log { lease, .. } | Command::Step { lease, .. } => {
            on(Touched::Job(&mut lease.job));
        }
        Command::Promote { jobs }
        | Command::Redrive { jobs }
        | Command::Remove { jobs }
        | Command::Restart { jobs } => jobs.iter_mut().for_each(|job| on(Touched::Job(job))),
        Command::Pause { queue } | Command::Resume { queue } | Command::SetGroup { queue, .. } => {
            on(Touched::Queue(queue));
        }
        Command::Configure { queue, patch } => {
            on(Touched::Queue(queue));
            // Dead letters end up there.
            let target = patch.dead_letter.as_ref().and_then(|letter| letter.queue.as_ref());
            target.into_iter().for_each(|queue| on(Touched::Queue(queue)));
        }
        Command::Bulk(bulk) => {
            on(Touched::Queue(&bulk.queue));
            match &bulk.action {
                BulkAction::Move { to } => on(Touched::Queue(to)),
                BulkAction::Purge
                | BulkAction::Redrive
                | BulkAction::Remove
                | BulkAction::Cancel
                | BulkAction::Promote
                | BulkAction::Retag { .. }
                | BulkAction::Reprioritise { .. } => {}
            }
        }
        Command::Join { graph } => on_named(&graph.jobs, on),
        Command::Extend { join, jobs, .. } => {
            on_named(jobs, on);
            on(Touched::Join(join));
        }
        Command::CancelJoin { join, .. } => on(Touched::Join(join)),
        Command::PutSchedule { id, spec } => {
            on_new(&spec.job, on);
            on(Touched::Schedule(id, true));
        }
        Command::PauseSchedule { id }
        | Command::ResumeSchedule { id }
        | Command::RunSchedule { id }
        | Command::RemoveSchedule { id } => on(Touched::Schedule(id, false)),
        Command::ControlBulk { operation, .. } => on(Touched::Operation(*operation)),
        Command::SetLimit { .. } | Command::Tick | Command::Choose(_) | Command::RaiseTokens { .. } => {
            on(Touched::Pond);
        }
    }
}

fn on_new(job: &NewJob, on: &mut impl FnMut(Touched<'_>)) {
    on(Touched::Queue(&job.queue));
}

fn on_named(jobs: &[NamedJob], on: &mut impl FnMut(Touched<'_>)) {
    jobs.iter().for_each(|named| on_new(&named.job, on));
}

fn on_outcome(outcome: &Outcome, on: &mut impl FnMut(Touched<'_>)) {
    match outcome {
        Outcome::Wait { children } => on_named(&children.jobs, on),
        Outcome::Suspend { until: Until::Child { job }, .. } => on_new(job, on),
        Outcome::Suspend { until: Until::Time { .. } | Until::Signal { .. }, .. }
        | Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Fail { .. }
        | Outcome::Snooze { .. }
        | Outcome::RateLimited { .. }
        | Outcome::Cancel { .. }
        | Outcome::Crash(_) => {}
    }
}
