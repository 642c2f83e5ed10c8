use crate::shard::{Context, Shard};
use compact_str::CompactString;
use model::{JobId, JoinState, Reject, Reply, limits};

impl Shard {
    /// Calls a join off: its continuation and the members that have not ended are cancelled. One that has ended stays as it is.
    pub(crate) fn cancel_join(
        &mut self,
        id: &JobId,
        reason: &CompactString,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if reason.len() > limits::LOG_LINE_BYTES_MAX {
            return Err(Reject::Invalid { field: "reason", reason: "has at most 4096 bytes".into() });
        }
        let join = self.known_join(id)?;
        let (number, then) = (join.id, self.slot_of(join.then));
        if join.state != JoinState::Open {
            return Ok(Reply::Done);
        }
        // The continuation ends with the caller's reason; that ends the join.
        match then {
            Some(slot) => self.cancel_slot(slot, reason, context),
            None => self.end_join(number, JoinState::Cancelled, context.now),
        }
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_join_that_is_called_off_takes_its_members_and_its_continuation_along() {
        check(
            "
            0s  join q id=a ; q id=b ; q id=c ; sum id=x | in all a b | out all in c then=x rest=run
            1s  fetch q                      -> a 1/5 t1
            2s  calloff #6                   -> ok
            2s  heard                        -> w1 lost a t1 cancelled
            2s  counts q                     -> 3 cancelled
            2s  joined #6                    -> cancelled in=cancelled(a=cancelled b=cancelled) c=cancelled
            2s  history x                    -> 0s 1 w1 push waiting-children 0, 2s 3 w1 cancel cancelled 0 cancelled
            3s  calloff #6                   -> ok
            3s  calloff #77                  -> ! unknown_join
        ",
        );
    }

    #[test]
    fn a_member_that_another_open_join_waits_for_is_left() {
        check(
            "
            0s  join q id=a ; q id=b | j all a b | k all b
            1s  calloff #3                   -> ok
            1s  counts q                     -> 1 waiting, 1 cancelled
            2s  calloff #4                   -> ok
            2s  counts q                     -> 2 cancelled
        ",
        );
    }
}
