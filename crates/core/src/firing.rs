//! A schedule's time has come: which slot fires, which are passed over, and the job that is pushed.

use crate::{
    schedule::{Schedule, firing},
    shard::{Context, Shard},
};
use compact_str::ToCompactString;
use kit::Timestamp;
use model::{
    CatchUp, FiringResult, JobId, NewJob, Overlap, Pushed, Reject, ScheduleId, ScheduleSpec, limits,
};

/// The name of the schedule in the meta of the jobs that it makes.
pub(crate) const META_SCHEDULE: &str = "schedule";
/// The slot in the meta of the job that it makes.
pub(crate) const META_SLOT: &str = "slot";

/// Slots that can be passed over for the price of one job's move.
const PASSED_PER_WORK: u64 = 16;

impl Shard {
    /// Settles one slot of a schedule that is due. Returns what that cost, in moves of a job.
    pub(crate) fn fire_schedule(&mut self, id: &ScheduleId, context: &mut Context<'_>) -> usize {
        self.dirty.courses.insert(id.clone());
        let released = self.schedules.change(id, |schedule| {
            schedule.released().inspect(|_| {
                schedule.course.queued.pop_front();
            })
        });
        if let Some(slot) = released.flatten() {
            self.push_slot(id, slot, context);
            return 1;
        }
        let now = context.now;
        let (slot, work) = self.schedules.change(id, |schedule| catch_up(schedule, now)).unwrap_or_default();
        if let Some(slot) = slot {
            self.settle_slot(id, slot, context);
        }
        work
    }

    /// Gives a slot to the schedule's overlap policy.
    fn settle_slot(&mut self, id: &ScheduleId, slot: Timestamp, context: &mut Context<'_>) {
        let now = context.now;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::MissSlot) && (slot.0 / 1_000).is_multiple_of(7) {
            return;
        }
        let Some(schedule) = self.schedules.get(id) else { return };
        let busy = !schedule.course.live.is_empty() || !schedule.course.queued.is_empty();
        match schedule.spec.overlap {
            Overlap::Skip if busy => {}
            Overlap::Queue if busy && schedule.course.queued.len() < limits::SCHEDULE_QUEUED_MAX => {
                self.schedules.change(id, |schedule| {
                    schedule.course.queued.push_back(slot);
                    schedule.aim();
                });
                return;
            }
            Overlap::Queue if busy => {}
            Overlap::CancelPrevious if busy => {
                let live: Vec<u64> = schedule.course.live.iter().copied().collect();
                for earlier in
                    live.into_iter().filter_map(|sequence| self.slot_of(sequence)).collect::<Vec<_>>()
                {
                    self.cancel_slot(earlier, &"the next slot of its schedule came".into(), context);
                }
                return self.push_slot(id, slot, context);
            }
            Overlap::Allow | Overlap::Skip | Overlap::Queue | Overlap::CancelPrevious => {
                return self.push_slot(id, slot, context);
            }
        }
        self.schedules.change(id, |schedule| {
            schedule.course.skipped += 1;
            schedule.keep(firing(slot, now, FiringResult::Skipped));
        });
    }

    fn push_slot(&mut self, id: &ScheduleId, slot: Timestamp, context: &mut Context<'_>) {
        let job_id = id.job_id(slot);
        #[cfg(feature = "plant")]
        let job_id =
            match crate::plant::is(crate::plant::Bug::FireSlotTwice) && (slot.0 / 1_000).is_multiple_of(5) {
                true => {
                    let _ = self.push_scheduled(id, job_id, slot, context);
                    JobId::Text(format!("schedule:{id}:again-{slot}").into())
                }
                false => job_id,
            };
        let pushed = self.push_scheduled(id, job_id, slot, context);
        let now = context.now;
        self.schedules.change(id, |schedule| {
            let result = match pushed {
                Ok(pushed) => {
                    schedule.course.fired += 1;
                    FiringResult::Fired { job: pushed.id }
                }
                Err(reject) => {
                    schedule.course.refused += 1;
                    FiringResult::Refused { code: reject.code().into() }
                }
            };
            schedule.keep(firing(slot, now, result));
            schedule.aim();
        });
    }

    /// Pushes a schedule's job under that id. By its unique key it may find another job instead.
    pub(crate) fn push_scheduled(
        &mut self,
        id: &ScheduleId,
        job_id: JobId,
        slot: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<Pushed, Reject> {
        let Some(schedule) = self.schedules.get(id) else {
            return Err(Reject::UnknownSchedule { id: id.clone() });
        };
        let job = instance(&schedule.spec, id, job_id, slot);
        let pushed = self.push_own(&[job], context)?;
        Ok(pushed.into_iter().next().expect("one job was pushed"))
    }
}

/// The job that a slot pushes.
pub(crate) fn instance(spec: &ScheduleSpec, id: &ScheduleId, job_id: JobId, slot: Timestamp) -> NewJob {
    let mut job = spec.job.clone();
    job.id = Some(job_id);
    job.meta.push((META_SCHEDULE.into(), id.as_str().into()));
    job.meta.push((META_SLOT.into(), slot.to_compact_string()));
    job
}

/// Moves the cursor past the slots that are settled now and returns the one that fires, if any, with the cost of finding it.
fn catch_up(schedule: &mut Schedule, now: Timestamp) -> (Option<Timestamp>, usize) {
    let Some(slot) = schedule.next() else { return (None, 1) };
    let owed = slot <= schedule.course.owed_until;
    let behind = !owed && schedule.slots.next(slot).is_some_and(|next| schedule.due(next) <= now);
    let (mut target, mut work) = (slot, 1);
    if behind {
        let newest = newest_due(schedule, slot, now);
        target = newest;
        if let CatchUp::All { most } = schedule.spec.catch_up {
            for _ in 1..most {
                let Some(earlier) = schedule.slots.previous(target, Timestamp(slot.0 - 1)) else { break };
                target = earlier;
                work += 1;
            }
            schedule.course.owed_until = newest;
        }
    }
    if target > slot {
        let passed = schedule.slots.after(Timestamp(slot.0 - 1)).take_while(|passed| *passed < target);
        let passed = passed.take(limits::CATCH_UP_MAX as usize).count() as u64;
        work += (passed / PASSED_PER_WORK) as usize;
        let until = schedule.slots.previous(target, Timestamp(slot.0 - 1)).unwrap_or(slot);
        schedule.course.missed += passed;
        schedule.keep(firing(slot, now, FiringResult::Missed { until }));
    }
    let too_late =
        schedule.spec.catch_up == CatchUp::Skip && now - schedule.due(target) > limits::SLOT_LATE_MS_MAX;
    if too_late {
        schedule.course.missed += 1;
        schedule.keep(firing(target, now, FiringResult::Missed { until: target }));
    }
    schedule.course.cursor = target;
    schedule.aim();
    (Some(target).filter(|_| !too_late), work)
}

/// The newest slot that is due, from one on that is.
fn newest_due(schedule: &Schedule, slot: Timestamp, now: Timestamp) -> Timestamp {
    let newest = schedule.slots.previous(now + 1, slot).unwrap_or(slot);
    if schedule.due(newest) <= now {
        return newest;
    }
    // Jitter ends before the next slot, so the one before is due.
    schedule.slots.previous(newest, slot).unwrap_or(slot)
}

#[cfg(test)]
mod tests {
    use crate::tests::{Script, check};

    #[test]
    fn each_slot_makes_one_job_that_knows_its_schedule_and_its_slot() {
        let script = check(
            "
            0s  schedule tick mail every=10s priority=0 tag=red attempts=2 -> created active next 10s
            0s  next                         -> 10s
            10s tick
            10s heard                        -> 1 in mail
            10s tick
            10s fetch mail max=9             -> tick@10s 1/2 t1
            20s fetch mail max=9             -> tick@20s 1/2 t2
            20s firings tick                 -> 10s fired, 20s fired
        ",
        );
        let queue = model::QueueName::new("mail").unwrap();
        let id = model::JobId::Text("schedule:tick:2023-11-14T22:13:30.000Z".into());
        let job = script.shard.job(&model::JobRef { queue: Some(queue), id }).unwrap();
        let meta: Vec<_> = job.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(meta, ["schedule=tick", "slot=2023-11-14T22:13:30.000Z"]);
    }

    #[test]
    fn slots_and_jobs_that_are_due_stand_in_the_order_of_their_times() {
        check(
            "
            0s  schedule tick mail every=10s -> created active next 10s
            0s  push mail id=a delay=9s ; mail id=b delay=10s ; mail id=c delay=11s
            15s push mail id=d               -> d waiting
            15s upcoming mail                -> a b tick@10s c d
        ",
        );
    }

    #[test]
    fn the_newest_slot_of_an_outage_fires_unless_asked_otherwise() {
        check(
            "
            0s  schedule tick mail every=10s -> created active next 10s
            0s  schedule late mail every=10s catch=skip start=1s -> created active next 1s
            0s  schedule long mail every=100s catch=skip start=2s -> created active next 2s
            2s  fetch mail max=9 lease=1h    -> late@1s 1/5 t1, long@2s 1/5 t2
            95s tick
            95s upcoming mail                -> tick@90s late@91s
            95s firings tick                 -> 10s missed until 80s, 90s fired
            95s course tick                  -> active at 100s, 1 fired, 8 missed, 1 live
            95s course late                  -> active at 101s, 2 fired, 8 missed, 2 live
            163s tick
            163s firings long                -> 2s fired, 102s missed until 102s
            163s course long                 -> active at 202s, 1 fired, 1 missed, 1 live
        ",
        );
    }

    #[test]
    fn every_slot_of_an_outage_fires_up_to_a_bound_if_asked() {
        check(
            "
            0s  schedule tick mail every=10s catch=all:3 -> created active next 10s
            65s tick
            65s upcoming mail                -> tick@40s tick@50s tick@60s
            65s course tick                  -> active at 70s, 3 fired, 3 missed, 3 live
            0s  schedule tock mail every=10s catch=all:1000 cron=*/10_*_*_*_*_* -> created active next 70s
            96s tick
            96s firings tock                 -> 70s fired, 80s fired, 90s fired
        ",
        );
    }

    #[test]
    fn a_year_of_seconds_is_caught_up_with_in_bounded_steps() {
        let mut script = check(
            "
            0s schedule all mail cron=*_*_*_*_*_* catch=all:1000 -> created active next 1s
            0s schedule one mail cron=*_*_*_*_*_* zone=Europe/Berlin -> created active next 1s
            0s schedule every mail every=1s catch=all:1000 -> created active next 1s
        ",
        );
        let year = 365 * 86_400;
        for _ in 0..8 {
            script.line(&format!("{year}s tick"));
        }
        assert_eq!(script.line(&format!("{year}s counts mail")), "2001 waiting");
        let next = format!("active at {}s", year + 1);
        for id in ["all", "every"] {
            let course = script.line(&format!("{year}s course {id}"));
            assert_eq!(course, format!("{next}, 1000 fired, 1000 missed, 64 live"));
        }
        let firings = script.line(&format!("{year}s firings one"));
        assert_eq!(firings, format!("1s missed until {}s, {year}s fired", year - 1));
    }

    #[test]
    fn jitter_moves_the_firing_and_not_the_slot() {
        let mut script = check("0s schedule tick mail every=10s jitter=9s -> created active next 10s");
        let mut late = 0;
        for second in 1..200 {
            script.line(&format!("{second}s tick"));
            let mut jobs: Vec<String> = Vec::new();
            for job in script
                .line(&format!("{second}s fetch mail max=9 lease=1h"))
                .split(", ")
                .filter(|job| *job != "none")
            {
                jobs.push(job.split(' ').next().unwrap().to_string());
            }
            for job in jobs {
                let slot: u64 = job["tick@".len()..].trim_end_matches('s').parse().unwrap();
                assert!((slot..slot + 10).contains(&second), "{job} at {second}s");
                late += second - slot;
            }
        }
        assert_eq!(script.line("200s course tick").split(',').nth(1), Some(" 19 fired"));
        assert!(late > 40, "{late}");
    }

    #[test]
    fn a_slot_can_be_skipped_while_an_earlier_job_has_not_ended() {
        check(
            "
            0s  schedule tick mail every=10s overlap=skip -> created active next 10s
            10s tick
            20s tick
            25s fetch mail max=9             -> tick@10s 1/5 t1
            30s tick
            31s retry tick@10s t1 oops after=20s -> retrying
            40s tick
            51s fetch mail                   -> tick@10s 2/5 t2
            52s done tick@10s t2             -> completed
            60s fetch mail max=9             -> tick@60s 1/5 t3
            60s firings tick                 -> 10s fired, 20s skipped, 30s skipped, 40s skipped, 50s skipped, 60s fired
            60s course tick                  -> active at 70s, 2 fired, 4 skipped, 1 live
        ",
        );
    }

    #[test]
    fn a_slot_can_wait_for_the_end_of_the_earlier_job() {
        check(
            "
            0s  schedule tick mail every=10s overlap=queue limit=3 -> created active next 10s
            10s fetch mail lease=1h          -> tick@10s 1/5 t1
            20s tick
            30s tick
            40s course tick                  -> active, 1 fired, 2 queued, 1 live
            40s next                         -> 310s
            40s done tick@10s t1             -> completed
            40s next                         -> 20s
            40s fetch mail max=9             -> tick@20s 1/5 t2
            41s course tick                  -> active, 2 fired, 1 queued, 1 live
            42s cancel tick@20s              -> cancelled
            43s upcoming mail                ->
            43s tick
            43s upcoming mail                -> tick@30s
            44s remove tick@30s              -> ok
            44s course tick                  -> ended, 3 fired
        ",
        );
    }

    #[test]
    fn a_slot_can_cancel_the_earlier_job() {
        check(
            "
            0s  schedule tick mail every=10s overlap=cancel_previous -> created active next 10s
            10s fetch mail                   -> tick@10s 1/5 t1
            11s run_schedule tick            -> tick@run-3 waiting
            20s tick
            20s heard                        -> w1 lost tick@10s t1 cancelled, 1 in mail
            20s counts mail                  -> 1 waiting, 2 cancelled
            21s done tick@10s t1             -> ! cancelled
            21s redrive tick@10s             -> waiting
            21s course tick                  -> active at 30s, 2 fired, 2 live
            30s tick
            30s counts mail                  -> 1 waiting, 3 cancelled
        ",
        );
    }

    #[test]
    fn a_slot_whose_job_is_refused_says_so() {
        check(
            "
            0s  configure mail jobs=1        -> configured
            0s  push mail id=a               -> a waiting
            0s  schedule tick mail every=10s -> created active next 10s
            20s tick
            20s firings tick                 -> 10s missed until 10s, 20s queue_full
            20s course tick                  -> active at 30s, 1 missed, 1 refused
            20s standing tick                -> fires next at 2023-11-14T22:13:50.000Z; the job of the slot \
                2023-11-14T22:13:40.000Z was refused with queue_full, 1 refused so far
            21s fetch mail                   -> a 1/5 t1
            22s done a t1                    -> completed
            30s fetch mail                   -> tick@30s 1/5 t2
            30s standing tick                -> fires next at 2023-11-14T22:14:00.000Z
        ",
        );
    }

    #[test]
    fn a_queue_whose_producers_wait_refuses_a_slot_and_counts_it() {
        check(
            "
            0s  configure mail jobs=1 full=block -> configured
            0s  push mail id=a               -> a waiting
            0s  schedule tick mail every=10s -> created active next 10s
            0s  run_schedule tick            -> ! queue_full waits
            10s tick
            10s firings tick                 -> 10s queue_full
            10s course tick                  -> active at 20s, 1 refused
        ",
        );
    }

    #[test]
    fn a_slot_never_fires_again_even_when_its_job_is_gone() {
        let mut script: Script = check(
            "
            0s  schedule tick mail every=10s -> created active next 10s
            10s fetch mail                   -> tick@10s 1/5 t1
            10s done tick@10s t1             -> completed
            11s remove tick@10s              -> ok
            5s  tick
            11s upcoming mail                ->
        ",
        );
        // The clock jumps back, then a day ahead.
        assert_eq!(script.line("0s schedule tick mail every=10s"), "unchanged active next 20s");
        script.line("1d tick");
        assert_eq!(script.line("1d upcoming mail"), "tick@86400s");
    }
}
