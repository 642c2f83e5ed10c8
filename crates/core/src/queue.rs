use crate::{dead_letter::Alarm, flow::Lineup, lane::Lane};
use kit::Timestamp;
use model::{Keep, Priority, QueueCounts, QueueName, QueueSettings, State};

/// A queue: its settings, its counters, and one lane for each state (for `waiting`, one for each priority in use).
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: QueueName,
    pub(crate) paused: bool,
    pub(crate) settings: QueueSettings,
    pub(crate) counts: QueueCounts,
    pub(crate) live_bytes: u64,
    /// Those of `live_bytes` that dropping could free.
    pub(crate) waiting_bytes: u64,
    pub(crate) totals: Totals,
    /// Sorted by priority; a lane that was used stays.
    waiting: Vec<(Priority, Lane)>,
    /// By state as a number; `waiting` and `blocked` are unused.
    others: [Lane; State::COUNT],
    /// Where routes decide who is next; `None` while no job has one.
    pub(crate) lineup: Option<Box<Lineup>>,
    /// The one before, while there is none, for its idle lines. Not part of the state.
    pub(crate) shelf: Option<Box<Lineup>>,
    /// The gates it passes as a whole.
    pub(crate) gates: Vec<u32>,
    /// What it remembers of its deaths, where there is an alert.
    pub(crate) alarm: Option<Box<Alarm>>,
    /// Waiting jobs whose bodies are on disk only. Not part of the state.
    pub(crate) cold_waiting: u64,
    /// By state as a number: when the timer of that final lane fires, zero for never. Not part of the state.
    pub(crate) retention_timers: [Timestamp; State::COUNT],
    /// In the list of records to write. Not part of the state.
    pub(crate) dirty: bool,
}

/// Counters that only rise.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) pushed: u64,
    pub(crate) started: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) dead: u64,
}

impl Queue {
    pub(crate) fn new(name: QueueName) -> Self {
        Self {
            name,
            paused: false,
            settings: QueueSettings::DEFAULT,
            counts: QueueCounts::default(),
            live_bytes: 0,
            waiting_bytes: 0,
            totals: Totals::default(),
            waiting: Vec::new(),
            others: Default::default(),
            lineup: None,
            shelf: None,
            gates: Vec::new(),
            alarm: None,
            cold_waiting: 0,
            retention_timers: [Timestamp::ZERO; State::COUNT],
            dirty: false,
        }
    }

    /// The lane of a state; for `waiting`, of that priority.
    pub(crate) fn lane_mut(&mut self, state: State, priority: Priority) -> &mut Lane {
        if state != State::Waiting {
            return &mut self.others[state as usize];
        }
        let at = match self.waiting.binary_search_by_key(&priority, |(other, _)| *other) {
            Ok(at) => at,
            Err(at) => {
                self.waiting.insert(at, (priority, Lane::default()));
                at
            }
        };
        &mut self.waiting[at].1
    }

    /// The lane of a state, if any job was ever in it.
    pub(crate) fn lane(&self, state: State, priority: Priority) -> Option<&Lane> {
        if state != State::Waiting {
            return Some(&self.others[state as usize]);
        }
        let at = self.waiting.binary_search_by_key(&priority, |(other, _)| *other).ok()?;
        Some(&self.waiting[at].1)
    }

    /// The waiting lanes that hold jobs, most urgent first.
    pub(crate) fn waiting_lanes(&self) -> impl DoubleEndedIterator<Item = (Priority, &Lane)> {
        self.waiting.iter().filter(|(_, lane)| !lane.is_empty()).map(|(priority, lane)| (*priority, lane))
    }

    /// The job that starts next.
    pub(crate) fn head(&self) -> Option<u32> {
        self.waiting_lanes().next().and_then(|(_, lane)| lane.first()).map(|(_, slot)| slot)
    }

    pub(crate) fn waiting_count(&self) -> u64 {
        self.counts.of(State::Waiting)
    }

    /// How many of a final state are kept, and how long.
    pub(crate) fn keep(&self, state: State) -> Keep {
        if state == State::Dead { self.settings.keep_dead } else { self.settings.keep_completed }
    }

    /// When a final job that ended at `finished_at` is forgotten.
    pub(crate) fn forget_at(&self, state: State, finished_at: Timestamp) -> Timestamp {
        finished_at + self.keep(state).age_ms
    }
}
