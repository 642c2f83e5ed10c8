//! What clients know: which calls they made, which were acknowledged, what was handed to them. The truth that a server has
//! to agree with after every fault.

use rig::Client;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Of many breaches, the first few say enough.
const BREACHES_SHOWN: usize = 8;

/// The ledger of one queue, shared by its clients.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) queue: String,
    jobs: Mutex<BTreeMap<String, Fate>>,
}

/// What is known of one job. That it is here says that its push was sent.
#[derive(Debug, Default)]
struct Fate {
    acknowledged: bool,
    /// Lease token and attempt of each time that it was handed out.
    leases: BTreeMap<u64, u64>,
    /// The completion was sent under this token.
    done_sent: Option<u64>,
    /// ... and acknowledged.
    done: bool,
    /// Breaches that were seen on the way.
    breach: Option<String>,
}

impl Ledger {
    pub(crate) fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into(), jobs: Mutex::default() }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Fate>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push_sent(&self, ids: &[String]) {
        let mut jobs = self.jobs();
        for id in ids {
            jobs.entry(id.clone()).or_default();
        }
    }

    pub(crate) fn push_acknowledged(&self, ids: &[String]) {
        let mut jobs = self.jobs();
        ids.iter().for_each(|id| jobs.entry(id.clone()).or_default().acknowledged = true);
    }

    /// A job was handed out; returns its id and token.
    pub(crate) fn handed_out(&self, job: &Value) -> (String, u64) {
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        let (token, attempt) = (number(&job["lease_token"]), number(&job["attempt"]));
        let mut jobs = self.jobs();
        let known = jobs.contains_key(&id);
        let fate = jobs.entry(id.clone()).or_default();
        if !known {
            fate.breach = Some("was handed out and nobody pushed it".to_owned());
        }
        if fate.leases.insert(token, attempt).is_some() {
            fate.breach = Some(format!("was handed out twice under token {token}"));
        }
        (id, token)
    }

    pub(crate) fn done_sent(&self, id: &str, token: u64) {
        self.jobs().entry(id.to_owned()).or_default().done_sent = Some(token);
    }

    pub(crate) fn done_acknowledged(&self, id: &str) {
        self.jobs().entry(id.to_owned()).or_default().done = true;
    }

    /// How many pushes were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.jobs().values().filter(|fate| fate.acknowledged).count() as u64
    }

    /// How many completions were acknowledged.
    pub(crate) fn completed(&self) -> u64 {
        self.jobs().values().filter(|fate| fate.done).count() as u64
    }

    /// The highest attempt and the highest token of all jobs that were handed out.
    pub(crate) fn highest(&self) -> (u64, u64) {
        let jobs = self.jobs();
        let leases = jobs.values().flat_map(|fate| &fate.leases);
        leases.fold((0, 0), |(attempt, token), (t, a)| (attempt.max(*a), token.max(*t)))
    }

    /// The lowest token of all that were granted.
    pub(crate) fn lowest_token(&self) -> u64 {
        self.jobs().values().flat_map(|fate| fate.leases.keys()).min().copied().unwrap_or(0)
    }

    /// Compares with the server. `drained` says that every job must have come to its end.
    pub(crate) fn check(&self, client: &mut Client, drained: bool) -> Result<(), String> {
        let states = self.list(client)?;
        let jobs = self.jobs();
        let mut breaches = Vec::new();
        for id in states.keys().filter(|id| !jobs.contains_key(*id)) {
            breaches.push(format!("phantom: {id} is there and nobody pushed it"));
        }
        let mut tokens = BTreeSet::new();
        for (id, fate) in jobs.iter() {
            let state = states.get(id).map(String::as_str);
            if let Some(breach) = fate.breach(state, drained) {
                breaches.push(format!("{id}: {breach}"));
            }
            for token in fate.leases.keys().filter(|token| !tokens.insert(**token)) {
                breaches.push(format!("{id}: token {token} was given to another job too"));
            }
        }
        if breaches.is_empty() {
            return Ok(());
        }
        let more = breaches.len().saturating_sub(BREACHES_SHOWN);
        breaches.truncate(BREACHES_SHOWN);
        Err(format!("queue {}: {} and {more} more", self.queue, breaches.join("; ")))
    }

    /// Id and state of every job of the queue.
    fn list(&self, client: &mut Client) -> Result<BTreeMap<String, String>, String> {
        let mut states = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/queues/{}/jobs?limit=1000{cursor}", self.queue);
            let answer = client.get(&path).map_err(|error| format!("cannot list: {error}"))?;
            if answer.code() == "unknown_queue" {
                return Ok(states);
            }
            if !answer.ok() {
                return Err(format!("cannot list: {} {}", answer.status, answer.body));
            }
            for job in answer.body["jobs"].as_array().into_iter().flatten() {
                let (id, state) = (job["id"].as_str().unwrap_or(""), job["state"].as_str().unwrap_or(""));
                if states.insert(id.to_owned(), state.to_owned()).is_some() {
                    return Err(format!("{id} is listed twice"));
                }
            }
            match answer.body["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(states),
            }
        }
    }
}

impl Fate {
    fn breach(&self, state: Option<&str>, drained: bool) -> Option<String> {
        if let Some(breach) = &self.breach {
            return Some(breach.clone());
        }
        let Some(state) = state else {
            return (self.acknowledged || !self.leases.is_empty())
                .then(|| "acknowledged, and lost".to_owned());
        };
        if self.done && state != "completed" {
            return Some(format!("completion acknowledged, and it is {state}"));
        }
        if state == "completed" && self.done_sent.is_none() {
            return Some("completed, and nobody completed it".to_owned());
        }
        if matches!(state, "dead" | "cancelled" | "expired") {
            return Some(format!("{state}, and nobody asked for that"));
        }
        if drained && state != "completed" {
            return Some(format!("still {state} after everything was worked off"));
        }
        let attempts: Vec<u64> = self.leases.values().copied().collect();
        if !attempts.is_sorted_by(|a, b| a < b) {
            return Some(format!("attempts {attempts:?} do not rise with the tokens"));
        }
        let newest = self.leases.keys().next_back().copied();
        if self.done && newest > self.done_sent {
            return Some("started again after its completion was acknowledged".to_owned());
        }
        None
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(change: impl FnOnce(&mut Fate)) -> Fate {
        let mut fate = Fate { acknowledged: true, ..Fate::default() };
        change(&mut fate);
        fate
    }

    #[test]
    fn every_kind_of_breach_is_found() {
        let lost = fate(|_| ());
        let undone = fate(|fate| (fate.done, fate.done_sent) = (true, Some(1)));
        let unasked = fate(|_| ());
        let again = fate(|fate| {
            (fate.done, fate.done_sent) = (true, Some(1));
            fate.leases = [(1, 1), (2, 2)].into();
        });
        let falling = fate(|fate| fate.leases = [(1, 2), (2, 1)].into());
        assert!(lost.breach(None, false).is_some());
        assert!(undone.breach(Some("waiting"), false).is_some());
        assert!(unasked.breach(Some("completed"), false).is_some());
        assert!(unasked.breach(Some("dead"), false).is_some());
        assert!(unasked.breach(Some("waiting"), true).is_some());
        assert!(again.breach(Some("completed"), true).is_some());
        assert!(falling.breach(Some("waiting"), false).is_some());
    }

    #[test]
    fn what_has_no_answer_may_be_there_or_not() {
        let unknown = Fate::default();
        assert_eq!(unknown.breach(None, true), None);
        assert_eq!(unknown.breach(Some("waiting"), false), None);
        let good = fate(|fate| {
            (fate.done, fate.done_sent) = (true, Some(2));
            fate.leases = [(1, 1), (2, 2)].into();
        });
        assert_eq!(good.breach(Some("completed"), true), None);
    }
}
