use crate::shard::{Context, Shard};
use kit::Timestamp;
use model::{BulkControl, BulkStatus, Reject, Reply};

impl Shard {
    /// Pauses, resumes or cancels an operation. What it has done stays done.
    pub(crate) fn control_bulk(
        &mut self,
        operation: u64,
        control: BulkControl,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        let bulk = self.bulks.get(&operation).ok_or(Reject::UnknownOperation { operation })?;
        let wanted = match control {
            BulkControl::Pause => BulkStatus::Paused,
            BulkControl::Resume => BulkStatus::Running,
            BulkControl::Cancel => BulkStatus::Cancelled,
        };
        let (status, queue) = (bulk.status, bulk.queue);
        if status.is_over() && status != wanted {
            return Err(Reject::OperationEnded { operation, status: status.name() });
        }
        if status != wanted {
            let bulk = self.bulk_mut(operation);
            bulk.status = wanted;
            // It begins its pace anew: time in which it stood still is not made up for.
            bulk.worked_at = Timestamp::ZERO;
            // What a purge has not reached may start now.
            self.release_claimed(operation, context);
            if wanted.is_over() {
                self.end_bulk(operation, wanted, context.now);
            }
        }
        let view = self.bulks[&operation].view(&self.queues[queue as usize].name);
        Ok(Reply::Operation(Box::new(view)))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;
    use model::limits;

    #[test]
    fn an_operation_stands_still_until_it_is_resumed() {
        check(
            "
            0s push mail x2500
            0s bulk purge mail           -> bulk 1: 0 of 0
            1s tick
            1s control pause 1           -> bulk 1: 1000 of 1000 paused
            1s next                      -> never
            2s tick
            2s bulks                     -> bulk 1: 1000 of 1000 paused
            2s control pause 1           -> bulk 1: 1000 of 1000 paused
            3s control resume 1          -> bulk 1: 1000 of 1000
            3s next                      -> 3s
            4s tick
            5s tick
            5s bulks                     -> bulk 1: 2500 of 2500 finished
        ",
        );
    }

    #[test]
    fn what_a_paused_purge_has_not_reached_starts_and_a_resumed_one_takes_the_rest() {
        check(
            "
            0s push mail id=a ; mail id=b ; mail id=c
            0s bulk purge mail           -> bulk 1: 0 of 0
            0s control pause 1           -> bulk 1: 0 of 0 paused
            0s heard                     -> 3 in mail
            1s fetch mail                -> a 1/5 t1
            1s control resume 1          -> bulk 1: 0 of 0
            1s fetch mail                -> none
            2s bulks                     -> bulk 1: 2 of 2
            2s tick
            2s bulks                     -> bulk 1: 2 of 2 finished
        ",
        );
    }

    #[test]
    fn a_cancelled_operation_is_over() {
        check(
            "
            0s push mail x1500
            0s bulk purge mail           -> bulk 1: 0 of 0
            1s tick
            1s control cancel 1          -> bulk 1: 1000 of 1000 cancelled
            1s control cancel 1          -> bulk 1: 1000 of 1000 cancelled
            1s control resume 1          -> ! operation_ended
            1s control pause 1           -> ! operation_ended
            1s control pause 2           -> ! unknown_operation
            2s counts mail               -> 500 waiting
            2s next                      -> never
        ",
        );
    }

    #[test]
    fn an_operation_cancelled_at_the_moment_others_ended_is_not_the_one_forgotten() {
        let mut script = String::from("0s push mail x3\n0s bulk purge mail\n0s control pause 1\n");
        for operation in 2..=limits::BULKS_KEPT + 1 {
            script += &format!("1s bulk purge mail\n1s control cancel {operation}\n");
        }
        script += "1s control cancel 1 -> bulk 1: 0 of 0 cancelled\n";
        check(&script);
    }
}
