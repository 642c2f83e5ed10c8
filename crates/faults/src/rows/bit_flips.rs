use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    pond::{Pond, drain},
    script,
};
use kit::random::Random;
use rig::Starter;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Most of a segment is empty yet; bits are flipped in its beginning.
const USED: usize = 24 << 10;
/// `millpond verify` found damage.
const DAMAGED: i32 = 5;

/// F16: a bit anywhere in a directory at rest is not what was written. `millpond verify` says so, or it costs nothing: the server starts and
/// has everything. Each bit of a whole log is flipped by a test of the crate `storage`.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let ledger = Ledger::new("script");
    // Once to an orderly end, so that there is a checkpoint; then more behind it.
    let server = pond.start()?;
    script::tell(&server, &Ledger::new("before"));
    server.terminate().map_err(|error| error.to_string())?;
    server.wait(super::system_calls::STOP_MAX).ok_or("it did not stop")?;
    let server = pond.start()?;
    if let Some(broke) = script::tell(&server, &ledger).broke {
        return Err(format!("the undisturbed story broke: {broke}"));
    }
    server.kill().map_err(|error| error.to_string())?;
    let mut random = Random::new(plan.seed);
    let (mut found, mut harmless) = (0, 0);
    let all = files(&pond.data)?;
    let full: Vec<_> = all.iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
    for trial in 0..plan.count {
        let dir = pond.data.with_file_name("flipped");
        copy(&all, &pond.data, &dir)?;
        let (path, bytes) = full[random.below(full.len() as u64) as usize];
        let name = path.strip_prefix(&pond.data).map_err(|error| error.to_string())?;
        let at = random.below(bytes.len().min(USED) as u64) as usize;
        let mut bad = bytes.clone();
        bad[at] ^= 1 << random.below(8);
        fs::write(dir.join(name), bad).map_err(|error| error.to_string())?;
        plan.tally.fault();
        let place = format!("trial {trial}, byte {at} of {}", name.display());
        let mut verify = rig::command().map_err(|error| error.to_string())?;
        let output = verify.args(["verify", "--quiet"]).arg(&dir).output();
        let output = output.map_err(|error| error.to_string())?;
        match output.status.code() {
            Some(0) => {
                harmless += 1;
                let server = Starter::new(&dir).arguments(["--log", "warn"]).start();
                let server = server.map_err(|error| format!("{place}: found by a start only: {error}"))?;
                ledger.check(&mut server.client(), false).map_err(|breach| format!("{place}: {breach}"))?;
                plan.tally.found(ledger.acknowledged() + ledger.completed());
            }
            // A key or an identity that is gone is no damage that can be told from a foreign directory.
            Some(DAMAGED | 1 | 2) if !output.stderr.is_empty() => found += 1,
            _ => {
                return Err(format!(
                    "{place}: {}:\n{}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
        }
        fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    }
    let server = pond.start()?;
    ledger.check(&mut server.client(), false)?;
    drain(&server, &[&ledger])?;
    Ok(Ran::Passed(plan.count, format!("{found} flips found, {harmless} without consequence")))
}

type Files = Vec<(PathBuf, Vec<u8>)>;

fn files(dir: &Path) -> Result<Files, Breach> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            let bytes = fs::read(&path).map_err(|error| error.to_string())?;
            all.push((path, bytes));
        }
    }
    all.sort();
    Ok(all)
}

fn copy(files: &Files, from: &Path, to: &Path) -> Result<(), Breach> {
    for (path, _) in files {
        let target = to.join(path.strip_prefix(from).map_err(|error| error.to_string())?);
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder)
            .and_then(|()| fs::copy(path, &target))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}
