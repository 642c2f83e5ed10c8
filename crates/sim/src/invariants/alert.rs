//! I22: an alert of a queue's dead letters is told by the death or the setting that reaches its threshold, once, and again only after
//! everything was below half of it.

use crate::history::{Check, broken};
use kit::Timestamp;
use millpond_core::Shard;
use model::{Alert, Cause, Effect, JobId, QueueChange, QueueName, State};
use std::collections::BTreeMap;

const MINUTE: u64 = 60_000;

/// The queues that have an alert.
#[derive(Default)]
pub(crate) struct Alerts(BTreeMap<QueueName, Watch>);

#[derive(Default)]
struct Watch {
    alert: Alert,
    /// Jobs that are dead here.
    dead: u64,
    /// When jobs died here, as far back as the rate looks.
    deaths: Vec<Timestamp>,
    raised: Raised,
    /// What has just happened must be told.
    owed: bool,
    /// What was wrong in this command, if the dead were counted right.
    wrong: Option<String>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Raised {
    #[default]
    No,
    Yes,
    /// Jobs died while others vanished without a word.
    Unknown,
}

impl Watch {
    fn new(alert: Alert, dead: u64) -> Self {
        let owed = alert.count > 0 && dead >= alert.count;
        Self { alert, dead, owed, ..Self::default() }
    }

    /// Deaths in the minute by the clock, and those of the minute before as if they had come evenly.
    fn rate(&self, now: Timestamp) -> u64 {
        let from = now.0 - now.0 % MINUTE;
        let count =
            |from: u64, to: u64| self.deaths.iter().filter(|at| (from..to).contains(&at.0)).count() as u64;
        count(from, now.0 + 1) + count(from.saturating_sub(MINUTE), from) * (MINUTE - (now.0 - from)) / MINUTE
    }

    fn is_reached(&self, now: Timestamp) -> bool {
        let Alert { count, per_minute } = self.alert;
        count > 0 && self.dead >= count || per_minute > 0 && self.rate(now) >= per_minute
    }

    fn is_quiet(&self, now: Timestamp) -> bool {
        let low = |level: u64, threshold: u64| threshold == 0 || 2 * level < threshold;
        low(self.dead, self.alert.count) && low(self.rate(now), self.alert.per_minute)
    }

    fn die(&mut self, now: Timestamp) {
        self.close();
        if self.is_quiet(now) {
            self.raised = Raised::No;
        }
        self.deaths.retain(|at| at.0 + 2 * MINUTE > now.0);
        self.deaths.push(now);
        self.dead += 1;
        self.judge(now);
    }

    fn judge(&mut self, now: Timestamp) {
        self.owed = self.is_reached(now) && self.raised != Raised::Yes;
    }

    fn told(&mut self) {
        if !std::mem::take(&mut self.owed) {
            self.wrong.get_or_insert("was told of without a reason, or again".into());
        }
        self.raised = Raised::Yes;
    }

    /// What was owed should have been told by now.
    fn close(&mut self) {
        if std::mem::take(&mut self.owed) {
            // Whoever does not know takes silence for an alert that was told before.
            if self.raised == Raised::No {
                self.wrong.get_or_insert("was not told of".into());
            }
            self.raised = Raised::Yes;
        }
    }
}

impl Alerts {
    /// Looks at the queues before a command.
    pub(crate) fn before(&mut self, shard: &Shard) {
        for (name, watch) in &mut self.0 {
            watch.dead = dead(shard, name);
        }
    }

    /// Follows one command by its effects.
    pub(crate) fn after(&mut self, shard: &Shard, effects: &[Effect]) -> Check {
        let mut died: BTreeMap<&JobId, &QueueName> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Changed { queue, id, from, to: State::Dead, at, .. }
                    if *from != Some(State::Dead) =>
                {
                    died.insert(id, queue);
                    if let Some(watch) = self.0.get_mut(queue) {
                        watch.die(*at);
                    }
                }
                Effect::Changed { id, cause: Cause::DeadLetter, at, .. } => {
                    // It has left the queue that it died in before anybody is told.
                    if let Some(watch) = died.get(id).and_then(|queue| self.0.get_mut(*queue)) {
                        watch.dead = watch.dead.saturating_sub(1);
                        watch.judge(*at);
                    }
                }
                Effect::Changed { queue, from: Some(State::Dead), to, .. } if *to != State::Dead => {
                    self.one_less(queue)
                }
                Effect::Removed { queue, from: State::Dead, .. } => self.one_less(queue),
                Effect::Queue { queue, change: QueueChange::Configured, .. } => self.configured(shard, queue),
                Effect::Queue { queue, change: QueueChange::DeadAlert, .. } => match self.0.get_mut(queue) {
                    Some(watch) => watch.told(),
                    None => return broken("I22", format!("{queue} has no alert, and one was told of")),
                },
                _ => {}
            }
        }
        for (name, watch) in &mut self.0 {
            watch.close();
            let wrong = watch.wrong.take();
            if watch.dead != dead(shard, name) {
                // Some were moved or forgotten, nobody knows when.
                if died.values().any(|queue| *queue == name) {
                    watch.raised = Raised::Unknown;
                }
            } else if let Some(wrong) = wrong {
                let Watch { alert, dead, deaths, .. } = watch;
                return broken(
                    "I22",
                    format!("the alert of {name} ({alert:?}) {wrong}: {dead} are dead, deaths at {deaths:?}"),
                );
            }
        }
        Ok(())
    }

    fn one_less(&mut self, queue: &QueueName) {
        if let Some(watch) = self.0.get_mut(queue) {
            watch.dead = watch.dead.saturating_sub(1);
        }
    }

    /// A queue has other settings: another alert begins anew, and looks at what is dead already.
    fn configured(&mut self, shard: &Shard, name: &QueueName) {
        let alert = shard.queue(name).map_or(Alert::default(), |queue| queue.settings.dead_letter.alert);
        if self.0.get(name).map_or(Alert::default(), |watch| watch.alert) == alert {
            return;
        }
        let wrong = self.0.remove(name).and_then(|mut watch| {
            watch.close();
            watch.wrong
        });
        if alert != Alert::default() {
            // Nobody dies of a setting.
            self.0.insert(name.clone(), Watch { wrong, ..Watch::new(alert, dead(shard, name)) });
        }
    }
}

fn dead(shard: &Shard, name: &QueueName) -> u64 {
    shard.queue(name).map_or(0, |queue| queue.counts.of(State::Dead))
}
