//! Pushes, takes and completes jobs as fast as it can: `cargo run --release --example throughput [JOBS] [DIR]`
use millpond::{Durability, Job, Pond};
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let pond = match args.next() {
        Some(dir) => Pond::open(dir).await?,
        None => Pond::in_memory().await?,
    };
    let jobs = pond.queue::<String>("throughput")?;
    let bodies: Vec<String> = (0..1_000).map(|n| format!("{n:098}")).collect();
    let start = Instant::now();
    let mut pushes = tokio::task::JoinSet::new();
    for producer in 0..4 {
        let (jobs, bodies) = (jobs.clone(), bodies.clone());
        pushes.spawn(async move {
            for _ in (producer..count / 1_000).step_by(4) {
                jobs.push_many(&bodies).await?;
            }
            Ok::<_, millpond::Error>(())
        });
    }
    while let Some(pushed) = pushes.join_next().await {
        pushed??;
    }
    let pushed = start.elapsed();
    let start = Instant::now();
    let worker = jobs.worker(|_: String, _: Job| async {}).concurrency(64).start()?;
    let count = count / 1_000 * 1_000;
    while worker.totals().done < count as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let done = start.elapsed();
    let rate = |span: Duration| count as f64 / span.as_secs_f64();
    println!("pushed {:.0} a second, then took and completed {:.0} a second", rate(pushed), rate(done));
    println!("both together: {:.0} jobs a second", rate(pushed + done));
    let one = Instant::now();
    jobs.push(&bodies[0]).durability(Durability::Memory).await?;
    println!("one push at `memory`: {:?}", one.elapsed());
    worker.stop().await;
    pond.close().await?;
    Ok(())
}
