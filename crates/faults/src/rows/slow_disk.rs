use super::system_calls::STOP_MAX;
use crate::{Breach, Plan, Ran, ledger::Ledger, pond::Pond, script, strace};

/// Each flush takes this long.
const DELAY_MS: u64 = 150;

/// F21: every flush is slow. Calls wait, and no lease ends by the server's own standing still.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    if let Some(why) = strace::missing() {
        return Ok(Ran::Skipped(why));
    }
    for trial in 0..plan.count {
        let pond = Pond::new(plan)?;
        let ledger = Ledger::new("script");
        let server = pond.starter().under(strace::delaying("fdatasync", DELAY_MS)).start();
        let server = server.map_err(|error| format!("trial {trial}: {error}"))?;
        if let Some(broke) = script::tell(&server, &ledger).broke {
            return Err(format!("trial {trial}: a slow disk was noticed: {broke}"));
        }
        let (attempts, _) = ledger.highest();
        if attempts > 1 {
            return Err(format!("trial {trial}: a healthy lease ended: attempt {attempts}"));
        }
        plan.tally.fault();
        server.terminate().map_err(|error| error.to_string())?;
        server.wait(STOP_MAX).ok_or("it did not stop")?;
        pond.heals(&[&ledger])?;
    }
    Ok(Ran::Passed(plan.count, format!("each flush took {DELAY_MS} ms; no call failed, no lease ended")))
}
