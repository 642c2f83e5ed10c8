//! A server that has nothing to do.

use crate::{
    Plan, http, process,
    report::{Report, Result},
};
use rig::Starter;
use std::time::Duration;

/// After this, what the last calls left behind has been written.
const SETTLE: Duration = Duration::from_secs(8);
const WATCHED: Duration = Duration::from_secs(10);

pub(crate) fn run(_: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Starter::new(folder.path()).arguments(["--log", "warn"]).start()?;
    http::call(&mut server.client(), "/v1/queues/bench/jobs", r#"{"body":null}"#)?;
    std::thread::sleep(SETTLE);
    let (cpu, written) = (process::scheduled_seconds(server.pid())?, process::written_bytes(server.pid())?);
    std::thread::sleep(WATCHED);
    let cpu = process::scheduled_seconds(server.pid())? - cpu;
    let written = process::written_bytes(server.pid())? - written;
    report.add("idle: CPU", "10 s, one job waiting", "%", vec![cpu * 100.0 / WATCHED.as_secs_f64()]);
    report.add("idle: writes to the disk", "10 s, one job waiting", "bytes", vec![written]);
    Ok(())
}
