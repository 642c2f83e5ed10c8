//! Why a job is where it is, what holds it and until when, and what starts next.

use crate::{
    flow::{GateKey, NO_LINE, Obstacle},
    job::Job,
    queue::Queue,
    shard::Shard,
    views::{EXAMINED_MAX, PAGE_MAX, last_cause},
};
use compact_str::CompactString;
use kit::Timestamp;
use model::{Actor, Awaited, Cause, JobId, JobRef, JobView, Priority, QueueName, State, StepValue};

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The state as shown.
    pub state: State,
    /// One sentence for people.
    pub summary: String,
    /// What holds it, most important first.
    pub reasons: Vec<Reason>,
    /// The earliest it can start, where that is known.
    pub expected_at: Option<Timestamp>,
}

/// One thing that holds a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its queue is paused.
    QueuePaused,
    /// Its time has not come.
    DelayedUntil(Timestamp),
    /// It failed and waits for the next attempt.
    RetryAt(Timestamp),
    /// Its group is paused.
    GroupPaused {
        /// Which.
        group: CompactString,
    },
    /// All slots of a limit are taken.
    NoSlot {
        /// What limits it.
        by: Limited,
        /// Slots taken.
        in_use: u64,
        /// Slots there are.
        limit: u64,
    },
    /// Its class of work has its most of a pool, or the rest is reserved for others.
    NoShare {
        /// The pool's key.
        pool: CompactString,
        /// Slots its class has.
        in_use: u64,
        /// Slots its class may have now.
        most: u64,
    },
    /// A rate is spent.
    RateSpent {
        /// What limits it.
        by: Limited,
        /// When the next unit comes.
        at: Timestamp,
    },
    /// A handler reported that what it needs is to be left alone.
    ToldToWait {
        /// What was closed.
        by: Limited,
        /// Until when.
        at: Timestamp,
    },
    /// A circuit breaker is open.
    BreakerOpen {
        /// Which.
        by: Limited,
        /// When it lets probes pass.
        at: Timestamp,
    },
    /// A circuit breaker is half open and its probes are under way.
    BreakerProbing {
        /// Which.
        by: Limited,
        /// How many probes at once.
        probes: u32,
    },
    /// The job before it with the same ordering key is not final.
    OrderTaken {
        /// The ordering key.
        key: CompactString,
        /// Which job, if it can be told.
        holder: Option<JobId>,
    },
    /// The queue's retries have used up their budget.
    RetryBudgetSpent {
        /// When the next may start, if nothing succeeds before.
        at: Timestamp,
    },
    /// Jobs of its queue start before it.
    Behind {
        /// How many.
        ahead: u64,
        /// Its own priority.
        priority: Priority,
    },
    /// Nothing: the next worker that asks gets it.
    NextInLine,
    /// Nothing holds it yet, but the jobs that start before it fill a gate.
    FilledBefore {
        /// The gate, in words.
        by: String,
    },
    /// A worker has it.
    Running {
        /// Which.
        worker: Actor,
        /// Its lease ends here unless renewed.
        lease_until: Timestamp,
        /// The attempt fails here.
        timeout_at: Timestamp,
    },
    /// Its children, or the members of its join, have not ended.
    WaitsForChildren {
        /// The join.
        join: JobId,
        /// Members that have ended.
        ended: u32,
        /// All members so far.
        total: u32,
        /// The names of the first that have not ended.
        missing: Vec<CompactString>,
        /// More members may come.
        open: bool,
    },
    /// It stands by until the holder of its unique key ends.
    StandsBy {
        /// Who holds the key.
        holder: JobId,
    },
    /// It is suspended until this signal comes, or until then.
    WaitsForSignal {
        /// The signal.
        name: CompactString,
        /// When it goes on without.
        until: Timestamp,
    },
    /// It is suspended until this child of its ends.
    WaitsForChild {
        /// The child's queue.
        queue: QueueName,
        /// Its id.
        id: JobId,
        /// Its state.
        state: State,
    },
    /// It sleeps in a step of this name.
    Sleeps(CompactString),
    /// It is dead because whoever ran it crashed too often.
    Quarantined {
        /// How often.
        crashes: u32,
    },
    /// It is final.
    Final,
    /// If it dies, it goes on to this queue.
    DeadGoTo {
        /// Where to.
        target: QueueName,
    },
    /// It is dead and did not go on to the queue that takes the dead of its own.
    StaysDead {
        /// Which queue would take it.
        target: QueueName,
        /// That queue has another job of its id.
        id_taken: bool,
    },
    /// It died before and went on as a dead letter.
    SentOn {
        /// Where it died.
        from: CompactString,
        /// Of what.
        error: CompactString,
        /// After how many attempts.
        attempts: u32,
    },
    /// So many are dead in its queue that somebody was told.
    DeadAlert {
        /// Since when.
        since: Timestamp,
        /// Jobs that are dead there now.
        dead: u64,
    },
}

/// What a limit is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limited {
    /// The queue as a whole.
    Queue,
    /// A key.
    Key(CompactString),
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue => f.write_str("the queue"),
            Self::Key(key) => write!(f, "limit {key}"),
        }
    }
}

/// Pauses and gates that hold a waiting job.
struct Holds {
    reasons: Vec<Reason>,
    /// Its queue or its group is paused.
    paused: bool,
    /// A gate holds it; and when it opens, where time alone opens it.
    opens: Option<Option<Timestamp>>,
}
fn error_message(job: &Job) -> &str {
    job.run.as_ref().and_then(|run| run.error.as_ref()).map_or("", |error| error.message.as_str())
}

/// The step in which a delayed job sleeps, if it is one that does.
fn sleeping_in(job: &Job) -> Option<CompactString> {
    let steps = job.run.as_ref()?.steps.as_ref()?;
    let newest = &steps.entries.last()?.step;
    (newest.value == StepValue::Slept { until: job.due }).then(|| newest.name.clone())
}

fn waits_for_children(join: &JobId, ended: u32, total: u32, missing: &[CompactString], open: bool) -> String {
    let more = if open { "; more may come until it is sealed" } else { "" };
    if ended == total {
        return format!("all {total} members of join {join} have ended{more}");
    }
    let others = if (total - ended) as usize > missing.len() { ", …" } else { "" };
    let (left, names) = (total - ended, missing.join(", "));
    format!("{left} of {total} members of join {join} have not ended: {names}{others}{more}")
}

fn filled_by(gate: &GateKey) -> String {
    match gate {
        GateKey::Limit(key) => Limited::Key(key.clone()).to_string(),
        GateKey::Order(_, key) => format!("ordering key {key}"),
        GateKey::Queue(_) => Limited::Queue.to_string(),
        GateKey::Retries(_) => "the budget of retries".to_owned(),
    }
}

impl Shard {
    /// Why a job is where it is, and when it can start. One that died and went on is found where it died, too.
    pub fn explain(&self, job: &JobRef) -> Option<Explanation> {
        let slot = self.find(job).or_else(|| self.find_sent_on(job))?;
        let job = &self.jobs[slot];
        let queue = &self.queues[job.queue as usize];
        let mut reasons = Vec::new();
        let mut expected_at = None;
        match job.state {
            State::Waiting | State::Blocked => {
                let holds = self.holds(slot);
                reasons = holds.reasons;
                if holds.opens.is_none() {
                    match self.ahead_of(slot) {
                        0 if holds.paused => {}
                        0 => reasons.push(Reason::NextInLine),
                        ahead => reasons.push(Reason::Behind { ahead, priority: job.priority }),
                    }
                }
                expected_at = match holds.opens {
                    _ if holds.paused => None,
                    Some(at) => at.filter(|_| self.leads_its_line(slot)),
                    None => (reasons == [Reason::NextInLine]).then_some(self.counters.time),
                };
            }
            State::Delayed if job.stands_by() => {
                if let Some(holder) = self.holder_before(job) {
                    reasons.push(Reason::StandsBy { holder: holder.id(self.id) });
                }
            }
            State::Delayed => {
                reasons.push(Reason::DelayedUntil(job.due));
                reasons.extend(sleeping_in(job).map(Reason::Sleeps));
            }
            State::Retrying => reasons.push(Reason::RetryAt(job.due)),
            State::WaitingChildren | State::Suspended => {
                reasons.extend(self.awaited(job).or_else(|| self.waits_for_children(job)));
            }
            State::Active => {
                let run = job.run.as_deref();
                reasons.push(Reason::Running {
                    worker: run.map(|run| run.worker.clone()).unwrap_or_default(),
                    lease_until: run.map_or(Timestamp::ZERO, |run| run.lease_until),
                    timeout_at: run.map_or(Timestamp::ZERO, |run| run.timeout_at),
                });
            }
            State::Dead if last_cause(job) == Some(Cause::Quarantine) => {
                reasons.push(Reason::Quarantined { crashes: job.crashes.into() });
            }
            State::Completed | State::Dead | State::Cancelled | State::Expired => reasons.push(Reason::Final),
        }
        if matches!(job.state, State::Delayed | State::Retrying) {
            if queue.paused {
                reasons.push(Reason::QueuePaused);
            } else if !job.stands_by() && !job.has_expired(job.due) {
                expected_at = Some(job.due);
            }
        }
        reasons.extend(self.dead_letter_reasons(slot));
        let summary = self.summary(job, queue, &reasons);
        Some(Explanation { state: self.shown_state(job), summary, reasons, expected_at })
    }

    /// What holds a waiting job back, or will: the gate that the jobs before it fill.
    fn held(&self, slot: u32, filled: Option<&GateKey>) -> Explanation {
        let job = &self.jobs[slot];
        let Holds { mut reasons, paused, opens } = self.holds(slot);
        if reasons.is_empty() {
            reasons.extend(filled.map(|gate| Reason::FilledBefore { by: filled_by(gate) }));
        }
        let expected_at = opens.flatten().filter(|_| !paused && self.leads_its_line(slot));
        let summary = self.summary(job, &self.queues[job.queue as usize], &reasons);
        Explanation { state: State::Blocked, summary, reasons, expected_at }
    }

    fn holds(&self, slot: u32) -> Holds {
        let job = &self.jobs[slot];
        let mut reasons = Vec::new();
        if self.queues[job.queue as usize].paused {
            reasons.push(Reason::QueuePaused);
        }
        reasons.extend(self.paused_group(slot).map(|group| Reason::GroupPaused { group }));
        let paused = !reasons.is_empty();
        let obstacles = self.obstacles(slot);
        // Time alone may open these gates: the earliest start is then that of the last.
        let opens = obstacles.iter().map(|(_, obstacle)| obstacle.until());
        let opens = opens.reduce(|first, second| Some(first?.max(second?)));
        reasons.extend(obstacles.into_iter().map(|(key, obstacle)| self.held_by(job, key, obstacle)));
        Holds { reasons, paused, opens }
    }

    /// How many waiting jobs start before this one, as things are. Where lines decide, it is counted up to [`PAGE_MAX`].
    fn ahead_of(&self, slot: u32) -> u64 {
        let job = &self.jobs[slot];
        let queue = &self.queues[job.queue as usize];
        if queue.lineup.is_some() {
            let forecast = self.forecast(job.queue, PAGE_MAX);
            let order = forecast.starting.iter().chain(forecast.held.iter().map(|(slot, _)| slot));
            return order.take_while(|other| **other != slot).count() as u64;
        }
        queue
            .waiting_lanes()
            .take_while(|(priority, _)| *priority <= job.priority)
            .map(|(priority, lane)| if priority < job.priority { lane.len() } else { lane.rank(job.order) })
            .sum()
    }
    /// The job that one that stands by waits for.
    fn holder_before(&self, job: &Job) -> Option<&Job> {
        let key = job.asked.as_ref()?.unique_key.clone()?;
        let hold = self.unique.get(&(job.queue, key))?;
        self.slot_of(hold.holder).map(|slot| &self.jobs[slot])
    }

    fn awaited(&self, job: &Job) -> Option<Reason> {
        let steps = job.run.as_ref()?.steps.as_ref()?;
        Some(match steps.awaited(job.due)? {
            Awaited::Signal { name, until } => Reason::WaitsForSignal { name, until },
            Awaited::Child { queue, id } => {
                let child = JobRef { queue: Some(queue.clone()), id: id.clone() };
                let state = self.find(&child).map(|slot| self.shown_state(&self.jobs[slot]))?;
                Reason::WaitsForChild { queue, id, state }
            }
        })
    }

    /// Whether it is the first of the jobs that the same gates hold.
    fn leads_its_line(&self, slot: u32) -> bool {
        let job = &self.jobs[slot];
        match job.line {
            NO_LINE if self.queues[job.queue as usize].lineup.is_none() => self.ahead_of(slot) == 0,
            _ => self.line_of(slot).first().is_some_and(|(_, first)| first == slot),
        }
    }

    fn held_by(&self, job: &Job, key: GateKey, obstacle: Obstacle) -> Reason {
        let by = match &key {
            GateKey::Limit(name) => Limited::Key(name.clone()),
            GateKey::Order(..) | GateKey::Queue(_) | GateKey::Retries(_) => Limited::Queue,
        };
        match (key, obstacle) {
            (GateKey::Order(_, key), _) => {
                let holder = self.order_holder(job.queue, &key);
                Reason::OrderTaken { key, holder }
            }
            (GateKey::Retries(_), obstacle) => {
                Reason::RetryBudgetSpent { at: obstacle.until().unwrap_or(self.counters.time) }
            }
            (_, Obstacle::Slots { in_use, limit }) => Reason::NoSlot { by, in_use, limit },
            (GateKey::Limit(pool), Obstacle::Share { in_use, most }) => {
                Reason::NoShare { pool, in_use, most }
            }
            (_, Obstacle::Share { in_use, most }) => Reason::NoSlot { by, in_use, limit: most },
            (_, Obstacle::Rate(at)) => Reason::RateSpent { by, at },
            (_, Obstacle::Told(at)) => Reason::ToldToWait { by, at },
            (_, Obstacle::Open(at)) => Reason::BreakerOpen { by, at },
            (_, Obstacle::Probing(probes)) => Reason::BreakerProbing { by, probes },
        }
    }

    /// Who holds an ordering key. Looked for among those under way, which workers bound, and those that wait to try again.
    fn order_holder(&self, queue: u32, key: &CompactString) -> Option<JobId> {
        const STATES: [State; 5] =
            [State::Active, State::Retrying, State::Delayed, State::Suspended, State::WaitingChildren];
        let home = &self.queues[queue as usize];
        let lanes = STATES.into_iter().filter_map(|state| home.lane(state, Priority::NORMAL));
        let jobs =
            lanes.flat_map(|lane| lane.iter_from(0)).take(EXAMINED_MAX).map(|(_, slot)| &self.jobs[slot]);
        let holds = |job: &&Job| {
            job.run.as_ref().is_some_and(|run| run.holds_order)
                && job.asked.as_ref().is_some_and(|asked| {
                    asked.route.as_ref().is_some_and(|route| route.ordering_key.as_ref() == Some(key))
                })
        };
        jobs.into_iter().find(holds).map(|job| job.id(self.id))
    }

    fn summary(&self, job: &Job, queue: &Queue, reasons: &[Reason]) -> String {
        let parts: Vec<String> = reasons
            .iter()
            .map(|reason| match reason {
                Reason::QueuePaused => format!("queue {} is paused", queue.name),
                Reason::DelayedUntil(at) => format!("it is not to start before {at}"),
                Reason::RetryAt(at) => {
                    match last_cause(job) {
                        Some(Cause::Crash) => format!(
                            "its process crashed, {} of at most {} times ({}); it starts again at {at}",
                            job.crashes,
                            job.max_crashes,
                            error_message(job)
                        ),
                        _ => format!("attempt {} of {} failed; the next is at {at}", job.attempt, job.attempts),
                    }
                }
                Reason::Behind { ahead, priority } => {
                    format!(
                        "{ahead} of {} waiting jobs start before it (priority {priority})",
                        queue.waiting_count()
                    )
                }
                Reason::GroupPaused { group } => format!("group {group} is paused"),
                Reason::NoSlot { by, in_use, limit } => {
                    format!("{by} has {in_use} of {limit} slots taken; it starts when one is free")
                }
                Reason::NoShare { pool, in_use, most } => format!(
                    "queue {} has {in_use} of the {most} slots it may have of pool {pool} now",
                    queue.name
                ),
                Reason::RateSpent { by, at } => format!("the rate of {by} is spent until {at}"),
                Reason::ToldToWait { by, at } => {
                    format!("a handler reported that {by} is to be left alone until {at}")
                }
                Reason::BreakerOpen { by, at } => {
                    format!("the circuit breaker of {by} is open: too much failed or was slow; probes start at {at}")
                }
                Reason::BreakerProbing { by, probes } => format!(
                    "the circuit breaker of {by} is half open; it waits for how {probes} probes end"
                ),
                Reason::OrderTaken { key, holder } => match holder {
                    Some(holder) => format!("job {holder} with ordering key {key} has to end before"),
                    None => format!("another job with ordering key {key} has to end before"),
                },
                Reason::RetryBudgetSpent { at } => format!(
                    "the queue's retries have used their budget; the next starts at {at}, or as others succeed"
                ),
                Reason::FilledBefore { by } => format!("the jobs before it take all that {by} has left"),
                Reason::NextInLine => "it is next: the first worker that asks gets it".to_string(),
                Reason::Running { worker, lease_until, .. } => {
                    format!(
                        "worker {worker} runs attempt {} of {}, leased until {lease_until}",
                        job.attempt, job.attempts
                    )
                }
                Reason::WaitsForChildren { join, ended, total, missing, open } => {
                    waits_for_children(join, *ended, *total, missing, *open)
                }
                Reason::StandsBy { holder } => {
                    format!("it stands by until job {holder} ends, which holds its unique key")
                }
                Reason::WaitsForSignal { name, until } => {
                    format!("it waits for signal `{name}` until {until} (nobody has sent it)")
                }
                Reason::WaitsForChild { queue, id, state } => {
                    format!("it waits for its child {id} in queue {queue}, which is {state}")
                }
                Reason::Sleeps(step) => format!("it sleeps in step `{step}`"),
                Reason::Quarantined { crashes } => format!(
                    "it is in quarantine: whoever ran it crashed {crashes} times, the last time: {}; redrive it when the cause is \
                     mended",
                    error_message(job)
                ),
                Reason::Final => match job.run.as_ref().and_then(|run| run.error.as_ref()) {
                    Some(error) if job.state != State::Completed => {
                        format!("it ended {} after {} attempts: {}", job.state, job.attempt, error.message)
                    }
                    _ => format!("it ended {}", job.state),
                },
                Reason::DeadGoTo { target } => format!("if its last attempt fails it goes on to queue {target}"),
                Reason::StaysDead { target, id_taken: true } => {
                    format!("it stays here, for queue {target} has another job of its id")
                }
                Reason::StaysDead { target, id_taken: false } => format!(
                    "it stayed here: it died before the dead of its queue went on to queue {target}, or {target} had a job of its \
                     id; a bulk move sends it there"
                ),
                Reason::SentOn { from, error, attempts } => format!(
                    "it died in queue {from} after attempt {attempts} ({error}) and is in queue {} now",
                    queue.name
                ),
                Reason::DeadAlert { since, dead } => {
                    format!("queue {} has an alert since {since}, with {dead} dead", queue.name)
                }
            })
            .collect();
        parts.join("; ")
    }

    /// The next jobs of a queue in the order in which they will start. Those that something holds, or that the jobs before them leave
    /// no room for, come last, with the state `blocked` and what it is.
    pub fn upcoming(&self, name: &QueueName, limit: usize) -> Option<Vec<(JobView, Option<Explanation>)>> {
        let forecast = self.forecast(*self.queue_index.get(name)?, limit.min(PAGE_MAX));
        let view = |slot, state| JobView { state, ..self.view(&self.jobs[slot]) };
        let free = forecast.starting.into_iter().map(|slot| (view(slot, State::Waiting), None));
        let held = forecast
            .held
            .into_iter()
            .map(|(slot, filled)| (view(slot, State::Blocked), Some(self.held(slot, filled.as_ref()))));
        Some(free.chain(held).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn an_explanation_tells_when_a_job_starts_and_it_does() {
        check(
            "
            0s  push mail id=a delay=10s backoff=fixed:5s
            0s  explain a                        -> delayed DelayedUntil at 10s
            9999ms fetch mail                    -> none
            10s fetch mail                       -> a 1/5 t1
            10s explain a                        -> active Running at never
            11s retry a t1 oops                  -> retrying
            11s explain a                        -> retrying RetryAt at 16s
            11s pause mail                       -> ok
            11s explain a                        -> retrying RetryAt at never
            11s resume mail                      -> ok
            15999ms fetch mail                   -> none
            16s fetch mail                       -> a 2/5 t2
        ",
        );
    }
}
