use super::{poison::breaks_under, system_calls::STOP_MAX};
use crate::{Breach, Plan, Ran, ledger::Ledger, pond::Pond, script};
use rig::until;
use std::{
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

/// Files and connections that the server may have open.
const FILES: u64 = 60;
const FLOOD: usize = 120;
/// Bytes to which a file may grow, by trial: less than a segment, and a little more than one.
const FILE_BYTES: [u64; 4] = [1 << 20, 48 << 20, 65 << 20, 80 << 20];
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// F13: the server may open few files, and write only short ones. It goes on serving who is connected, or ends and says so.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let trial = Command::new("prlimit").args(["--nofile=60", "true"]).stdin(Stdio::null()).status();
    if !trial.is_ok_and(|status| status.success()) {
        return Ok(Ran::Skipped("prlimit (of util-linux) is not there".to_owned()));
    }
    let mut stopped = 0;
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        few_files(plan).map_err(inside)?;
        let bytes = FILE_BYTES[(plan.seed + trial) as usize % FILE_BYTES.len()];
        let limit = vec!["prlimit".to_owned(), format!("--fsize={bytes}")];
        stopped += u64::from(breaks_under(plan, limit).map_err(inside)?);
        plan.tally.fault();
    }
    Ok(Ran::Passed(
        plan.count,
        format!(
            "{FLOOD} connections on {FILES} files: others served, no end; {stopped} ended for short files"
        ),
    ))
}

fn few_files(plan: &Plan) -> Result<(), Breach> {
    let pond = Pond::new(plan)?;
    let ledger = Ledger::new("script");
    let server = pond.starter().under(["prlimit".to_owned(), format!("--nofile={FILES}")]).start();
    let mut server = server.map_err(|error| error.to_string())?;
    let mut before = server.client();
    before.get("/livez").map_err(|error| error.to_string())?;
    let flood: Vec<_> = (0..FLOOD).map_while(|_| TcpStream::connect(server.address()).ok()).collect();
    // Who was connected is served all the while.
    for _ in 0..20 {
        let answer =
            before.get("/livez").map_err(|error| format!("who was connected is not served: {error}"))?;
        if !answer.ok() {
            return Err(format!("who was connected hears {}", answer.status));
        }
    }
    drop(flood);
    if !server.running() {
        return Err("a flood of connections ended it".to_owned());
    }
    until(AGAIN_MAX, || server.client().get("/livez").ok().filter(rig::Answer::ok))
        .ok_or("nobody new is served after the flood")?;
    if let Some(broke) = script::tell(&server, &ledger).broke {
        return Err(format!("after the flood: {broke}"));
    }
    server.terminate().map_err(|error| error.to_string())?;
    server.wait(STOP_MAX).ok_or("it did not stop")?;
    pond.heals(&[&ledger])
}
