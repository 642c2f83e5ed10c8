//! `millpond stats`: the server in a few numbers.

use super::{Context, Failure, print, queues::fetch_all};
use crate::client::Extras;
use clap::Args;
use hyper::Method;
use model::State;
use serde_json::{Map, Value, json};

/// The server in a few numbers
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  millpond stats\n  millpond stats --json | jq .jobs.dead")]
pub(crate) struct StatsCommand {}

impl StatsCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let queues = fetch_all(&context.client).await?;
        let text =
            context.client.call(Method::GET, "/metrics", bytes::Bytes::new(), Extras::default()).await?;
        let metrics = read_metrics(&String::from_utf8_lossy(&text));
        let jobs: Vec<(State, u64)> = State::ALL
            .into_iter()
            .map(|state| (state, queues.iter().map(|queue| queue.count(state)).sum()))
            .collect();
        let total = |of: fn(&crate::client::Queue) -> u64| queues.iter().map(of).sum::<u64>();
        let totals = [
            ("pushed", total(|queue| queue.pushed_total)),
            ("started", total(|queue| queue.started_total)),
            ("completed", total(|queue| queue.completed_total)),
            ("failed attempts", total(|queue| queue.failed_total)),
            ("dead", total(|queue| queue.dead_total)),
        ];
        if context.json {
            let jobs: Map<String, Value> =
                jobs.iter().map(|(state, count)| (state.name().to_owned(), json!(count))).collect();
            let totals: Map<String, Value> =
                totals.iter().map(|(name, count)| (name.replace(' ', "_"), json!(count))).collect();
            let metrics: Map<String, Value> =
                metrics.into_iter().map(|(name, value)| (name, json!(value))).collect();
            let out = json!({"queues": queues.len(), "jobs": jobs, "totals": totals, "server": metrics});
            print::line(&out.to_string());
            return Ok(());
        }
        let style = context.style;
        let mut out =
            format!("{}  {} queues\n", style.bold(context.client.url()), print::count(queues.len() as u64));
        for (title, rows) in [
            ("jobs now", jobs.iter().map(|(s, n)| (s.name(), *n)).collect()),
            ("since ever", totals.to_vec()),
        ] {
            out.push_str(&format!("\n{}\n", style.dim(title)));
            for (name, count) in rows {
                out.push_str(&format!("  {name:<16}{:>14}\n", print::count(count)));
            }
        }
        out.push_str(&format!("\n{}\n", style.dim("server")));
        let width = metrics.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in metrics {
            let text = if value.fract() == 0.0 { print::count(value as u64) } else { format!("{value:.3}") };
            out.push_str(&format!("  {:<width$}{text:>14}\n", print::clean(&name)));
        }
        print::put(&out);
        Ok(())
    }
}

/// The metrics without labels: those of the server as a whole.
fn read_metrics(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.contains('{'))
        .filter_map(|line| {
            let (name, value) = line.trim().rsplit_once(' ')?;
            let name = name.strip_prefix("millpond_").unwrap_or(name);
            Some((name.replace('_', " "), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_the_whole_server_are_read() {
        let text = "# HELP a b\nmillpond_commands_total 12\nmillpond_jobs{queue=\"a\"} 3\nmillpond_up 0.5\n";
        let expected = [("commands total".to_owned(), 12.0), ("up".to_owned(), 0.5)];
        assert_eq!(read_metrics(text), expected);
    }
}
