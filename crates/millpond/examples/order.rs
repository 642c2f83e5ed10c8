//! An order that is charged once, waits for somebody's approval, and is shipped: `cargo run --example order -- DIRECTORY`
//!
//! Kill it whenever you like and start it again: the card is not charged twice, and the wait goes on where it was.
use millpond::{Job, Pond, State};
use std::{env, time::Duration};

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Order {
    item: String,
    cents: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn charge(order: &Order) -> Result<String, std::io::Error> {
    println!("charging {} cents for {}", order.cents, order.item);
    Ok(format!("charge-of-{}", order.cents))
}

async fn ship(order: &Order, charge: &str) -> Result<String, std::io::Error> {
    println!("shipping {} ({charge})", order.item);
    Ok("parcel-1".into())
}

async fn process(order: Order, job: Job) -> Result<Option<String>, Failure> {
    let charge: String = job.step("charge", || charge(&order)).await?;
    let Some(by) = job.wait_for_signal::<String>("approved", Duration::from_secs(7 * 86_400)).await? else {
        println!("nobody approved it");
        return Ok(None);
    };
    println!("approved by {by}");
    job.sleep("cool-down", Duration::from_millis(100)).await?;
    let parcel: String = job.step("ship", || ship(&order, &charge)).await?;
    Ok(Some(parcel))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = env::args().nth(1).unwrap_or_else(|| "./order-data".into());
    let approve = env::args().nth(2).is_some_and(|word| word == "approve");
    let pond = Pond::open(directory).await?;
    let orders = pond.queue::<Order>("orders")?;
    // The same id at every start: there is one order.
    let order = Order { item: "a mill".into(), cents: 4_200 };
    let receipt = orders.push(&order).id("order-1").await?;
    let worker = orders.worker(process).start()?;
    if approve {
        let told = orders.signal(&receipt.id, "approved", "ada").idempotency_key("approval-1").await?;
        println!("approval sent; the job is {}", told.state);
    }
    loop {
        let Some(job) = orders.job(&receipt.id).await? else { return Ok(()) };
        if job.state == State::Suspended {
            let why = orders.explain(&receipt.id).await?.map(|why| why.summary).unwrap_or_default();
            println!("suspended: {why}");
            if !approve {
                // A real program would go on with other work. This one can be killed here, or approved in another start.
                std::future::pending::<()>().await;
            }
        }
        if job.state.is_final() {
            let result = job.result.map(|json| String::from_utf8_lossy(&json).into_owned());
            println!("{}: {}", job.state, result.unwrap_or_default());
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for step in orders.steps(&receipt.id).await?.unwrap_or_default() {
        println!("  {} {} {}", step.at, step.name, step.value.kind());
    }
    worker.stop().await;
    pond.close().await?;
    Ok(())
}
