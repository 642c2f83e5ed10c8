//! Gathers jobs for a handler that takes several in one call. It has no clock: whoever uses it tells it the time.

use compact_str::CompactString;
use model::{QueueName, limits};
use std::{mem, time::Duration};

/// Jobs in one call.
const SIZE_MAX: usize = 1_000;

/// How jobs are put together for one call. Start from [`BatchOptions::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    /// Jobs in one call at most, 1 to 1,000. Default 100.
    pub size: usize,
    /// The call is made as soon as so many are together; 1 takes what is there. Default: `size`.
    pub min_size: Option<usize>,
    /// The call is made so long after the first job came, however few there are. Default 1 s.
    pub wait: Duration,
    /// Jobs of different groups do not share a call. Default: they do.
    pub by_group: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { size: 100, min_size: None, wait: Duration::from_secs(1), by_group: false }
    }
}

/// Jobs on their way into calls. A call has jobs of one queue, and if asked for, of one group. Times count from any fixed moment.
pub struct Gather<J> {
    size: usize,
    min_size: usize,
    wait: Duration,
    by_group: bool,
    calls: usize,
    /// The one that began first stands first.
    batches: Vec<Forming<J>>,
    jobs: usize,
}

struct Forming<J> {
    key: (QueueName, Option<CompactString>),
    since: Duration,
    jobs: Vec<J>,
}

impl<J> Gather<J> {
    /// For `calls` at once; fewer if they could have more jobs than 10,000 together.
    pub fn new(options: &BatchOptions, calls: usize) -> Self {
        let size = options.size.clamp(1, SIZE_MAX);
        Self {
            size,
            min_size: options.min_size.unwrap_or(size).clamp(1, size),
            wait: options.wait,
            by_group: options.by_group,
            calls: calls.clamp(1, limits::BATCH_MAX / size),
            batches: Vec::new(),
            jobs: 0,
        }
    }

    /// Jobs that all calls together may have.
    pub const fn capacity(&self) -> usize {
        self.calls * self.size
    }

    /// Calls at once.
    pub const fn calls(&self) -> usize {
        self.calls
    }

    /// Jobs that are here.
    pub const fn len(&self) -> usize {
        self.jobs
    }

    /// Whether none is here.
    pub const fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// Jobs that may still be added while `busy` calls run: what the free ones can hold, so that nothing is kept from other workers
    /// for a call that nobody knows the end of.
    pub const fn places(&self, busy: usize) -> usize {
        (self.calls.saturating_sub(busy) * self.size).saturating_sub(self.jobs)
    }

    /// Adds a job to the batch of its kind that has room.
    pub fn add(&mut self, job: J, queue: &QueueName, group: Option<&CompactString>, now: Duration) {
        let group = group.filter(|_| self.by_group);
        let size = self.size;
        let fits = |batch: &&mut Forming<J>| {
            batch.jobs.len() < size && batch.key.1.as_ref() == group && batch.key.0 == *queue
        };
        self.jobs += 1;
        match self.batches.iter_mut().find(fits) {
            Some(batch) => batch.jobs.push(job),
            None => {
                let key = (queue.clone(), group.cloned());
                self.batches.push(Forming { key, since: now, jobs: vec![job] });
            }
        }
    }

    /// The jobs of the next call, if one is free and it is time: a batch is large enough or has waited long enough, the oldest first;
    /// or no more jobs can come because there is no place for them, and then the largest goes.
    pub fn next_call(&mut self, busy: usize, now: Duration) -> Option<Vec<J>> {
        if busy >= self.calls {
            return None;
        }
        let ready = |batch: &Forming<J>| batch.jobs.len() >= self.min_size || batch.since + self.wait <= now;
        let index = self.batches.iter().position(ready).or_else(|| {
            let batches = self.batches.iter().enumerate().rev().filter(|_| self.places(busy) == 0);
            batches.max_by_key(|(_, batch)| batch.jobs.len()).map(|(index, _)| index)
        })?;
        let jobs = self.batches.remove(index).jobs;
        self.jobs -= jobs.len();
        Some(jobs)
    }

    /// Whether a batch can hold no more.
    pub fn has_full(&self) -> bool {
        self.batches.iter().any(|batch| batch.jobs.len() == self.size)
    }

    /// When the wait of the oldest batch is over.
    pub fn due(&self) -> Option<Duration> {
        self.batches.first().map(|batch| batch.since + self.wait)
    }

    /// Takes out the jobs that meet `gone`, as those that were cancelled.
    pub fn remove(&mut self, mut gone: impl FnMut(&J) -> bool) -> Vec<J> {
        let mut removed = Vec::new();
        for batch in &mut self.batches {
            removed.extend(batch.jobs.extract_if(.., |job| gone(job)));
        }
        self.batches.retain(|batch| !batch.jobs.is_empty());
        self.jobs -= removed.len();
        removed
    }

    /// Takes out the batches whose wait was over at `then`.
    pub fn remove_due(&mut self, then: Duration) -> Vec<J> {
        let wait = self.wait;
        let late = self.batches.extract_if(.., |batch| batch.since + wait <= then);
        let removed: Vec<J> = late.flat_map(|batch| batch.jobs).collect();
        self.jobs -= removed.len();
        removed
    }

    /// Takes out everything.
    pub fn clear(&mut self) -> Vec<J> {
        self.jobs = 0;
        mem::take(&mut self.batches).into_iter().flat_map(|batch| batch.jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Adds jobs `1`, `2` … of a group, a letter each and `-` for none, as they come, one at a time with a second between them.
    fn gather(options: BatchOptions, calls: usize, groups: &str) -> Gather<u32> {
        let queue = QueueName::new("q").unwrap();
        let mut gather = Gather::new(&options, calls);
        for (group, number) in groups.chars().zip(1..) {
            let group = (group != '-').then(|| CompactString::from_iter([group]));
            gather.add(number, &queue, group.as_ref(), SECOND * (number - 1));
        }
        gather
    }

    fn by_group(size: usize) -> BatchOptions {
        BatchOptions { size, wait: SECOND * 10, by_group: true, ..BatchOptions::default() }
    }

    #[test]
    fn a_call_is_made_when_it_is_full_or_has_waited_since_its_first_job() {
        let options = BatchOptions { size: 3, wait: SECOND * 10, ..BatchOptions::default() };
        let mut some = gather(options, 2, "a-b-a");
        assert_eq!(some.next_call(2, SECOND * 99), None, "no call is free");
        assert_eq!(some.next_call(0, SECOND * 4), Some(vec![1, 2, 3]));
        assert_eq!((some.due(), some.len()), (Some(SECOND * 13), 2));
        assert_eq!(some.next_call(0, SECOND * 12), None);
        assert_eq!(some.next_call(0, SECOND * 13), Some(vec![4, 5]));
        assert!(some.is_empty());
    }

    #[test]
    fn a_call_that_has_its_least_size_takes_what_is_there() {
        let options = BatchOptions { size: 9, min_size: Some(2), ..BatchOptions::default() };
        assert_eq!(gather(options.clone(), 1, "-").next_call(0, SECOND / 2), None);
        assert_eq!(gather(options, 1, "---").next_call(0, Duration::ZERO), Some(vec![1, 2, 3]));
    }

    #[test]
    fn jobs_of_different_groups_or_queues_do_not_share_a_call() {
        let mut some = gather(by_group(2), 9, "ab-a-b");
        let calls: Vec<_> = std::iter::from_fn(|| some.next_call(0, SECOND * 5)).collect();
        assert_eq!(calls, [[1, 4], [2, 6], [3, 5]]);
        let mut mixed = gather(BatchOptions { size: 2, ..BatchOptions::default() }, 9, "a");
        mixed.add(2, &QueueName::new("other").unwrap(), None, Duration::ZERO);
        assert_eq!(mixed.next_call(0, Duration::ZERO), None);
    }

    #[test]
    fn the_largest_is_called_early_when_there_is_no_place_for_more() {
        let mut some = gather(by_group(4), 2, "abbcbc");
        assert_eq!((some.places(0), some.places(1), some.next_call(0, SECOND * 6)), (2, 0, None));
        assert_eq!(some.next_call(1, SECOND * 6), Some(vec![2, 3, 5]));
        assert_eq!((some.places(1), some.next_call(1, SECOND * 6)), (1, None));
    }

    #[test]
    fn what_is_taken_out_leaves_no_batch_behind() {
        let mut some = gather(by_group(4), 1, "abab");
        assert_eq!(some.remove(|job| job % 2 == 1), [1, 3]);
        assert_eq!((some.due(), some.len()), (Some(SECOND * 11), 2));
        assert!(some.remove_due(SECOND * 10).is_empty());
        assert_eq!(some.remove_due(SECOND * 11), [2, 4]);
        assert_eq!((some.due(), some.len()), (None, 0));
    }

    #[test]
    fn sizes_out_of_range_are_brought_into_it() {
        let calls = |size, min_size, calls| {
            let gather =
                Gather::<u32>::new(&BatchOptions { size, min_size, ..BatchOptions::default() }, calls);
            (gather.size, gather.min_size, gather.calls)
        };
        assert_eq!(calls(0, None, 0), (1, 1, 1));
        assert_eq!(calls(5_000, Some(0), 16), (1_000, 1, 10));
        assert_eq!(calls(10, Some(20), 10_000), (10, 10, 1_000));
    }
}
