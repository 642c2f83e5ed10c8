//! `millpond events`: what happens, as it happens.

use super::{Context, Failure, print};
use crate::client::{ClientError, ServerEvent, segment};
use clap::Args;
use serde_json::Value;
use std::time::Duration;

/// What happens to jobs and queues, as it happens; Ctrl-C ends it
///
/// The server remembers the newest events while somebody listens, and for a minute after; --from goes back to one of them.
/// A connection that breaks is taken up again where it was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond events
  millpond events --queue 'mail.*' --kind dead,paused
  millpond events --state completed --json | jq .id
  millpond events --from 812.0")]
pub(crate) struct Events {
    /// Queues whose name fits; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    queue: Option<String>,
    /// One job only
    #[arg(long)]
    id: Option<String>,
    /// Only these kinds: added, progress, removed, a state, paused, resumed, configured, drained,
    /// empty, dead_alert
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    kind: Vec<String>,
    /// Only jobs that come to one of these states
    #[arg(long, value_delimiter = ',')]
    state: Vec<String>,
    /// Begin behind this event or log position
    #[arg(long, value_name = "EVENT")]
    from: Option<String>,
    /// With --json, say also what each change brought along: headers, result, error, progress
    #[arg(long)]
    values: bool,
    /// End after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// How long to wait before a broken stream is taken up again.
const AGAIN: Duration = Duration::from_secs(1);

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut from = self.from.clone();
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut connected = false;
        while left > 0 {
            match self.follow(context, &mut from, &mut left, &mut connected).await {
                Err(error @ ClientError::Unreachable { .. }) if connected => {
                    print::note(&print::clean(&error.to_string()));
                }
                Err(ClientError::NoAnswer { .. }) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            if left > 0 {
                tokio::time::sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    async fn follow(
        &self,
        context: &Context,
        from: &mut Option<String>,
        left: &mut u64,
        connected: &mut bool,
    ) -> Result<(), ClientError> {
        let mut stream = context.client.events(&self.path(from.as_deref())).await?;
        *connected = true;
        while let Some(ServerEvent { name, id, data }) = stream.next().await? {
            if let Some(id) = id {
                *from = Some(id);
            }
            let value: Value = serde_json::from_str(&data).unwrap_or_default();
            match name.as_str() {
                "job" | "queue" => {
                    print::line(&if context.json { data } else { line(&value) });
                    *left -= 1;
                    if *left == 0 {
                        break;
                    }
                }
                "gone" | "end" => print::note(&print::clean(value["reason"].as_str().unwrap_or(&name))),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, from: Option<&str>) -> String {
        let (kinds, states) = (self.kind.join(","), self.state.join(","));
        let parameters = [
            ("queue", self.queue.as_deref()),
            ("id", self.id.as_deref()),
            ("kind", Some(kinds.as_str()).filter(|kinds| !kinds.is_empty())),
            ("state", Some(states.as_str()).filter(|states| !states.is_empty())),
            ("from", from),
            ("values", self.values.then_some("true")),
        ];
        let parameters: Vec<_> = parameters
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?))))
            .collect();
        format!("/v1/events?{}", parameters.join("&"))
    }
}

/// An event for people.
fn line(event: &Value) -> String {
    let text = |name: &str| print::clean(event[name].as_str().unwrap_or("-"));
    let (at, queue, kind) = (text("at"), text("queue"), text("kind"));
    if event["id"].is_null() {
        return format!("{at}  {queue}  {kind}");
    }
    let mut line = format!("{at}  {queue}/{}  {kind}", text("id"));
    if let Some(from) = event["from"].as_str() {
        line.push_str(&format!("  from {}", print::clean(from)));
    }
    if let Some(cause) = event["cause"].as_str() {
        line.push_str(&format!("  by {}", print::clean(cause)));
    }
    match event["attempt"].as_u64() {
        Some(0) | None => line,
        Some(attempt) => format!("{line}  attempt {attempt}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line() {
        let job = json!({"queue":"mail","id":"a\u{1b}","kind":"active","from":"waiting","to":"active","cause":"fetch","attempt":2,"at":"T"});
        assert_eq!(
            line(&job),
            format!("T  mail/{}  active  from waiting  by fetch  attempt 2", print::clean("a\u{1b}"))
        );
        assert_eq!(line(&json!({"queue":"mail","kind":"paused","at":"T"})), "T  mail  paused");
    }
}
