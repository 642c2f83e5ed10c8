use compact_str::CompactString;
use std::collections::BTreeSet;

/// One start of a group of weight 1, in virtual time. Divisible by every small weight.
const START: u64 = 720_720;

/// A group of jobs of a queue: its share and its virtual time.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) name: CompactString,
    pub(crate) weight: u32,
    pub(crate) paused: bool,
    /// Its virtual time: the group with the smallest is next.
    pub(crate) tag: u64,
    /// Among equals, who came first.
    pub(crate) seat: u64,
    pub(crate) waiting: u64,
    /// Lines of it with live jobs; the plain line counts.
    pub(crate) lines: u32,
    /// Lines of it, the idle ones too.
    pub(crate) kept: u32,
    /// In the list of records to write. Not part of the state.
    pub(crate) dirty: bool,
    /// Lines with waiting jobs that were found while it is paused.
    pub(crate) parked: BTreeSet<u32>,
}

impl Group {
    pub(crate) fn new(name: CompactString) -> Self {
        Self { name, weight: 1, ..Self::default() }
    }

    pub(crate) fn at(&self) -> (u64, u64) {
        (self.tag, self.seat)
    }

    /// Whether somebody changed its settings.
    pub(crate) fn is_set(&self) -> bool {
        self.weight != 1 || self.paused
    }

    /// A job of it starts. A group that could not use its turns has not saved them up.
    pub(crate) fn start(&mut self, clock: u64) {
        self.tag = self.tag.max(clock) + self.step();
    }

    /// How far one start moves it on.
    pub(crate) fn step(&self) -> u64 {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::IgnoreWeight) {
            return START;
        }
        START / u64::from(self.weight.max(1))
    }

    /// It has waiting jobs again: it goes on from where the others are.
    pub(crate) fn arrive(&mut self, clock: u64, seat: u64) {
        if self.waiting == 0 {
            self.tag = self.tag.max(clock);
            self.seat = seat;
        }
        self.waiting += 1;
    }
}
