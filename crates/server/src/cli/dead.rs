//! `millpond dead`: the jobs that failed for good, and what becomes of them.

use super::{
    Context, Failure,
    jobs::listing,
    print,
    queues::{changed, next_page},
};
use crate::client::{ClientError, Extras, JobsPage, segment};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

/// What to do with dead jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Verb {
    /// Show them with their errors
    #[default]
    List,
    /// Give them another life: waiting, attempts from zero
    Redrive,
    /// Forget them
    Remove,
    /// What kills jobs, by class of error
    Classes,
    /// Change the body of one by a JSON merge patch: patch ID JSON
    Patch,
    /// Where those who die go, and when there is an alert; with --to, --stay or --alert-.. set it
    Policy,
}

/// What a queue's jobs died of.
#[derive(Debug, serde::Deserialize)]
struct ClassesAnswer {
    dead: u64,
    classes: Vec<ErrorClass>,
    others: u64,
    target: Option<String>,
    alert: Option<Alert>,
    alert_since: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize, serde::Serialize)]
struct Alert {
    count: u64,
    per_minute: u64,
}

#[derive(Debug, serde::Deserialize)]
struct ErrorClass {
    kind: String,
    message: String,
    count: u64,
    last_at: String,
    sample: String,
    per_minute: u64,
    per_hour: u64,
}

/// Dead jobs of a queue: look at them, redrive them, remove them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond dead mail
  millpond dead mail redrive photo-17 photo-18
  millpond dead mail redrive --error-kind timeout
  millpond dead mail remove --all
  millpond dead mail classes
  millpond dead mail patch photo-17 '{\"to\":\"ann@example.org\"}'
  millpond dead mail policy --to mail.dead --alert-per-minute 20")]
pub(crate) struct Dead {
    /// The queue
    queue: String,
    /// list, redrive, remove, classes, patch or policy
    #[arg(value_enum, default_value_t)]
    verb: Verb,
    /// These jobs
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Jobs with this tag
    #[arg(long, conflicts_with = "ids")]
    tag: Option<String>,
    /// Jobs whose last error is of this kind
    #[arg(long, conflicts_with = "ids")]
    error_kind: Option<String>,
    /// All dead jobs of the queue
    #[arg(long, conflicts_with_all = ["ids", "tag", "error_kind"])]
    all: bool,
    /// How many to list
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Redrive so many a second, at most 100000; 0 for as fast as dispatch allows
    #[arg(long, default_value_t = 0, conflicts_with = "ids")]
    rate: u32,
    /// policy: those who die from now on go on to this queue
    #[arg(long, value_name = "QUEUE", conflicts_with = "ids")]
    to: Option<String>,
    /// policy: they stay where they died
    #[arg(long, conflicts_with_all = ["to", "ids"])]
    stay: bool,
    /// policy: an alert when so many are dead; 0 for none
    #[arg(long, value_name = "JOBS", conflicts_with = "ids")]
    alert_count: Option<u64>,
    /// policy: an alert when so many die in a minute; 0 for none
    #[arg(long, value_name = "JOBS", conflicts_with = "ids")]
    alert_per_minute: Option<u64>,
}

impl Dead {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.verb {
            Verb::List => self.list(context).await,
            Verb::Redrive => self.change(context, "redrive", "redriven").await,
            Verb::Remove => self.change(context, "remove", "removed").await,
            Verb::Classes => self.classes(context).await,
            Verb::Patch => self.patch(context).await,
            Verb::Policy => self.policy(context).await,
        }
    }

    async fn list(&self, context: &Context) -> Result<(), Failure> {
        let queue = segment(&self.queue);
        let mut path = format!("/v1/queues/{queue}/jobs?state=dead&limit={}", self.limit);
        for (name, value) in [("tag", &self.tag), ("error_kind", &self.error_kind)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        let bytes = context.client.call(Method::GET, &path, bytes::Bytes::new(), Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let page: JobsPage = context.client.parse(&bytes)?;
        if page.jobs.is_empty() {
            print::line("No dead jobs.");
            return Ok(());
        }
        print::put(&listing(context.style, &page.jobs, print::now(), true));
        if next_page(page.cursor).is_some() {
            print::note("there are more: --limit");
        }
        let name = print::clean(&self.queue);
        print::note(&context.style.dim(&format!(
            "look at one: millpond job ID {name} · another life: millpond dead {name} redrive [ID.. | --all]"
        )));
        Ok(())
    }

    async fn classes(&self, context: &Context) -> Result<(), Failure> {
        let path = format!("/v1/queues/{}/dead/classes", segment(&self.queue));
        let bytes = context.client.call(Method::GET, &path, bytes::Bytes::new(), Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let answer: ClassesAnswer = context.client.parse(&bytes)?;
        print::line(&format!("{} dead now", answer.dead));
        if let Some(since) = &answer.alert_since {
            print::line(&context.style.bad(&format!("ALERT since {}", print::clean(since))));
        }
        for class in &answer.classes {
            let ErrorClass { kind, message, count, last_at, sample, per_minute, per_hour } = class;
            print::line(&format!(
                "{count:>8}  {}: {}",
                context.style.warn(&print::clean(kind)),
                print::clean(message)
            ));
            print::line(&context.style.dim(&format!(
                "          {per_minute}/min, {per_hour}/h, last {}, for example {}",
                print::clean(last_at),
                print::clean(sample)
            )));
        }
        if answer.others > 0 {
            print::line(&format!("{:>8}  of other classes, no longer remembered", answer.others));
        }
        Ok(())
    }

    /// Shows the policy, after changing what the flags say.
    async fn policy(&self, context: &Context) -> Result<(), Failure> {
        let queue = format!("/v1/queues/{}", segment(&self.queue));
        let changes =
            self.to.is_some() || self.stay || self.alert_count.is_some() || self.alert_per_minute.is_some();
        if changes {
            let known: Result<Value, ClientError> = context.client.get(&queue).await;
            // A queue is made by its first push or by configuring it.
            let mut policy = match known {
                Ok(mut queue) => queue["settings"]["dead_letter"].take(),
                Err(ClientError::Refused(problem)) if problem.code == "unknown_queue" => Value::Null,
                Err(error) => return Err(error.into()),
            };
            if let Some(to) = &self.to {
                policy["queue"] = json!(to);
            }
            if self.stay {
                policy["queue"] = Value::Null;
            }
            for (name, number) in [("count", self.alert_count), ("per_minute", self.alert_per_minute)] {
                if let Some(number) = number {
                    policy["alert"][name] = json!(number);
                }
            }
            let patch = json!({"dead_letter": policy}).to_string();
            context.client.call(Method::PATCH, &queue, patch, Extras::default()).await?;
        }
        let path = format!("{queue}/dead/classes");
        let bytes = context.client.call(Method::GET, &path, bytes::Bytes::new(), Extras::default()).await?;
        let ClassesAnswer { dead, target, alert, alert_since, .. } = context.client.parse(&bytes)?;
        if context.json {
            let policy = json!({"queue": self.queue, "dead": dead, "target": target, "alert": alert, "alert_since": alert_since});
            print::line(&policy.to_string());
            return Ok(());
        }
        let name = print::clean(&self.queue);
        print::line(&match target {
            Some(target) => {
                format!("{name}: dead jobs go on to {}; {dead} are dead here", print::clean(&target))
            }
            None => format!("{name}: dead jobs stay; {dead} are dead now"),
        });
        if let Some(Alert { count, per_minute }) = alert {
            let parts = [(count, "are dead here"), (per_minute, "die in a minute")];
            let parts = parts.iter().filter(|(number, _)| *number > 0);
            let parts: Vec<_> = parts.map(|(number, what)| format!("{number} {what}")).collect();
            print::line(&format!("alert when {}", parts.join(", or ")));
        }
        if let Some(since) = alert_since {
            print::line(&context.style.bad(&format!("ALERT since {}", print::clean(&since))));
        }
        Ok(())
    }

    async fn patch(&self, context: &Context) -> Result<(), Failure> {
        let [id, patch] = &self.ids[..] else {
            return Err(Failure::Usage("patch which, and how? Name one ID and a JSON merge patch".into()));
        };
        let path = format!("/v1/queues/{}/jobs/{}", segment(&self.queue), segment(id));
        let bytes = context.client.call(Method::PATCH, &path, patch.clone(), Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        print::line(&format!("{}: patched", print::clean(id)));
        Ok(())
    }

    async fn change(&self, context: &Context, verb: &str, said: &str) -> Result<(), Failure> {
        let body = if !self.ids.is_empty() {
            json!({"ids": self.ids})
        } else if self.all || self.tag.is_some() || self.error_kind.is_some() {
            let mut filter = json!({"state": "dead", "rate": self.rate});
            for (name, value) in [("tag", &self.tag), ("error_kind", &self.error_kind)] {
                if let Some(value) = value {
                    filter[name] = json!(value);
                }
            }
            filter
        } else {
            return Err(Failure::Usage(format!("{verb} which? Name IDs, --tag, --error-kind or --all")));
        };
        let path = format!("/v1/queues/{}/{verb}", segment(&self.queue));
        let bytes = context.client.call(Method::POST, &path, body.to_string(), Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let count = match self.ids.len() {
            0 => changed(&context.client, &bytes),
            ids => format!(" ({ids} jobs)"),
        };
        let _: Value = context.client.parse(&bytes)?;
        print::line(&format!("{}: {said}{count}", print::clean(&self.queue)));
        Ok(())
    }
}
