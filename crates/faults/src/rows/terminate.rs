use super::system_calls::STOP_MAX;
use crate::{Breach, Plan, Ran, ledger::Ledger, load::Load, pond::Pond};
use rig::until;
use std::{sync::Arc, time::Duration};

/// F45: whoever calls while the server stops hears `stopping` or finds nobody there, never half an answer.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let mut ledgers: Vec<Arc<Ledger>> = Vec::new();
    for cycle in 0..plan.count {
        let server = pond.start()?;
        let ledger = Arc::new(Ledger::new(format!("stop-{cycle}")));
        ledgers.push(ledger.clone());
        let load = Load::start(&server, ledger.clone(), plan.seed + cycle);
        until(Duration::from_secs(30), || (ledger.acknowledged() > 100).then_some(()))
            .ok_or("no load came up within 30 s")?;
        server.terminate().map_err(|error| error.to_string())?;
        plan.tally.fault();
        let end = server.wait(STOP_MAX).ok_or("it did not stop")?;
        let left = load.stop()?;
        if end.code() != Some(0) {
            return Err(format!("cycle {cycle}: it ended with {}:\n{}", end.status, end.output));
        }
        if let Some(failure) = left.failures.first() {
            return Err(format!(
                "cycle {cycle}: {} calls failed, the first with {failure}",
                left.failures.len()
            ));
        }
    }
    let ledgers: Vec<&Ledger> = ledgers.iter().map(AsRef::as_ref).collect();
    pond.heals(&ledgers)?;
    Ok(Ran::Passed(plan.count, "exit code 0, no call failed".to_owned()))
}
