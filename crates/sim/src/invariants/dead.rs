//! I15: every death is counted in one class of errors, and errors that differ in numbers alone are of one class. A job that dies where
//! the dead go on to another queue waits there from the same command on, or its id was taken there and it is dead.

use crate::{
    history::{Check, broken},
    workload,
};
use millpond_core::Shard;
use model::{Cause, Effect, JobId, JobRef, QueueName, State};

/// The jobs that went on after their deaths, by these effects, and where to.
pub(crate) fn sent_on(effects: &[Effect]) -> impl Iterator<Item = (JobId, QueueName)> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Changed { queue, id, cause: Cause::DeadLetter, .. } => Some((id.clone(), queue.clone())),
        _ => None,
    })
}

/// Where the dead of the mortal queue go.
pub(crate) fn target(shard: &Shard) -> Option<QueueName> {
    shard.queue(&workload::mortal())?.settings.dead_letter.queue
}

/// Who died after the policy was `target` went on there, or could not.
pub(crate) fn none_is_lost(shard: &Shard, target: &QueueName, effects: &[Effect]) -> Check {
    let mortal = workload::mortal();
    let died = effects.iter().enumerate().filter_map(|(at, effect)| match effect {
        // A dead job whose body is changed is still dead.
        Effect::Changed { queue, id, from, to: State::Dead, .. }
            if *queue == mortal && *from != Some(State::Dead) =>
        {
            Some((at, id))
        }
        _ => None,
    });
    for (at, id) in died {
        let went = effects[at..].iter().any(|effect| {
            matches!(effect, Effect::Changed { queue, id: other, from: Some(State::Dead), to: State::Waiting, .. }
                if queue == target && other == id)
        });
        let in_queue =
            |queue: &QueueName| shard.job(&JobRef { queue: Some(queue.clone()), id: id.clone() }).is_some();
        let stays = in_queue(&mortal) && in_queue(target);
        if !went && !stays {
            return broken("I15", format!("job {id} of {mortal} died and did not come to {target}"));
        }
    }
    Ok(())
}

/// Compares the classes of every queue with its deaths.
pub(crate) fn counted(shard: &Shard) -> Check {
    for queue in shard.queues(None, 1_000) {
        let Some(letters) = shard.dead_letters(&queue.name) else { continue };
        let counted: u64 = letters.classes.iter().map(|class| class.count).sum();
        if counted != queue.dead_total {
            return broken(
                "I15",
                format!("{} deaths in {} and {counted} by class", queue.dead_total, queue.name),
            );
        }
        let of_kind = letters.classes.iter().filter(|class| class.kind == workload::ERROR_KIND).count();
        if of_kind > 1 {
            return broken("I15", format!("one error of {} makes {of_kind} classes", queue.name));
        }
    }
    Ok(())
}
