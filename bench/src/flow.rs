//! What limits, ordering keys and groups cost in a whole pond: log, disk, and checkpoints included.

use crate::{
    Plan,
    embedded::{Kind, drive},
    report::{Report, Result},
};
use millpond::Durability;
use model::{Actor, Command, Envelope, Limit, LimitUse, Rate, Route};
use node::Handle;
use std::time::Duration;

const BYTES: usize = 100;

fn limits(keys: [String; 2]) -> Vec<LimitUse> {
    keys.into_iter().map(|key| LimitUse { key: key.into(), cost: 1 }).collect()
}

const KINDS: [(&str, Kind); 5] = [
    ("no route", |_| None),
    ("two limits a job", |_| {
        Some(Route { limits: limits(["api".into(), "tenant:7".into()]), ..Route::default() })
    }),
    ("two limits a job, 1,000 keys", |job| {
        Some(Route { limits: limits(["api".into(), format!("tenant:{job}")]), ..Route::default() })
    }),
    ("1,000 ordering keys", |job| {
        Some(Route { ordering_key: Some(format!("cart:{job}").into()), ..Route::default() })
    }),
    ("1,000 groups", |job| Some(Route { group: Some(format!("tenant:{job}").into()), ..Route::default() })),
];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rates = vec![Vec::new(); KINDS.len()];
    // In turns, each round from another one on: a shared machine is not the same a minute later.
    for first in 0..plan.rounds {
        for at in (0..KINDS.len()).map(|next| (first + next) % KINDS.len()) {
            rates[at].push(runtime.block_on(round(KINDS[at].1))?);
        }
    }
    let plain = rates[0].clone();
    for (rates, (name, _)) in rates.into_iter().zip(KINDS) {
        let setting = format!("disk, 100 B, 8 callers, batches of 1,000, {name}");
        let shares = rates.iter().zip(&plain).map(|(rate, plain)| 100.0 * rate / plain).collect();
        report.add("push + fetch + complete", &setting, "jobs/s", rates);
        report.add("pace kept", &setting, "%", shares);
    }
    Ok(())
}

/// Jobs a second.
async fn round(kind: Kind) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let node = Handle::open(folder.path(), node::Options::default())?;
    let slots = Limit { concurrency: 1_000_000, ..Limit::default() };
    let rate = Limit { rate: Rate { units: 1_000_000_000, per_ms: 1_000, burst: 0 }, ..slots };
    for (pattern, limit) in [("api", rate), ("tenant:*", slots)] {
        let command = Command::SetLimit { pattern: pattern.into(), limit: Some(limit) };
        let envelope = Envelope { actor: Actor::new("bench"), idempotency_key: None, command };
        node.call(envelope, Durability::Disk).await?;
    }
    let rate = drive(&node, BYTES, kind).await?;
    node.stop(Duration::from_secs(30)).await?;
    Ok(rate)
}
