//! I3: the log has no gaps, and an index never changes its content. Within one fetch, jobs come by priority.

use crate::history::{Check, broken};
use model::{DispatchedJob, QueueName};
use storage::Record;

/// Record `record` follows `last` and is what was appended at its index.
pub(crate) fn continues(last: u64, record: &Record, appended: Option<&Vec<u8>>) -> Check {
    if record.index != last + 1 {
        return broken("I3", format!("record {} follows record {last}", record.index));
    }
    if appended != Some(&record.payload) {
        return broken("I3", format!("record {} is not what was appended there", record.index));
    }
    Ok(())
}

/// More urgent jobs of a queue come before less urgent ones.
pub(crate) fn by_priority(queues: &[QueueName], jobs: &[DispatchedJob]) -> Check {
    // A queue that is named twice is looked at twice, and an operation that is met in between may have moved jobs to it.
    let once = |queue: &QueueName| queues.iter().filter(|named| *named == queue).count() == 1;
    // Groups and limits come before priorities.
    let ranked = |queue: &QueueName| *queue != crate::workload::routed() && once(queue);
    let jobs: Vec<_> = jobs.iter().filter(|job| ranked(&job.queue)).collect();
    let wrong =
        jobs.windows(2).find(|pair| pair[0].queue == pair[1].queue && pair[0].priority > pair[1].priority);
    match wrong {
        None => Ok(()),
        Some(pair) => broken("I3", format!("job {} came before the more urgent {}", pair[0].id, pair[1].id)),
    }
}
