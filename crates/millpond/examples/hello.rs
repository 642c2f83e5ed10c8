//! The smallest pond: `cargo run --example hello`
#[derive(serde::Serialize, serde::Deserialize)]
struct Email {
    to: String,
}

#[tokio::main]
async fn main() -> Result<(), millpond::Error> {
    let pond = millpond::Pond::open("./pond-data").await?;
    let emails = pond.queue::<Email>("emails")?;
    let worker = emails.worker(|email: Email, _| async move { println!("to {}", email.to) }).start()?;
    let receipt = emails.push(&Email { to: "ada@example.org".into() }).await?;
    pond.wait(&receipt.id).await?;
    worker.stop().await;
    pond.close().await
}
