//! QUEUE and FLUSH: whole queues.

use super::{
    answer::{Answer, Refusal},
    mutate,
    session::Session,
    sweep::Act,
};
use crate::{access::Right, http::reach, now};
use model::{Command, JobView, QueueName, Reject, State};
use node::CallError;
use std::collections::BTreeMap;

impl Session<'_> {
    /// QUEUE PAUSE, RESUME, REMOVE and LATENCY, with names or `*` for all.
    pub(super) async fn queue_command(&self, said: &[u8]) -> Result<Answer, Refusal> {
        let said = String::from_utf8_lossy(said);
        let mut words = said.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let names: Vec<&str> = words.collect();
        match verb.as_str() {
            "LATENCY" => {
                self.check(Right::Read)?;
                if names.contains(&"*") {
                    return Err(Refusal::new("QUEUE LATENCY does not support wildcards"));
                }
                self.latencies(&names).await
            }
            "PAUSE" | "RESUME" | "REMOVE" => {
                self.check(Right::Operate)?;
                for queue in self.named(&names).await? {
                    match verb.as_str() {
                        "PAUSE" => self.tell(Command::Pause { queue }).await?,
                        "RESUME" => self.tell(Command::Resume { queue }).await?,
                        _ => self.remove(&queue).await?,
                    }
                }
                Ok(Answer::Ok)
            }
            _ => {
                let verb: String = verb.chars().take(32).collect();
                Err(Refusal::new(format!("no such QUEUE subcommand: {verb}")))
            }
        }
    }

    async fn named(&self, names: &[&str]) -> Result<Vec<QueueName>, Refusal> {
        match names {
            [] => Err(Refusal::new("name the queues, or * for all")),
            ["*"] => Ok(self.queues().await?.into_iter().map(|queue| queue.name).collect()),
            names => names.iter().map(|name| self.queue(name)).collect(),
        }
    }

    /// A queue that is not there needs no change.
    async fn tell(&self, command: Command) -> Result<(), Refusal> {
        let envelope = self.envelope(command).await?;
        match self.app.node.call(envelope, self.app.rules.durability).await {
            Ok(_) | Err(CallError::Refused(Reject::UnknownQueue { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Jobs that wait go, and what is left of those that are done; scheduled, retrying and dead ones stay, as they do there.
    async fn remove(&self, queue: &QueueName) -> Result<(), Refusal> {
        let choice = |job: &JobView| !mutate::is_killed(job);
        for state in [State::Waiting, State::Completed, State::Cancelled, State::Expired] {
            self.sweep(queue, state, &choice, Act::Remove).await?;
        }
        self.tell(Command::Resume { queue: queue.clone() }).await
    }

    async fn latencies(&self, names: &[&str]) -> Result<Answer, Refusal> {
        let mut latencies = BTreeMap::new();
        let now = now();
        for name in names {
            let queue = self.queue(name)?;
            let view = self.app.node.read(move |shard| shard.queue(&queue)).await?;
            let since = view.and_then(|view| view.oldest_waiting_at);
            latencies
                .insert(*name, since.map_or(0.0, |since| now.0.saturating_sub(since.0) as f64 / 1_000.0));
        }
        Ok(Answer::Bulk(serde_json::to_vec(&latencies).unwrap_or_default()))
    }

    /// FLUSH: all jobs of all queues. Schedules, limits and settings stay.
    pub(super) async fn flush(&self) -> Result<Answer, Refusal> {
        self.check(Right::Admin)?;
        reach::check_whole(&self.caller)?;
        if !self.hall.flush {
            return Err(Refusal::new("FLUSH is for development: start the server with --faktory-flush"));
        }
        tracing::warn!("a Faktory client empties the pond");
        for queue in self.queues().await? {
            let all = |_: &JobView| true;
            // A running job can be called off, and removed then.
            self.sweep(&queue.name, State::Active, &all, Act::Cancel("flushed")).await?;
            for state in State::ALL.into_iter().filter(|state| *state != State::Active) {
                self.sweep(&queue.name, state, &all, Act::Remove).await?;
            }
        }
        Ok(Answer::Ok)
    }
}
