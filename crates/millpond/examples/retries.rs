//! An email that fails twice, and one that never can: `cargo run --example retries`
use millpond::{Backoff, Job, Outcome, Pond, State};

#[derive(serde::Serialize, serde::Deserialize)]
struct Email {
    to: String,
}

async fn send(email: Email, job: Job) -> Result<Outcome, std::io::Error> {
    println!("attempt {} of {} to {}", job.attempt(), job.attempts(), email.to);
    if !email.to.contains('@') {
        return Ok(Outcome::fail(format!("{} is not an address", email.to)));
    }
    if job.attempt() < 3 {
        return Err(std::io::Error::other("the mail server is busy"));
    }
    Ok(Outcome::done("250 OK"))
}

#[tokio::main]
async fn main() -> Result<(), millpond::Error> {
    let pond = Pond::in_memory().await?;
    let emails = pond.queue::<Email>("emails")?;
    let soon = Backoff::Exponential { base: 100, cap: 1_000 };
    let good = emails.push(&Email { to: "ada@example.org".into() }).backoff(soon).await?;
    let bad = emails.push(&Email { to: "nobody".into() }).tag("imported").await?;
    let worker = emails.worker(send).concurrency(4).start()?;
    for id in [good.id, bad.id] {
        let state = pond.wait(&id).await?.map(|job| job.state);
        println!("{id}: {}", state.map_or("gone", State::name));
        for change in pond.history(&id).await?.unwrap_or_default() {
            println!("  {} {} {:?}", change.at, change.cause.name(), change.error.map(|error| error.message));
        }
    }
    worker.stop().await;
    pond.close().await
}
