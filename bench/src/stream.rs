//! The worker stream over loopback: the library here, the real binary beside it on the same cores.

use crate::{
    Plan, embedded, process,
    report::{Report, Result},
};
use millpond::Pond;
use rig::Starter;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut pushes, mut whole, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let folder = tempfile::tempdir()?;
        let server = Starter::new(folder.path()).arguments(["--log", "warn"]).start()?;
        let before = process::cpu_seconds(server.pid())?;
        let (push, jobs) =
            runtime.block_on(async { embedded::through(Pond::connect(&server.url()).await?, 100).await })?;
        pushes.push(push);
        whole.push(jobs);
        cpu.push((process::cpu_seconds(server.pid())? - before) * 1e6 / embedded::JOBS as f64);
    }
    report.add("stream: pushes", "disk, 100 B, 8 callers, batches of 1,000", "jobs/s", pushes);
    report.add("stream: push + fetch + complete", "disk, 100 B, 64 handlers", "jobs/s", whole);
    report.add("stream: server CPU", "disk, 100 B, 64 handlers", "s/million", cpu);
    Ok(())
}
