use super::{group::Group, line::NO_LINE, stand::Stand};
use crate::table::Table;
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
    /// Groups without lines whose times are still ahead, in their order.
    pub(crate) idle: BTreeSet<(u64, u32)>,
    /// Lines of it, the plain one not counted.
    pub(crate) lines: u32,
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
        }
    }
}

impl Lineup {
    /// The group of that name, made if new.
    pub(crate) fn group(&mut self, name: &CompactString) -> u32 {
        if let Some(group) = self.group_index.get(name) {
            return *group;
        }
        let group = self.groups.insert(Group::new(name.clone()));
        self.group_index.insert(name.clone(), group);
        group
    }

    /// Forgets a group that has no lines, unless it was set or its time is still ahead. Its name, if it went.
    pub(crate) fn retire(&mut self, group: u32) -> Option<CompactString> {
        let found = &self.groups[group];
        if found.lines > 0 || found.is_set() {
            return None;
        }
        if found.tag > self.clock {
            self.idle.insert((found.tag, group));
            return None;
        }
        let name = self.groups.remove(group)?.name;
        self.group_index.remove(&name);
        Some(name)
    }

    /// Moves virtual time on. The names of idle groups that it passed, which are forgotten.
    pub(crate) fn advance(&mut self, tag: u64) -> Vec<CompactString> {
        self.clock = self.clock.max(tag);
        let mut passed = Vec::new();
        while let Some(&(tag, group)) = self.idle.first()
            && tag <= self.clock
        {
            self.idle.remove(&(tag, group));
            passed.extend(self.retire(group));
        }
        passed
    }
}
