//! Calls that rows make, and that must be answered well.

use rig::{Answer, Client};
use serde_json::{Value, json};
use std::io;

/// What was answered, if that is good; otherwise what to say of it.
pub(crate) fn good(answer: io::Result<Answer>) -> Result<Value, String> {
    match answer {
        Ok(answer) if answer.ok() => Ok(answer.body),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
        Err(error) => Err(error.to_string()),
    }
}

/// Pushes jobs, all or none.
pub(crate) fn push(client: &mut Client, queue: &str, jobs: &[Value]) -> Result<(), String> {
    let answer = client.post(&format!("/v1/queues/{queue}/jobs"), &json!({"jobs": jobs}));
    good(answer).map(drop).map_err(|why| format!("a push failed: {why}"))
}

/// What is known of a job.
pub(crate) fn job(client: &mut Client, queue: &str, id: &str) -> Result<Value, String> {
    good(client.get(&format!("/v1/queues/{queue}/jobs/{id}"))).map_err(|why| format!("{id}: {why}"))
}

/// How many jobs of a queue are in the state.
pub(crate) fn counted(client: &mut Client, queue: &str, state: &str) -> Result<u64, String> {
    let answer = good(client.get(&format!("/v1/queues/{queue}")))?;
    answer["counts"][state].as_u64().ok_or_else(|| format!("{queue} does not count {state}: {answer}"))
}

/// A number that the server's metrics give.
pub(crate) fn metric(client: &mut Client, name: &str) -> Result<u64, String> {
    let page = good(client.get("/metrics"))?;
    let begin = format!("millpond_{name} ");
    let line = page.as_str().unwrap_or_default().lines().find_map(|line| line.strip_prefix(&begin));
    line.and_then(|number| number.parse().ok()).ok_or_else(|| format!("the metrics lack {name}"))
}
