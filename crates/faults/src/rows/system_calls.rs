use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    pond::{Pond, ended},
    script, strace,
};
use std::{collections::BTreeMap, time::Duration};

/// Every call that changes a file.
const CALLS: [&str; 8] =
    ["write", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "fallocate"];
/// SIGKILL.
const KILL: i32 = 9;
/// A server that was asked to stop has this long.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(60);

/// How often an undisturbed story makes each call, from the start to an orderly end.
pub(crate) fn count(plan: &Plan, calls: &[&str]) -> Result<BTreeMap<String, u64>, Breach> {
    let pond = Pond::new(plan)?;
    let trace = pond.data.with_file_name("trace");
    let server = pond.starter().under(strace::watching(calls, &trace)).start();
    let server = server.map_err(|error| error.to_string())?;
    let told = script::tell(&server, &Ledger::new("script"));
    if let Some(broke) = told.broke {
        return Err(format!("the undisturbed story broke: {broke}"));
    }
    server.terminate().map_err(|error| error.to_string())?;
    let end = server.wait(STOP_MAX).ok_or("the undisturbed server did not stop")?;
    if end.code() != Some(0) {
        return Err(format!("the undisturbed server ended with {}:\n{}", end.status, end.output));
    }
    let text = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
    Ok(strace::counts(&text))
}

/// F2.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    if let Some(why) = strace::missing() {
        return Ok(Ran::Skipped(why));
    }
    let counts = count(plan, &CALLS)?;
    let (mut trials, mut hits) = (0, 0);
    for (call, count) in &counts {
        for nth in strace::spread(*count, plan.count) {
            trials += 1;
            hits +=
                u64::from(killed_at(plan, call, nth).map_err(|breach| format!("{call} {nth}: {breach}"))?);
        }
    }
    let calls: Vec<String> = counts.iter().map(|(call, count)| format!("{call} {count}")).collect();
    Ok(Ran::Passed(trials, format!("killed {hits} times, nothing lost ({})", calls.join(", "))))
}

/// Returns whether the call came at all.
fn killed_at(plan: &Plan, call: &str, nth: u64) -> Result<bool, Breach> {
    let pond = Pond::new(plan)?;
    let ledger = Ledger::new("script");
    let killed = match pond.starter().under(strace::injecting(call, "signal=SIGKILL", nth)).start() {
        Ok(server) => {
            script::tell(&server, &ledger);
            // It may be gone already, which is what was wanted.
            let _ = server.terminate();
            server.wait(STOP_MAX).ok_or("neither killed nor stopped")?.by_signal(KILL)
        }
        Err(error) if ended(&error) => true,
        Err(error) => return Err(error.to_string()),
    };
    plan.tally.fault();
    pond.heals(&[&ledger])?;
    Ok(killed)
}
