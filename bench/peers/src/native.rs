//! Peers whose client is in Rust: the load comes from this process.

use crate::{
    client::{Client, Push, When, Work, Worked, body, now_us},
    error::{Error, Result},
    sink::Sink,
};
use futures_util::future::BoxFuture;
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Barrier, task::JoinSet};

/// The longest time for the work of one cell.
const WORK: Duration = Duration::from_secs(60);
/// How long workers may take to stop when all is done.
const STOP: Duration = Duration::from_secs(10);

/// What a peer in Rust has to say.
pub(crate) trait Native: Send + Sync + 'static {
    type Producer: Producer;

    /// One more caller that enqueues, as the peer's documentation would have it: with a connection of its own or sharing one.
    fn producer(&self, queue: &str) -> impl Future<Output = Result<Self::Producer>> + Send;

    /// Handles and acknowledges until the sink is full.
    fn work(&self, queue: &str, handlers: usize, sink: Arc<Sink>) -> impl Future<Output = Result<()>> + Send;

    fn waiting(&self, queue: &str) -> impl Future<Output = Result<u64>> + Send;

    fn clear(&self, _queue: &str) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// The time nearest to this at which a job can be made due; only for peers with delays.
    fn due_us(&self, wanted_us: u64) -> u64 {
        wanted_us
    }
}

/// One caller that enqueues.
pub(crate) trait Producer: Send + 'static {
    /// Returns when all are acknowledged. `due_us` is empty, or has a time for each body.
    fn push(&mut self, bodies: &[String], due_us: &[u64]) -> impl Future<Output = Result<()>> + Send;
}

/// A client in this process.
pub(crate) struct Local<N>(Arc<N>);

impl<N: Native> Local<N> {
    pub(crate) fn boxed(native: N) -> Box<dyn Client> {
        Box::new(Self(Arc::new(native)))
    }
}

impl<N: Native> Client for Local<N> {
    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Result<f64>> {
        Box::pin(async move {
            let begin = Arc::new(Barrier::new(push.producers + 1));
            let mut callers = JoinSet::new();
            for place in 0..push.producers {
                let (native, push, begin) = (self.0.clone(), push.clone(), begin.clone());
                let mut producer = native.producer(&push.queue).await?;
                callers.spawn(async move {
                    begin.wait().await;
                    match push.when {
                        When::Now => at_once(&mut producer, &push, place).await,
                        When::Paced { per_second } => paced(&mut producer, &push, place, per_second).await,
                        When::Due { at_us } => delayed(&*native, &mut producer, &push, place, at_us).await,
                    }
                });
            }
            begin.wait().await;
            let started = Instant::now();
            while let Some(pushed) = callers.join_next().await {
                pushed.map_err(Error::client)??;
            }
            Ok(started.elapsed().as_secs_f64())
        })
    }

    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<Worked>> {
        Box::pin(async move {
            let sink = Arc::new(Sink::new(work.jobs, work.stamped));
            let (native, queue, handlers, shared) =
                (self.0.clone(), work.queue.clone(), work.handlers, sink.clone());
            // In a set, so that a call that is dropped takes its workers along.
            let mut workers = JoinSet::new();
            workers.spawn(async move { native.work(&queue, handlers, shared).await });
            tokio::select! {
                () = sink.full() => {}
                Some(ended) = workers.join_next() => {
                    ended.map_err(Error::client)??;
                }
                () = tokio::time::sleep(WORK) => {}
            }
            if !sink.is_full() {
                return Err(Error::Stuck { done: sink.done(), jobs: work.jobs as u64, within: WORK });
            }
            // Late acknowledgements may still be on their way; those who do not come to an end are dropped.
            if let Ok(Some(ended)) = tokio::time::timeout(STOP, workers.join_next()).await {
                ended.map_err(Error::client)??;
            }
            Ok(sink.worked())
        })
    }

    fn waiting<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.0.waiting(queue))
    }

    fn clear<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.clear(queue))
    }
}

/// How many of the jobs fall to the producer at this place.
pub(crate) fn share(jobs: usize, producers: usize, place: usize) -> usize {
    jobs / producers + usize::from(place < jobs % producers)
}

async fn at_once(producer: &mut impl Producer, push: &Push, place: usize) -> Result<()> {
    let mut left = share(push.jobs, push.producers, place);
    let bodies = vec![body(push.bytes, now_us()); push.batch.min(left)];
    while left > 0 {
        let count = push.batch.min(left);
        producer.push(&bodies[..count], &[]).await?;
        left -= count;
    }
    Ok(())
}

/// A job that is handed in late counts from when it should have been, so that a slow peer does not choose its own pace. One that is in
/// time counts from the call: the timer here is good for a millisecond only.
async fn paced(producer: &mut impl Producer, push: &Push, place: usize, per_second: u32) -> Result<()> {
    let (begun, begun_us) = (Instant::now(), now_us());
    for job in (place..push.jobs).step_by(push.producers) {
        let after = Duration::from_secs(job as u64) / per_second;
        let mut stamp = begun_us + u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        if begun.elapsed() < after {
            tokio::time::sleep_until((begun + after).into()).await;
            stamp = now_us();
        }
        producer.push(&[body(push.bytes, stamp)], &[]).await?;
    }
    Ok(())
}

async fn delayed(
    native: &impl Native,
    producer: &mut impl Producer,
    push: &Push,
    place: usize,
    at_us: u64,
) -> Result<()> {
    let jobs: Vec<usize> = (place..push.jobs).step_by(push.producers).collect();
    for batch in jobs.chunks(push.batch) {
        let due: Vec<u64> =
            batch.iter().map(|job| native.due_us(at_us + (job * 1_000_000 / push.jobs) as u64)).collect();
        let bodies: Vec<String> = due.iter().map(|due| body(push.bytes, *due)).collect();
        producer.push(&bodies, &due).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_producers_are_all_the_jobs() {
        for jobs in [1, 7, 8, 1_000, 1_003] {
            assert_eq!((0..8).map(|place| share(jobs, 8, place)).sum::<usize>(), jobs);
        }
    }
}
