use crate::{
    commands::push::check_job,
    firing::{META_SCHEDULE, META_SLOT, instance},
    schedule::{Course, Schedule, rules_of},
    shard::{Context, Shard},
    slots::Slots,
};
use kit::Timestamp;
use model::{CatchUp, Reject, Reply, ScheduleChange, ScheduleId, ScheduleSpec, limits};

impl Shard {
    /// Makes a schedule, or makes the one of that id like this. The same again touches nothing, so that any number of nodes may put
    /// what they were deployed with.
    pub(crate) fn put_schedule(
        &mut self,
        id: &ScheduleId,
        spec: &ScheduleSpec,
        context: &Context<'_>,
    ) -> Result<Reply, Reject> {
        let now = context.now;
        let former = self.schedules.get(id);
        if former.is_some_and(|former| former.spec == *spec) {
            return Ok(Reply::Scheduled(self.scheduled(id, ScheduleChange::Unchanged)));
        }
        let slots = Slots::of(spec)?;
        check_spec(id, spec)?;
        self.check_room(id, spec)?;
        let (change, course) = match former {
            None => (ScheduleChange::Created, Course { created_at: now, cursor: now, ..Course::default() }),
            Some(former) => (ScheduleChange::Updated, kept(former, spec, now)),
        };
        let schedule = Schedule::new(id, spec.clone(), slots, Course { updated_at: now, ..course });
        let zones = self.schedules.insert(id.clone(), schedule);
        self.dirty.put_schedule(id, spec.job.body.len(), zones);
        Ok(Reply::Scheduled(self.scheduled(id, change)))
    }

    fn check_room(&self, id: &ScheduleId, spec: &ScheduleSpec) -> Result<(), Reject> {
        let too_many = |what, limit: usize| Err(Reject::TooMany { what, limit: limit as u64 });
        let former = self.schedules.get(id);
        if former.is_none() && self.schedules.len() >= limits::SCHEDULES_MAX {
            return too_many("schedules", limits::SCHEDULES_MAX);
        }
        let freed = former.map_or(0, |former| former.spec.job.body.len());
        if self.schedules.body_bytes() + spec.job.body.len() - freed > limits::SCHEDULE_BODIES_BYTES_MAX {
            return too_many("bytes of the bodies of schedules", limits::SCHEDULE_BODIES_BYTES_MAX);
        }
        let known = rules_of(spec).is_none_or(|(hash, _)| self.schedules.rules_by(hash).is_some());
        if !known && self.schedules.zones() >= limits::ZONES_MAX {
            return too_many("rules of time zones", limits::ZONES_MAX);
        }
        Ok(())
    }
}

/// How far a schedule has come, under its new spec. New rules of the same zone move no slot that was settled; other times begin now.
fn kept(former: &Schedule, spec: &ScheduleSpec, now: Timestamp) -> Course {
    let mut course = former.course.clone();
    let same_times = match (&former.spec.when, &spec.when) {
        (
            model::When::Cron { expression, zone, .. },
            model::When::Cron { expression: new_expression, zone: new_zone, .. },
        ) => (expression, zone) == (new_expression, new_zone),
        (former, new) => former == new,
    };
    let same_bounds = (former.spec.start, former.spec.end) == (spec.start, spec.end);
    // One that had ended goes on now if it may.
    if !same_times || !same_bounds || former.next().is_none() {
        course.cursor = course.cursor.max(now);
        course.owed_until = Timestamp::ZERO;
    }
    course
}

fn check_spec(id: &ScheduleId, spec: &ScheduleSpec) -> Result<(), Reject> {
    let invalid = |field, reason: &str| Err(Reject::Invalid { field, reason: reason.into() });
    let (bytes, limit) = (spec.job.body.len() as u64, limits::SCHEDULE_BODY_BYTES_MAX as u64);
    if bytes > limit {
        return Err(Reject::BodyTooLarge { bytes, limit });
    }
    if spec.job.id.is_some() {
        return invalid("id", "is given by the schedule and the slot; leave it out");
    }
    if spec.job.run_at.is_some() {
        return invalid("run_at", "is the slot; delay_ms counts from there");
    }
    if spec.job.meta.iter().any(|(key, _)| key == META_SCHEDULE || key == META_SLOT) {
        return invalid("meta", "gets `schedule` and `slot` from the schedule; use other keys");
    }
    if spec.jitter_ms > limits::SCHEDULE_JITTER_MS_MAX {
        return invalid("jitter_ms", "is at most 24 h");
    }
    if let CatchUp::All { most } = spec.catch_up
        && !(1..=limits::CATCH_UP_MAX).contains(&most)
    {
        return invalid("catch_up", "fires 1 to 1000 slots of an outage");
    }
    check_job(&instance(spec, id, id.job_id(Timestamp::MAX), Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn the_same_schedule_again_touches_nothing() {
        check(
            "
            0s  schedule tick mail every=20s body=x  -> created active next 20s
            5s  schedule tick mail every=20s body=x  -> unchanged active next 20s
            20s schedule tick mail every=20s body=x  -> unchanged active next 40s
            20s fetch mail max=9                     -> tick@20s 1/5 t1
            21s schedule tick mail every=20s body=y  -> updated active next 40s
            22s schedule tick mail every=30s body=y  -> updated active next 40s
            22s slots tick                           -> 40s, 70s, 100s
        ",
        );
    }

    #[test]
    fn a_change_of_times_begins_now_and_never_fires_a_slot_twice() {
        check(
            "
            0s  schedule tick mail every=10s         -> created active next 10s
            10s schedule tick mail every=5s          -> updated active next 15s
            15s schedule tick mail every=10s start=0s -> updated active next 20s
            15s remove_schedule tick                 -> ok
            15s schedule tick mail every=5s          -> created active next 20s
            20s fetch mail max=9                     -> tick@10s 1/5 t1, tick@15s 1/5 t2, tick@20s 1/5 t3
        ",
        );
    }

    #[test]
    fn the_slots_of_a_zone_follow_its_clocks() {
        // The table begins at 22:13:20 UTC on 14 November 2023; in Kolkata it is 03:43:20.
        check(
            "
            0s schedule a mail cron=15_*_*_*_*                       -> created active next 100s
            0s schedule b mail cron=45_3_*_*_* zone=Asia/Kolkata     -> created active next 100s
            0s schedule c mail cron=30_*_13_*_*_* zone=Asia/Tokyo    -> created active next 20830s
            0s schedule d mail cron=45_3_*_*_* zone=Europe/Nowhere   -> ! bad_zone
            0s schedule d mail cron=45_3_30_2_*                      -> ! bad_cron
            0s schedule d mail cron=@daily zone=Europe/Berlin        -> created active next 2800s
        ",
        );
    }

    #[test]
    fn start_end_and_limit_bound_the_slots() {
        check(
            "
            0s   schedule a mail every=10s start=15s end=40s  -> created active next 15s
            0s   slots a n=9                                  -> 15s, 25s, 35s
            0s   schedule b mail every=10s limit=2            -> created active next 10s
            0s   slots b n=9                                  -> 10s, 20s
            15s  tick
            20s  tick
            25s  tick
            35s  tick
            50s  course a                                     -> ended, 3 fired, 3 live
            50s  course b                                     -> ended, 2 fired, 2 live
            60s  schedule b mail every=10s limit=3            -> updated active next 70s
            60s  schedule c mail every=10s end=30s            -> created ended
            60s  next                                         -> 70s
        ",
        );
    }

    #[test]
    fn a_schedule_that_could_not_work_is_refused() {
        check(
            "
            0s schedule a mail every=999ms              -> ! invalid every_ms
            0s schedule a mail every=10s start=9s end=8s -> ! invalid end
            0s schedule a mail every=10s id=x           -> ! invalid id
            0s schedule a mail every=10s jitter=25h     -> ! invalid jitter_ms
            0s schedule a mail every=10s catch=all:0    -> ! invalid catch_up
            0s schedule a mail every=10s catch=all:1001 -> ! invalid catch_up
            0s schedule a mail every=10s attempts=0     -> ! invalid attempts
            0s schedule a mail every=10s bytes=65537    -> ! body_too_large
            0s push mail id=schedule:a:b                -> ! invalid id
            0s course a                                 -> gone
            0s next                                     -> never
        ",
        );
    }
}
