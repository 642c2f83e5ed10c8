use super::{group::Group, line::NO_LINE, stand::Stand};
use crate::{changes::Dirty, table::Table};
use compact_str::CompactString;
use std::collections::{BTreeMap, BTreeSet};

/// The lines of one queue, in the order in which they start.
#[derive(Debug)]
pub(crate) struct Lineup {
    pub(crate) groups: Table<Group>,
    pub(crate) group_index: BTreeMap<CompactString, u32>,
    /// The line of jobs without a route.
    pub(crate) plain: u32,
    /// Lines that nothing was found to hold.
    pub(crate) ready: Stand,
    /// Gates, with a cost, that are open for it and have many lines: they need not move to `ready` one by one.
    pub(crate) sources: BTreeSet<(u32, u32)>,
    /// Virtual time.
    pub(crate) clock: u64,
    /// Groups without live lines whose times are still ahead, in their order.
    pub(crate) idle: BTreeSet<(u64, u32)>,
    /// Lines with live jobs, the plain one not counted.
    pub(crate) lines: u32,
    /// Lines of it, the plain one not counted: the idle ones too.
    pub(crate) kept: u32,
    /// Groups that somebody changed.
    pub(crate) groups_set: usize,
}

impl Default for Lineup {
    fn default() -> Self {
        Self {
            groups: Table::default(),
            group_index: BTreeMap::new(),
            plain: NO_LINE,
            ready: Stand::default(),
            sources: BTreeSet::new(),
            clock: 0,
            idle: BTreeSet::new(),
            lines: 0,
            kept: 0,
            groups_set: 0,
        }
    }
}

impl Lineup {
    /// The group of that name, made if new.
    pub(crate) fn group(&mut self, name: &str) -> u32 {
        if let Some(group) = self.group_index.get(name) {
            return *group;
        }
        let group = self.groups.insert(Group::new(name.into()));
        self.group_index.insert(name.into(), group);
        group
    }

    /// Gives a group its settings.
    pub(crate) fn set_group(&mut self, group: u32, weight: Option<u32>, paused: Option<bool>) {
        let group = &mut self.groups[group];
        self.groups_set -= usize::from(group.is_set());
        group.weight = weight.unwrap_or(group.weight);
        group.paused = paused.unwrap_or(group.paused);
        self.groups_set += usize::from(group.is_set());
    }

    /// Forgets a group that has no live lines, unless it was set or its time is still ahead. Idle lines keep its place.
    pub(crate) fn retire(&mut self, queue: u32, group: u32, dirty: &mut Dirty) {
        let found = &mut self.groups[group];
        if found.lines > 0 || found.is_set() {
            return;
        }
        if found.tag > self.clock {
            self.idle.insert((found.tag, group));
            return;
        }
        found.tag = 0;
        dirty.touch_group(queue, found);
        if found.kept == 0
            && let Some(group) = self.groups.remove(group)
        {
            self.group_index.remove(&group.name);
        }
    }

    /// Moves virtual time on, past idle groups, which are forgotten.
    pub(crate) fn advance(&mut self, queue: u32, tag: u64, dirty: &mut Dirty) {
        self.clock = self.clock.max(tag);
        while let Some(&(tag, group)) = self.idle.first()
            && tag <= self.clock
        {
            self.idle.pop_first();
            self.retire(queue, group, dirty);
        }
    }

    /// Forgets all times: there are no live jobs.
    pub(crate) fn begin_anew(&mut self, queue: u32, dirty: &mut Dirty) {
        self.advance(queue, u64::MAX, dirty);
        self.clock = 0;
        let plain = &mut self.groups[0];
        plain.tag = 0;
        dirty.touch_group(queue, plain);
    }
}
