use super::line::Rank;
use crate::lane::Lane;
use std::collections::BTreeMap;

/// The waiting jobs of a line, by rank.
///
/// Where arrival decides, they come in order and stand in lanes, one for each priority: a fifth of the memory and of the work of a
/// tree. Those that something else ranks stand in a tree.
#[derive(Debug, Default)]
pub(crate) struct Ranks {
    /// By priority. Kept when they run empty: the next job mostly has the same.
    lanes: Vec<(u8, Lane)>,
    ranked: BTreeMap<Rank, u32>,
}

impl Ranks {
    pub(crate) fn len(&self) -> u64 {
        self.lanes.iter().map(|(_, lane)| lane.len()).sum::<u64>() + self.ranked.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranked.is_empty() && self.lanes.iter().all(|(_, lane)| lane.is_empty())
    }

    fn lane(&self, priority: u8) -> Result<usize, usize> {
        self.lanes.binary_search_by_key(&priority, |(priority, _)| *priority)
    }

    /// Among equals, jobs come in their order of arrival.
    pub(crate) fn insert(&mut self, rank: Rank, slot: u32) {
        match rank {
            (priority, 0, order) => {
                let at = self.lane(priority).unwrap_or_else(|at| {
                    self.lanes.insert(at, (priority, Lane::default()));
                    at
                });
                self.lanes[at].1.push(order, slot);
            }
            rank => drop(self.ranked.insert(rank, slot)),
        }
    }

    pub(crate) fn remove(&mut self, rank: Rank) {
        match rank {
            (priority, 0, order) => {
                if let Ok(at) = self.lane(priority) {
                    self.lanes[at].1.remove(order);
                }
            }
            rank => drop(self.ranked.remove(&rank)),
        }
    }

    pub(crate) fn first(&self) -> Option<(Rank, u32)> {
        let arrived = self
            .lanes
            .iter()
            .find_map(|(priority, lane)| lane.first().map(|(order, slot)| ((*priority, 0, order), slot)));
        let ranked = self.ranked.first_key_value().map(|(rank, slot)| (*rank, *slot));
        match (arrived, ranked) {
            (Some(arrived), Some(ranked)) => Some(arrived.min(ranked)),
            (arrived, ranked) => arrived.or(ranked),
        }
    }

    pub(crate) fn get(&self, rank: Rank) -> Option<u32> {
        match rank {
            (priority, 0, order) => {
                let (found, slot) = self.lanes[self.lane(priority).ok()?].1.next_from(order)?;
                (found == order).then_some(slot)
            }
            rank => self.ranked.get(&rank).copied(),
        }
    }

    /// The first of them, in order.
    pub(crate) fn take(&self, count: usize) -> Vec<(Rank, u32)> {
        let arrived = self.lanes.iter().flat_map(|(priority, lane)| {
            lane.iter_from(0).map(|(order, slot)| ((*priority, 0, order), slot))
        });
        let ranked = self.ranked.iter().map(|(rank, slot)| (*rank, *slot));
        let mut first: Vec<_> = arrived.take(count).chain(ranked.take(count)).collect();
        first.sort_unstable();
        first.truncate(count);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::random::Random;

    #[test]
    fn ranks_are_those_of_a_tree() {
        let mut random = Random::new(7);
        let (mut ranks, mut tree) = (Ranks::default(), BTreeMap::new());
        for order in 1..3_000 {
            let priority = random.below(3) as u8;
            let rank = if random.below(4) == 0 { 1 + random.below(5) } else { 0 };
            ranks.insert((priority, rank, order), order as u32);
            tree.insert((priority, rank, order), order as u32);
            while tree.len() > 40 || !tree.is_empty() && random.below(2) == 0 {
                let at = if random.below(2) == 0 { 0 } else { random.below(tree.len() as u64) };
                let rank = *tree.keys().nth(at as usize).unwrap();
                assert_eq!(ranks.get(rank), tree.remove(&rank));
                ranks.remove(rank);
                assert_eq!(ranks.get(rank), None);
            }
            assert_eq!(ranks.first(), tree.first_key_value().map(|(rank, slot)| (*rank, *slot)));
            assert_eq!(ranks.len(), tree.len() as u64);
            assert_eq!(ranks.is_empty(), tree.is_empty());
            assert!(ranks.take(9).into_iter().eq(tree.iter().take(9).map(|(rank, slot)| (*rank, *slot))));
        }
    }
}
