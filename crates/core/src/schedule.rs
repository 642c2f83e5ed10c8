use crate::{shard::Shard, slots::Slots};
use bytes::Bytes;
use kit::Timestamp;
use model::{
    Firing, FiringResult, QueueName, ScheduleChange, ScheduleId, ScheduleSpec, ScheduleState, ScheduleView,
    Scheduled, When, limits,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// All schedules of a shard.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    all: BTreeMap<ScheduleId, Schedule>,
    /// When each of them has something to do.
    wakes: BTreeSet<(Timestamp, ScheduleId)>,
    /// The rules of the time zones in use, by their hash: written once, however many schedules use them.
    zones: BTreeMap<u128, Rules>,
    /// Of the bodies of all templates.
    body_bytes: usize,
}

#[derive(Debug)]
struct Rules {
    bytes: Bytes,
    users: usize,
}

/// A schedule: what it is, and how far it has come.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) spec: ScheduleSpec,
    pub(crate) course: Course,
    /// What follows from the two above.
    pub(crate) slots: Slots,
    seed: u64,
    next: Option<Timestamp>,
    wake: Option<Timestamp>,
}

/// How far a schedule has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) paused: bool,
    /// Slots up to here are settled, whatever the schedule is changed to. It only rises, so no slot fires twice.
    pub(crate) cursor: Timestamp,
    /// Slots up to here are being caught up with: each of them fires.
    pub(crate) owed_until: Timestamp,
    pub(crate) fired: u64,
    pub(crate) skipped: u64,
    pub(crate) missed: u64,
    pub(crate) refused: u64,
    /// Slots that wait for an earlier job to end.
    pub(crate) queued: VecDeque<Timestamp>,
    /// Sequence numbers of jobs that have not ended, at most the newest [`limits::SCHEDULE_LIVE_MAX`].
    pub(crate) live: BTreeSet<u64>,
    pub(crate) firings: VecDeque<Firing>,
}

impl Schedule {
    pub(crate) fn new(id: &ScheduleId, spec: ScheduleSpec, slots: Slots, course: Course) -> Self {
        let seed = xxhash_rust::xxh3::xxh3_64(id.as_str().as_bytes());
        let mut schedule = Self { spec, course, slots, seed, next: None, wake: None };
        schedule.aim();
        schedule
    }

    /// Finds the next slot anew, after the cursor, the limit or the spec has moved.
    pub(crate) fn aim(&mut self) {
        let made = self.course.fired + self.course.queued.len() as u64;
        let over = self.spec.limit > 0 && made >= self.spec.limit;
        self.next = if over { None } else { self.slots.next(self.course.cursor) };
    }

    /// The next slot, paused or not.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// When a slot fires.
    pub(crate) fn due(&self, slot: Timestamp) -> Timestamp {
        self.slots.due(slot, self.spec.jitter_ms, self.seed)
    }

    /// The slot that waited for the end of an earlier job, which has come.
    pub(crate) fn released(&self) -> Option<Timestamp> {
        self.course.queued.front().copied().filter(|_| self.course.live.is_empty())
    }

    fn wake_at(&self) -> Option<Timestamp> {
        if self.course.paused {
            return None;
        }
        self.released().or_else(|| self.next.map(|slot| self.due(slot)))
    }

    pub(crate) fn state(&self) -> ScheduleState {
        match (self.course.paused, self.next) {
            (true, _) => ScheduleState::Paused,
            (false, Some(_)) => ScheduleState::Active,
            (false, None) if !self.course.queued.is_empty() => ScheduleState::Active,
            (false, None) => ScheduleState::Ended,
        }
    }

    pub(crate) fn keep(&mut self, firing: Firing) {
        if self.course.firings.len() >= limits::SCHEDULE_FIRINGS_MAX {
            self.course.firings.pop_front();
        }
        self.course.firings.push_back(firing);
    }

    fn view(&self, id: &ScheduleId) -> ScheduleView {
        let course = &self.course;
        let next_slot = self.next.filter(|_| !course.paused);
        ScheduleView {
            id: id.clone(),
            spec: self.spec.clone(),
            state: self.state(),
            summary: self.summary(),
            next_slot,
            next_at: next_slot.map(|slot| self.due(slot)),
            created_at: course.created_at,
            updated_at: course.updated_at,
            fired: course.fired,
            skipped: course.skipped,
            missed: course.missed,
            refused: course.refused,
            queued: course.queued.len() as u64,
            live: course.live.len() as u64,
            firings: course.firings.iter().cloned().collect(),
        }
    }

    fn summary(&self) -> String {
        let course = &self.course;
        let held = match (course.queued.len(), course.live.len()) {
            (0, _) => String::new(),
            (queued, live) => format!("; {queued} slots wait for {live} earlier jobs to end"),
        };
        // Whoever looks whether all is well must not have to count.
        let refused = match course.firings.back() {
            Some(Firing { slot, result: FiringResult::Refused { code }, .. }) => {
                format!(
                    "; the job of the slot {slot} was refused with {code}, {} refused so far",
                    course.refused
                )
            }
            _ => String::new(),
        };
        let held = held + &refused;
        if course.paused {
            return format!("paused: slots fire nothing until it is resumed{held}");
        }
        match self.next {
            Some(slot) if self.due(slot) == slot => format!("fires next at {slot}{held}"),
            Some(slot) => format!("fires next at {}, for the slot {slot}{held}", self.due(slot)),
            None if !course.queued.is_empty() => format!("no further slot is left{held}"),
            None if self.spec.limit > 0 && course.fired >= self.spec.limit => {
                format!("ended: it has made its {} jobs", course.fired)
            }
            None => match self.spec.end {
                Some(end) => format!("ended: no slot is left before {end}{held}"),
                None => format!("ended: no slot is left{held}"),
            },
        }
    }
}

/// The hash under which the rules of a spec are kept, if it has any.
pub(crate) fn rules_of(spec: &ScheduleSpec) -> Option<(u128, &Bytes)> {
    match &spec.when {
        When::Cron { rules, .. } if !rules.is_empty() => Some((xxhash_rust::xxh3::xxh3_128(rules), rules)),
        When::Cron { .. } | When::Every { .. } => None,
    }
}

impl Schedules {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    pub(crate) fn zones(&self) -> usize {
        self.zones.len()
    }

    pub(crate) fn get(&self, id: &ScheduleId) -> Option<&Schedule> {
        self.all.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ScheduleId, &Schedule)> {
        self.all.iter()
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = (u128, &Bytes)> {
        self.zones.iter().map(|(hash, rules)| (*hash, &rules.bytes))
    }

    pub(crate) fn rules_by(&self, hash: u128) -> Option<&Bytes> {
        self.zones.get(&hash).map(|rules| &rules.bytes)
    }

    /// The earliest thing to do.
    pub(crate) fn first(&self) -> Option<&(Timestamp, ScheduleId)> {
        self.wakes.first()
    }

    /// Adds a schedule, or puts it in the place of the one of its id. Returns the hashes of rules that came or went.
    pub(crate) fn insert(&mut self, id: ScheduleId, mut schedule: Schedule) -> Vec<u128> {
        let mut changed = Vec::new();
        if let Some((hash, bytes)) = rules_of(&schedule.spec) {
            let bytes = bytes.clone();
            let rules = self.zones.entry(hash).or_insert_with(|| {
                changed.push(hash);
                Rules { bytes, users: 0 }
            });
            rules.users += 1;
            // One copy in memory for all.
            let shared = rules.bytes.clone();
            if let When::Cron { rules, .. } = &mut schedule.spec.when {
                *rules = shared;
            }
        }
        self.body_bytes += schedule.spec.job.body.len();
        changed.extend(self.remove(&id));
        schedule.wake = schedule.wake_at();
        if let Some(at) = schedule.wake {
            self.wakes.insert((at, id.clone()));
        }
        self.all.insert(id, schedule);
        changed
    }

    /// Takes a schedule out. Returns the hash of its rules if nobody else used them.
    pub(crate) fn remove(&mut self, id: &ScheduleId) -> Option<u128> {
        let schedule = self.all.remove(id)?;
        if let Some(at) = schedule.wake {
            self.wakes.remove(&(at, id.clone()));
        }
        self.body_bytes -= schedule.spec.job.body.len();
        let (hash, _) = rules_of(&schedule.spec)?;
        let rules = self.zones.get_mut(&hash)?;
        rules.users -= 1;
        (rules.users == 0).then(|| {
            self.zones.remove(&hash);
            hash
        })
    }

    /// Changes how far a schedule has come, and when it wakes accordingly.
    pub(crate) fn change<T>(
        &mut self,
        id: &ScheduleId,
        change: impl FnOnce(&mut Schedule) -> T,
    ) -> Option<T> {
        let schedule = self.all.get_mut(id)?;
        let result = change(schedule);
        let wake = schedule.wake_at();
        if wake != schedule.wake {
            if let Some(at) = schedule.wake {
                self.wakes.remove(&(at, id.clone()));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, id.clone()));
            }
            schedule.wake = wake;
        }
        Some(result)
    }

    /// Compares what is derived with what it is derived from.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut users, mut wakes, mut bytes) = (BTreeMap::new(), 0, 0);
        for (id, schedule) in &self.all {
            let fail = |what: &str| Err(format!("schedule {id}: {what}"));
            bytes += schedule.spec.job.body.len();
            if let Some((hash, _)) = rules_of(&schedule.spec) {
                *users.entry(hash).or_insert(0) += 1;
            }
            let mut fresh =
                Schedule::new(id, schedule.spec.clone(), schedule.slots.clone(), schedule.course.clone());
            fresh.wake = fresh.wake_at();
            if (fresh.next, fresh.wake) != (schedule.next, schedule.wake) {
                return fail("its next slot does not follow from what it is and how far it has come");
            }
            if let Some(at) = schedule.wake {
                wakes += 1;
                if !self.wakes.contains(&(at, id.clone())) {
                    return fail("its timer is not set");
                }
            }
            if schedule.course.queued.iter().any(|slot| *slot > schedule.course.cursor) {
                return fail("a slot waits that has not come");
            }
        }
        let kept: BTreeMap<u128, usize> =
            self.zones.iter().map(|(hash, rules)| (*hash, rules.users)).collect();
        if (wakes, bytes) != (self.wakes.len(), self.body_bytes) || users != kept {
            return Err("schedules: timers, bytes or users of time zones are miscounted".to_string());
        }
        Ok(())
    }
}

impl Shard {
    /// A schedule, as people and tools see it.
    pub fn schedule(&self, id: &ScheduleId) -> Option<ScheduleView> {
        self.schedules.get(id).map(|schedule| schedule.view(id))
    }

    /// The queue that a schedule pushes to.
    pub fn schedule_queue(&self, id: &ScheduleId) -> Option<QueueName> {
        self.schedules.get(id).map(|schedule| schedule.spec.job.queue.clone())
    }

    /// Schedules in the order of their ids, after one of them, at most `limit`.
    pub fn schedules(&self, after: Option<&ScheduleId>, limit: usize) -> Vec<ScheduleView> {
        self.schedules_among(after, limit, |_| true)
    }

    /// The same of those that push to a queue for which `among` holds.
    pub fn schedules_among(
        &self,
        after: Option<&ScheduleId>,
        limit: usize,
        among: impl Fn(&QueueName) -> bool,
    ) -> Vec<ScheduleView> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self.schedules.all.range((from, std::ops::Bound::Unbounded));
        let range = range.filter(|(_, schedule)| among(&schedule.spec.job.queue));
        range.take(limit).map(|(id, schedule)| schedule.view(id)).collect()
    }

    /// The next slots of a schedule, as it stands: paused ones have the slots that they would have if resumed now.
    pub fn schedule_slots(&self, id: &ScheduleId, limit: usize) -> Option<Vec<Timestamp>> {
        let schedule = self.schedules.get(id)?;
        let course = &schedule.course;
        let from = if course.paused { course.cursor.max(self.counters.time) } else { course.cursor };
        let left = match schedule.spec.limit {
            0 => limit as u64,
            most => most.saturating_sub(course.fired + course.queued.len() as u64),
        };
        Some(
            schedule.slots.after(from).take(limit.min(usize::try_from(left).unwrap_or(usize::MAX))).collect(),
        )
    }

    pub(crate) fn scheduled(&self, id: &ScheduleId, change: ScheduleChange) -> Scheduled {
        let schedule = self.schedules.get(id);
        Scheduled {
            id: id.clone(),
            change,
            state: schedule.map_or(ScheduleState::Ended, Schedule::state),
            next_slot: schedule.filter(|schedule| !schedule.course.paused).and_then(Schedule::next),
        }
    }

    /// A job of a schedule came to life or ended: slots may wait for that.
    pub(crate) fn note_schedule(&mut self, slot: u32, alive: bool) {
        let job = &self.jobs[slot];
        let Some(given) = job.asked.as_ref().and_then(|asked| asked.id.as_ref()) else { return };
        let Some(id) = ScheduleId::of_job(given) else { return };
        let sequence = job.sequence;
        let noted = self.schedules.change(&id, |schedule| {
            let live = &mut schedule.course.live;
            if !alive {
                return live.remove(&sequence);
            }
            live.insert(sequence);
            if live.len() > limits::SCHEDULE_LIVE_MAX {
                live.pop_first();
            }
            true
        });
        if noted == Some(true) {
            self.dirty.courses.insert(id);
        }
    }
}

/// The fate of one slot.
pub(crate) fn firing(slot: Timestamp, at: Timestamp, result: FiringResult) -> Firing {
    Firing { slot, at, result }
}
