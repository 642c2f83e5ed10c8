//! Which waiting job starts next, and what holds the others.
//!
//! ```text
//!             queue                                     shard
//!  ┌───────────────────────────────┐        ┌───────────────────────────┐
//!  │ groups: share, by virtual time│        │ gates, by key             │
//!  │   └─ lines: one route each    │ passes │   limit `api`   3 of 5    │
//!  │        └─ jobs, by rank       ├───────►│   limit `user:7` until T  │
//!  └───────────────────────────────┘        │   order `cart:1` taken    │
//!                                           └───────────────────────────┘
//! ```
//!
//! Jobs of a queue with one route form a *line*. A line passes the same *gates*, so its first job tells for all of them. Groups of a
//! queue take turns by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each has a virtual time that a start moves on by
//! one over its weight, and the group that is furthest behind is next. That costs the logarithm of the number of groups and needs no
//! quantum to be tuned, which deficit round robin would; an idle group saves nothing up.
//!
//! The rule, in one sentence: *of all jobs whose gates are open, the one of the group that is furthest behind, in it the most
//! urgent, starts next.* [`forecast`] states it just so, over all lines. The dispatcher finds the same job without looking at lines
//! that cannot start: one that was found held stands at the gate that held it until that gate opens.
//!
//! A queue whose jobs have no routes has no lineup: its lanes are its order, and it pays for none of this.

mod check;
mod circuit;
mod dispatch;
mod forecast;
mod gate;
mod group;
mod line;
mod lineup;
mod queue;
mod ranks;
mod rules;
mod stand;

pub(crate) use circuit::Circuit;
pub(crate) use gate::{Gate, GateKey, Memory, Meter, Obstacle};
pub(crate) use group::Group;
pub(crate) use line::{Class, Line, NO_LINE, Rank};
pub(crate) use lineup::Lineup;
pub(crate) use rules::Rules;

use crate::table::Table;
use hashbrown::HashTable;
use kit::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Gates and lines of all queues of a shard.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) rules: Rules,
    pub(crate) gates: Table<Gate>,
    pub(crate) gate_index: BTreeMap<GateKey, u32>,
    pub(crate) lines: Table<Line>,
    /// Lines by their classes, which stand in the lines themselves.
    pub(crate) line_index: HashTable<u32>,
    /// The line that a job joined last.
    pub(crate) recent: Option<u32>,
    /// Lines that ran empty, and when; those that have live jobs again have another number or none.
    pub(crate) idle: VecDeque<(u32, u64)>,
    /// How often a line ran empty.
    pub(crate) rests: u64,
    /// When a gate that is closed for a time opens.
    pub(crate) timers: BTreeSet<(Timestamp, u32)>,
    /// Queues in which something may start that could not before; told at the end of the command.
    pub(crate) stirred: BTreeSet<u32>,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self {
            rules: Rules::default(),
            gates: Table::default(),
            gate_index: BTreeMap::new(),
            lines: Table::default(),
            line_index: HashTable::new(),
            recent: None,
            idle: VecDeque::new(),
            rests: 0,
            timers: BTreeSet::new(),
            stirred: BTreeSet::new(),
        }
    }
}
