use super::system_calls::{STOP_MAX, count};
use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    pond::{Pond, ended},
    script, strace,
};

/// F9: nothing is acknowledged after a flush failed, the process says so with its exit code, a restart has everything.
pub(crate) fn flush_fails(plan: &Plan) -> Result<Ran, Breach> {
    if let Some(why) = strace::missing() {
        return Ok(Ran::Skipped(why));
    }
    let (mut trials, mut broke) = (0, 0);
    for (call, count) in count(plan, &["fdatasync", "fsync"])? {
        for nth in strace::spread(count, plan.count) {
            trials += 1;
            let failed = fails_at(plan, &call, "error=EIO", nth)
                .map_err(|breach| format!("{call} {nth}: {breach}"))?;
            broke += u64::from(failed);
        }
    }
    Ok(Ran::Passed(trials, format!("{broke} servers stopped acknowledging, nothing lost")))
}

/// Returns whether the story broke.
pub(super) fn fails_at(plan: &Plan, call: &str, what: &str, nth: u64) -> Result<bool, Breach> {
    breaks_under(plan, strace::injecting(call, what, nth))
}

/// The same for a server that another program starts.
pub(super) fn breaks_under(plan: &Plan, starter: Vec<String>) -> Result<bool, Breach> {
    let pond = Pond::new(plan)?;
    let ledger = Ledger::new("script");
    let broke = match pond.starter().under(starter).start() {
        Ok(server) => {
            let told = script::tell(&server, &ledger);
            // It may be gone already.
            let _ = server.terminate();
            let end = server.wait(STOP_MAX).ok_or("it neither ended by itself nor stopped")?;
            if told.good_after > 0 {
                return Err(format!("{} calls were acknowledged after {:?}", told.good_after, told.broke));
            }
            if end.code() == Some(101) || end.code().is_none() {
                return Err(format!("it ended with {}:\n{}", end.status, end.output));
            }
            if told.broke.is_some() && end.code() == Some(0) {
                return Err(format!(
                    "calls failed ({:?}) and the exit code says that all is well",
                    told.broke
                ));
            }
            told.broke.is_some()
        }
        Err(error) if ended(&error) => true,
        Err(error) => return Err(error.to_string()),
    };
    plan.tally.fault();
    pond.heals(&[&ledger])?;
    Ok(broke)
}
