use crate::{BadName, JobId, NewJob, limits};
use bytes::Bytes;
use compact_str::CompactString;
use core::fmt;
use kit::{Millis, Timestamp};

/// The name of a schedule: 1 to 128 bytes of letters, digits and `. _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId(CompactString);

impl ScheduleId {
    /// Checks and takes a name.
    ///
    /// ```
    /// assert!(model::ScheduleId::new("nightly.report").is_ok());
    /// assert!(model::ScheduleId::new("nightly:report").is_err());
    /// ```
    pub fn new(id: &str) -> Result<Self, BadName> {
        let bad = |reason| Err(BadName { what: "a schedule id", reason });
        if id.is_empty() {
            return bad("must not be empty");
        }
        if id.len() > limits::SCHEDULE_ID_BYTES_MAX {
            return bad("has at most 128 bytes");
        }
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return bad("has only letters, digits and . _ -");
        }
        Ok(Self(CompactString::from(id)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the job that a slot fires: exactly one job has it, ever.
    pub fn job_id(&self, slot: Timestamp) -> JobId {
        JobId::Text(compact_str::format_compact!("{PREFIX}{}:{slot}", self.0))
    }

    /// The id of the job that the `number`-th run by hand makes.
    pub fn run_id(&self, number: u64) -> JobId {
        JobId::Text(compact_str::format_compact!("{PREFIX}{}:run-{number}", self.0))
    }

    /// The schedule that made a job, by the job's id.
    pub fn of_job(id: &JobId) -> Option<Self> {
        let JobId::Text(text) = id else { return None };
        let (schedule, _) = text.strip_prefix(PREFIX)?.split_once(':')?;
        Self::new(schedule).ok()
    }
}

/// What the ids of jobs begin with that a schedule made. Nobody else may push such an id.
const PREFIX: &str = "schedule:";

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What a schedule is: when it fires, and which job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleSpec {
    /// When.
    pub when: When,
    /// No slot before.
    pub start: Option<Timestamp>,
    /// No slot after.
    pub end: Option<Timestamp>,
    /// It ends after so many jobs; 0 for never.
    pub limit: u64,
    /// Each slot fires up to so much later, by a chance that is the same on every machine; never later than the next slot.
    pub jitter_ms: Millis,
    /// What a slot does while a job of an earlier one has not ended.
    pub overlap: Overlap,
    /// What becomes of the slots of an outage.
    pub catch_up: CatchUp,
    /// What each slot pushes. It has no id and no `run_at`.
    pub job: NewJob,
}

impl ScheduleSpec {
    /// A schedule with defaults for everything but its times and its job.
    pub fn new(when: When, job: NewJob) -> Self {
        Self {
            when,
            start: None,
            end: None,
            limit: 0,
            jitter_ms: 0,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            job,
        }
    }
}

/// When the slots of a schedule are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// By a cron expression: see [`kit::cron`].
    Cron {
        /// Five fields, six with seconds first, or a name such as `@daily`.
        expression: CompactString,
        /// The IANA name of the zone, for people.
        zone: CompactString,
        /// The zone's rules as TZif; empty for UTC. They travel with the command, so that the log means the same on every machine.
        rules: Bytes,
    },
    /// At whole multiples of an interval, counted from `start`, or else from 1970-01-01T00:00:00Z.
    Every {
        /// The interval, at least a second.
        interval_ms: Millis,
    },
}

/// What a slot does while a job of an earlier one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Overlap {
    /// It pushes its job all the same.
    #[default]
    Allow = 0,
    /// It fires nothing.
    Skip = 1,
    /// It waits, and pushes its job when the earlier ones have ended.
    Queue = 2,
    /// It cancels the earlier ones, waiting or running, and pushes its job.
    CancelPrevious = 3,
}

impl Overlap {
    /// Every policy, by number.
    pub const ALL: [Overlap; 4] = [Overlap::Allow, Overlap::Skip, Overlap::Queue, Overlap::CancelPrevious];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Overlap::Allow => "allow",
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
            Overlap::CancelPrevious => "cancel_previous",
        }
    }
}

/// What becomes of slots that came due while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// The newest fires if it is at most a minute late; the others are missed.
    Skip,
    /// The newest fires, however late; the others are missed.
    #[default]
    One,
    /// The newest ones fire, oldest first; those before them are missed.
    All {
        /// How many fire, 1 to 1,000.
        most: u32,
    },
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ScheduleChange {
    /// There was no schedule of that id.
    Created = 0,
    /// There was another one.
    Updated = 1,
    /// There was this one: nothing was touched.
    Unchanged = 2,
}

impl ScheduleChange {
    /// Every change, by number.
    pub const ALL: [ScheduleChange; 3] =
        [ScheduleChange::Created, ScheduleChange::Updated, ScheduleChange::Unchanged];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            ScheduleChange::Created => "created",
            ScheduleChange::Updated => "updated",
            ScheduleChange::Unchanged => "unchanged",
        }
    }
}

/// The answer to a put, a pause or a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The schedule.
    pub id: ScheduleId,
    /// What was done.
    pub change: ScheduleChange,
    /// Where it stands now.
    pub state: ScheduleState,
    /// Its next slot, if it is not paused or ended.
    pub next_slot: Option<Timestamp>,
}

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ScheduleState {
    /// It has a next slot.
    Active = 0,
    /// Somebody paused it.
    Paused = 1,
    /// It made as many jobs as it may, or no slot is left before its end.
    Ended = 2,
}

impl ScheduleState {
    /// Every state, by number.
    pub const ALL: [ScheduleState; 3] = [ScheduleState::Active, ScheduleState::Paused, ScheduleState::Ended];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            ScheduleState::Active => "active",
            ScheduleState::Paused => "paused",
            ScheduleState::Ended => "ended",
        }
    }
}

/// What became of one slot, or of a run of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The slot; for a run by hand, when it was asked for.
    pub slot: Timestamp,
    /// When it was settled, in the log's time.
    pub at: Timestamp,
    /// What became of it.
    pub result: FiringResult,
}

/// What became of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FiringResult {
    /// It pushed this job.
    Fired {
        /// Which.
        job: JobId,
    },
    /// Somebody ran the schedule by hand.
    Ran {
        /// The job that was pushed.
        job: JobId,
    },
    /// A job of an earlier slot had not ended.
    Skipped,
    /// It came due in an outage, as did those up to `until`, and was passed over.
    Missed {
        /// The newest of them.
        until: Timestamp,
    },
    /// Its job was refused.
    Refused {
        /// The refusal's code.
        code: CompactString,
    },
}

/// A schedule as people and tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleView {
    /// Its name.
    pub id: ScheduleId,
    /// What it is.
    pub spec: ScheduleSpec,
    /// Where it stands.
    pub state: ScheduleState,
    /// One sentence: when it fires next, or why it does not.
    pub summary: String,
    /// The next slot that is to be settled.
    pub next_slot: Option<Timestamp>,
    /// When that slot fires: the slot and its jitter.
    pub next_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Jobs made by slots.
    pub fired: u64,
    /// Slots that fired nothing because an earlier job had not ended.
    pub skipped: u64,
    /// Slots of outages that were passed over; at most 1,000 of one outage are counted.
    pub missed: u64,
    /// Slots whose job was refused.
    pub refused: u64,
    /// Slots that wait for an earlier job to end.
    pub queued: u64,
    /// Jobs of it that have not ended; at most the newest 64 are counted.
    pub live: u64,
    /// What became of the last slots, oldest first; at most 20.
    pub firings: Vec<Firing>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_a_slot_leads_back_to_its_schedule() {
        let nightly = ScheduleId::new("nightly").unwrap();
        let id = nightly.job_id(Timestamp(1_767_323_045_000));
        assert_eq!(id.to_string(), "schedule:nightly:2026-01-02T03:04:05.000Z");
        assert_eq!(ScheduleId::of_job(&id), Some(nightly.clone()));
        assert_eq!(ScheduleId::of_job(&nightly.run_id(7)), Some(nightly));
        for other in ["nightly", "schedule:", "schedule:a", "schedule:a b:c", "schedule::c"] {
            assert_eq!(ScheduleId::of_job(&JobId::Text(other.into())), None, "{other}");
        }
    }
}
