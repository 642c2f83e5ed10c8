//! I2: nothing happens that nobody asked for, nothing happens twice, nothing starts after its end.

use crate::{
    history::{Call, Check, Entry, Told, broken, call_of, waited_on},
    shadow::Job,
    workload,
};
use compact_str::CompactString;
use kit::Timestamp;
use model::{Command, DispatchedJob, Outcome, QueueName, Reject, Reply};

/// Every command of the log is one that somebody sent, byte for byte, and that nobody was told had not happened.
pub(crate) fn was_asked_for(entry: &Entry, calls: &[Call]) -> Check {
    let phantom =
        |what: &str| broken("I2", format!("position {}: {what}: {:?}", entry.position, entry.envelope));
    let Some(call) = call_of(&entry.envelope.actor).and_then(|call| calls.get(call)) else {
        return match &entry.envelope.command {
            Command::Tick | Command::Choose(_) => Ok(()),
            // What the node hands back for a worker that went away.
            Command::Settle { settlements }
                if settlements
                    .iter()
                    .all(|s| s.outcome == Outcome::Snooze { after_ms: 0 } && s.push.is_empty()) =>
            {
                Ok(())
            }
            _ => phantom("nobody sent this"),
        };
    };
    if call.envelope != entry.envelope {
        return phantom("this is not what was sent");
    }
    match (&call.told, &entry.reply) {
        // A push that found no room waits, and comes again.
        (_, reply) if waited_on(reply) => Ok(()),
        // A fetch that found nothing waits on, and may come again, or be put off then.
        (Told::Done { .. } | Told::NotDone, Ok(Reply::Fetched(jobs))) if jobs.is_empty() => Ok(()),
        (Told::NotDone, _) => phantom("its caller was told that it did not happen"),
        (Told::Done { position, .. }, _) if *position == entry.position => Ok(()),
        (Told::Done { .. }, _) => phantom("it happened at another position, too"),
        (Told::Nothing | Told::Unknown | Told::Refused(_), _) => Ok(()),
    }
}

/// A repeated call brings the first outcome; one with other content is refused.
pub(crate) fn same_outcome(
    key: &CompactString,
    same_content: bool,
    first: &Reply,
    now: &Result<Reply, Reject>,
) -> Check {
    match now {
        Ok(reply) if same_content && reply == first => Ok(()),
        // Of a fetch, the jobs whose leases are still held. They may have stored steps meanwhile, their children may be gone.
        Ok(Reply::Fetched(again))
            if same_content
                && matches!(first, Reply::Fetched(jobs) if again.iter().all(|job| {
                    jobs.iter().any(|other| {
                        let children = job.children.clone();
                        DispatchedJob { steps: job.steps, children, ..other.clone() } == *job
                    })
                })) =>
        {
            Ok(())
        }
        Err(Reject::IdempotencyConflict { .. }) if !same_content => Ok(()),
        other => broken(
            "I2",
            format!("key {key} was answered {first:?} and then {other:?} (same content: {same_content})"),
        ),
    }
}

/// What the core adds to a job that went on after its death.
fn of_a_death((key, _): &(CompactString, CompactString)) -> bool {
    key.starts_with("dead-letter-")
}

/// The queue where this job died before it came here, as it is told itself.
fn died_in(given: &DispatchedJob) -> Option<&str> {
    given.meta.iter().find(|(key, _)| key == "dead-letter-queue").map(|(_, queue)| queue.as_str())
}

/// What a worker gets is what a client gave.
pub(crate) fn is_what_was_pushed(job: &Job, given: &DispatchedJob) -> Check {
    let new = &job.new;
    let same = given.body.as_ref() == Some(&new.body)
        // In the other queues operations change both; what they may change is for their own rule.
        && (!workload::strict(&new.queue) || (given.priority, &given.tags) == (new.priority, &new.tags))
        && given.meta.iter().filter(|entry| !of_a_death(entry)).eq(&new.meta)
        && died_in(given) == job.died_in.as_ref().map(QueueName::as_str)
        && (&given.queue, &given.content_type) == (&new.queue, &new.content_type)
        && given.group.as_ref() == new.route.as_ref().and_then(|route| route.group.as_ref());
    if same { Ok(()) } else { broken("I2", format!("{new:?} was pushed and {given:?} handed out")) }
}

/// A job that has ended does not start again.
pub(crate) fn not_resurrected(job: &Job, given: &DispatchedJob, now: Timestamp) -> Check {
    if job.ended || job.expired(now) {
        return broken(
            "I2",
            format!("job {} of {} had ended and was handed out again", given.id, given.queue),
        );
    }
    Ok(())
}
