use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    load::{self, Load},
    pond::Pond,
};
use kit::random::Random;
use rig::until;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// A change of keys is killed between these many milliseconds after its start.
const ROTATE_MS: std::ops::Range<u64> = 1..250;

/// With so many keys a change is left alone until its end, as a server takes 16 at most.
const KEYS_MAX: usize = 8;

/// K1. Each cycle has a new key above the ones before. A change of keys that was killed leaves a directory that opens with all of
/// them; one that came to its end needs only the newest.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut pond = Pond::new(plan)?;
    let mut random = Random::new(plan.seed);
    let mut ledgers: Vec<Arc<Ledger>> = Vec::new();
    let mut left = Vec::new();
    let (mut keys, mut cut) = (String::new(), 0);
    let file = pond.data.with_extension("keys");
    for cycle in 0..plan.count {
        let inside = |breach| format!("cycle {cycle}: {breach}");
        keys = format!("{}{keys}", new_key()?);
        write(&file, &keys)?;
        let server = pond.start().map_err(inside)?;
        if let Some(ledger) = ledgers.last() {
            load::repeat(&server, ledger, &left).map_err(inside)?;
            ledger.check(&mut server.client(), false).map_err(inside)?;
        }
        let ledger = Arc::new(Ledger::new(format!("rotate-{cycle}")));
        ledgers.push(ledger.clone());
        let load = Load::start(&server, ledger.clone(), random.next_u64());
        until(Duration::from_secs(30), || (ledger.acknowledged() > 50).then_some(()))
            .ok_or("no load came up within 30 s")?;
        server.kill().map_err(|error| error.to_string())?;
        left = load.stop()?.unknown;
        let kill = (keys.lines().count() < KEYS_MAX).then_some(&mut random);
        if rotate(&pond.data, &file, kill)? {
            // The former keys are not needed any more.
            keys = keys.lines().next().map(|line| format!("{line}\n")).unwrap_or_default();
        } else {
            cut += 1;
            plan.tally.fault();
        }
        pond.keys = Some(file.clone());
    }
    rotate(&pond.data, &file, None)?;
    let newest = keys.lines().next().unwrap_or_default().to_owned();
    write(&file, &newest)?;
    let server = pond.start()?;
    if let Some(ledger) = ledgers.last() {
        load::repeat(&server, ledger, &left)?;
    }
    server.kill().map_err(|error| error.to_string())?;
    let ledgers: Vec<&Ledger> = ledgers.iter().map(AsRef::as_ref).collect();
    pond.heals(&ledgers)?;
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.acknowledged()).sum();
    Ok(Ran::Passed(
        plan.count,
        format!("{cut} changes of keys cut, {acknowledged} acknowledged jobs, none lost"),
    ))
}

fn write(path: &Path, keys: &str) -> Result<(), String> {
    fs::write(path, keys).map_err(|error| error.to_string())
}

fn binary() -> Result<Command, String> {
    rig::command().map_err(|error| error.to_string())
}

fn new_key() -> Result<String, String> {
    let made = binary()?.args(["key", "generate"]).output().map_err(|error| error.to_string())?;
    String::from_utf8(made.stdout).map_err(|error| error.to_string())
}

/// Writes the directory again under the first key; with `kill`, only for a random while. Says whether it came to its end.
fn rotate(data: &Path, keys: &Path, kill: Option<&mut Random>) -> Result<bool, String> {
    let mut child = binary()?
        .args(["key", "rotate"])
        .arg(data)
        .arg("--encryption-key-file")
        .arg(keys)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(random) = kill {
        let wait = Duration::from_millis(ROTATE_MS.start + random.below(ROTATE_MS.end - ROTATE_MS.start));
        let moment = Instant::now() + wait;
        until(wait, || (Instant::now() >= moment || matches!(child.try_wait(), Ok(Some(_)))).then_some(()));
        // An error says that it has ended already.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match status.code() {
        Some(0) => Ok(true),
        Some(code) => Err(format!("`millpond key rotate` ended with {code}")),
        None => Ok(false),
    }
}
