//! A second, small model of what jobs go through, written from the rules and not from the core.
//!
//! It follows the log's commands and replies and knows, for the *strict* queues, where each job must be. In the other queues
//! bulk operations, replacements and drops change jobs behind its back; there only leases and bodies are looked at.

use crate::{
    history::Entry,
    history::{Check, broken},
    invariants::{
        self,
        bulk::{Moment, Operations},
        slots::{self, Slots},
        steps::{Steps, Value, Wait},
    },
    workload,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{
    Command, DispatchedJob, Effect, Graph, JobId, JobRef, LeaseRef, NewJob, OnConflict, Outcome, Pushed,
    QueueName, QueueSettings, Reject, Reply, Settled, Settlement, State, Unique, Until, codec, limits,
};
use std::collections::{BTreeMap, BTreeSet};

/// Queue and id.
pub(crate) type Key = (QueueName, JobId);

/// A job as the shadow sees it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) new: NewJob,
    /// It must not start before.
    pub(crate) not_before: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) attempt: u32,
    pub(crate) attempts: u32,
    pub(crate) crashes: u32,
    pub(crate) max_crashes: u32,
    pub(crate) lease: Option<Lease>,
    pub(crate) started: bool,
    /// It has begun in this life: its ordering key is its own until it ends.
    began: bool,
    /// It has reached a final state.
    pub(crate) ended: bool,
    /// It went on after its death in this queue.
    pub(crate) died_in: Option<QueueName>,
    /// It waits, or waited, for a join.
    pub(crate) continues: bool,
    pub(crate) steps: Steps,
    /// When its unique key is free, whatever becomes of it.
    unique_until: Option<Timestamp>,
    /// Beyond this, its wait does not begin anew.
    latest: Option<Timestamp>,
    /// It must not start before this job has ended: its id and its number.
    stands_by: Option<(JobId, u64)>,
    /// Tells jobs apart that had the same given id.
    number: u64,
}

/// A lease that has not ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) token: u64,
    pub(crate) until: Timestamp,
    pub(crate) timeout_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Queue {
    paused: bool,
    settings: QueueSettings,
    unique: BTreeMap<CompactString, Hold>,
    throttled: BTreeMap<CompactString, (JobId, Timestamp)>,
}

/// Who has a unique key: the job's id and its number.
#[derive(Debug, Clone)]
struct Hold {
    holder: (JobId, u64),
    next: Option<(JobId, u64)>,
}

struct Remembered {
    content: Vec<u8>,
    at: Timestamp,
    reply: Reply,
}

/// The second model.
#[derive(Default)]
pub(crate) struct Shadow {
    jobs: BTreeMap<Key, Job>,
    queue_of: BTreeMap<JobId, QueueName>,
    queues: BTreeMap<QueueName, Queue>,
    leases: BTreeSet<(Timestamp, u64, Key)>,
    keys: BTreeMap<CompactString, Remembered>,
    token: u64,
    now: Timestamp,
    slots: Slots,
    numbers: u64,
    /// Debounced jobs that were pushed again by the newest command, with their longest waits.
    pub(crate) debounced: Vec<(Key, Timestamp)>,
    operations: Operations,
    flow: invariants::flow::Flow,
    fair: invariants::fair::Fair,
    /// Every join, and the jobs that several of them may wait for.
    pub(crate) joins: BTreeSet<JobId>,
    shared: BTreeSet<JobId>,
    /// Jobs of the mortal queue that the newest command sends on when they are settled.
    dying: BTreeMap<JobId, QueueName>,
}

impl Shadow {
    /// Compares the swept queue before and after a command, and follows the jobs that were moved out of it.
    pub(crate) fn sweep(&mut self, before: &Moment, after: &Moment, now: Timestamp) -> Check {
        for id in self.operations.compare(before, after, now)? {
            let Some(mut job) = self.jobs.remove(&(workload::swept(), id.clone())) else {
                return broken("I13", format!("job {id} was moved and nobody pushed it"));
            };
            job.new.queue = workload::beside();
            if let JobId::Uuid(_) = id {
                self.queue_of.insert(id.clone(), workload::beside());
            }
            self.jobs.insert((workload::beside(), id), job);
        }
        Ok(())
    }

    /// Looks at who took turns in the routed queue.
    pub(crate) fn fair(&mut self, effects: &[Effect]) -> Check {
        let route = |id: &JobId| self.jobs.get(&(workload::routed(), id.clone()))?.new.route.as_deref();
        self.fair.look(effects, route)
    }

    /// Follows one command of the log, and says where its reply breaks a rule.
    pub(crate) fn follow(&mut self, entry: &Entry, effects: &[Effect]) -> Check {
        if entry.time < self.now {
            return broken("I3", format!("time ran backwards at position {}", entry.position));
        }
        self.now = entry.time;
        self.debounced.clear();
        self.lapse();
        self.slots_fired(effects)?;
        self.joins_failed(effects);
        self.dying = invariants::dead::sent_on(effects).collect();
        let Some(key) = &entry.envelope.idempotency_key else { return self.command(entry) };
        let mut content = Vec::new();
        codec::encode_command(&entry.envelope.command, &mut content);
        if let Some(known) = self.keys.get(key)
            && known.at + limits::IDEMPOTENCY_MS > self.now
        {
            let same =
                invariants::phantom::same_outcome(key, known.content == content, &known.reply, &entry.reply);
            self.bury(&BTreeSet::new());
            return same;
        }
        self.command(entry)?;
        if let Ok(reply) = &entry.reply
            && !matches!(reply, Reply::Fetched(jobs) if jobs.is_empty())
        {
            self.keys.insert(key.clone(), Remembered { content, at: self.now, reply: reply.clone() });
        }
        Ok(())
    }

    /// What schedules did by themselves.
    fn slots_fired(&mut self, effects: &[Effect]) -> Check {
        for (new, pushed) in self.slots.look(effects, self.now)? {
            self.push_one(&new, &pushed)?;
        }
        for key in slots::cancelled(effects) {
            if let Some(job) = self.jobs.get_mut(&key) {
                (job.lease, job.ended) = (None, true);
            }
        }
        Ok(())
    }

    /// Which jobs a join ended that they waited for. That it did so rightly is for the rule of joins to say.
    fn joins_failed(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Changed { queue, id, from: Some(State::WaitingChildren), to, .. } = effect else {
                continue;
            };
            if let Some(job) = self.jobs.get_mut(&(queue.clone(), id.clone())).filter(|job| job.continues) {
                job.ended |= to.is_final();
            }
        }
    }

    /// After the drain: whatever is not final by now was lost.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Check {
        self.now = self.now.max(now);
        self.lapse();
        for ((queue, id), job) in &self.jobs {
            if workload::strict(queue) && !job.ended && !job.expired(self.now) {
                return broken(
                    "I1",
                    format!("job {id} of {queue} was accepted and reached no final state: {job:?}"),
                );
            }
        }
        Ok(())
    }

    /// The job's lease ended by itself.
    fn lapse(&mut self) {
        while let Some(first) = self.leases.first()
            && first.0 <= self.now
            && let Some((until, token, key)) = self.leases.pop_first()
        {
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            let Some(lease) = job.lease.filter(|lease| lease.token == token && lease.until == until) else {
                continue;
            };
            job.lease = None;
            job.not_before = Timestamp::ZERO;
            if lease.timeout_at <= lease.until {
                job.ended = job.attempt >= job.attempts;
            } else {
                job.crashes += 1;
                job.ended = job.crashes >= job.max_crashes || job.attempt >= job.attempts;
            }
        }
    }

    fn key(&self, job: &JobRef) -> Option<Key> {
        let queue = job.queue.as_ref().or_else(|| self.queue_of.get(&job.id))?;
        Some((queue.clone(), job.id.clone()))
    }

    fn job(&mut self, job: &JobRef) -> Option<&mut Job> {
        let key = self.key(job)?;
        self.jobs.get_mut(&key)
    }

    /// Follows those who died by themselves to the queue of the dead; those that are settled as dead follow later.
    fn bury(&mut self, settled: &BTreeSet<JobId>) {
        for (id, to) in std::mem::take(&mut self.dying) {
            match settled.contains(&id) {
                true => drop(self.dying.insert(id, to)),
                false => self.send_on(&id, &to),
            }
        }
    }

    /// A job that has died waits in another queue: the same job, from its beginning.
    fn send_on(&mut self, id: &JobId, to: &QueueName) {
        let from = if *to == workload::letters() { workload::mortal() } else { workload::letters() };
        let Some(mut job) = self.jobs.remove(&(from.clone(), id.clone())) else { return };
        job.new.queue = to.clone();
        (job.attempt, job.crashes, job.expires_at, job.lease) = (0, 0, None, None);
        (job.stands_by, job.unique_until, job.latest, job.new.unique) = (None, None, None, None);
        (job.began, job.ended, job.not_before) = (false, false, Timestamp::ZERO);
        job.died_in = Some(from);
        if let JobId::Uuid(_) = id {
            self.queue_of.insert(id.clone(), to.clone());
        }
        self.jobs.insert((to.clone(), id.clone()), job);
    }

    fn command(&mut self, entry: &Entry) -> Check {
        let mut settled = BTreeSet::new();
        if let (Command::Settle { settlements }, Ok(Reply::Settled(replies))) =
            (&entry.envelope.command, &entry.reply)
        {
            let dead = settlements.iter().zip(replies);
            let dead = dead.filter(|(_, reply)| matches!(reply, Ok(Settled { state: State::Dead, .. })));
            settled.extend(dead.map(|(settlement, _)| settlement.lease.job.id.clone()));
        }
        self.bury(&settled);
        let reply = match &entry.reply {
            Ok(reply) => reply,
            Err(reject) => return self.refused(&entry.envelope.command, reject),
        };
        match (&entry.envelope.command, reply) {
            (Command::Push { jobs }, Reply::Pushed(pushed)) => self.push(jobs, pushed),
            (Command::Fetch { queues, .. }, Reply::Fetched(jobs)) => self.dispatch(queues, jobs),
            (Command::Renew { leases, .. }, Reply::Renewed(renewed)) => {
                leases.iter().zip(renewed).try_for_each(|(lease, renewed)| match renewed {
                    Ok(renewed) => self.renew(lease, renewed.lease_until),
                    Err(reject) => self.lease_refused(lease, reject),
                })
            }
            (Command::Settle { settlements }, Reply::Settled(settled)) => {
                settlements.iter().zip(settled).try_for_each(|(settlement, settled)| match settled {
                    Ok(settled) => self.settle(settlement, settled),
                    Err(reject) => self.lease_refused(&settlement.lease, reject),
                })
            }
            (Command::Progress { lease, .. } | Command::Log { lease, .. }, Reply::Done) => {
                self.held(lease, "reported").map(drop)
            }
            (Command::Step { lease, name, result }, Reply::Step(had)) => {
                let strict = self.key(&lease.job).is_some_and(|(queue, _)| workload::strict(&queue));
                let job = self.held(lease, "stored a step")?;
                if strict {
                    return job.steps.store(name, result, had.as_ref());
                }
                // Signals of the other queues are not followed: what they brought is heard of here.
                job.steps.hear(name, result, had.as_ref());
                Ok(())
            }
            (Command::Signal { job, name, body }, Reply::Signalled { buffered, .. }) => {
                self.signal(job, name, body, *buffered)
            }
            (Command::Cancel { job, .. }, Reply::Changed(_)) => {
                if let Some(key) = self.key(job) {
                    self.wake(&key);
                }
                if let Some(job) = self.job(job) {
                    (job.lease, job.ended) = (None, true);
                    job.steps.wait = None;
                }
                Ok(())
            }
            (Command::Promote { jobs }, Reply::Changed(_)) => {
                for job in jobs {
                    if let Some(job) = self.job(job) {
                        job.not_before = Timestamp::ZERO;
                    }
                }
                Ok(())
            }
            (Command::Redrive { jobs }, Reply::Changed(_)) => {
                jobs.iter().try_for_each(|job| self.redrive(job))
            }
            (Command::Join { graph }, Reply::Joined(joined)) => {
                self.joins.extend(joined.joins.iter().cloned());
                self.push_graph(graph, &joined.jobs)
            }
            (Command::CancelJoin { .. }, Reply::Done) => Ok(()),
            (Command::Restart { jobs }, Reply::Changed(_)) => jobs.iter().try_for_each(|job| {
                if let Some(job) = self.job(job) {
                    job.steps = Steps::default();
                }
                self.redrive(job)
            }),
            (Command::PatchBody { job, expected_crc, body }, Reply::Changed(_)) => {
                let (now, key) = (self.now, self.key(job));
                let Some(key) = key else { return Ok(()) };
                let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
                let strict = workload::strict(&key.0);
                invariants::patch::may_be_changed(job, &key, *expected_crc, strict, now)?;
                job.new.body = body.clone();
                Ok(())
            }
            (Command::Remove { jobs }, Reply::Done) => {
                for job in jobs {
                    if let Some(key) = self.key(job) {
                        self.jobs.values_mut().for_each(|job| job.steps.child_ended(&key));
                        self.jobs.remove(&key);
                    }
                }
                Ok(())
            }
            (Command::Pause { queue }, Reply::Done) => {
                self.queue(queue).paused = true;
                Ok(())
            }
            (Command::Resume { queue }, Reply::Done) => {
                self.queue(queue).paused = false;
                Ok(())
            }
            (Command::Configure { queue, .. }, Reply::Configured(settings)) => {
                self.queue(queue).settings = (**settings).clone();
                Ok(())
            }
            (Command::PutSchedule { id, spec }, Reply::Scheduled(scheduled)) => {
                self.slots.put(id, spec, scheduled.change, self.now);
                Ok(())
            }
            (Command::PauseSchedule { id }, Reply::Scheduled(_)) => {
                self.slots.pause(id, true, self.now);
                Ok(())
            }
            (Command::ResumeSchedule { id }, Reply::Scheduled(_)) => {
                self.slots.pause(id, false, self.now);
                Ok(())
            }
            (Command::RunSchedule { id }, Reply::Pushed(pushed)) => {
                let Some(new) = self.slots.run(id, self.now) else {
                    return broken("I18", format!("{id} was run and does not exist"));
                };
                self.push(&[new], pushed)
            }
            (Command::RemoveSchedule { id }, Reply::Done) => {
                self.slots.remove(id);
                Ok(())
            }
            (Command::SetLimit { pattern, limit }, Reply::Done) => {
                self.flow.set_limit(pattern, *limit);
                Ok(())
            }
            (Command::SetGroup { group, weight, paused, .. }, Reply::Done) => {
                self.flow.set_group(group, *paused);
                self.fair.set_group(group, *weight, *paused);
                Ok(())
            }
            (Command::Bulk(_), Reply::Operation(view)) => {
                self.operations.begin(view.id, entry.position);
                Ok(())
            }
            (Command::ControlBulk { .. }, Reply::Operation(_))
            | (Command::Tick | Command::Choose(_) | Command::RaiseTokens { .. }, Reply::Done) => Ok(()),
            (command, reply) => broken("I2", format!("{command:?} was answered with {reply:?}")),
        }
    }

    fn refused(&mut self, command: &Command, reject: &Reject) -> Check {
        match command {
            Command::Progress { lease, .. } | Command::Log { lease, .. } | Command::Step { lease, .. } => {
                self.lease_refused(lease, reject)
            }
            Command::PatchBody { job, expected_crc, .. } => {
                let Some(key) = self.key(job).filter(|(queue, _)| workload::strict(queue)) else {
                    return Ok(());
                };
                self.jobs.get(&key).map_or(Ok(()), |job| {
                    invariants::patch::refused_rightly(job, &key, *expected_crc, reject, self.now)
                })
            }
            _ => Ok(()),
        }
    }

    fn queue(&mut self, name: &QueueName) -> &mut Queue {
        self.queues.entry(name.clone()).or_insert_with(|| Queue {
            paused: false,
            settings: QueueSettings::DEFAULT,
            unique: BTreeMap::new(),
            throttled: BTreeMap::new(),
        })
    }

    fn push(&mut self, jobs: &[NewJob], pushed: &[Pushed]) -> Check {
        if jobs.len() != pushed.len() {
            return broken("I2", "a push was answered for another number of jobs");
        }
        jobs.iter().zip(pushed).try_for_each(|(new, pushed)| self.push_one(new, pushed))
    }

    fn push_one(&mut self, new: &NewJob, pushed: &Pushed) -> Check {
        let now = self.now;
        let key = (new.queue.clone(), pushed.id.clone());
        let strict = workload::strict(&new.queue);
        let by_id = new.id.as_ref() == Some(&pushed.id);
        let throttled = self.throttled(new).filter(|_| !(by_id && pushed.deduplicated));
        if let Some(first) = throttled
            && (!pushed.deduplicated || first != pushed.id)
        {
            return broken("I12", format!("{new:?} met a throttled key of {first} and was given {pushed:?}"));
        }
        let known = self.jobs.get(&key);
        if pushed.deduplicated {
            return match known {
                Some(_) if by_id => Ok(()),
                Some(_) => self.renew_content(key, new),
                // A throttled key remembers a job that is gone, or that was moved to another queue.
                None if pushed.forgotten || self.jobs.keys().any(|(_, id)| *id == pushed.id) => Ok(()),
                None => broken("I2", format!("a push found job {key:?}, which does not exist")),
            };
        }
        if strict && known.is_some_and(|job| !job.ended && !job.expired(now)) {
            return broken("I5", format!("a second job {key:?} was made while the first was live"));
        }
        self.numbers += 1;
        let settings = self.queue(&new.queue).settings.clone();
        let mut job = Job {
            not_before: (now + new.delay_ms).max(new.run_at.unwrap_or(now)),
            expires_at: new.expires_ms.map(|span| now + span),
            attempt: 0,
            attempts: new.attempts.unwrap_or(settings.attempts),
            crashes: 0,
            max_crashes: new.max_crashes.unwrap_or(settings.max_crashes),
            lease: None,
            started: false,
            began: false,
            ended: false,
            continues: false,
            steps: Steps::default(),
            new: new.clone(),
            unique_until: None,
            died_in: None,
            latest: None,
            stands_by: None,
            number: self.numbers,
        };
        if let Some(unique) = &new.unique {
            self.take_key(&mut job, unique, &key, strict)?;
        }
        if let JobId::Uuid(_) = pushed.id {
            self.queue_of.insert(pushed.id.clone(), new.queue.clone());
        }
        self.tell_parents(&key);
        self.jobs.insert(key, job);
        Ok(())
    }

    /// The first job of a throttled key, while its span lasts.
    fn throttled(&mut self, new: &NewJob) -> Option<JobId> {
        let unique = new.unique.as_ref().filter(|unique| unique.on_conflict == OnConflict::Throttle)?;
        let now = self.now;
        let (first, until) = self.queue(&new.queue).throttled.get(&unique.key)?;
        (*until > now).then(|| first.clone())
    }

    /// The live holder of a key, and the live job that stands by for it.
    fn hold(&mut self, queue: &QueueName, key: &CompactString) -> Option<Hold> {
        let hold = self.queue(queue).unique.get(key).cloned()?;
        let live = |id: &(JobId, u64)| {
            self.jobs
                .get(&(queue.clone(), id.0.clone()))
                .is_some_and(|job| job.number == id.1 && !job.ended && !job.expired(self.now))
        };
        let next = hold.next.filter(live);
        match live(&hold.holder) {
            true => Some(Hold { holder: hold.holder, next }),
            false => next.map(|holder| Hold { holder, next: None }),
        }
    }

    /// A new job takes its unique key, or stands by for it.
    fn take_key(&mut self, job: &mut Job, unique: &Unique, key: &Key, strict: bool) -> Check {
        let now = self.now;
        let me = (key.1.clone(), job.number);
        job.unique_until = (unique.ttl_ms > 0).then(|| now + unique.ttl_ms);
        if let OnConflict::Debounce { max_wait_ms } = unique.on_conflict {
            let latest = longest_wait(max_wait_ms, job.not_before, now);
            job.not_before = job.not_before.min(latest);
            job.latest = Some(latest);
            self.debounced.push((key.clone(), latest));
        }
        let held = self.hold(&key.0, &unique.key).and_then(|hold| {
            let holder = self.jobs.get(&(key.0.clone(), hold.holder.0.clone()))?.clone();
            let over = hold.next.is_none() && holder.unique_until.is_some_and(|until| until <= now);
            (!over).then_some((hold, holder))
        });
        let hold = match held {
            Some((hold, holder)) if strict => {
                invariants::unique::may_be_second(
                    &holder,
                    hold.next.is_some(),
                    unique.on_conflict,
                    &unique.key,
                )?;
                if let Some(holder) = self.jobs.get_mut(&(key.0.clone(), hold.holder.0.clone())) {
                    holder.unique_until = None;
                }
                job.stands_by = Some(hold.holder.clone());
                Hold { holder: hold.holder, next: Some(me) }
            }
            _ => Hold { holder: me, next: None },
        };
        let queue = self.queue(&key.0);
        queue.unique.insert(unique.key.clone(), hold);
        if unique.on_conflict == OnConflict::Throttle {
            queue.throttled.insert(unique.key.clone(), (key.1.clone(), now + unique.ttl_ms));
        }
        Ok(())
    }

    /// A push was answered with another job: under two rules that job has its content now.
    fn renew_content(&mut self, key: Key, new: &NewJob) -> Check {
        let Some(unique) = &new.unique else { return Ok(()) };
        let (now, strict) = (self.now, workload::strict(&new.queue));
        let settings = self.queue(&new.queue).settings.clone();
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        let wanted = (now + new.delay_ms).max(new.run_at.unwrap_or(now));
        match unique.on_conflict {
            OnConflict::Debounce { max_wait_ms } => {
                let latest = *job.latest.get_or_insert(longest_wait(max_wait_ms, wanted, now));
                job.not_before = wanted.min(latest);
                self.debounced.push((key.clone(), latest));
            }
            // It may start as soon as it could have, or as the new push asks for.
            OnConflict::KeepLast => job.not_before = job.not_before.min(wanted),
            OnConflict::Return | OnConflict::Reject | OnConflict::Replace | OnConflict::Throttle => {
                return Ok(());
            }
        }
        invariants::unique::may_be_renewed(job, &key, strict)?;
        job.expires_at = new.expires_ms.map(|span| now + span);
        job.attempts = new.attempts.unwrap_or(settings.attempts);
        job.max_crashes = new.max_crashes.unwrap_or(settings.max_crashes);
        job.unique_until = (unique.ttl_ms > 0).then(|| now + unique.ttl_ms);
        job.new = new.clone();
        Ok(())
    }

    fn dispatch(&mut self, queues: &[QueueName], dispatched: &[DispatchedJob]) -> Check {
        invariants::order::by_priority(queues, dispatched)?;
        for given in dispatched {
            let key = (given.queue.clone(), given.id.clone());
            let paused = self.queue(&given.queue).paused;
            self.wake(&key);
            if !self.jobs.contains_key(&key) {
                return broken("I2", format!("job {key:?} was handed out and nobody pushed it"));
            }
            let Some(job) = self.jobs.get(&key) else { continue };
            if job.continues {
                invariants::joins::may_start(given)?;
            }
            if let Some(join) = &given.children {
                invariants::joins::losers_are_gone(join, &self.shared)?;
            }
            let strict = workload::strict(&given.queue);
            if given.queue == workload::routed() {
                self.flow.may_start(&key, &self.jobs, self.now)?;
            }
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            invariants::phantom::is_what_was_pushed(job, given)?;
            if strict {
                if paused {
                    return broken("I2", format!("job {key:?} of a paused queue was handed out"));
                }
                invariants::phantom::not_resurrected(job, given, self.now)?;
                invariants::early::may_start(job, given, self.now)?;
                invariants::poison::crashes_are_counted(job, given)?;
                job.steps.may_start(given)?;
                if let Some((holder, number)) = job.stands_by.take() {
                    let holder = self.jobs.get(&(given.queue.clone(), holder));
                    let holder = holder.filter(|holder| holder.number == number);
                    invariants::unique::was_called(holder, &key, self.now)?;
                }
            }
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            invariants::leases::may_be_granted(job, given, self.token, strict)?;
            self.token = given.lease_token;
            (job.attempt, job.crashes) = (given.attempt, given.crashes);
            job.started = true;
            job.began = true;
            job.ended = false;
            let lease =
                Lease { token: given.lease_token, until: given.lease_until, timeout_at: given.timeout_at };
            job.lease = Some(lease);
            self.leases.insert((lease.until, lease.token, key));
        }
        Ok(())
    }

    /// The job of a lease that was accepted.
    fn held(&mut self, lease: &LeaseRef, verb: &'static str) -> Result<&mut Job, crate::history::Violation> {
        let Some(job) = self.job(&lease.job) else {
            return broken("I2", format!("{:?} was {verb} and does not exist", lease.job));
        };
        invariants::leases::was_live(job, lease, verb)?;
        Ok(job)
    }

    fn lease_refused(&mut self, lease: &LeaseRef, reject: &Reject) -> Check {
        let now = self.now;
        let strict = self.key(&lease.job).is_some_and(|(queue, _)| workload::strict(&queue));
        match self.job(&lease.job) {
            Some(job) if strict => invariants::leases::refused_rightly(job, lease, reject, now),
            _ => Ok(()),
        }
    }

    fn renew(&mut self, lease: &LeaseRef, until: Timestamp) -> Check {
        let job = self.held(lease, "renewed")?;
        let timeout_at = job.lease.map_or(Timestamp::ZERO, |lease| lease.timeout_at);
        let before = job.lease.map_or(Timestamp::ZERO, |lease| lease.until);
        if until > timeout_at || until < before {
            return broken(
                "I5",
                format!("lease {lease:?} was renewed from {before} to {until}, past {timeout_at}"),
            );
        }
        job.lease = Some(Lease { token: lease.token, until, timeout_at });
        if let Some(key) = self.key(&lease.job) {
            self.leases.insert((until, lease.token, key));
        }
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement, settled: &Settled) -> Check {
        let now = self.now;
        let job = self.held(&settlement.lease, "settled")?;
        job.lease = None;
        job.not_before = Timestamp::ZERO;
        let expected: &[State] = match &settlement.outcome {
            Outcome::Done { .. } => &[State::Completed],
            Outcome::Retry { .. } if job.attempt >= job.attempts => &[State::Dead],
            Outcome::Retry { after_ms, .. } => {
                job.not_before = now + after_ms.unwrap_or(0);
                &[State::Retrying, State::Waiting]
            }
            Outcome::Fail { .. } => &[State::Dead],
            Outcome::Snooze { after_ms } => {
                job.attempt -= 1;
                job.not_before = now + *after_ms;
                &[State::Delayed, State::Waiting]
            }
            Outcome::RateLimited { .. } => {
                job.attempt -= 1;
                &[State::Waiting]
            }
            Outcome::Crash(_) => {
                job.attempt -= 1;
                job.crashes += 1;
                invariants::poison::after_a_crash(job, workload::strict(&job.new.queue))
            }
            Outcome::Cancel { .. } => &[State::Cancelled],
            Outcome::Wait { .. } => {
                job.attempt -= 1;
                job.continues = true;
                &[State::WaitingChildren]
            }
            Outcome::Suspend { step, until } => {
                job.attempt -= 1;
                let strict = workload::strict(&job.new.queue);
                let expected = self.suspend(&settlement.lease.job, step, until, settled.state)?;
                if strict && settled.state != expected {
                    return broken("I14", format!("{settlement:?} led to {}, not {expected}", settled.state));
                }
                return self.push(&settlement.push, &settled.pushed);
            }
        };
        job.ended = settled.state.is_final();
        if !expected.contains(&settled.state) {
            return broken("I5", format!("{settlement:?} led to {}", settled.state));
        }
        if let Some(to) = self.dying.remove(&settlement.lease.job.id) {
            self.send_on(&settlement.lease.job.id, &to);
        }
        let Outcome::Wait { children } = &settlement.outcome else {
            return self.push(&settlement.push, &settled.pushed);
        };
        let (jobs, follow_up) = settled.pushed.split_at(children.jobs.len().min(settled.pushed.len()));
        self.push_graph(children, jobs)?;
        self.push(&settlement.push, follow_up)
    }

    /// The jobs of a graph, and what it makes of them.
    fn push_graph(&mut self, graph: &Graph, pushed: &[Pushed]) -> Check {
        let jobs: Vec<NewJob> = graph.jobs.iter().map(|named| named.job.clone()).collect();
        self.push(&jobs, pushed)?;
        for (named, pushed) in graph.jobs.iter().zip(pushed) {
            let joins = graph.joins.iter().filter(|join| join.members.contains(&named.name)).count();
            // A job that was there already may be in other joins, too.
            if joins > 1 || pushed.deduplicated {
                self.shared.insert(pushed.id.clone());
            }
            let leads = graph.joins.iter().any(|join| join.then.as_ref() == Some(&named.name));
            if let Some(job) = self.jobs.get_mut(&(named.job.queue.clone(), pushed.id.clone())) {
                job.continues |= leads;
            }
        }
        Ok(())
    }

    /// What follows from a suspension. In a loose queue the job may have become something else behind the shadow's back.
    fn suspend(
        &mut self,
        at: &JobRef,
        step: &CompactString,
        until: &Until,
        told: State,
    ) -> Result<State, crate::history::Violation> {
        let now = self.now;
        let Some(job) = self.job(at) else { return Ok(State::Waiting) };
        match until {
            Until::Time { after_ms } => {
                if job.steps.stored.contains_key(step) {
                    return Ok(State::Waiting);
                }
                job.steps.stored.insert(step.clone(), Value::Slept);
                job.not_before = now + *after_ms;
                Ok(if *after_ms == 0 { State::Waiting } else { State::Delayed })
            }
            Until::Signal { name, timeout_ms } => Ok(job.steps.await_signal(step, name, *timeout_ms, now)),
            Until::Child { job: child } => {
                let (queue, id) = match job.steps.stored.get(step) {
                    Some(Value::Child { queue, id, ended: false }) => (queue.clone(), id.clone()),
                    Some(_) => return Ok(State::Waiting),
                    // A signal that was not followed holds the step's name.
                    None if !workload::strict(&job.new.queue) && told != State::WaitingChildren => {
                        return Ok(told);
                    }
                    None => {
                        let Some(id) = child.id.clone() else { return Ok(State::WaitingChildren) };
                        let value = Value::Child { queue: child.queue.clone(), id: id.clone(), ended: false };
                        job.steps.stored.insert(step.clone(), value);
                        let pushed = Pushed {
                            id: id.clone(),
                            state: State::Waiting,
                            deduplicated: false,
                            forgotten: false,
                        };
                        self.push_one(child, &pushed)?;
                        (child.queue.clone(), id)
                    }
                };
                if self.has_ended(&(queue.clone(), id.clone())) {
                    return Ok(State::Waiting);
                }
                if let Some(job) = self.job(at) {
                    job.steps.wait = Some(Wait::Child(queue, id));
                }
                Ok(State::WaitingChildren)
            }
        }
    }

    fn has_ended(&self, key: &Key) -> bool {
        self.jobs.get(key).is_none_or(|job| job.ended || job.expired(self.now))
    }

    /// The parents of a job that has ended have heard of it, before it gets another life or another job gets its id.
    fn tell_parents(&mut self, key: &Key) {
        if self.jobs.contains_key(key) && self.has_ended(key) {
            self.jobs.values_mut().for_each(|job| job.steps.child_ended(key));
        }
    }

    /// What a job waits for may have come by now.
    fn wake(&mut self, key: &Key) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.steps.lapse(now);
        if let Some(Wait::Child(queue, id)) = job.steps.wait.clone()
            && self.has_ended(&(queue, id))
            && let Some(job) = self.jobs.get_mut(key)
        {
            job.steps.wait = None;
        }
    }

    fn signal(&mut self, job: &JobRef, name: &CompactString, body: &Bytes, buffered: bool) -> Check {
        let now = self.now;
        let Some(key) = self.key(job) else { return Ok(()) };
        self.wake(&key);
        let Some(job) = self.jobs.get_mut(&key).filter(|_| workload::strict(&key.0)) else { return Ok(()) };
        if job.ended || job.expired(now) {
            return broken("I14", format!("job {key:?} has ended and was signalled"));
        }
        job.steps.signal(name, body, buffered)
    }

    fn redrive(&mut self, job: &JobRef) -> Check {
        let now = self.now;
        let Some(key) = self.key(job) else { return Ok(()) };
        let strict = workload::strict(&key.0);
        self.tell_parents(&key);
        if let Some(job) = self.jobs.get_mut(&key) {
            if strict && !job.ended && !job.expired(now) {
                return broken("I5", format!("live job {key:?} was redriven"));
            }
            (job.attempt, job.crashes, job.expires_at, job.lease) = (0, 0, None, None);
            job.stands_by = None;
            let ended = (key.1.clone(), job.number);
            if let Some(unique) = &job.new.unique {
                let hold = Hold { holder: ended.clone(), next: None };
                let unique = unique.key.clone();
                self.queues.entry(key.0.clone()).and_modify(|queue| drop(queue.unique.insert(unique, hold)));
            }
            (job.began, job.ended, job.not_before) = (false, false, Timestamp::ZERO);
            // Who stood by for it was called when it ended, before this life.
            let called = |other: &&mut Job| other.stands_by.as_ref() == Some(&ended);
            self.jobs.values_mut().filter(called).for_each(|other| other.stands_by = None);
        }
        Ok(())
    }
}

impl Job {
    /// Whether a worker has it.
    pub(crate) fn is_leased(&self, now: Timestamp) -> bool {
        self.lease.is_some_and(|lease| lease.until > now)
    }

    /// Whether it holds its ordering key.
    pub(crate) fn holds(&self) -> bool {
        self.began && !self.ended
    }

    pub(crate) fn ordering_key(&self) -> Option<&CompactString> {
        self.new.route.as_ref().and_then(|route| route.ordering_key.as_ref())
    }

    /// What it takes of a limit while it runs.
    pub(crate) fn cost_of(&self, key: &CompactString) -> u64 {
        let limits = self.new.route.iter().flat_map(|route| &route.limits);
        limits.filter(|used| used.key == *key).map(|used| u64::from(used.cost)).sum()
    }

    /// It ran out of time before it was started.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        !self.started && self.expires_at.is_some_and(|at| at <= now)
    }
}

/// Beyond this, a debounced job does not wait.
fn longest_wait(max_wait_ms: u64, wanted: Timestamp, now: Timestamp) -> Timestamp {
    now + if max_wait_ms > 0 { max_wait_ms } else { limits::DEBOUNCE_WAITS * (wanted - now) }
}
