//! Streams made of streams.

use super::Stream;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// See [`Stream::debounce`].
pub struct Debounce<S: Stream> {
    source: S,
    quiet: Duration,
    held: Option<(S::Item, Instant)>,
}

impl<S: Stream> Debounce<S> {
    pub(super) fn new(source: S, quiet: Duration) -> Self {
        Self { source, quiet, held: None }
    }
}

impl<S: Stream> Stream for Debounce<S> {
    type Item = S::Item;

    async fn next(&mut self) -> Option<S::Item> {
        loop {
            let next = match &self.held {
                None => Ok(self.source.next().await),
                Some((_, due)) => timeout_at(*due, self.source.next()).await,
            };
            match next {
                Ok(Some(item)) => self.held = Some((item, Instant::now() + self.quiet)),
                // The end of the pond is quiet enough.
                Ok(None) | Err(_) => return self.held.take().map(|(item, _)| item),
            }
        }
    }
}

/// See [`Stream::throttle`].
pub struct Throttle<S: Stream> {
    source: S,
    span: Duration,
    held: Option<S::Item>,
    free_at: Option<Instant>,
}

impl<S: Stream> Throttle<S> {
    pub(super) fn new(source: S, span: Duration) -> Self {
        Self { source, span, held: None, free_at: None }
    }
}

impl<S: Stream> Stream for Throttle<S> {
    type Item = S::Item;

    async fn next(&mut self) -> Option<S::Item> {
        loop {
            let free_at = self.free_at.filter(|at| *at > Instant::now());
            let Some(free_at) = free_at else {
                let item = match self.held.take() {
                    Some(item) => item,
                    None => self.source.next().await?,
                };
                self.free_at = Some(Instant::now() + self.span);
                return Some(item);
            };
            match timeout_at(free_at, self.source.next()).await {
                Ok(Some(item)) => self.held = Some(item),
                Ok(None) => return self.held.take(),
                Err(_) => sleep_until(free_at).await,
            }
        }
    }
}

/// See [`Stream::batch`].
pub struct Batch<S: Stream> {
    source: S,
    max: usize,
    wait: Duration,
    held: Vec<S::Item>,
    due: Option<Instant>,
}

impl<S: Stream> Batch<S> {
    pub(super) fn new(source: S, max: usize, wait: Duration) -> Self {
        Self { source, max: max.max(1), wait, held: Vec::new(), due: None }
    }
}

impl<S: Stream> Stream for Batch<S> {
    type Item = Vec<S::Item>;

    async fn next(&mut self) -> Option<Vec<S::Item>> {
        while self.held.len() < self.max {
            let next = match self.due {
                None => Ok(self.source.next().await),
                Some(due) => timeout_at(due, self.source.next()).await,
            };
            match next {
                Ok(Some(item)) => {
                    self.due.get_or_insert_with(|| Instant::now() + self.wait);
                    self.held.push(item);
                }
                Ok(None) | Err(_) => break,
            }
        }
        self.due = None;
        let list = std::mem::take(&mut self.held);
        (!list.is_empty()).then_some(list)
    }
}

/// The first item and no other.
pub(super) struct First<S> {
    source: Option<S>,
}

impl<S> First<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source: Some(source) }
    }
}

impl<S: Stream> Stream for First<S> {
    type Item = S::Item;

    async fn next(&mut self) -> Option<S::Item> {
        let item = self.source.as_mut()?.next().await;
        self.source = None;
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Items with the milliseconds at which they come.
    struct Planned {
        items: VecDeque<(u64, char)>,
        start: Instant,
    }

    impl Stream for Planned {
        type Item = char;

        async fn next(&mut self) -> Option<char> {
            let (at, item) = *self.items.front()?;
            sleep_until(self.start + Duration::from_millis(at)).await;
            self.items.pop_front();
            Some(item)
        }
    }

    fn planned(items: &[(u64, char)]) -> Planned {
        Planned { items: items.iter().copied().collect(), start: Instant::now() }
    }

    async fn heard<S: Stream>(mut stream: S) -> Vec<(u64, S::Item)> {
        let start = Instant::now();
        let mut heard = Vec::new();
        while let Some(item) = stream.next().await {
            heard.push((u64::try_from(start.elapsed().as_millis()).unwrap(), item));
        }
        heard
    }

    const SPAN: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn a_debounced_stream_tells_the_newest_once_it_is_quiet() {
        let source = planned(&[(0, 'a'), (50, 'b'), (120, 'c'), (300, 'd')]);
        // The clock of a test has whole milliseconds, and a timer may be one late.
        let heard = heard(source.debounce(SPAN)).await;
        assert_eq!(
            heard.iter().map(|(at, item)| (at / 10 * 10, *item)).collect::<Vec<_>>(),
            [(220, 'c'), (300, 'd')]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_stream_tells_the_first_at_once_and_then_the_newest() {
        let source = planned(&[(0, 'a'), (10, 'b'), (20, 'c'), (110, 'd'), (500, 'e')]);
        let heard = heard(source.throttle(SPAN)).await;
        let heard: Vec<_> = heard.iter().map(|(at, item)| (at / 10 * 10, *item)).collect();
        assert_eq!(heard, [(0, 'a'), (100, 'c'), (200, 'd'), (500, 'e')]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_full_or_old_enough() {
        let source = planned(&[(0, 'a'), (10, 'b'), (20, 'c'), (30, 'd'), (500, 'e')]);
        let heard = heard(source.batch(3, SPAN)).await;
        let heard: Vec<_> =
            heard.into_iter().map(|(at, items)| (at / 10 * 10, items.into_iter().collect())).collect();
        assert_eq!(heard, [(20, "abc".to_owned()), (130, "d".to_owned()), (500, "e".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_was_not_waited_for_to_its_end_is_not_lost() {
        let mut batch = planned(&[(0, 'a'), (50, 'b')]).batch(2, SPAN);
        assert!(tokio::time::timeout(Duration::from_millis(20), batch.next()).await.is_err());
        assert_eq!(batch.next().await, Some(vec!['a', 'b']));
        assert_eq!(batch.next().await, None);
    }
}
