use crate::{
    answer::Poison,
    batch,
    driver::{Sealed, Written},
};
use kit::{Durability, Millis, Timestamp};
use model::{BulkAction, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use storage::{Entry, Log, LogError};

/// On a full disk, an ordinary append is tried again after this long.
const PROBE_MS: Millis = 200;

/// The log's side of the driver: writes sealed batches, in order. May be used from any thread, by one at a time.
///
/// After the first failure nothing is written any more, and every batch comes back as unknown.
pub struct Writer(Mutex<Inner>);

struct Inner {
    log: Box<dyn Log>,
    /// Given to the next command that the log takes.
    position: u64,
    /// Something appended has not reached the disk.
    unflushed: bool,
    /// While the disk is full: when the next ordinary append is tried.
    probe_at: Option<Timestamp>,
    poison: Option<Poison>,
}

impl Writer {
    pub(crate) fn new(log: Box<dyn Log>, position: u64) -> Self {
        Self(Mutex::new(Inner { log, position, unflushed: false, probe_at: None, poison: None }))
    }

    /// Appends a batch and flushes to its level; what became of it is kept in the batch, for the commit.
    pub fn write<T>(&self, sealed: &mut Sealed<T>) {
        let mut inner = self.lock();
        sealed.outcome = match inner.write(sealed) {
            Ok(written) => written,
            Err(reason) => Written::Unknown(reason),
        };
    }

    /// Brings everything appended so far to the strongest level of the log, up to `disk`.
    pub fn sync(&self) -> Result<(), Poison> {
        self.lock().sync()
    }

    /// Allows the log to forget the records before `first_to_keep`.
    pub fn trim(&self, first_to_keep: u64) -> Result<(), Poison> {
        let mut inner = self.lock();
        inner.check()?;
        let outcome = inner.log.trim(first_to_keep);
        outcome.map_err(|error| inner.fail(&error))
    }

    /// Flushes and lets go of the log.
    pub fn close(&self) -> Result<(), Poison> {
        let mut inner = self.lock();
        inner.check()?;
        let outcome = inner.log.close();
        outcome.map_err(|error| inner.fail(&error))
    }

    /// A panic inside a log leaves it in a state that nobody knows, as a failed write does.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut inner = poisoned.into_inner();
            inner.poison.get_or_insert_with(|| "the log panicked; restart".into());
            inner
        })
    }
}

impl Inner {
    fn write<T>(&mut self, sealed: &mut Sealed<T>) -> Result<Written, Poison> {
        self.check()?;
        let first = self.position;
        let index = if sealed.is_empty() { None } else { self.append(sealed)? };
        if index.is_some() {
            self.unflushed = true;
        }
        let durability = sealed.level();
        self.flush(durability)?;
        Ok(Written::Yes { first, index, durability, full: self.probe_at.is_some() })
    }

    /// Appends what the disk takes: everything, or the commands that work in hand needs, or nothing.
    fn append<T>(&mut self, sealed: &mut Sealed<T>) -> Result<Option<u64>, Poison> {
        // By the clock, which may run backwards; the log's time may stand still until it has come back.
        let probe = self.probe_at.is_none_or(|at| sealed.now >= at || sealed.now + PROBE_MS < at);
        if probe {
            if let Some(index) = self.put(sealed, false)? {
                self.probe_at = None;
                return Ok(Some(index));
            }
            self.probe_at = Some(sealed.now + PROBE_MS);
        }
        leave_out_new_work(sealed);
        if sealed.calls.iter().all(|call| call.left_out) {
            return Ok(None);
        }
        let index = self.put(sealed, true)?;
        if index.is_none() {
            sealed.calls.iter_mut().for_each(|call| call.left_out = true);
        }
        Ok(index)
    }

    /// `None` if the disk is full.
    fn put<T>(&mut self, sealed: &mut Sealed<T>, reserved: bool) -> Result<Option<u64>, Poison> {
        let count = sealed.calls.iter().filter(|call| !call.left_out).count();
        batch::seal(
            &mut sealed.payload,
            sealed.time,
            self.position,
            u32::try_from(count).unwrap_or(u32::MAX),
        );
        let entry = [Entry { shard: crate::SHARD, payload: &sealed.payload }];
        let outcome = if reserved { self.log.append_reserved(&entry) } else { self.log.append(&entry) };
        match outcome {
            Ok(index) => {
                self.position += count as u64;
                Ok(Some(index))
            }
            Err(LogError::Full { .. }) => Ok(None),
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn flush(&mut self, level: Durability) -> Result<(), Poison> {
        let outcome = self.log.flush(level);
        outcome.map_err(|error| self.fail(&error))?;
        self.unflushed &= level < Durability::Disk;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Poison> {
        self.check()?;
        if self.unflushed { self.flush(self.log.strongest().min(Durability::Disk)) } else { Ok(()) }
    }

    fn check(&self) -> Result<(), Poison> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: &LogError) -> Poison {
        self.poison.get_or_insert_with(|| error.to_string().into()).clone()
    }
}

/// Keeps, in order, only the commands that must still work when the disk is full.
fn leave_out_new_work<T>(sealed: &mut Sealed<T>) {
    let mut payload = batch::blank(Vec::new());
    let mut start = batch::HEADER;
    for call in &mut sealed.calls {
        let bytes = start..call.end;
        start = call.end;
        call.left_out = is_new_work(call.command());
        if !call.left_out {
            payload.extend_from_slice(&sealed.payload[bytes]);
        }
        call.end = payload.len();
    }
    sealed.payload = payload;
}

/// Whether a command makes the state grow without finishing anything. Spelled out, so that a new command is decided here.
pub(crate) fn is_new_work(command: &Command) -> bool {
    match command {
        Command::Push { .. }
        | Command::Join { .. }
        | Command::Progress { .. }
        | Command::Log { .. }
        | Command::Redrive { .. }
        | Command::Configure { .. }
        | Command::SetLimit { .. }
        | Command::SetGroup { .. }
        | Command::PutSchedule { .. }
        | Command::RunSchedule { .. }
        | Command::Signal { .. }
        | Command::Restart { .. }
        | Command::PatchBody { .. } => true,
        // Without jobs it seals a join, so that it can end.
        Command::Extend { jobs, .. } => !jobs.is_empty(),
        Command::Bulk(asked) => match asked.action {
            BulkAction::Redrive
            | BulkAction::Retag { .. }
            | BulkAction::Reprioritise { .. }
            | BulkAction::Move { .. } => true,
            BulkAction::Purge | BulkAction::Remove | BulkAction::Cancel | BulkAction::Promote => false,
        },
        Command::Fetch { .. }
        | Command::CancelJoin { .. }
        | Command::Renew { .. }
        | Command::Settle { .. }
        // What was done must not be done again.
        | Command::Step { .. }
        | Command::Cancel { .. }
        | Command::Promote { .. }
        | Command::Remove { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::PauseSchedule { .. }
        | Command::ResumeSchedule { .. }
        | Command::RemoveSchedule { .. }
        | Command::ControlBulk { .. }
        | Command::Choose(_)
        | Command::RaiseTokens { .. }
        | Command::Tick => false,
    }
}
