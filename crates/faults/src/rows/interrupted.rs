use super::{
    poison::fails_at,
    system_calls::{STOP_MAX, count},
};
use crate::{Breach, Plan, Ran, ledger::Ledger, pond::Pond, script, strace};

/// F14: a write that a signal interrupts is made again, one that writes nothing poisons the log.
///
/// A write that says "seven bytes" and wrote none, which is what `strace` can inject, is a lying disk and not a short write;
/// real short writes are in the storage crate's tests, on files that write what they say.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    if let Some(why) = strace::missing() {
        return Ok(Ran::Skipped(why));
    }
    let counts = count(plan, &["pwrite64"])?;
    let (mut trials, mut empty) = (0, 0);
    for (call, count) in counts {
        for nth in strace::spread(count, plan.count) {
            let inside = |breach| format!("{call} {nth}: {breach}");
            trials += 2;
            goes_on(plan, &call, nth).map_err(inside)?;
            empty += u64::from(fails_at(plan, &call, "retval=0", nth).map_err(inside)?);
        }
    }
    Ok(Ran::Passed(trials, format!("interruptions go unnoticed, {empty} empty writes stopped the server")))
}

fn goes_on(plan: &Plan, call: &str, nth: u64) -> Result<(), Breach> {
    let pond = Pond::new(plan)?;
    let ledger = Ledger::new("script");
    let server = pond.starter().under(strace::injecting(call, "error=EINTR", nth)).start();
    let server = server.map_err(|error| format!("an interruption stopped the start: {error}"))?;
    if let Some(broke) = script::tell(&server, &ledger).broke {
        return Err(format!("an interruption was noticed: {broke}"));
    }
    server.terminate().map_err(|error| error.to_string())?;
    let end = server.wait(STOP_MAX).ok_or("it did not stop")?;
    if end.code() != Some(0) {
        return Err(format!("it ended with {}:\n{}", end.status, end.output));
    }
    plan.tally.fault();
    pond.heals(&[&ledger])
}
