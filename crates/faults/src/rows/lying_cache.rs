use super::system_calls::STOP_MAX;
use crate::{
    Breach, Plan, Ran,
    disk::{Disk, format},
    ledger::Ledger,
    load::{self, Load},
    pond::{Pond, drain, ended},
};
use rig::{Server, StartError, Starter, until};
use std::{fs, path::Path, sync::Arc, time::Duration};

/// What the disk says it has, and what is really there.
const DISK_MIB: u64 = 512;
const REAL: &str = "size=192m";
const JOBS: u64 = 200;
const SOON: Duration = Duration::from_secs(60);

/// F10: the disk has less room than it says. A flush fails, the next would succeed, and the cache shows what the disk never got. Nothing is
/// acknowledged after the failure, and nothing that was is lost: at once, with the cache as it is, and from the disk alone.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut gave_up = 0;
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        let pond = Pond::new(plan)?;
        let real = match Disk::in_memory(&pond.data, REAL) {
            Ok(disk) => disk,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let image = pond.data.join("image");
        let at = pond.data.with_file_name("disk");
        let disk = match format(&image, DISK_MIB).and_then(|()| Disk::ext4(&image, &at)) {
            Ok(disk) => disk,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let starter = || Starter::new(&at.join("data")).arguments(["--log", "warn"]);
        let ledger = Arc::new(Ledger::new("lying"));
        let left =
            fail(&starter(), &ledger, &pond.data.join("ballast"), plan.seed + trial).map_err(inside)?;
        plan.tally.fault();

        // The cache is as the failure left it.
        match starter().start() {
            Ok(server) => {
                ledger.check(&mut server.client(), false).map_err(inside)?;
                server.kill().map_err(|error| error.to_string())?;
            }
            // The filesystem itself may have given up, until it is mounted again.
            Err(error) if ended(&error) => gave_up += 1,
            Err(error) => return Err(inside(error.to_string())),
        }
        drop(disk);
        let disk = Disk::ext4(&image, &at).map_err(inside)?;
        let server = starter().start().map_err(|error| inside(error.to_string()))?;
        healed(&server, &ledger, &left).map_err(inside)?;
        plan.tally.found(ledger.acknowledged() + ledger.completed());
        server.kill().map_err(|error| error.to_string())?;
        drop(disk);
        drop(real);
    }
    Ok(Ran::Passed(
        plan.count,
        format!(
            "each server ended, nothing lost; {gave_up} times the filesystem was of no use before it was mounted again"
        ),
    ))
}

/// Takes the room away under load, until the server ends; then gives it back.
fn fail(
    starter: &Starter,
    ledger: &Arc<Ledger>,
    ballast: &Path,
    seed: u64,
) -> Result<Vec<load::Unknown>, Breach> {
    let server = starter.clone().start().map_err(|error: StartError| error.to_string())?;
    let load = Load::start(&server, ledger.clone(), seed);
    until(SOON, || (ledger.completed() > JOBS).then_some(())).ok_or("no load came up")?;
    fill(ballast)?;
    let left = load.ended()?;
    let end = server.wait(STOP_MAX).ok_or("flushes fail, and it does not end")?;
    if end.code() != Some(1) {
        return Err(format!("it ended with {}:\n{}", end.status, end.output));
    }
    fs::remove_file(ballast).map_err(|error| error.to_string())?;
    Ok(left.unknown)
}

fn healed(server: &Server, ledger: &Ledger, left: &[load::Unknown]) -> Result<(), Breach> {
    let mut client = server.client();
    ledger.check(&mut client, false)?;
    load::repeat(server, ledger, left)?;
    drain(server, &[ledger])?;
    ledger.check(&mut client, true)
}

/// Leaves nothing.
fn fill(ballast: &Path) -> Result<(), Breach> {
    use std::io::Write;
    let mut file = fs::File::create(ballast).map_err(|error| error.to_string())?;
    let block = vec![0_u8; 64 << 10];
    while file.write_all(&block).is_ok() {}
    Ok(())
}
