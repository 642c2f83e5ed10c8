use super::system_calls::STOP_MAX;
use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    load::Load,
    pond::{LEASE_MS, Pond, drain},
};
use rig::{Starter, until};
use serde_json::json;
use std::{path::Path, sync::Arc, time::Duration};

/// F46: an older backup comes back. Everything that it had is there, and no lease has a token that the lost time granted.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut lost = 0;
    for trial in 0..plan.count {
        lost += restored(plan, plan.seed + trial).map_err(|breach| format!("trial {trial}: {breach}"))?;
        plan.tally.fault();
    }
    Ok(Ran::Passed(plan.count, format!("{lost} leases of the lost time, all below every later one")))
}

fn restored(plan: &Plan, seed: u64) -> Result<u64, Breach> {
    let pond = Pond::new(plan)?;
    let [backup, new] = ["backup", "new"].map(|name| pond.data.with_file_name(name));
    let kept = Ledger::new("kept");
    let server = pond.start()?;
    let ids: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let jobs: Vec<_> = ids.iter().map(|id| json!({"id": id, "body": null})).collect();
    kept.push_sent(&ids);
    let pushed = server.client().post("/v1/queues/kept/jobs", &json!({"jobs": jobs}));
    pushed.ok().filter(|answer| answer.ok()).ok_or("a push failed")?;
    kept.push_acknowledged(&ids);
    millpond(&["backup", "--url", &server.url()], &[&backup])?;
    // What happens now is unknown to the backup.
    let future = Arc::new(Ledger::new("future"));
    let load = Load::start(&server, future.clone(), seed);
    until(Duration::from_secs(30), || (future.completed() > 100).then_some(()))
        .ok_or("no load came up within 30 s")?;
    let fetch = json!({"worker": "w", "queues": ["kept"], "max": 50, "lease_ms": LEASE_MS});
    let answer = server.client().post("/v1/fetch", &fetch).map_err(|error| error.to_string())?;
    let late: Vec<(String, u64)> =
        answer.body["jobs"].as_array().into_iter().flatten().map(|job| kept.handed_out(job)).collect();
    server.kill().map_err(|error| error.to_string())?;
    load.stop()?;
    let highest = future.highest().1.max(kept.highest().1);
    millpond(&["restore"], &[&backup, &new])?;

    let server = Starter::new(&new).arguments(["--log", "warn"]).start();
    let server = server.map_err(|error| format!("the restored directory does not open: {error}"))?;
    // Whoever still works for the lost time is refused.
    let outcomes: Vec<_> = late
        .iter()
        .map(|(id, token)| json!({"queue": "kept", "id": id, "lease_token": token, "outcome": "done"}))
        .collect();
    let call = json!({"worker": "w", "outcomes": outcomes});
    let answer = server.client().post("/v1/outcomes", &call).map_err(|error| error.to_string())?;
    if answer.body["results"].as_array().into_iter().flatten().any(|result| result["ok"] == true) {
        return Err("a result under a lease of the lost time was accepted".to_owned());
    }
    // The restored pond knows nothing of those leases.
    let again = Ledger::new("kept");
    again.push_sent(&ids);
    again.push_acknowledged(&ids);
    again.check(&mut server.client(), false)?;
    drain(&server, &[&again])?;
    again.check(&mut server.client(), true)?;
    let lowest = again.lowest_token();
    if lowest <= highest {
        return Err(format!("token {lowest} was granted after {highest}"));
    }
    plan.tally.found(again.acknowledged());
    server.terminate().map_err(|error| error.to_string())?;
    server.wait(STOP_MAX).ok_or("it did not stop")?;
    Ok(late.len() as u64 + future.completed())
}

fn millpond(words: &[&str], paths: &[&Path]) -> Result<(), Breach> {
    let mut command = rig::command().map_err(|error| error.to_string())?;
    let output = command.args(words).args(paths).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`millpond {}` failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr)))
}
