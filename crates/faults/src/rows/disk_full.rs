use super::system_calls::STOP_MAX;
use crate::{
    Breach, Plan, Ran,
    disk::Disk,
    ledger::Ledger,
    pond::{Pond, drain},
    talk::{good, metric},
};
use kit::random::Random;
use rig::{Client, until};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Room for the reserve, a few segments and checkpoints.
const DISK: &str = "size=320m";
/// Bodies of a push.
const BODY_BYTES: usize = 64 << 10;
/// More pushes than this fit no such disk.
const PUSHES_MAX: u64 = 20_000;

/// How long the disk stays full each time: shorter than it takes to a checkpoint, and longer.
const FULL_MS: [u64; 4] = [300, 6_500, 800, 1_500];
/// A checkpoint that began before the disk was full has ended by then.
const UNDER_WAY_MAX: Duration = Duration::from_secs(2);
/// Jobs that come and go between.
const ROUNDS: u64 = 15;
const BATCH: u64 = 10;
const HEALED_MAX: Duration = Duration::from_secs(30);

/// F12: new work is refused with 507, running work ends, and room is all that it takes to go on. Once the disk fills up under a log that grows
/// by itself, which then finds no room for its next file. Then it is full and free again and again while jobs come and go, so that checkpoints, and
/// the store while it sorts them, find it full, too.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut refused = 0;
    for trial in 0..plan.count {
        let pond = Pond::new(plan)?;
        let _disk = match Disk::in_memory(&pond.data, DISK) {
            Ok(disk) => disk,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let inner = Inner { data: pond.data.join("data"), ballast: pond.data.join("ballast") };
        refused += inner.fill_and_heal()?;
        plan.tally.fault();
        refused += inner.come_and_go(plan.seed + trial)?;
        plan.tally.fault();
    }
    Ok(Ran::Passed(
        plan.count,
        format!("{refused} pushes refused, running work ended, healed without a restart"),
    ))
}

struct Inner {
    data: PathBuf,
    ballast: PathBuf,
}

impl Inner {
    fn fill_and_heal(&self) -> Result<u64, Breach> {
        let starter = || rig::Starter::new(&self.data).arguments(["--log", "warn"]);
        let server = starter().start().map_err(|error| error.to_string())?;
        let mut client = server.client();
        let ledger = Ledger::new("full");

        // Some jobs are running when the disk fills up.
        let mut number = 0;
        for _ in 0..5 {
            push(&mut client, &ledger, &mut number, 100)?;
        }
        let fetch = json!({"worker": "w", "queues": ["full"], "max": 3, "lease_ms": 600_000});
        let leased = client.post("/v1/fetch", &fetch).map_err(|error| error.to_string())?;
        let leased: Vec<(String, u64)> =
            leased.body["jobs"].as_array().into_iter().flatten().map(|job| ledger.handed_out(job)).collect();

        self.fill()?;
        let mut refused = 0;
        while refused < 3 {
            if number > PUSHES_MAX {
                return Err("the disk never got full".to_owned());
            }
            match push(&mut client, &ledger, &mut number, BODY_BYTES)?.as_str() {
                "" => {}
                "disk_full" => refused += 1,
                other => return Err(format!("a full disk was answered with {other}")),
            }
        }

        complete(&mut client, &ledger, &leased)?;

        fs::remove_file(&self.ballast).map_err(|error| error.to_string())?;
        until(HEALED_MAX, || match push(&mut client, &ledger, &mut number, 100) {
            Ok(code) if code.is_empty() => Some(()),
            _ => None,
        })
        .ok_or("there is room again, and new work is still refused after 30 s")?;
        server.terminate().map_err(|error| error.to_string())?;
        server.wait(STOP_MAX).ok_or("it did not stop")?;

        let server = starter().start().map_err(|error| error.to_string())?;
        ledger.check(&mut server.client(), false)?;
        drain(&server, &[&ledger])?;
        ledger.check(&mut server.client(), true)?;
        Ok(refused)
    }

    /// Full and free in turn, while jobs come and go.
    fn come_and_go(&self, seed: u64) -> Result<u64, Breach> {
        let starter = || rig::Starter::new(&self.data).arguments(["--log", "warn"]);
        let mut server = starter().start().map_err(|error| error.to_string())?;
        let mut client = server.client();
        let ledger = Ledger::new("churn");
        let mut random = Random::new(seed);
        let (mut number, mut refused) = (0, 0);
        for full_ms in FULL_MS {
            for _ in 0..ROUNDS {
                turn(&mut client, &ledger, &mut number, &mut random)?;
            }
            let before = checkpoints(&mut client)?;
            self.fill()?;
            let (begun, end) = (Instant::now(), Instant::now() + Duration::from_millis(full_ms));
            let mut stuck = None;
            while Instant::now() < end {
                // One may have been under way.
                if stuck.is_none() && begun.elapsed() > UNDER_WAY_MAX {
                    stuck = Some(checkpoints(&mut client)?);
                }
                refused += turn(&mut client, &ledger, &mut number, &mut random)
                    .map_err(|breach| format!("the disk is full: {breach}"))?;
            }
            if stuck.is_some_and(|stuck| checkpoints(&mut client) != Ok(stuck)) {
                return Err("a checkpoint found room on a full disk".to_owned());
            }
            if !server.running() {
                return Err("it ended because the disk was full".to_owned());
            }
            fs::remove_file(&self.ballast).map_err(|error| error.to_string())?;
            until(HEALED_MAX, || {
                let taken = turn(&mut client, &ledger, &mut number, &mut random).ok()? == 0;
                (taken && checkpoints(&mut client).ok()? > before).then_some(())
            })
            .ok_or_else(|| {
                format!(
                    "there is room again, and after {HEALED_MAX:?} it takes no work or writes no checkpoint"
                )
            })?;
        }
        server.kill().map_err(|error| error.to_string())?;
        let server = starter().start().map_err(|error| error.to_string())?;
        ledger.check(&mut server.client(), false)?;
        drain(&server, &[&ledger])?;
        ledger.check(&mut server.client(), true)?;
        Ok(refused)
    }

    /// Leaves the log a few hundred kilobytes.
    fn fill(&self) -> Result<(), Breach> {
        use std::io::Write;
        let mut file = File::create(&self.ballast).map_err(|error| error.to_string())?;
        let block = vec![0_u8; 256 << 10];
        while file.write_all(&block).is_ok() {}
        Ok(())
    }
}

/// Pushes some jobs, of which half are done; what was fetched can always be reported. Returns how many pushes were refused.
fn turn(client: &mut Client, ledger: &Ledger, number: &mut u64, random: &mut Random) -> Result<u64, Breach> {
    let mut refused = 0;
    for _ in 0..BATCH {
        let bytes = random.below(BODY_BYTES as u64 / 4) as usize;
        match push(client, ledger, number, bytes)?.as_str() {
            "" => {}
            "disk_full" => refused += 1,
            other => return Err(format!("a push was answered with {other}")),
        }
    }
    let fetch = json!({"worker": "w", "queues": [ledger.queue], "max": BATCH / 2, "lease_ms": 600_000});
    let answer = client.post("/v1/fetch", &fetch).map_err(|error| error.to_string())?;
    if answer.code() == "disk_full" {
        return Ok(refused);
    }
    let leased: Vec<(String, u64)> = good(Ok(answer))?["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|job| ledger.handed_out(job))
        .collect();
    complete(client, ledger, &leased)?;
    Ok(refused)
}

fn complete(client: &mut Client, ledger: &Ledger, leased: &[(String, u64)]) -> Result<(), Breach> {
    if leased.is_empty() {
        return Ok(());
    }
    let outcome = |(id, token): &(String, u64)| {
        ledger.done_sent(id, *token);
        json!({"queue": ledger.queue, "id": id, "lease_token": token, "outcome": "done"})
    };
    let outcomes: Vec<Value> = leased.iter().map(outcome).collect();
    let answer = good(client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes})));
    let answer = answer.map_err(|why| format!("running work could not end: {why}"))?;
    for (index, (id, _)) in leased.iter().enumerate() {
        if answer["results"][index]["ok"] != true {
            return Err(format!("running work could not end: {answer}"));
        }
        ledger.done_acknowledged(id);
    }
    Ok(())
}

/// Checkpoints that were written since the start.
fn checkpoints(client: &mut Client) -> Result<u64, Breach> {
    metric(client, "checkpoints_total")
}

/// Returns the code of the refusal, empty if there was none.
fn push(client: &mut Client, ledger: &Ledger, number: &mut u64, bytes: usize) -> Result<String, Breach> {
    *number += 1;
    let ids = [format!("{number}")];
    ledger.push_sent(&ids);
    let body = "x".repeat(bytes);
    let path = format!("/v1/queues/{}/jobs", ledger.queue);
    let answer =
        client.post(&path, &json!({"id": ids[0], "body": body})).map_err(|error| error.to_string())?;
    if answer.ok() {
        ledger.push_acknowledged(&ids);
        return Ok(String::new());
    }
    if answer.code() == "disk_full" && answer.status != 507 {
        return Err(format!("disk_full came with status {}", answer.status));
    }
    Ok(answer.code().to_owned())
}
