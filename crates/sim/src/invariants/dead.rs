//! I15: every death is counted in one class of errors, and errors that differ in numbers alone are of one class.

use crate::{
    history::{Check, broken},
    workload,
};
use millpond_core::Shard;

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
