use super::system_calls::STOP_MAX;
use crate::{
    Breach, Plan, Ran,
    disk::Disk,
    ledger::Ledger,
    pond::{Pond, drain},
};
use rig::{Client, until};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

/// Room for the reserve, a few segments and checkpoints.
const DISK: &str = "size=320m";
/// Bodies of a push.
const BODY_BYTES: usize = 64 << 10;
/// More pushes than this fit no such disk.
const PUSHES_MAX: u64 = 20_000;

/// F12: new work is refused with 507, running work ends, and room is all that it takes to go on.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut refused = 0;
    for _ in 0..plan.count {
        let pond = Pond::new(plan)?;
        let _disk = match Disk::in_memory(&pond.data, DISK) {
            Ok(disk) => disk,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let inner = Inner { data: pond.data.join("data"), ballast: pond.data.join("ballast") };
        refused += inner.fill_and_heal()?;
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

        let outcomes: Vec<Value> = leased
            .iter()
            .map(|(id, token)| {
                ledger.done_sent(id, *token);
                json!({"queue": "full", "id": id, "lease_token": token, "outcome": "done"})
            })
            .collect();
        let answer = client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes}));
        let answer = answer.map_err(|error| format!("running work could not end: {error}"))?;
        for (index, (id, _)) in leased.iter().enumerate() {
            if answer.body["results"][index]["ok"] != true {
                return Err(format!("running work could not end: {} {}", answer.status, answer.body));
            }
            ledger.done_acknowledged(id);
        }

        fs::remove_file(&self.ballast).map_err(|error| error.to_string())?;
        until(Duration::from_secs(30), || match push(&mut client, &ledger, &mut number, 100) {
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

    /// Leaves the log a few hundred kilobytes.
    fn fill(&self) -> Result<(), Breach> {
        use std::io::Write;
        let mut file = File::create(&self.ballast).map_err(|error| error.to_string())?;
        let block = vec![0_u8; 256 << 10];
        while file.write_all(&block).is_ok() {}
        Ok(())
    }
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
