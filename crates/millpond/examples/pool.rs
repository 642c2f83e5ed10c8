//! Work for the processor, off the async threads, with cancellation: `cargo run --release --example pool`
use millpond::{Job, Pond};

async fn count_primes(below: u64, job: Job) -> Result<usize, String> {
    let signal = job.signal();
    let count = tokio::task::spawn_blocking(move || {
        let prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        // A blocking thread cannot be dropped: it looks at the signal now and then.
        (2..below)
            .take_while(|n| !n.is_multiple_of(1_000) || signal.reason().is_none())
            .filter(|n| prime(*n))
            .count()
    });
    count.await.map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> Result<(), millpond::Error> {
    let pond = Pond::in_memory().await?;
    let ranges = pond.queue::<u64>("primes")?;
    let receipts = ranges.push_many(&[10_000, 100_000, 300_000]).await?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let worker = ranges.worker(count_primes).concurrency(threads).prefetch(0).start()?;
    for receipt in receipts {
        let result = pond.wait(&receipt.id).await?.and_then(|job| job.result);
        println!("{}", String::from_utf8_lossy(&result.unwrap_or_default()));
    }
    worker.stop().await;
    pond.close().await
}
