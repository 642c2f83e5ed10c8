use super::{
    Caller, Message, Outcome, Shared,
    body_thread::{Loaded, Purpose, Task, read_bodies},
    clock::Clock,
    threads::{self, Stored},
};
use crate::{
    answer::{Answer, CallError, Poison, Scarce},
    driver::{Answered, Driver, Packed, Sealed},
    options::Options,
    recover::Recovered,
    waiters::Waiter,
    writer::Writer,
};
use bytes::Bytes;
use model::{DispatchedJob, JobRef, JobView, Reply};
use std::{
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use storage::Frozen;
use tokio::sync::oneshot;

/// A batch up to this size is written by the shard's own thread: waking another costs more than it saves.
const INLINE_CALLS: usize = 16;
/// The same, in bytes.
const INLINE_BYTES: usize = 64 << 10;
/// Batches in the log at once: one is written, the next waits behind it.
const IN_FLIGHT_MAX: usize = 2;
/// Messages taken before the shard does something about them.
const DRAIN_MAX: usize = 4_096;
/// Bodies read ahead at once, at least.
const AHEAD_MIN: usize = 1_024;

/// The thread that owns the shard.
pub(crate) struct ShardThread {
    driver: Driver<Caller>,
    writer: Arc<Writer>,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    clock: Clock,
    body_budget: u64,
    tasks_max: usize,
    log: Sender<Sealed<Caller>>,
    checkpoints: Sender<Stored>,
    /// Who waits for a checkpoint that reaches to a position.
    freezing: Vec<(u64, Freezer)>,
    bodies: Sender<Task>,
    /// Batches that the log thread has, and commands in the last of them.
    in_flight: usize,
    in_flight_calls: usize,
    /// Batches that came back from the log thread, to be committed in this order.
    written: VecDeque<Sealed<Caller>>,
    /// Tasks that the body thread has.
    reading: usize,
    reading_ahead: bool,
    /// More bodies could leave the memory.
    evicting: bool,
    stop: Option<Stop>,
}

type Freezer = oneshot::Sender<Result<Box<dyn Frozen>, CallError>>;

struct Stop {
    until: Instant,
    /// Whether a last checkpoint is still to be taken.
    checkpoint: bool,
    done: oneshot::Sender<Result<(), CallError>>,
}

impl ShardThread {
    /// Runs until the pond is stopped or its log fails. When this returns, all threads have ended and nothing is open.
    pub(crate) fn run(
        recovered: Recovered<Caller>,
        options: &Options,
        shared: Arc<Shared>,
        inbox: Sender<Message>,
        messages: Receiver<Message>,
    ) {
        let Recovered { driver, writer, keeper } = recovered;
        let writer = Arc::new(writer);
        let (log, sealed) = channel();
        let (checkpoints, snapshots) = channel();
        let (bodies, tasks) = channel();
        let reader = keeper.reader();
        let (log_writer, log_shared, checkpoint_writer) = (writer.clone(), shared.clone(), writer.clone());
        let (log_inbox, checkpoint_inbox) = (inbox.clone(), inbox.clone());
        let threads = [
            threads::spawn("log", move || threads::write_log(&sealed, &log_inbox, &log_writer, &log_shared)),
            threads::spawn("checkpoint", move || {
                threads::write_checkpoints(&snapshots, &checkpoint_inbox, keeper, &checkpoint_writer);
            }),
            threads::spawn("bodies", move || read_bodies(&tasks, &inbox, &reader)),
        ];
        let mut handles: Vec<JoinHandle<()>> = Vec::new();
        for thread in threads {
            match thread {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    let _ = shared.poison.set(error.to_string().into());
                }
            }
        }
        let mut this = Self {
            clock: Clock::new(driver.shard().time()),
            driver,
            writer,
            shared: shared.clone(),
            messages,
            body_budget: options.body_budget,
            tasks_max: options.pending_max,
            log,
            checkpoints,
            bodies,
            in_flight: 0,
            in_flight_calls: 0,
            written: VecDeque::new(),
            freezing: Vec::new(),
            reading: 0,
            reading_ahead: false,
            evicting: true,
            stop: None,
        };
        if shared.poison.get().is_none() {
            let outcome = catch_unwind(AssertUnwindSafe(|| this.serve()));
            if let Err(panic) = outcome {
                let _ = shared.poison.set(threads::describe(&*panic));
            }
        }
        this.end(handles);
    }

    fn serve(&mut self) {
        self.read_ahead(AHEAD_MIN);
        loop {
            self.shared.pulse.rest();
            let message = self.wait();
            self.shared.pulse.turn();
            if let Some(message) = message {
                self.take(message);
                self.drain();
            }
            if self.advance().is_err() || self.finished() {
                return;
            }
        }
    }

    /// The next message; none if something else is to be done first.
    fn wait(&mut self) -> Option<Message> {
        let ready = !self.written.is_empty() || self.evicting || self.driver.pending() > 0 && self.may_seal();
        if ready {
            return self.messages.try_recv().ok();
        }
        // While the log is busy with all it may have, what is due waits for its answer.
        let now = self.clock.now();
        let due = self.driver.next_due().filter(|due| *due > now || self.may_seal());
        let due = due.map(|due| Duration::from_millis(due - now));
        let stop = self.stop.as_ref().map(|stop| stop.until.saturating_duration_since(Instant::now()));
        match [due, stop].into_iter().flatten().min() {
            // Nothing is due, ever: this thread does not run again before somebody calls.
            None => self.messages.recv().ok(),
            Some(Duration::ZERO) => self.messages.try_recv().ok(),
            // This thread holds senders of its own channel, so that the only error is that time is up.
            Some(wait) => self.messages.recv_timeout(wait).ok(),
        }
    }

    fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            match self.messages.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Call { packed, level, caller } => {
                self.shared.gate.leave(1, packed.len());
                let refused = self.driver.offer(caller, packed, level);
                self.answer_all(refused);
            }
            Message::Fetch { packed, level, caller, number, wait_ms } => {
                self.shared.gate.leave(1, 0);
                self.fetch(packed, level, caller, number, wait_ms);
            }
            Message::Push { packed, level, caller, number, wait_ms } => {
                self.shared.gate.leave(1, packed.len());
                // Only a push that ends its wait by itself needs a clock.
                let ends = wait_ms > 0 && wait_ms < kit::Millis::MAX;
                let now = if ends { self.clock.now() } else { self.driver.shard().time() };
                let waiter = Waiter { number, ticket: caller, packed, level, until: now + wait_ms };
                let refused = self.driver.push(waiter, now);
                self.answer_all(refused);
            }
            Message::Withdraw(number) => self.driver.withdraw(number),
            Message::EndWaits => {
                let answers = self.driver.stop();
                self.answer_all(answers);
            }
            Message::Producers { queue, caller } => {
                self.shared.gate.leave(1, 0);
                // Whoever asked may have left.
                let _ = caller.send(self.driver.producers(&queue));
            }
            Message::Listen => self.shared.feed.begin(self.driver.shard().position()),
            Message::HandBack(jobs) => self.driver.hand_back(&jobs),
            Message::Read(read) => {
                self.shared.gate.leave(1, 0);
                read(self.driver.shard());
            }
            Message::View { job, caller } => {
                self.shared.gate.leave(1, 0);
                self.view(job, caller);
            }
            Message::Written(sealed) => {
                self.in_flight -= 1;
                self.written.push_back(sealed);
            }
            Message::Stored(snapshot, true) => {
                self.driver.stored(snapshot.generation, snapshot.mark);
                self.evicting = true;
                self.freeze(snapshot.mark.position);
            }
            Message::Stored(snapshot, false) => {
                let now = self.clock.now();
                self.driver.not_stored(snapshot, now);
                for (_, caller) in self.freezing.drain(..) {
                    let _ = caller.send(Err(CallError::DiskFull));
                }
            }
            Message::Freeze(caller) => {
                self.shared.gate.leave(1, 0);
                self.freezing.push((self.driver.shard().position(), caller));
                self.freeze(0);
            }
            Message::Loaded(loaded) => self.loaded(loaded),
            Message::Failed(reason) => self.fail(reason),
            Message::Stop { until, checkpoint, done } => {
                let answers = self.driver.stop();
                self.answer_all(answers);
                self.stop.get_or_insert(Stop { until, checkpoint, done });
            }
        }
    }

    fn fetch(
        &mut self,
        packed: Packed,
        level: kit::Durability,
        caller: Caller,
        number: u64,
        wait_ms: kit::Millis,
    ) {
        // An impatient fetch needs no clock.
        let now = if wait_ms == 0 { self.driver.shard().time() } else { self.clock.now() };
        let waiter = Waiter { number, ticket: caller, packed, level, until: now + wait_ms };
        let answered = self.driver.fetch(waiter, now);
        self.answer_all(answered);
    }

    /// Does everything that is due. Fails when the log has failed.
    fn advance(&mut self) -> Result<(), Poison> {
        let now = self.clock.now();
        let expired = self.driver.expire(now);
        self.answer_all(expired);
        if self.driver.checkpoint_due().is_some_and(|due| due <= now) {
            self.checkpoint();
        }
        if let Some(unread) = self.driver.unread(now) {
            let cold = unread.jobs.iter().filter(|(_, body)| body.is_none()).map(|(sequence, _)| *sequence);
            self.load(cold.collect(), Purpose::Choose(unread));
        }
        self.write();
        // The next batch is on its way to the disk before the last one is applied.
        while let Some(sealed) = self.written.pop_front() {
            self.commit(sealed);
        }
        if self.evicting {
            let budget = self.body_budget;
            self.evicting = self.driver.shard_mut().evict_bodies(budget);
        }
        self.publish();
        self.driver.poison().cloned().map_or(Ok(()), Err)
    }

    /// Whether another batch may go to the log: always if it has none; a second one only if it is as large as the first, so
    /// that a few early commands do not cost those behind them a flush of their own.
    fn may_seal(&self) -> bool {
        match self.in_flight {
            0 => true,
            count => count < IN_FLIGHT_MAX && self.driver.pending() >= self.in_flight_calls,
        }
    }

    fn write(&mut self) {
        while self.may_seal() {
            let now = self.clock.now();
            let Some(mut sealed) = self.driver.seal(now) else { return };
            let small = sealed.len() <= INLINE_CALLS && sealed.bytes() <= INLINE_BYTES;
            // Batches that came back are not yet applied: this one must not overtake them.
            if self.in_flight == 0 && self.written.is_empty() && small && self.driver.pending() == 0 {
                self.shared.pulse.writing(|| self.writer.write(&mut sealed));
                self.commit(sealed);
                // Whoever came meanwhile shares the next flush.
                return;
            }
            self.in_flight += 1;
            self.in_flight_calls = sealed.len();
            if self.log.send(sealed).is_err() {
                return self.fail("the log's thread ended".into());
            }
        }
    }

    fn commit(&mut self, sealed: Sealed<Caller>) {
        let want = self.shared.feed.recording();
        self.driver.want_changes(want);
        let committed = self.driver.commit(sealed);
        let fetched = committed.answers.iter().map(|(_, outcome)| jobs_of(outcome).len()).sum::<usize>();
        if let Some(reason) = self.driver.poison() {
            // Before anybody hears of it, so that whoever does finds the pond closed.
            let _ = self.shared.poison.set(reason.clone());
        }
        self.answer_all(committed.answers);
        self.shared.revocations.publish(&committed.effects);
        if want {
            self.shared.feed.publish(&committed.effects, self.driver.shard().position());
        }
        if fetched > 0 {
            self.read_ahead(AHEAD_MIN.max(4 * fetched));
        }
    }

    fn answer_all(&mut self, answers: impl IntoIterator<Item = Answered<Caller>>) {
        for (caller, outcome) in answers {
            self.answer(caller, outcome);
        }
    }

    /// Answers a caller. Bodies that are on disk are read first; jobs for a caller who has left are handed back.
    fn answer(&mut self, caller: Caller, outcome: Outcome) {
        let cold: Vec<u64> =
            jobs_of(&outcome).iter().filter(|job| job.body.is_none()).map(|job| job.sequence).collect();
        match outcome {
            Ok(answer) if !cold.is_empty() => self.load(cold, Purpose::Answer(caller, answer)),
            outcome => {
                if let Err(unheard) = caller.0.send(outcome) {
                    self.driver.hand_back(jobs_of(&unheard));
                }
            }
        }
    }

    fn view(&mut self, job: JobRef, caller: oneshot::Sender<Result<Option<JobView>, CallError>>) {
        let found = match self.driver.shard().job(&job) {
            Some(view) if view.body.is_none() && view.body_bytes > 0 => {
                if self.reading < self.tasks_max {
                    return self.load(vec![view.sequence], Purpose::View(job, Box::new(view), caller));
                }
                Err(CallError::Overloaded { scarce: Scarce::Room, retry_after_ms: 100 })
            }
            found => Ok(found),
        };
        // Whoever asked may have left.
        let _ = caller.send(found);
    }

    fn load(&mut self, sequences: Vec<u64>, purpose: Purpose) {
        self.reading += 1;
        if self.bodies.send(Task { sequences, purpose }).is_err() {
            self.fail("the thread that reads bodies ended".into());
        }
    }

    /// Has bodies of jobs that start soon brought back into memory, one task at a time.
    fn read_ahead(&mut self, limit: usize) {
        let shard = self.driver.shard();
        if self.reading_ahead || shard.resident_bytes() >= self.body_budget {
            return;
        }
        let sequences = shard.cold_ahead(limit);
        if !sequences.is_empty() {
            self.reading_ahead = true;
            self.load(sequences, Purpose::Ahead);
        }
    }

    fn loaded(&mut self, Loaded { bodies, purpose }: Loaded) {
        self.reading -= 1;
        let (purpose, bodies) = match (purpose, bodies) {
            (Purpose::Chosen(unread, jobs), Ok(bodies)) => {
                // They were looked at once: they stay on disk.
                match self.all_sound(&bodies) {
                    Ok(()) => self.driver.choose(unread, jobs),
                    Err(damage) => drop(self.damaged(damage)),
                }
                return;
            }
            (purpose, bodies) => (purpose, bodies.and_then(|bodies| self.check(bodies))),
        };
        match purpose {
            Purpose::Ahead => {
                self.reading_ahead = false;
                if let Err(damage) = bodies {
                    self.damaged(damage);
                }
            }
            // The operation stands still; what is damaged is shown.
            Purpose::Choose(_) | Purpose::Chosen(..) => {
                if let Err(damage) = bodies {
                    self.damaged(damage);
                }
            }
            Purpose::View(job, view, caller) => {
                let found = match bodies {
                    Ok(bodies) => Ok(self.viewed(&job, *view, bodies)),
                    Err(damage) => Err(self.damaged(damage)),
                };
                let _ = caller.send(found);
            }
            Purpose::Answer(caller, mut answer) => {
                let outcome = match bodies {
                    Ok(bodies) => {
                        fill(&mut answer, bodies);
                        Ok(answer)
                    }
                    // The jobs stay leased: their leases end by themselves, and the retry shows the damage again.
                    Err(damage) => Err(self.damaged(damage)),
                };
                self.answer(caller, outcome);
            }
        }
    }

    /// Warms what was read. Bodies of jobs that are gone by now may be missing; for any other it is damage.
    fn check(&mut self, bodies: Vec<(u64, Option<Bytes>)>) -> Result<Vec<(u64, Option<Bytes>)>, String> {
        let shard = self.driver.shard_mut();
        let mut checked = Vec::with_capacity(bodies.len());
        for (sequence, body) in bodies {
            let body = match body {
                Some(body) if shard.warm(sequence, &body) => Some(body),
                // An empty slice is nobody's missing body, so this asks whether the job is still there.
                None if shard.is_body(sequence, b"") => None,
                _ => return Err(unreadable(sequence)),
            };
            checked.push((sequence, body));
        }
        Ok(checked)
    }

    /// The same without warming.
    fn all_sound(&self, bodies: &[(u64, Option<Bytes>)]) -> Result<(), String> {
        let shard = self.driver.shard();
        let wrong = |(sequence, body): &&(u64, Option<Bytes>)| {
            !shard.is_body(*sequence, body.as_deref().unwrap_or_default())
        };
        bodies.iter().find(wrong).map_or(Ok(()), |(sequence, _)| Err(unreadable(*sequence)))
    }

    fn viewed(&self, job: &JobRef, view: JobView, bodies: Vec<(u64, Option<Bytes>)>) -> Option<JobView> {
        // It may have changed, or gone, while its body was read.
        let now = self.driver.shard().job(job).filter(|now| now.sequence == view.sequence)?;
        let body = now.body.clone().or_else(|| bodies.into_iter().find_map(|(_, body)| body));
        Some(JobView { body, ..now })
    }

    fn damaged(&mut self, damage: String) -> CallError {
        let error = CallError::unknown(&damage);
        // The first one is shown; it is the one to look for.
        let _ = self.shared.damage.set(damage);
        error
    }

    fn checkpoint(&mut self) {
        if let Some(snapshot) = self.driver.snapshot() {
            self.store(Stored::Snapshot(snapshot));
        }
    }

    fn store(&mut self, task: Stored) {
        if self.checkpoints.send(task).is_err() {
            self.fail("the checkpoint's thread ended".into());
        }
    }

    /// Has the checkpoint frozen for those who wait for no more than it holds, which is everything up to `reached`; sees to it that the
    /// others get one. Under load there is always a newer change, so nobody waits for all of them.
    fn freeze(&mut self, reached: u64) {
        if self.freezing.is_empty() || self.driver.storing() {
            return;
        }
        for (position, caller) in mem::take(&mut self.freezing) {
            if position <= reached {
                self.store(Stored::Frozen(caller));
            } else {
                self.freezing.push((position, caller));
            }
        }
        if self.freezing.is_empty() {
            return;
        }
        if let Some(reason) = self.driver.poison() {
            let error = CallError::unknown(reason);
            for (_, caller) in self.freezing.drain(..) {
                let _ = caller.send(Err(error.clone()));
            }
            return;
        }
        match self.driver.snapshot() {
            Some(snapshot) => self.store(Stored::Snapshot(snapshot)),
            // Nothing has changed since the newest checkpoint.
            None => {
                for (_, caller) in mem::take(&mut self.freezing) {
                    self.store(Stored::Frozen(caller));
                }
            }
        }
    }

    fn fail(&mut self, reason: Poison) {
        let _ = self.shared.poison.set(reason.clone());
        let answers = self.driver.fail_all(reason);
        for (caller, outcome) in answers {
            let _ = caller.0.send(outcome);
        }
    }

    fn publish(&self) {
        let stats = self.driver.stats();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    /// Whether a stop has come to its end.
    fn finished(&mut self) -> bool {
        let Some(stop) = &mut self.stop else { return false };
        if Instant::now() >= stop.until {
            return true;
        }
        let busy =
            self.driver.pending() > 0 || self.in_flight > 0 || !self.written.is_empty() || self.reading > 0;
        if busy || stop.checkpoint && self.driver.storing() {
            return false;
        }
        if mem::take(&mut stop.checkpoint)
            && let Some(snapshot) = self.driver.snapshot()
            && self.checkpoints.send(Stored::Snapshot(snapshot)).is_ok()
        {
            // Come back when it is stored.
            return false;
        }
        !self.driver.storing()
    }

    /// Answers what is left, ends the other threads, and closes the log. Nothing is open afterwards, unless the disk did not
    /// answer before the deadline.
    fn end(mut self, threads: Vec<JoinHandle<()>>) {
        let late = self.stop.as_ref().is_some_and(|stop| Instant::now() >= stop.until)
            && (self.in_flight > 0 || self.driver.storing() || self.reading > 0);
        let reason = self.shared.poison.get().cloned();
        let reason = reason.unwrap_or_else(|| "the pond stopped before it answered".into());
        for (caller, outcome) in self.driver.fail_all(reason) {
            let _ = caller.0.send(outcome);
        }
        self.shared.feed.close();
        let Self { writer, shared, messages, log, checkpoints, bodies, stop, driver, .. } = self;
        drop((log, checkpoints, bodies));
        let closed = if late {
            Err("the deadline passed while the disk was still busy; the directory is free when this process ends".into())
        } else {
            for thread in threads {
                // A panic was told by message already.
                let _ = thread.join();
            }
            shared.poison.get().map_or_else(|| writer.close(), |reason| Err(reason.clone()))
        };
        drop((writer, driver, messages));
        if let Some(stop) = stop {
            let _ = stop.done.send(closed.map_err(|reason: Poison| CallError::unknown(&reason)));
        }
    }
}

pub(crate) fn jobs_of(outcome: &Outcome) -> &[DispatchedJob] {
    match outcome {
        Ok(Answer { reply: Reply::Fetched(jobs), .. }) => jobs,
        _ => &[],
    }
}

/// Puts bodies into the jobs of a fetch. A job that is gone by now, and its body with it, is left out: its lease has ended.
fn fill(answer: &mut Answer, bodies: Vec<(u64, Option<Bytes>)>) {
    let Reply::Fetched(jobs) = &mut answer.reply else { return };
    // Both are in the same order.
    let mut bodies = bodies.into_iter().peekable();
    for job in jobs.iter_mut().filter(|job| job.body.is_none()) {
        job.body = bodies.next_if(|(sequence, _)| *sequence == job.sequence).and_then(|(_, body)| body);
    }
    jobs.retain(|job| job.body.is_some());
}

fn unreadable(sequence: u64) -> String {
    format!(
        "the body of job number {sequence} cannot be read from the checkpoint: missing or damaged; restore the directory from a backup"
    )
}
