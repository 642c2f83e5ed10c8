use crate::shard::Shard;
use model::{Reject, Reply, ScheduleId};

impl Shard {
    /// Forgets a schedule. Its jobs are jobs like any other.
    pub(crate) fn remove_schedule(&mut self, id: &ScheduleId) -> Result<Reply, Reject> {
        if self.schedules.get(id).is_none() {
            return Err(Reject::UnknownSchedule { id: id.clone() });
        }
        let zone = self.schedules.remove(id);
        self.dirty.put_schedule(id, 0, zone);
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_removed_schedule_leaves_its_jobs() {
        check(
            "
            0s  schedule tick mail every=10s cron=*_*_*_*_* zone=Europe/Berlin
            0s  schedule tock mail cron=*_*_*_*_* zone=Europe/Berlin -> created active next 40s
            40s remove_schedule tick         -> ok
            40s remove_schedule tick         -> ! unknown_schedule
            40s fetch mail max=9             -> tick@40s 1/5 t1, tock@40s 1/5 t2
            41s done tick@40s t1             -> completed
            41s remove_schedule tock         -> ok
            41s course tock                  -> gone
        ",
        );
    }
}
