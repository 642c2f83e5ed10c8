//! I20: a push waits only while its queue is full.

use crate::history::{Check, broken};
use model::{Command, OnFull};
use node::Driver;

/// With nothing under way, the push that has waited longest does not fit where it is to go. Told from counts and settings alone; jobs
/// with ids or unique keys may add less than they are, and are left to the tests of the driver.
pub(crate) fn wait_for_room_only(driver: &Driver<u64>) -> Check {
    let Some(Command::Push { jobs }) = driver.first_producer().map(|push| &push.command) else {
        return Ok(());
    };
    let Some(first) = jobs.first() else { return broken("I20", "an empty push waits") };
    let plain = jobs.iter().all(|job| job.queue == first.queue && job.id.is_none() && job.unique.is_none());
    if !plain {
        return Ok(());
    }
    let Some(queue) = driver.shard().queue(&first.queue) else {
        return broken("I20", "a push waits for a queue that is not there");
    };
    let capacity = queue.settings.capacity;
    let full = capacity.jobs > 0 && queue.counts.live() + jobs.len() as u64 > capacity.jobs;
    if capacity.on_full == OnFull::Block && full {
        return Ok(());
    }
    let (held, more) = (queue.counts.live(), jobs.len());
    broken("I20", format!("{more} jobs wait for room in {}, which holds {held}: {capacity:?}", first.queue))
}
