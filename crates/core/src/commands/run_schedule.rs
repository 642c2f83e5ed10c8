use crate::{
    schedule::firing,
    shard::{Context, Shard},
};
use model::{FiringResult, Reject, Reply, ScheduleId};

impl Shard {
    /// Pushes a schedule's job now, whatever its slots, its pause and its limit say.
    pub(crate) fn run_schedule(
        &mut self,
        id: &ScheduleId,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        let now = context.now;
        // The position makes an id that no run had before, also of a former schedule of this name.
        let pushed = self.push_scheduled(id, id.run_id(context.position), now, context)?;
        let result = FiringResult::Ran { job: pushed.id.clone() };
        self.schedules.change(id, |schedule| schedule.keep(firing(now, now, result)));
        self.dirty.courses.insert(id.clone());
        Ok(Reply::Pushed(vec![pushed]))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_run_by_hand_is_beside_the_slots() {
        check(
            "
            0s  schedule tick mail every=10s limit=1 -> created active next 10s
            3s  run_schedule tick                    -> tick@run-2 waiting
            3s  run_schedule tick                    -> tick@run-3 waiting
            10s tick
            10s course tick                          -> ended, 1 fired, 3 live
            11s run_schedule tick                    -> tick@run-5 waiting
            11s firings tick                         -> 3s ran, 3s ran, 10s fired, 11s ran
            12s run_schedule tock                    -> ! unknown_schedule
            13s configure mail jobs=4                -> configured
            13s run_schedule tick                    -> ! queue_full
        ",
        );
    }
}
