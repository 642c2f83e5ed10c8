use super::{group::Group, line::Rank};
use crate::table::Table;
use std::collections::{BTreeMap, BTreeSet};

/// Lines that stand together, the one that is next first: by their groups' virtual times, in a group by the rank of their first jobs.
#[derive(Debug, Default)]
pub(crate) struct Stand {
    groups: BTreeMap<u32, Members>,
    /// (virtual time, seat, group). May be behind the group's own time, which only rises: it is brought up to date on the way.
    order: BTreeSet<(u64, u64, u32)>,
    lines: usize,
}

#[derive(Debug, Default)]
struct Members {
    at: (u64, u64),
    lines: BTreeSet<(Rank, u32)>,
}

impl Stand {
    pub(crate) fn len(&self) -> usize {
        self.lines
    }

    pub(crate) fn insert(&mut self, groups: &Table<Group>, group: u32, rank: Rank, line: u32) {
        let members = self.groups.entry(group).or_insert_with(|| {
            let at = groups[group].at();
            self.order.insert((at.0, at.1, group));
            Members { at, lines: BTreeSet::new() }
        });
        members.lines.insert((rank, line));
        self.lines += 1;
    }

    pub(crate) fn remove(&mut self, group: u32, rank: Rank, line: u32) {
        let Some(members) = self.groups.get_mut(&group) else { return };
        if members.lines.remove(&(rank, line)) {
            self.lines -= 1;
        }
        if members.lines.is_empty() {
            self.order.remove(&(members.at.0, members.at.1, group));
            self.groups.remove(&group);
        }
    }

    /// Another job of a line is first.
    pub(crate) fn rerank(&mut self, group: u32, former: Rank, rank: Rank, line: u32) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.lines.remove(&(former, line));
            members.lines.insert((rank, line));
        }
    }

    /// The line that is next, and what decides over it.
    pub(crate) fn best(&mut self, groups: &Table<Group>) -> Option<(u64, u64, Rank, u32)> {
        loop {
            let &(tag, seat, group) = self.order.first()?;
            let now = groups[group].at();
            let members = self.groups.get_mut(&group)?;
            if now == (tag, seat) {
                let &(rank, line) = members.lines.first()?;
                return Some((tag, seat, rank, line));
            }
            self.order.remove(&(tag, seat, group));
            self.order.insert((now.0, now.1, group));
            members.at = now;
        }
    }

    /// Every line, in no order that means anything.
    pub(crate) fn lines(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.values().flat_map(|members| members.lines.iter().map(|(_, line)| *line))
    }
}
