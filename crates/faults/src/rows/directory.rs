use crate::{Breach, Plan, Ran, ledger::Ledger, pond::Pond, script};
use rig::StartError;
use std::{fs, path::Path};

/// What a server says that does not open its data directory.
const REFUSED: i32 = 3;

/// F19, the part that needs a process: each is refused with exit code 3 and a sentence, and nothing is changed.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let busy = Pond::new(plan)?;
    let server = busy.start()?;
    let ledger = Ledger::new("script");
    script::tell(&server, &ledger);
    refused(&busy, "a second server", "in use")?;
    ledger.check(&mut server.client(), false)?;
    server.kill().map_err(|error| error.to_string())?;

    let foreign = Pond::new(plan)?;
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(|error| error.to_string());
    fs::create_dir_all(&foreign.data).map_err(|error| error.to_string())?;
    write(&foreign.data.join("thesis.txt"), "years of work")?;
    refused(&foreign, "a foreign directory", "thesis.txt")?;
    let names: Vec<_> = fs::read_dir(&foreign.data).map_err(|error| error.to_string())?.flatten().collect();
    if names.len() != 1 {
        return Err("a foreign directory was written to".to_owned());
    }

    let cut = Pond::new(plan)?;
    let first = cut.start()?;
    script::tell(&first, &Ledger::new("script"));
    first.kill().map_err(|error| error.to_string())?;
    let identity = cut.data.join("identity");
    let whole = fs::read_to_string(&identity).map_err(|error| error.to_string())?;
    write(&identity, &whole[..whole.len() / 2])?;
    refused(&cut, "a cut identity", "identity")?;
    write(&identity, &whole)?;
    fs::remove_dir_all(cut.data.join("log")).map_err(|error| error.to_string())?;
    refused(&cut, "a missing log", "")?;

    (0..4).for_each(|_| plan.tally.fault());
    busy.heals(&[&ledger])?;
    Ok(Ran::Passed(4, "each refused with exit code 3, nothing changed".to_owned()))
}

fn refused(pond: &Pond, what: &str, says: &str) -> Result<(), Breach> {
    match pond.starter().start() {
        Err(StartError::Ended(end)) if end.code() == Some(REFUSED) && end.output.contains(says) => Ok(()),
        Err(StartError::Ended(end)) => Err(format!(
            "{what}: expected exit code {REFUSED} and `{says}`, got {}:\n{}",
            end.status, end.output
        )),
        Err(error) => Err(format!("{what}: {error}")),
        Ok(_) => Err(format!("{what} was accepted")),
    }
}
