use super::{group::Group, line::Rank};
use crate::table::Table;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// Lines that stand together, the one that is next first: by their groups' virtual times, in a group by the rank of their first jobs.
#[derive(Debug, Default)]
pub(crate) struct Stand {
    groups: BTreeMap<u32, Members>,
    /// (virtual time, seat, group). May be behind the group's own time, which only rises: it is brought up to date on the way.
    order: BTreeSet<(u64, u64, u32)>,
    lines: usize,
}

/// The lines of a group. The first stands aside, so that a group of one line, which most are, needs no set.
#[derive(Debug)]
struct Members {
    at: (u64, u64),
    first: (Rank, u32),
    others: BTreeSet<(Rank, u32)>,
}

impl Members {
    fn insert(&mut self, line: (Rank, u32)) {
        self.others.insert(line.max(self.first));
        self.first = line.min(self.first);
    }

    /// Whether the line was here; the last one cannot go.
    fn remove(&mut self, line: (Rank, u32)) -> bool {
        match self.others.first() {
            Some(next) if line == self.first => {
                self.first = *next;
                self.others.pop_first();
                true
            }
            _ => self.others.remove(&line),
        }
    }

    fn replace(&mut self, former: (Rank, u32), line: (Rank, u32)) {
        if former == self.first && self.others.first().is_none_or(|next| line < *next) {
            self.first = line;
        } else {
            self.insert(line);
            self.remove(former);
        }
    }
}

impl Stand {
    pub(crate) fn len(&self) -> usize {
        self.lines
    }

    pub(crate) fn insert(&mut self, groups: &Table<Group>, group: u32, rank: Rank, line: u32) {
        self.lines += 1;
        match self.groups.entry(group) {
            Entry::Occupied(mut members) => members.get_mut().insert((rank, line)),
            Entry::Vacant(place) => {
                let at = groups[group].at();
                self.order.insert((at.0, at.1, group));
                place.insert(Members { at, first: (rank, line), others: BTreeSet::new() });
            }
        }
    }

    pub(crate) fn remove(&mut self, group: u32, rank: Rank, line: u32) {
        let Some(members) = self.groups.get_mut(&group) else { return };
        if members.first == (rank, line) && members.others.is_empty() {
            self.order.remove(&(members.at.0, members.at.1, group));
            self.groups.remove(&group);
            self.lines -= 1;
        } else if members.remove((rank, line)) {
            self.lines -= 1;
        }
    }

    /// Another job of a line is first.
    pub(crate) fn rerank(&mut self, group: u32, former: Rank, rank: Rank, line: u32) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.replace((former, line), (rank, line));
        }
    }

    /// The line that is next, and what decides over it.
    pub(crate) fn best(&mut self, groups: &Table<Group>) -> Option<(u64, u64, Rank, u32)> {
        loop {
            let &(tag, seat, group) = self.order.first()?;
            let now = groups[group].at();
            let members = self.groups.get_mut(&group)?;
            // One that is alone is next, wherever it stands.
            if now == (tag, seat) || self.order.len() == 1 {
                let (rank, line) = members.first;
                return Some((now.0, now.1, rank, line));
            }
            self.order.remove(&(tag, seat, group));
            self.order.insert((now.0, now.1, group));
            members.at = now;
        }
    }

    /// Every line, in no order that means anything.
    pub(crate) fn lines(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.values().flat_map(|members| {
            std::iter::once(members.first.1).chain(members.others.iter().map(|(_, line)| *line))
        })
    }
}
