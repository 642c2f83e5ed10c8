use std::collections::VecDeque;

/// Entries of one chunk. 512 entries are 4 KiB: small queues stay small, and dropping a drained chunk is cheap.
const CHUNK: usize = 512;
const VACANT: u32 = u32::MAX;

/// A first-in-first-out line of jobs from which any can leave.
///
/// Each entry has an order number; numbers only rise along the line, so an entry is found by bisection. Entries that left
/// are marked vacant and their chunk goes when it is empty: no operation ever moves the rest of the line. Eight bytes an entry.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    chunks: VecDeque<Chunk>,
    live: u64,
}

#[derive(Debug)]
struct Chunk {
    base: u64,
    /// The first entry that may still be live.
    head: usize,
    live: usize,
    /// (order - base, slot)
    entries: Vec<(u32, u32)>,
}

impl Chunk {
    fn last_order(&self) -> u64 {
        self.base + self.entries.last().map_or(0, |(delta, _)| u64::from(*delta))
    }

    fn live_from(&self, start: usize) -> Option<(u64, u32)> {
        let (delta, slot) = self.entries[start.max(self.head)..].iter().find(|(_, slot)| *slot != VACANT)?;
        Some((self.base + u64::from(*delta), *slot))
    }
}

impl Lane {
    pub(crate) fn len(&self) -> u64 {
        self.live
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Adds at the end. `order` must be larger than that of every entry before.
    pub(crate) fn push(&mut self, order: u64, slot: u32) {
        debug_assert!(self.chunks.back().is_none_or(|chunk| chunk.last_order() < order));
        self.live += 1;
        if let Some(chunk) = self.chunks.back_mut()
            && chunk.entries.len() < CHUNK
            && let Ok(delta) = u32::try_from(order - chunk.base)
        {
            chunk.entries.push((delta, slot));
            chunk.live += 1;
            return;
        }
        self.chunks.push_back(Chunk { base: order, head: 0, live: 1, entries: vec![(0, slot)] });
    }

    /// The entry at the front.
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        self.chunks.iter().find_map(|chunk| chunk.live_from(0))
    }

    /// The first entry whose order is at least `order`.
    pub(crate) fn next_from(&self, order: u64) -> Option<(u64, u32)> {
        let at = self.chunks.partition_point(|chunk| chunk.last_order() < order);
        let chunk = self.chunks.get(at)?;
        let inside = chunk.entries.partition_point(|(delta, _)| chunk.base + u64::from(*delta) < order);
        chunk
            .live_from(inside)
            .or_else(|| self.chunks.iter().skip(at + 1).find_map(|chunk| chunk.live_from(0)))
    }

    /// Takes one entry out; false if it is not here.
    pub(crate) fn remove(&mut self, order: u64) -> bool {
        let at = match self.chunks.front() {
            Some(front) if order <= front.last_order() => 0,
            _ => self.chunks.partition_point(|chunk| chunk.last_order() < order),
        };
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let Some(delta) = order.checked_sub(chunk.base) else { return false };
        let inside = match chunk.entries.get(chunk.head) {
            Some((first, _)) if u64::from(*first) == delta => chunk.head,
            _ => chunk.entries.partition_point(|(other, _)| u64::from(*other) < delta),
        };
        match chunk.entries.get_mut(inside) {
            Some((found, slot)) if u64::from(*found) == delta && *slot != VACANT => *slot = VACANT,
            _ => return false,
        }
        chunk.live -= 1;
        self.live -= 1;
        while chunk.head < chunk.entries.len() && chunk.entries[chunk.head].1 == VACANT {
            chunk.head += 1;
        }
        if chunk.live == 0 {
            self.drop_empty(at);
        }
        true
    }

    /// A drained chunk keeps its place until the front reaches it, but gives its memory back. The newest chunk is
    /// emptied for reuse, so that a queue that swings between none and one job does not allocate.
    fn drop_empty(&mut self, at: usize) {
        let last = self.chunks.len() - 1;
        if at == last && at == 0 {
            let chunk = &mut self.chunks[0];
            if chunk.entries.len() >= CHUNK / 2 {
                self.chunks.clear();
            }
        } else if at != last {
            self.chunks[at].entries.truncate(0);
            self.chunks[at].entries.shrink_to_fit();
            self.chunks[at].head = 0;
        }
        while self.chunks.len() > 1 && self.chunks.front().is_some_and(|chunk| chunk.live == 0) {
            self.chunks.pop_front();
        }
    }

    /// How many entries stand before `order`.
    pub(crate) fn rank(&self, order: u64) -> u64 {
        let at = self.chunks.partition_point(|chunk| chunk.last_order() < order);
        let before: usize = self.chunks.iter().take(at).map(|chunk| chunk.live).sum();
        let inside = self.chunks.get(at).map_or(0, |chunk| {
            let end = chunk.entries.partition_point(|(delta, _)| chunk.base + u64::from(*delta) < order);
            chunk.entries[..end].iter().filter(|(_, slot)| *slot != VACANT).count()
        });
        (before + inside) as u64
    }

    /// All entries in order, from `order` on.
    pub(crate) fn iter_from(&self, order: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let at = self.chunks.partition_point(|chunk| chunk.last_order() < order);
        self.chunks.iter().skip(at).flat_map(move |chunk| {
            chunk.entries[chunk.head.min(chunk.entries.len())..]
                .iter()
                .filter(|(_, slot)| *slot != VACANT)
                .map(|(delta, slot)| (chunk.base + u64::from(*delta), *slot))
                .filter(move |(found, _)| *found >= order)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::random::Random;
    use std::collections::BTreeMap;

    #[test]
    fn it_behaves_like_a_sorted_map_under_random_use() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let (mut lane, mut model) = (Lane::default(), BTreeMap::new());
            let mut order = 0;
            for _ in 0..6_000 {
                match random.below(10) {
                    0..5 => {
                        order += 1 + random.below(3) + if random.chance(1, 500) { 1 << 33 } else { 0 };
                        let slot = random.below(1_000) as u32;
                        lane.push(order, slot);
                        model.insert(order, slot);
                    }
                    5..7 => {
                        if let Some((first, _)) = lane.first() {
                            assert!(lane.remove(first));
                            model.remove(&first);
                        }
                    }
                    7 => {
                        let any = random.below(order + 1);
                        assert_eq!(lane.remove(any), model.remove(&any).is_some());
                    }
                    8 => {
                        let from = random.below(order + 2);
                        assert_eq!(lane.next_from(from), model.range(from..).next().map(|(o, s)| (*o, *s)));
                        assert_eq!(lane.rank(from), model.range(..from).count() as u64);
                    }
                    _ => {
                        let from = random.below(order + 2);
                        let mine: Vec<_> = lane.iter_from(from).take(20).collect();
                        let theirs: Vec<_> = model.range(from..).take(20).map(|(o, s)| (*o, *s)).collect();
                        assert_eq!(mine, theirs);
                    }
                }
                assert_eq!(lane.len(), model.len() as u64);
                assert_eq!(lane.first(), model.iter().next().map(|(o, s)| (*o, *s)));
            }
        }
    }

    #[test]
    fn it_can_be_drained_from_its_end_or_its_middle() {
        let whole: Vec<u64> = (1..=1_600).collect();
        let backwards = whole.iter().rev().copied().collect::<Vec<_>>();
        let middle_first = [&whole[500..1_100], &whole[1_100..], &whole[..500]].concat();
        for way in [whole.clone(), backwards, middle_first] {
            let mut lane = Lane::default();
            whole.iter().for_each(|order| lane.push(*order, *order as u32));
            let mut left: BTreeMap<u64, u32> = whole.iter().map(|order| (*order, *order as u32)).collect();
            for order in way {
                assert!(lane.remove(order) && !lane.remove(order));
                left.remove(&order);
                assert_eq!(lane.len(), left.len() as u64);
                assert_eq!(lane.first(), left.first_key_value().map(|(order, slot)| (*order, *slot)));
                assert_eq!(lane.rank(order), left.range(..order).count() as u64);
            }
            lane.push(1_601, 7);
            assert_eq!(lane.first(), Some((1_601, 7)));
        }
    }
}
