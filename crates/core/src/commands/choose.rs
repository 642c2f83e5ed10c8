use crate::{
    bulk::{Cursor, JOB},
    shard::{Context, Shard},
};
use model::{BulkStatus, Chosen, Reject, Reply, limits};

impl Shard {
    /// Moves on with an operation that asks about bodies: over the jobs that its node has read, changing those it has chosen.
    ///
    /// The shard decides everything but what the bodies say: a job that is no longer meant is left, whoever chose it.
    pub(crate) fn choose(&mut self, chosen: &Chosen, context: &mut Context<'_>) -> Result<Reply, Reject> {
        let operation = chosen.operation;
        if chosen.jobs.len() > limits::BULK_WORK_MAX {
            return Err(Reject::TooMany {
                what: "jobs named in one call",
                limit: limits::BULK_WORK_MAX as u64,
            });
        }
        let bulk = self.bulks.get(&operation).filter(|bulk| bulk.reads());
        let bulk = bulk.ok_or(Reject::StaleChoice { operation })?;
        let (stage, states) = (bulk.cursor.stage, bulk.states());
        if stage != chosen.stage as usize {
            return Err(Reject::StaleChoice { operation });
        }
        let credit = bulk.credit_at(context.now);
        let bulk = self.bulk_mut(operation);
        (bulk.credit, bulk.worked_at, bulk.worked_position) = (credit, context.now, context.position);
        for _ in 0..limits::BULK_WORK_MAX {
            let bulk = &self.bulks[&operation];
            if bulk.rate > 0 && bulk.credit < JOB {
                break;
            }
            let mut cursor = bulk.cursor;
            let Some(slot) = self.walk(bulk, &states, &mut cursor) else {
                self.end_bulk(operation, BulkStatus::Finished, context.now);
                break;
            };
            if cursor.stage != stage {
                // The bodies of the next state have not been read.
                self.bulk_mut(operation).cursor = Cursor::stage(cursor.stage, cursor.until);
                break;
            }
            if (cursor.priority, cursor.order - 1) > (chosen.priority, chosen.order) {
                break;
            }
            self.bulk_mut(operation).cursor = cursor;
            if chosen.jobs.binary_search(&self.jobs[slot].sequence).is_ok() {
                self.bulk_meet(operation, slot, context);
            } else {
                self.bulk_mut(operation).examined += 1;
            }
        }
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn an_operation_that_asks_about_bodies_moves_when_its_node_has_chosen() {
        check(
            "
            0s push mail id=a body=1 delay=1h ; mail id=b body=2 ; mail id=c body=3 ; mail id=d body=2
            0s bulk purge mail body=2    -> bulk 1: 0 of 0
            0s next                      -> 3600s
            0s unread                    -> 1: #1
            0s choose 1 stage=0          -> ok
            0s bulks                     -> bulk 1: 0 of 1
            // No fetch waits for the node: b starts.
            0s fetch mail                -> b 1/5 t1
            // Nothing was lost by the wrong stage, or by an answer that comes twice.
            0s choose 1 stage=0 jobs=3   -> ! stale_choice
            1s unread                    -> 1: #3 #4
            1s choose 1 stage=4 jobs=2,4 -> ok
            1s choose 1 stage=4 jobs=2,4 -> ! stale_choice
            1s bulks                     -> bulk 1: 1 of 3 finished
            1s counts mail               -> 1 waiting, 1 delayed, 1 active
            1s unread                    -> none
        ",
        );
    }
}
