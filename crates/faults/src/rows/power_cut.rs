use crate::{
    Breach, Plan, Ran,
    disk::{Disk, format},
    ledger::Ledger,
    load::{self, Load},
    pond::{Pond, drain},
};
use kit::random::Random;
use rig::{Starter, until};
use std::{sync::Arc, time::Duration};

/// Room for the reserve, a few segments and checkpoints.
const DISK_MIB: u64 = 512;
/// The power goes after so many acknowledged jobs at most.
const JOBS_MAX: u64 = 400;

/// F4: the power goes under load: an ext4 of its own, in a file, goes down without writing its journal out. What was acknowledged
/// is on the disk; while the disk is gone nothing is.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let [image, at] = ["disk", "mounted"].map(|name| pond.data.with_file_name(name));
    let trial = format(&image, DISK_MIB).and_then(|()| {
        // Also shows whether the power can be cut here.
        let disk = Disk::ext4(&image, &at)?;
        disk.cut()
    });
    if let Err(why) = trial {
        return Ok(Ran::Skipped(why));
    }
    format(&image, DISK_MIB)?;
    let mut random = Random::new(plan.seed);
    let mut ledgers: Vec<Arc<Ledger>> = Vec::new();
    let mut left = Vec::new();
    for cycle in 0..=plan.count {
        let inside = |breach| format!("cycle {cycle}: {breach}");
        let disk = Disk::ext4(&image, &at)?;
        let starter = Starter::new(&at.join("data")).arguments(["--log", "warn"]);
        let server =
            starter.start().map_err(|error| inside(format!("the server does not start: {error}")))?;
        if let Some(ledger) = ledgers.last() {
            ledger.check(&mut server.client(), false).map_err(inside)?;
            load::repeat(&server, ledger, &left).map_err(inside)?;
            ledger.check(&mut server.client(), false).map_err(inside)?;
        }
        if cycle == plan.count {
            let all: Vec<&Ledger> = ledgers.iter().map(AsRef::as_ref).collect();
            drain(&server, &all)?;
            for ledger in &all {
                ledger.check(&mut server.client(), true)?;
                plan.tally.found(ledger.acknowledged() + ledger.completed());
            }
            server.kill().map_err(|error| error.to_string())?;
            break;
        }
        let ledger = Arc::new(Ledger::new(format!("cut-{cycle}")));
        ledgers.push(ledger.clone());
        let load = Load::start(&server, ledger.clone(), random.next_u64());
        let jobs = random.below(JOBS_MAX);
        until(Duration::from_secs(30), || (ledger.acknowledged() > jobs).then_some(()))
            .ok_or("no load came up within 30 s")?;
        disk.cut().map_err(inside)?;
        plan.tally.fault();
        // Every client hears of no success any more, and ends by itself.
        left = load.ended()?.unknown;
        server.kill().map_err(|error| error.to_string())?;
    }
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.acknowledged()).sum();
    Ok(Ran::Passed(plan.count, format!("{acknowledged} acknowledged jobs, none lost")))
}
