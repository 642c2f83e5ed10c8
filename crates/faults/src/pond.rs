//! A data directory of its own, and servers that come and go on it.

use crate::{Plan, Tally, ledger::Ledger};
use rig::{Server, StartError, Starter, TempDir, until};
use serde_json::json;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Leases of the suite: long enough for a busy machine, short enough to wait for.
pub(crate) const LEASE_MS: u64 = 3_000;
/// Jobs of one fetch while working off, which may be large, and their leases: they are done at once, on a machine that may be slow.
const DRAIN_BATCH: u64 = 100;
const DRAIN_LEASE_MS: u64 = 60_000;
/// Everything left over must be worked off within this.
const DRAIN_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Pond {
    _folder: TempDir,
    pub(crate) data: PathBuf,
    /// The file of keys that servers are given.
    pub(crate) keys: Option<PathBuf>,
    tally: Arc<Tally>,
}

impl Pond {
    pub(crate) fn new(plan: &Plan) -> Result<Self, String> {
        let folder = TempDir::with_prefix_in("millpond-faults-", &plan.place);
        let folder = folder.map_err(|error| format!("no folder in {}: {error}", plan.place.display()))?;
        let data = folder.path().join("data");
        Ok(Self { _folder: folder, data, keys: None, tally: plan.tally.clone() })
    }

    pub(crate) fn starter(&self) -> Starter {
        let starter = Starter::new(&self.data).arguments(["--log", "warn"]);
        match &self.keys {
            Some(file) => starter.arguments([PathBuf::from("--encryption-key-file"), file.clone()]),
            None => starter,
        }
    }

    pub(crate) fn start(&self) -> Result<Server, String> {
        self.starter().start().map_err(|error| format!("the server does not start: {error}"))
    }

    /// Starts undisturbed, checks, works everything off, checks again.
    pub(crate) fn heals(&self, ledgers: &[&Ledger]) -> Result<(), String> {
        let server = self.start()?;
        let mut client = server.client();
        for ledger in ledgers {
            ledger.check(&mut client, false)?;
        }
        drain(&server, ledgers)?;
        for ledger in ledgers {
            ledger.check(&mut client, true)?;
            self.tally.found(ledger.acknowledged() + ledger.completed());
        }
        Ok(())
    }
}

/// Whether a start failed because the process ended.
pub(crate) fn ended(error: &StartError) -> bool {
    matches!(error, StartError::Ended(_))
}

/// Works until nothing is live, waiting out the leases of workers that are gone.
pub(crate) fn drain(server: &Server, ledgers: &[&Ledger]) -> Result<(), String> {
    let mut client = server.client();
    for group in ledgers.chunks(100) {
        let drained = until(DRAIN_MAX, || match work_off(&mut client, group) {
            Ok(0) => Some(Ok(())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        drained.unwrap_or_else(|| Err(format!("not worked off within {DRAIN_MAX:?}")))?;
    }
    Ok(())
}

/// One round of work; returns how many jobs are still live.
fn work_off(client: &mut rig::Client, ledgers: &[&Ledger]) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("a call failed while working off: {error}");
    let queues: Vec<&str> = ledgers.iter().map(|ledger| ledger.queue.as_str()).collect();
    let fetch = json!({"worker": "drain", "queues": queues, "max": DRAIN_BATCH, "lease_ms": DRAIN_LEASE_MS});
    let answer = client.post("/v1/fetch", &fetch).map_err(failed)?;
    let mut outcomes = Vec::new();
    for job in answer.body["jobs"].as_array().into_iter().flatten() {
        let Some(ledger) = ledgers.iter().find(|ledger| Some(ledger.queue.as_str()) == job["queue"].as_str())
        else {
            return Err(format!("a job of another queue was handed out: {job}"));
        };
        let (id, token) = ledger.handed_out(job);
        ledger.done_sent(&id, token);
        outcomes.push(json!({"queue": ledger.queue, "id": id, "lease_token": token, "outcome": "done"}));
    }
    if !outcomes.is_empty() {
        let answer = client.post("/v1/outcomes", &json!({"worker": "drain", "outcomes": outcomes}));
        let answer = answer.map_err(failed)?;
        let results = answer.body["results"].as_array().cloned().unwrap_or_default();
        let refused = results.iter().find(|result| result["ok"] != true);
        if results.len() != outcomes.len() || refused.is_some() {
            return Err(format!(
                "{} of {} completions had an answer, one: {refused:?}",
                results.len(),
                outcomes.len()
            ));
        }
        return Ok(1);
    }
    let mut live = 0;
    for queue in queues {
        let answer = client.get(&format!("/v1/queues/{queue}")).map_err(failed)?;
        live += answer.body["live"].as_u64().unwrap_or(0);
    }
    Ok(live)
}
