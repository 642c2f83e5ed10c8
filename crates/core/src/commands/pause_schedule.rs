use crate::shard::Shard;
use model::{Reject, Reply, ScheduleChange, ScheduleId};

impl Shard {
    /// Stops a schedule. Again is no change.
    pub(crate) fn pause_schedule(&mut self, id: &ScheduleId) -> Result<Reply, Reject> {
        let was_paused = self
            .schedules
            .change(id, |schedule| std::mem::replace(&mut schedule.course.paused, true))
            .ok_or_else(|| Reject::UnknownSchedule { id: id.clone() })?;
        let change = if was_paused { ScheduleChange::Unchanged } else { ScheduleChange::Updated };
        self.dirty.courses.insert(id.clone());
        Ok(Reply::Scheduled(self.scheduled(id, change)))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_paused_schedule_fires_nothing_and_goes_on_with_the_next_slot() {
        check(
            "
            0s  schedule tick mail every=10s -> created active next 10s
            10s pause_schedule tick          -> updated paused
            15s pause_schedule tick          -> unchanged paused
            35s tick
            35s course tick                  -> paused, 1 fired, 1 live
            35s slots tick n=2               -> 40s, 50s
            35s next                         -> never
            35s resume_schedule tick         -> updated active next 40s
            35s resume_schedule tick         -> unchanged active next 40s
            40s fetch mail max=9             -> tick@10s 1/5 t1, tick@40s 1/5 t2
            40s pause_schedule tock          -> ! unknown_schedule
            40s resume_schedule tock         -> ! unknown_schedule
        ",
        );
    }
}
