//! The driver without threads: a call is logged, applied and answered where it is made, and time passes when somebody says so.

use super::{Caller, Message, Outcome, Shared, jobs_of};
use crate::{driver::Driver, recover::Recovered, waiters::Waiter, writer::Writer};
use kit::Timestamp;
use std::sync::{Arc, PoisonError};

/// A node that somebody steps through.
pub(crate) struct Machine {
    driver: Driver<Caller>,
    writer: Writer,
    shared: Arc<Shared>,
    now: Timestamp,
}

impl Machine {
    pub(crate) fn new(recovered: Recovered<Caller>, shared: Arc<Shared>, now: Timestamp) -> Self {
        let Recovered { driver, writer, .. } = recovered;
        Self { driver, writer, shared, now }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Sets the clock, unless it would run backwards, and does what is due by then.
    pub(crate) fn set(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.work();
    }

    pub(crate) fn next_move(&self) -> Option<Timestamp> {
        self.driver.shard().next_move()
    }

    pub(crate) fn take(&mut self, message: Message) {
        match message {
            Message::Call { packed, level, caller } => {
                self.shared.gate.leave(1, packed.len());
                // There is no disk whose levels could be told apart.
                let refused = self.driver.offer(caller, packed, level.min(kit::Durability::Memory));
                self.answer_all(refused);
            }
            Message::Fetch { packed, level, caller, number, wait_ms } => {
                self.shared.gate.leave(1, 0);
                let level = level.min(kit::Durability::Memory);
                let waiter = Waiter { number, ticket: caller, packed, level, until: self.now + wait_ms };
                let answered = self.driver.fetch(waiter, self.now);
                self.answer_all(answered);
            }
            Message::Push { packed, level, caller, number, wait_ms } => {
                self.shared.gate.leave(1, packed.len());
                let level = level.min(kit::Durability::Memory);
                let waiter = Waiter { number, ticket: caller, packed, level, until: self.now + wait_ms };
                let refused = self.driver.push(waiter, self.now);
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
            Message::HandBack(jobs) => self.driver.hand_back(&jobs),
            Message::Listen => self.shared.feed.begin(self.driver.shard().position()),
            Message::Read(read) => {
                self.shared.gate.leave(1, 0);
                read(self.driver.shard());
            }
            Message::View { job, caller } => {
                self.shared.gate.leave(1, 0);
                // Whoever asked may have left.
                let _ = caller.send(Ok(self.driver.shard().job(&job)));
            }
            Message::Failed(reason) => {
                let answers = self.driver.fail_all(reason);
                self.answer_all(answers);
            }
            Message::Stop { done, .. } => {
                let answers = self.driver.stop();
                self.answer_all(answers);
                self.work();
                self.shared.feed.close();
                let _ = done.send(Ok(()));
            }
            // These come from threads, of which there are none.
            Message::Written(_) | Message::Stored(..) | Message::Loaded(_) => {}
            // Nothing is kept in a directory.
            Message::Freeze(_) => self.shared.gate.leave(1, 0),
        }
        self.work();
    }

    /// Does everything that is due and everything that was asked for.
    fn work(&mut self) {
        loop {
            let expired = self.driver.expire(self.now);
            self.answer_all(expired);
            let Some(mut sealed) = self.driver.seal(self.now) else { break };
            self.writer.write(&mut sealed);
            let want = self.shared.feed.recording();
            self.driver.want_changes(want);
            let committed = self.driver.commit(sealed);
            self.answer_all(committed.answers);
            self.shared.revocations.publish(&committed.effects);
            if want {
                self.shared.feed.publish(&committed.effects, self.driver.shard().position());
            }
        }
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.driver.stats();
    }

    fn answer_all(&mut self, answers: impl IntoIterator<Item = (Caller, Outcome)>) {
        for (caller, outcome) in answers {
            if let Err(unheard) = caller.0.send(outcome) {
                self.driver.hand_back(jobs_of(&unheard));
            }
        }
    }
}
