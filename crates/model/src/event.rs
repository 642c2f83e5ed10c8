use crate::{Cause, Effect, ErrorInfo, JobId, QueueChange, QueueName, State, limits};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use std::{fmt, str::FromStr};

/// Where an event stands: the log position of the command that caused it, and its place among the events of that command. A replay
/// of the log gives every event the same id. Written `812.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// The position in the log.
    pub position: u64,
    /// 0 for the first event of that position.
    pub index: u32,
}

impl EventId {
    /// Behind everything that happened up to `position`.
    pub const fn end_of(position: u64) -> Self {
        Self { position, index: u32::MAX }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            u32::MAX => write!(f, "{}", self.position),
            index => write!(f, "{}.{index}", self.position),
        }
    }
}

/// Text that is no [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is the id of an event, such as 812.0, or a log position, such as 812")]
pub struct BadEventId;

/// A bare position means everything up to and including it.
impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let read = |text: &str| text.parse().map_err(|_| BadEventId);
        match text.split_once('.') {
            None => Ok(Self::end_of(read(text)?)),
            Some((position, index)) => {
                Ok(Self { position: read(position)?, index: index.parse().map_err(|_| BadEventId)? })
            }
        }
    }
}

/// What kind of thing happened. A job's kinds are `added`, the state it went to, `progress` and `removed`; the others are a queue's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A job was pushed, into whatever state.
    Added,
    /// A job went to this state.
    To(State),
    /// A running job said how far it is.
    Progress,
    /// Somebody removed a job. What retention forgets by itself is not told.
    Removed,
    /// The queue itself changed.
    Queue(QueueChange),
}

impl EventKind {
    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::To(state) => state.name(),
            Self::Progress => "progress",
            Self::Removed => "removed",
            Self::Queue(change) => change.name(),
        }
    }

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Added, Self::Progress, Self::Removed]
            .into_iter()
            .chain(State::ALL.into_iter().map(Self::To))
            .chain(QueueChange::ALL.into_iter().map(Self::Queue))
    }

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands.
    pub id: EventId,
    /// When, by the log's time.
    pub at: Timestamp,
    /// In which queue.
    pub queue: QueueName,
    /// What.
    pub kind: EventKind,
    /// The job it happened to; `None` if it happened to the queue.
    pub job: Option<JobEvent>,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Which.
    pub id: JobId,
    /// The state before; `None` for a push.
    pub from: Option<State>,
    /// The state after; `None` for a removal, and where it did not change.
    pub to: Option<State>,
    /// Why; `None` for a removal, and where the state did not change.
    pub cause: Option<Cause>,
    /// Which attempt.
    pub attempt: u32,
    /// When it goes on by itself, if it is delayed or retrying.
    pub due_at: Option<Timestamp>,
    /// What the change brought along.
    pub values: Option<Box<JobValues>>,
}

/// What a change of a job brought along: so much of it as an event carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobValues {
    /// The headers of a job that was pushed.
    pub meta: Vec<(CompactString, CompactString)>,
    /// What a completed job gave.
    pub result: Option<Bytes>,
    /// What an attempt failed with.
    pub error: Option<ErrorInfo>,
    /// How far a running job is.
    pub progress: Option<Bytes>,
}

impl JobValues {
    /// These values for an event, unless they are nothing, or larger than [`limits::EVENT_VALUES_BYTES_MAX`]: then the job has them.
    pub fn carried(self) -> Option<Box<Self>> {
        let bytes = self.bytes();
        (bytes > 0 && bytes <= limits::EVENT_VALUES_BYTES_MAX).then(|| Box::new(self))
    }

    fn bytes(&self) -> usize {
        let meta: usize = self.meta.iter().map(|(key, value)| key.len() + value.len()).sum();
        let error = self.error.as_ref();
        let error = error.map_or(0, |error| error.kind.len() + error.message.len() + error.stack.len());
        meta + error
            + self.result.as_ref().map_or(0, Bytes::len)
            + self.progress.as_ref().map_or(0, Bytes::len)
    }
}

impl JobEvent {
    /// Something that happened to a job in a state, which it did not bring to another.
    fn of(id: &JobId, from: State, attempt: u32) -> Self {
        Self { id: id.clone(), from: Some(from), to: None, cause: None, attempt, due_at: None, values: None }
    }
}

impl Event {
    /// The events among the effects of whole commands, in order.
    pub fn of(effects: &[Effect]) -> Vec<Event> {
        let mut last = EventId::default();
        effects.iter().filter_map(|effect| Self::numbered(effect, &mut last)).collect()
    }

    fn numbered(effect: &Effect, last: &mut EventId) -> Option<Event> {
        let (position, at, queue, kind, job) = match effect {
            Effect::Available { .. } | Effect::Revoked { .. } => return None,
            Effect::Changed { queue, id, from, to, cause, attempt, due_at, values, at, position } => {
                let kind = if from.is_none() { EventKind::Added } else { EventKind::To(*to) };
                let (to, cause) = (Some(*to), Some(*cause));
                let (attempt, due_at, values) = (*attempt, *due_at, values.clone());
                let job = JobEvent { id: id.clone(), from: *from, to, cause, attempt, due_at, values };
                (*position, *at, queue, kind, Some(job))
            }
            Effect::Progress { queue, id, attempt, value, at, position } => {
                let values = JobValues { progress: Some(value.clone()), ..JobValues::default() };
                let job = JobEvent { values: values.carried(), ..JobEvent::of(id, State::Active, *attempt) };
                (*position, *at, queue, EventKind::Progress, Some(job))
            }
            Effect::Removed { queue, id, from, attempt, at, position } => {
                let job = JobEvent::of(id, *from, *attempt);
                (*position, *at, queue, EventKind::Removed, Some(job))
            }
            Effect::Queue { queue, change, at, position } => {
                (*position, *at, queue, EventKind::Queue(*change), None)
            }
        };
        let first = position != last.position;
        *last = EventId { position, index: if first { 0 } else { last.index + 1 } };
        Some(Event { id: *last, at, queue: queue.clone(), kind, job })
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        // Names of up to 24 bytes stand in the structure itself.
        let long = |length: usize| if length > 24 { length } else { 0 };
        let id = match self.job.as_ref().map(|job| &job.id) {
            Some(JobId::Text(text)) => long(text.len()),
            Some(JobId::Uuid(_)) | None => 0,
        };
        let values = self.job.as_ref().and_then(|job| job.values.as_ref());
        let values = values.map_or(0, |values| size_of::<JobValues>() + values.bytes());
        size_of::<Self>() + long(self.queue.as_str().len()) + id + values
    }
}

/// Which events somebody wants to hear. The default is all of them; what is set must all be true.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Queues whose name this pattern fits: `*` stands for any text, also none. `None` for all.
    pub queue: Option<CompactString>,
    /// Only of this job. Events of queues are then none.
    pub job: Option<JobId>,
    /// Only these kinds; empty for all.
    pub kinds: Vec<EventKind>,
    /// Only jobs that went to one of these states, by a push or later; empty for all.
    pub states: Vec<State>,
}

impl EventFilter {
    /// Also only of queues whose name fits.
    #[must_use]
    pub fn queue(self, pattern: impl Into<CompactString>) -> Self {
        Self { queue: Some(pattern.into()), ..self }
    }

    /// Also only of this job.
    #[must_use]
    pub fn job(self, id: JobId) -> Self {
        Self { job: Some(id), ..self }
    }

    /// This kind as well as those named before.
    #[must_use]
    pub fn kind(mut self, kind: EventKind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Jobs that come to this state, as well as those named before.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Whether an event is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        let to = || event.job.as_ref().and_then(|job| job.to);
        self.queue.as_ref().is_none_or(|pattern| fits(pattern, event.queue.as_str()))
            && self.job.as_ref().is_none_or(|id| event.job.as_ref().is_some_and(|job| job.id == *id))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.states.is_empty() || to().is_some_and(|to| self.states.contains(&to)))
    }
}

/// The queues whose name fits the pattern.
impl From<&str> for EventFilter {
    fn from(pattern: &str) -> Self {
        Self::default().queue(pattern)
    }
}

impl From<EventKind> for EventFilter {
    fn from(kind: EventKind) -> Self {
        Self::default().kind(kind)
    }
}

/// Jobs that come to the state.
impl From<State> for EventFilter {
    fn from(state: State) -> Self {
        Self::default().state(state)
    }
}

/// Whether a name fits a pattern in which `*` stands for any text. Takes at most the product of their lengths.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let Some((middle, tail)) = rest.rsplit_once('*') else {
        return name.ends_with(rest);
    };
    // The first place is as good as any later one: what follows has the more room.
    for part in middle.split('*') {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_and_read_back() {
        let id = EventId { position: 812, index: 3 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("812".parse(), Ok(EventId::end_of(812)));
        assert!(id < EventId::end_of(812) && EventId::end_of(812) < EventId { position: 813, index: 0 });
        for bad in ["", ".", "1.", ".1", "-1", "1.2.3", "1 "] {
            assert_eq!(bad.parse::<EventId>(), Err(BadEventId), "{bad:?}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in [
            ("mail", "mail"),
            ("*", "mail"),
            ("mail.*", "mail.eu"),
            ("*.eu", "mail.eu"),
            ("m*l*u", "mail.eu"),
            ("mail*", "mail"),
            ("**", "a"),
            ("a*b*b", "abb"),
            ("*a*", "bab"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("mail", "mails"),
            ("mail.*", "mail"),
            ("*.eu", "mail.us"),
            ("a*b*b", "ab"),
            ("aa*aa", "aaa"),
            ("", "a"),
            ("*x*", "mail"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in EventKind::all() {
            assert_eq!(EventKind::of(kind.name()), Some(kind));
        }
        assert_eq!(EventKind::of("finished"), None);
    }

    #[test]
    fn what_is_too_large_for_an_event_stays_with_the_job() {
        let result = |bytes| {
            let result = Some(Bytes::from(vec![b'1'; bytes]));
            JobValues { result, ..JobValues::default() }.carried().is_some()
        };
        assert!(result(limits::EVENT_VALUES_BYTES_MAX) && !result(limits::EVENT_VALUES_BYTES_MAX + 1));
        assert_eq!(JobValues::default().carried(), None, "nothing takes no room");
    }

    #[test]
    fn events_of_one_command_are_numbered_and_effects_that_are_none_are_left_out() {
        let queue = QueueName::new("mail").unwrap();
        let change = |position| {
            let queue = queue.clone();
            Effect::Queue { queue, change: QueueChange::Paused, at: Timestamp(7), position }
        };
        let ready = Effect::Available { queue: queue.clone(), jobs: 1 };
        let events = Event::of(&[change(1), ready, change(1), change(3)]);
        let ids: Vec<_> = events.iter().map(|event| event.id.to_string()).collect();
        assert_eq!(ids, ["1.0", "1.1", "3.0"]);
    }
}
