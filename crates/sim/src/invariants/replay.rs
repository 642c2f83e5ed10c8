//! I4: the state is what a replay of the log from genesis gives, and every answer is the one that the replay gives.

use crate::history::{Call, Check, Entry, Told, broken, call_of, waited_on};
use millpond_core::Shard;
use model::Reply;

/// The running shard, or one restored from checkpoint and tail, against the replay from genesis.
pub(crate) fn same_state(shard: &Shard, genesis: &Shard) -> Check {
    if shard.position() != genesis.position() {
        return broken(
            "I4",
            format!("the shard is at {}, the log at {}", shard.position(), genesis.position()),
        );
    }
    if shard.state_hash() != genesis.state_hash() {
        let records = shard.differences(genesis);
        let position = shard.position();
        return broken(
            "I4",
            format!("at position {position} the state differs from a replay in {records:?}"),
        );
    }
    shard.check().or_else(|what| broken("I4", what))
}

/// What the caller was told against what the replay says.
pub(crate) fn same_answer(entry: &Entry, calls: &[Call]) -> Check {
    let Some(call) = call_of(&entry.envelope.actor).and_then(|call| calls.get(call)) else { return Ok(()) };
    let same = match &call.told {
        Told::Done { reply, position } => *position != entry.position || entry.reply.as_ref() == Ok(reply),
        // A fetch that found nothing, a push that found no room, waits and asks again; what it was told is the answer to its last asking.
        Told::Refused(reject) => {
            entry.reply.as_ref() == Err(reject)
                || matches!(&entry.reply, Ok(Reply::Fetched(jobs)) if jobs.is_empty())
                || waited_on(&entry.reply)
        }
        Told::Nothing | Told::NotDone | Told::Unknown => true,
    };
    if same {
        return Ok(());
    }
    broken("I4", format!("position {}: told {:?}, replayed {:?}", entry.position, call.told, entry.reply))
}
