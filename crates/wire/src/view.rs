//! What can be looked at over the stream. For the library in Rust; others call the HTTP routes.

use crate::pack::{Fields, Input, Pack, map, names, put_blob, put_text};
use compact_str::{CompactString, ToCompactString};
use kit::{
    Millis, Timestamp,
    codec::{Malformed, Reader},
};
use model::{
    Awaited, BulkView, Event, EventId, EventKind, Firing, HistoryEntry, JobEvent, JobId, JobValues, JobView,
    LogLine, QueueCounts, QueueName, QueueSettings, QueueView, ScheduleSpec, ScheduleView, State, Step,
    codec,
};

/// What is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A job: [`JobView`].
    Job,
    /// Jobs of a queue in a state: list of [`JobView`].
    Jobs,
    /// List of [`HistoryEntry`].
    History,
    /// List of [`LogLine`].
    Log,
    /// List of [`Step`].
    Steps,
    /// [`Explained`].
    Explain,
    /// [`ScheduleView`].
    Schedule,
    /// List of [`ScheduleView`].
    Schedules,
    /// List of times.
    Slots,
    /// A join.
    Join,
    /// [`QueueView`].
    Queue,
    /// How many pushes wait for room.
    Producers,
    /// List of [`BulkView`].
    Operations,
    /// [`Dead`].
    Dead,
    /// [`EventPage`].
    Events,
}

impl What {
    const ALL: [What; 15] = [
        What::Job,
        What::Jobs,
        What::History,
        What::Log,
        What::Steps,
        What::Explain,
        What::Schedule,
        What::Schedules,
        What::Slots,
        What::Join,
        What::Queue,
        What::Producers,
        What::Operations,
        What::Dead,
        What::Events,
    ];

    const fn name(self) -> &'static str {
        match self {
            What::Job => "job",
            What::Jobs => "jobs",
            What::History => "history",
            What::Log => "log",
            What::Steps => "steps",
            What::Explain => "explain",
            What::Schedule => "schedule",
            What::Schedules => "schedules",
            What::Slots => "slots",
            What::Join => "join",
            What::Queue => "queue",
            What::Producers => "producers",
            What::Operations => "operations",
            What::Dead => "dead",
            What::Events => "events",
        }
    }
}

names!(What: What::ALL;);

/// A look at something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// At what.
    pub what: What,
    /// Of which queue.
    pub queue: Option<QueueName>,
    /// Of which job, join, or schedule.
    pub id: CompactString,
    /// In which state.
    pub state: Option<State>,
    /// Behind which schedule, or event.
    pub after: Option<CompactString>,
    /// At most so many.
    pub limit: u64,
    /// How long to wait for the first, milliseconds.
    pub wait_ms: Millis,
}

map!(Read { what, queue, id, state, after, limit, wait_ms });

impl Read {
    /// A look without further words.
    pub fn new(what: What) -> Self {
        Self {
            what,
            queue: None,
            id: CompactString::default(),
            state: None,
            after: None,
            limit: 0,
            wait_ms: 0,
        }
    }
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its state as shown.
    pub state: State,
    /// For people.
    pub summary: String,
    /// The earliest it can start.
    pub expected_at: Option<Timestamp>,
}

map!(Explained { state, summary, expected_at });

/// The dead letters of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Dead jobs that are kept.
    pub dead: u64,
    /// When the oldest of them died.
    pub oldest_at: Option<Timestamp>,
    /// What killed them.
    pub classes: Vec<DeadClass>,
    /// Classes that are left out.
    pub others: u64,
    /// Where they go.
    pub target: Option<QueueName>,
    /// Of the alert: dead jobs, and deaths in a minute.
    pub alert: (u64, u64),
    /// Since when there is one.
    pub alert_since: Option<Timestamp>,
}

/// One class of errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadClass {
    /// Names it.
    pub fingerprint: u64,
    /// The error's kind.
    pub kind: CompactString,
    /// Its message, made general.
    pub message: CompactString,
    /// Jobs that died of it.
    pub count: u64,
    /// The first.
    pub first_at: Timestamp,
    /// The newest.
    pub last_at: Timestamp,
    /// The newest one's id.
    pub sample: JobId,
    /// In the last minute.
    pub per_minute: u64,
    /// In the last hour.
    pub per_hour: u64,
}

map!(Dead { dead, oldest_at, classes, others, target, alert, alert_since });
map!(DeadClass { fingerprint, kind, message, count, first_at, last_at, sample, per_minute, per_hour });

/// Events behind a place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPage {
    /// In their order.
    pub events: Vec<Event>,
    /// Ask from here the next time.
    pub position: Option<EventId>,
    /// Events up to here are no longer remembered; these are behind it.
    pub gone: Option<EventId>,
    /// The pond has closed.
    pub closed: bool,
}

map!(EventPage { events, position, gone, closed });
map!(JobEvent { id, from, to, cause, attempt, due_at, values });
map!(JobValues { meta, result, error, progress });
map!(Event { id, at, queue, kind, job });
map!(HistoryEntry { from, to, at, cause, attempt, actor, position, error });
map!(LogLine { at, attempt, text });
map!(JobView {
    sequence,
    id,
    queue,
    state,
    priority,
    attempt,
    attempts,
    crashes,
    max_crashes,
    created_at,
    due_at,
    started_at,
    finished_at,
    expires_at,
    worker,
    lease_token,
    body_bytes,
    body_crc,
    body,
    content_type,
    result,
    progress,
    error,
    tags,
    meta,
    unique_key,
    timeout_ms,
    waits_for,
    joins,
    steps,
    signals,
    awaits,
});
map!(QueueView {
    name,
    paused,
    settings,
    counts,
    live_bytes,
    oldest_waiting_at,
    pushed_total,
    started_total,
    completed_total,
    failed_total,
    dead_total,
});
map!(QueueCounts { by_state });
map!(ScheduleView {
    id,
    spec,
    state,
    summary,
    next_slot,
    next_at,
    created_at,
    updated_at,
    fired,
    skipped,
    missed,
    refused,
    queued,
    live,
    firings,
});

impl Pack for EventId {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, &self.to_compact_string());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("the id of an event");
        input.text("the id of an event")?.parse().map_err(|_| start)
    }
}

impl Pack for EventKind {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self.name());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("the kind of an event");
        EventKind::of(input.text("the kind of an event")?).ok_or(start)
    }
}

impl Pack for Awaited {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        match self {
            Awaited::Signal { name, until } => fields.add("signal", &Some(name.clone())).add("until", until),
            Awaited::Child { queue, id } => fields.add("queue", queue).add("id", id),
        };
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("what is awaited");
        crate::pack::read_fields!(input, "what is awaited", signal, until, queue, id);
        let signal: (Option<CompactString>, Option<Timestamp>) = (signal, until);
        let child: (Option<QueueName>, Option<JobId>) = (queue, id);
        match (signal, child) {
            ((Some(name), Some(until)), _) => Ok(Awaited::Signal { name, until }),
            (_, (Some(queue), Some(id))) => Ok(Awaited::Child { queue, id }),
            _ => Err(start),
        }
    }
}

/// Values that have a form in the log already go as those bytes.
macro_rules! in_the_form_of_the_log {
    ($($type:ty: $put:path, $read:path;)*) => {
        $(impl Pack for $type {
            fn pack(&self, out: &mut Vec<u8>) {
                let mut bytes = Vec::new();
                $put(&mut bytes, self);
                put_blob(out, &bytes);
            }

            fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
                let bytes = input.blob(stringify!($type))?;
                $read(&mut Reader::new(&bytes))
            }
        })*
    };
}

in_the_form_of_the_log! {
    Step: codec::put_step, codec::read_step;
    QueueSettings: codec::put_queue_settings, codec::read_queue_settings;
    BulkView: codec::put_bulk_view, codec::read_bulk_view;
    ScheduleSpec: codec::put_schedule_spec, codec::read_schedule_spec;
    Firing: codec::put_firing, codec::read_firing;
}
