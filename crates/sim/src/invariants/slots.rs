//! I18: a slot fires once, never early, and none is passed over that its schedule's rules do not pass over.
//!
//! The slots of the workload's schedules are every so many milliseconds from some moment on, whatever their form; so they can be
//! counted here without a calendar.

use crate::history::{Check, broken};
use kit::{Millis, Timestamp};
use model::{
    CatchUp, Cause, Effect, JobId, NewJob, Overlap, Pushed, QueueName, ScheduleChange, ScheduleId,
    ScheduleSpec, State, When, limits,
};
use std::collections::{BTreeMap, BTreeSet};

/// The schedules, as their callers know them.
#[derive(Default)]
pub(crate) struct Slots {
    schedules: BTreeMap<ScheduleId, Known>,
    fired: BTreeSet<(ScheduleId, Timestamp)>,
}

struct Known {
    spec: ScheduleSpec,
    paused: bool,
    /// Slots up to here are settled.
    settled: Timestamp,
    fired: u64,
    /// Slots wait for jobs to end or for their jitter, or more were due than one command settles: nobody can say from outside
    /// which fire when.
    uncertain: bool,
    /// When its times were changed last. Slots before may have waited under the rules of that time.
    changed: Timestamp,
}

/// Interval and phase of a schedule's slots.
fn beat(spec: &ScheduleSpec) -> (Millis, Millis) {
    let half_hour = 1_800_000;
    match &spec.when {
        When::Every { interval_ms } => (*interval_ms, spec.start.unwrap_or(Timestamp::ZERO).0 % interval_ms),
        When::Cron { expression, zone, .. } => match (expression.as_str(), zone.as_str()) {
            ("*/15 * * * * *", _) => (15_000, 0),
            ("* * * * *", _) => (60_000, 0),
            ("*/5 * * * *", _) => (300_000, 0),
            ("0 * * * *", "Asia/Kolkata") => (3_600_000, half_hour),
            (other, zone) => unreachable!("the workload has no {other} in {zone}"),
        },
    }
}

impl Known {
    fn is_slot(&self, at: Timestamp) -> bool {
        let (interval, phase) = beat(&self.spec);
        at.0 % interval == phase
            && self.spec.start.is_none_or(|start| at >= start)
            && self.spec.end.is_none_or(|end| at <= end)
    }

    /// Slots that came due since the last look, oldest first.
    fn due(&self, now: Timestamp) -> Vec<Timestamp> {
        let (interval, phase) = beat(&self.spec);
        let from = self.settled.max(Timestamp(self.spec.start.unwrap_or_default().0.saturating_sub(1)));
        let until = now.min(self.spec.end.unwrap_or(Timestamp::MAX));
        let first = if from.0 < phase { phase } else { phase + ((from.0 - phase) / interval + 1) * interval };
        (first..=until.0).step_by(interval as usize).map(Timestamp).collect()
    }

    fn over(&self) -> bool {
        self.spec.limit > 0 && self.fired >= self.spec.limit
            || self.spec.end.is_some_and(|end| self.due(end).is_empty())
    }

    /// What fires of these, if earlier jobs do not matter.
    fn owed(&self, due: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
        let Some(newest) = due.last() else { return Vec::new() };
        let owed = match self.spec.catch_up {
            CatchUp::One => vec![*newest],
            CatchUp::Skip if now - *newest > limits::SLOT_LATE_MS_MAX => Vec::new(),
            CatchUp::Skip => vec![*newest],
            CatchUp::All { most } => due[due.len().saturating_sub(most as usize)..].to_vec(),
        };
        let left = if self.spec.limit == 0 { u64::MAX } else { self.spec.limit - self.fired };
        owed.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)).collect()
    }
}

impl Slots {
    /// The job of a run by hand.
    pub(crate) fn run(&self, id: &ScheduleId, now: Timestamp) -> Option<NewJob> {
        self.schedules.get(id).map(|known| instance(&known.spec.job, id, now))
    }

    pub(crate) fn put(
        &mut self,
        id: &ScheduleId,
        spec: &ScheduleSpec,
        change: ScheduleChange,
        now: Timestamp,
    ) {
        match (change, self.schedules.get_mut(id)) {
            (ScheduleChange::Unchanged, _) => {}
            (ScheduleChange::Updated, Some(known)) => {
                let times = |spec: &ScheduleSpec| (spec.when.clone(), spec.start, spec.end);
                let anew = times(&known.spec) != times(spec) || known.over();
                known.uncertain |= spec.overlap == Overlap::Queue;
                known.uncertain |= !anew && spec.jitter_ms != known.spec.jitter_ms;
                known.spec = spec.clone();
                if anew {
                    known.settled = known.settled.max(now);
                    known.changed = now;
                }
            }
            (ScheduleChange::Created | ScheduleChange::Updated, _) => {
                let uncertain = spec.overlap == Overlap::Queue;
                let spec = spec.clone();
                let known = Known { spec, paused: false, settled: now, fired: 0, uncertain, changed: now };
                self.schedules.insert(id.clone(), known);
            }
        }
    }

    pub(crate) fn pause(&mut self, id: &ScheduleId, paused: bool, now: Timestamp) {
        let Some(known) = self.schedules.get_mut(id) else { return };
        if known.paused && !paused {
            known.settled = known.settled.max(now);
        }
        known.paused = paused;
    }

    pub(crate) fn remove(&mut self, id: &ScheduleId) {
        self.schedules.remove(id);
    }

    /// Looks at what one command did by itself before it did what it was asked for. Returns the jobs that slots made.
    pub(crate) fn look(
        &mut self,
        effects: &[Effect],
        now: Timestamp,
    ) -> Result<Vec<(NewJob, Pushed)>, crate::history::Violation> {
        let mut made = Vec::new();
        let mut fired: BTreeMap<ScheduleId, Vec<Timestamp>> = BTreeMap::new();
        for effect in effects {
            let Effect::Changed { queue, id: job, from: None, to, cause: Cause::Push, .. } = effect else {
                continue;
            };
            let Some(id) = ScheduleId::of_job(job) else { continue };
            let text = job.to_string();
            let moment = text.rsplit_once(&format!("{id}:")).map_or("", |(_, moment)| moment);
            if moment.starts_with("run-") {
                continue;
            }
            let Ok(slot) = moment.parse::<Timestamp>() else {
                return broken("I18", format!("job {job} is of no slot"));
            };
            let Some(known) = self.schedules.get_mut(&id) else {
                return broken("I18", format!("job {job} was made, and there is no such schedule"));
            };
            if slot > now {
                return broken("I18", format!("slot {slot} of {id} fired early, at {now}"));
            }
            let waited = known.uncertain && slot <= known.changed;
            if !known.is_slot(slot) && !waited || known.paused {
                return broken("I18", format!("{id} fired at {slot}, which is no slot of {:?}", known.spec));
            }
            if !self.fired.insert((id.clone(), slot)) {
                return broken("I18", format!("slot {slot} of {id} fired twice"));
            }
            let new = NewJob { queue: queue.clone(), ..instance(&known.spec.job, &id, slot) };
            made.push((new, Pushed { id: job.clone(), state: *to, deduplicated: false, forgotten: false }));
            fired.entry(id).or_default().push(slot);
        }
        let crowded = effects.len() > limits::TICK_WORK_MAX / 2;
        for (id, known) in &mut self.schedules {
            let fired = fired.remove(id).unwrap_or_default();
            known.settle(id, fired, now, crowded)?;
        }
        Ok(made)
    }
}

impl Known {
    fn settle(&mut self, id: &ScheduleId, fired: Vec<Timestamp>, now: Timestamp, crowded: bool) -> Check {
        self.uncertain |= crowded;
        if !self.paused && self.spec.jitter_ms == 0 && !self.over() {
            let alone = matches!(self.spec.overlap, Overlap::Allow | Overlap::CancelPrevious);
            let due = self.due(now);
            let owed = self.owed(&due, now);
            if alone && !self.uncertain && owed != fired {
                return broken("I18", format!("{id} owed the slots {owed:?} at {now} and fired {fired:?}"));
            }
            self.settled = due.last().copied().unwrap_or(self.settled);
        }
        self.fired += fired.len() as u64;
        Ok(())
    }
}

/// The jobs that a slot cancelled to make room for its own. A job that its caller or its worker cancelled is followed by no slot.
pub(crate) fn cancelled(effects: &[Effect]) -> Vec<(QueueName, JobId)> {
    let mut cancelled = Vec::new();
    let mut fired_later = BTreeSet::new();
    for effect in effects.iter().rev() {
        let Effect::Changed { queue, id, from, to, .. } = effect else { continue };
        let Some(schedule) = ScheduleId::of_job(id) else { continue };
        match (from, to) {
            (None, _) => drop(fired_later.insert(schedule)),
            (Some(_), State::Cancelled) if fired_later.contains(&schedule) => {
                cancelled.push((queue.clone(), id.clone()));
            }
            (Some(_), _) => {}
        }
    }
    cancelled
}

fn instance(template: &NewJob, id: &ScheduleId, slot: Timestamp) -> NewJob {
    let mut new = template.clone();
    new.meta.push(("schedule".into(), id.as_str().into()));
    new.meta.push(("slot".into(), slot.to_string().into()));
    new
}
