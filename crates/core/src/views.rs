//! Reads: what people and tools see of a shard. Nothing here changes anything.

use crate::{
    flow::{GateKey, NO_LINE, Obstacle},
    job::Job,
    queue::Queue,
    shard::Shard,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{
    Actor, Awaited, BulkView, Cause, HistoryEntry, JobId, JobRef, JobView, LogLine, Priority, QueueName,
    QueueView, Reject, State, Step, StepValue,
};

/// Jobs that one listing looks at, at most; a filter that matches few gives short pages and a cursor to go on.
const EXAMINED_MAX: usize = 10_000;
/// Jobs on one page, at most.
const PAGE_MAX: usize = 1_000;

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

/// Which jobs of a queue to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this state; `blocked` means waiting jobs of a paused queue.
    pub state: Option<State>,
    /// Only jobs with this tag.
    pub tag: Option<CompactString>,
    /// Only jobs whose newest error is of this kind.
    pub error_kind: Option<CompactString>,
    /// At most so many, 1 to 1,000.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<u64>,
}

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// Without bodies that are not in memory.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// Sizes of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Jobs in all states.
    pub jobs: u64,
    /// Queues.
    pub queues: u64,
    /// Bytes of bodies in memory.
    pub resident_body_bytes: u64,
    /// Calls remembered by their keys.
    pub idempotency_keys: u64,
    /// Commands ever applied.
    pub commands_total: u64,
    /// The position of the newest command.
    pub position: u64,
}

/// A place in a listing: which state, for waiting jobs which priority, and the order within the lane.
#[derive(Clone, Copy)]
struct Cursor {
    state: usize,
    priority: u8,
    order: u64,
}

const ORDER_BITS: u32 = 52;

impl Cursor {
    fn decode(bits: u64) -> Option<Self> {
        let state = (bits >> 60) as usize;
        let cursor =
            Self { state, priority: (bits >> ORDER_BITS) as u8, order: bits & ((1 << ORDER_BITS) - 1) };
        (state < State::ALL.len()).then_some(cursor)
    }

    fn encode(self) -> u64 {
        (self.state as u64) << 60 | u64::from(self.priority) << ORDER_BITS | self.order
    }
}

/// Why it is in the state it is in; the push is not told.
fn last_cause(job: &Job) -> Option<Cause> {
    let entries = job.run.as_ref()?.history.entries((job.created_at, job.position)).ok()?;
    entries.last().map(|entry| entry.cause)
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

fn some_time(time: Timestamp) -> Option<Timestamp> {
    (time != Timestamp::ZERO).then_some(time)
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

impl Shard {
    fn shown_state(&self, job: &Job) -> State {
        match job.state {
            State::Waiting if self.queues[job.queue as usize].paused || self.is_blocked(job) => {
                State::Blocked
            }
            state => state,
        }
    }

    /// Whether a limit, an order or a paused group holds a waiting job.
    fn is_blocked(&self, job: &Job) -> bool {
        let queue = &self.queues[job.queue as usize];
        (queue.lineup.is_some() || !queue.gates.is_empty())
            && self.slot_of(job.sequence).is_some_and(|slot| !self.may_start(slot))
    }

    fn view(&self, job: &Job) -> JobView {
        let asked = job.asked.as_deref();
        let run = job.run.as_deref();
        let steps = run.and_then(|run| run.steps.as_deref());
        let due_at = match job.state {
            // Its timer is that of its expiry.
            State::Delayed if job.stands_by() => None,
            State::Delayed | State::Retrying | State::Active | State::WaitingChildren | State::Suspended => {
                some_time(job.due)
            }
            _ => None,
        };
        JobView {
            sequence: job.sequence,
            id: job.id(self.id),
            queue: self.queues[job.queue as usize].name.clone(),
            state: self.shown_state(job),
            priority: job.priority,
            attempt: job.attempt,
            attempts: u32::from(job.attempts),
            crashes: u32::from(job.crashes),
            max_crashes: u32::from(job.max_crashes),
            created_at: job.created_at,
            due_at,
            started_at: run.and_then(|run| some_time(run.started_at)),
            finished_at: run.and_then(|run| some_time(run.finished_at)),
            expires_at: job.expires_at(),
            worker: run.filter(|_| job.state == State::Active).map(|run| run.worker.clone()),
            lease_token: job.token(),
            body_bytes: job.body_len,
            body_crc: job.body_crc,
            body: job.body.as_deref().map(Bytes::copy_from_slice),
            content_type: asked.map(|asked| asked.content_type.clone()).unwrap_or_default(),
            result: run.and_then(|run| run.result.clone()),
            progress: run.and_then(|run| run.progress.clone()),
            error: run.and_then(|run| run.error.as_deref().cloned()),
            tags: asked.map(|asked| asked.tags.clone()).unwrap_or_default(),
            meta: asked.map(|asked| asked.meta.clone()).unwrap_or_default(),
            unique_key: asked.and_then(|asked| asked.unique_key.clone()),
            timeout_ms: u64::from(job.timeout_ms),
            waits_for: job.ties().and_then(|ties| self.public_join_id(ties.waits_for)),
            joins: job.ties().map_or(Vec::new(), |ties| self.joins_of(ties)),
            steps: job.step_count(),
            signals: steps.map_or(0, |steps| steps.signals.len() as u32),
            awaits: steps.and_then(|steps| steps.awaited(job.due)),
        }
    }

    /// One job.
    pub fn job(&self, job: &JobRef) -> Option<JobView> {
        self.find(job).map(|slot| self.view(&self.jobs[slot]))
    }

    /// Every change of a job, the push first.
    pub fn history(&self, job: &JobRef) -> Option<Vec<HistoryEntry>> {
        let job = &self.jobs[self.find(job)?];
        let base = (job.created_at, job.position);
        let later =
            job.run.as_ref().map(|run| run.history.entries(base).unwrap_or_default()).unwrap_or_default();
        let began_as = later.first().and_then(|entry| entry.from).unwrap_or(job.state);
        let push = HistoryEntry {
            from: None,
            to: began_as,
            at: job.created_at,
            cause: Cause::Push,
            attempt: 0,
            actor: job.asked.as_ref().map(|asked| asked.pusher.clone()).unwrap_or_default(),
            position: job.position,
            error: None,
        };
        Some(std::iter::once(push).chain(later).collect())
    }

    /// A job's durable steps, in the order in which they began.
    pub fn job_steps(&self, job: &JobRef) -> Option<Vec<Step>> {
        let steps = self.steps(self.find(job)?);
        Some(steps.into_iter().flat_map(|steps| &steps.entries).map(|entry| entry.step.clone()).collect())
    }

    /// What a job's handlers wrote.
    pub fn log_lines(&self, job: &JobRef) -> Option<Vec<LogLine>> {
        let run = self.jobs[self.find(job)?].run.as_ref();
        Some(
            run.and_then(|run| run.log.as_ref())
                .map(|log| log.lines.iter().cloned().collect())
                .unwrap_or_default(),
        )
    }

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

    /// What holds a waiting job back, whoever stands before it: cheaper than [`Shard::explain`], for many jobs at once.
    pub fn held(&self, job: &JobRef) -> Option<Explanation> {
        let slot = self.find(job)?;
        let job = &self.jobs[slot];
        let queue = &self.queues[job.queue as usize];
        let Holds { reasons, paused, opens } = self.holds(slot);
        let expected_at = opens.flatten().filter(|_| !paused && self.leads_its_line(slot));
        let summary = self.summary(job, queue, &reasons);
        Some(Explanation { state: self.shown_state(job), summary, reasons, expected_at })
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
            let order = forecast.starting.iter().chain(&forecast.held);
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

    /// One queue.
    pub fn queue(&self, name: &QueueName) -> Option<QueueView> {
        self.queue_by_name(name).map(|queue| self.queue_view(queue))
    }

    fn queue_view(&self, queue: &Queue) -> QueueView {
        let mut counts = queue.counts;
        let index = self.queue_index[&queue.name];
        let free = self.free_count(index);
        counts.by_state[State::Blocked as usize] = counts.by_state[State::Waiting as usize] - free;
        counts.by_state[State::Waiting as usize] = free;
        let oldest = queue.head().map(|slot| &self.jobs[slot]).map(|job| {
            let run = job.run.as_ref();
            let entered = run.and_then(|run| {
                run.history.entries((job.created_at, job.position)).ok()?.last().map(|entry| entry.at)
            });
            entered.unwrap_or(job.created_at)
        });
        QueueView {
            name: queue.name.clone(),
            paused: queue.paused,
            settings: queue.settings.clone(),
            counts,
            live_bytes: queue.live_bytes,
            oldest_waiting_at: oldest,
            pushed_total: queue.totals.pushed,
            started_total: queue.totals.started,
            completed_total: queue.totals.completed,
            failed_total: queue.totals.failed,
            dead_total: queue.totals.dead,
        }
    }

    /// Queues in the order of their names, from the first after `after`, at most `limit`.
    pub fn queues(&self, after: Option<&QueueName>, limit: usize) -> Vec<QueueView> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let indexes = self.queue_index.range::<QueueName, _>(range).take(limit.min(PAGE_MAX));
        indexes.map(|(_, index)| self.queue_view(&self.queues[*index as usize])).collect()
    }

    /// Jobs of a queue: state by state, each in the order in which jobs entered it (waiting ones in the order of their starts).
    ///
    /// # Errors
    /// An unknown queue, or a cursor that no page gave.
    pub fn list(&self, name: &QueueName, query: &ListQuery) -> Result<Page, Reject> {
        let queue = &self.queues[self.known_queue(name)? as usize];
        let bad_cursor = || Reject::Invalid { field: "cursor", reason: "is not one that a page gave".into() };
        let mut cursor = match query.cursor {
            Some(bits) => Cursor::decode(bits).ok_or_else(bad_cursor)?,
            None => Cursor { state: 0, priority: 0, order: 0 },
        };
        let wanted = |state: State| match query.state {
            None => state != State::Blocked,
            Some(State::Blocked) => state == State::Waiting,
            Some(only) => state == only,
        };
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut page = Page { jobs: Vec::new(), next: None };
        let mut examined = 0;
        while let Some(&state) = State::ALL.get(cursor.state) {
            let lanes: Vec<_> = match state {
                _ if !wanted(state) => Vec::new(),
                State::Waiting => queue.waiting_lanes().collect(),
                _ => {
                    queue.lane(state, Priority::NORMAL).map(|lane| (Priority(0), lane)).into_iter().collect()
                }
            };
            for (priority, lane) in lanes.into_iter().filter(|(priority, _)| priority.0 >= cursor.priority) {
                let from = if priority.0 == cursor.priority { cursor.order } else { 0 };
                for (order, slot) in lane.iter_from(from) {
                    if page.jobs.len() == limit || examined == EXAMINED_MAX {
                        page.next =
                            Some(Cursor { state: cursor.state, priority: priority.0, order }.encode());
                        return Ok(page);
                    }
                    examined += 1;
                    let job = &self.jobs[slot];
                    let held = state == State::Waiting
                        && query.state.is_some_and(|only| only != self.shown_state(job));
                    let error = job.run.as_ref().and_then(|run| run.error.as_ref());
                    let of_kind = |kind: &CompactString| error.is_some_and(|error| error.kind == *kind);
                    if !held
                        && query.tag.as_ref().is_none_or(|tag| job.has_tag(tag))
                        && query.error_kind.as_ref().is_none_or(of_kind)
                    {
                        page.jobs.push(self.view(job));
                    }
                }
            }
            cursor = Cursor { state: cursor.state + 1, priority: 0, order: 0 };
        }
        Ok(page)
    }

    /// The next jobs of a queue in the order in which they will start. Those that something holds come last, with the state `blocked`.
    pub fn upcoming(&self, name: &QueueName, limit: usize) -> Option<Vec<JobView>> {
        let forecast = self.forecast(*self.queue_index.get(name)?, limit.min(PAGE_MAX));
        let free = forecast.starting.into_iter().map(|slot| (slot, State::Waiting));
        let held = forecast.held.into_iter().map(|slot| (slot, State::Blocked));
        let view = |(slot, state): (u32, State)| JobView { state, ..self.view(&self.jobs[slot]) };
        Some(free.chain(held).map(view).collect())
    }

    /// Limits that were set, by key or pattern.
    pub fn limits(&self) -> Vec<(CompactString, model::Limit)> {
        self.flow.rules.iter().collect()
    }

    /// Bulk operations, those that ended not long ago included.
    pub fn bulks(&self) -> Vec<BulkView> {
        self.bulks.values().map(|bulk| bulk.view(&self.queues[bulk.queue as usize].name)).collect()
    }

    /// Sizes and totals.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            jobs: self.jobs.len() as u64,
            queues: self.queues.len() as u64,
            resident_body_bytes: self.resident_bytes(),
            idempotency_keys: self.idempotency.len() as u64,
            commands_total: self.counters.position,
            position: self.counters.position,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_listing_goes_on_where_the_page_before_ended() {
        check(
            "
            0s push mail id=a p=low ; mail id=b ; mail id=c delay=1h ; mail id=d tag=red ; mail id=e
            1s cancel e                          -> cancelled
            1s list mail                         -> b d a c e
            1s list mail limit=2                 -> b d ...
            2s push mail id=f p=0 ; mail id=g    -> f waiting, g waiting
            2s remove d                          -> ok
            2s list mail limit=2 more            -> a c ...
            2s list mail limit=2 more            -> e
            2s list mail state=waiting           -> f b g a
            2s list mail state=blocked           ->
            2s pause mail                        -> ok
            2s list mail state=blocked limit=3   -> f b g ...
            2s list mail state=blocked limit=3 more -> a
            2s list mail state=waiting           ->
            2s list nowhere                      -> ! unknown_queue
        ",
        );
    }

    #[test]
    fn a_listing_by_tag_finds_every_job_that_has_it() {
        check(
            "
            0s push mail id=a tag=red ; mail id=b tag=blue ; mail id=c tag=blue,red delay=1s ; mail id=d
            0s list mail tag=red                 -> a c
            0s list mail tag=blue limit=1        -> b ...
            0s list mail tag=blue limit=1 more   -> c
            0s list mail tag=green               ->
        ",
        );
    }

    #[test]
    fn a_cursor_that_no_page_gave_is_refused() {
        let script = check("0s push mail id=a");
        let query = super::ListQuery { cursor: Some(u64::MAX), ..super::ListQuery::default() };
        let refused = script.shard.list(&super::QueueName::new("mail").unwrap(), &query);
        assert_eq!(refused.unwrap_err().code(), "invalid");
    }

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
