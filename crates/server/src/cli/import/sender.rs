//! Batches to the server: a few at once, repeated until confirmed, confirmed in order.

use super::{
    batch::Batch,
    state::{Progress, StateFile},
};
use crate::{
    cli::failure::Failure,
    client::{Client, ClientError, Extras},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kit::Millis;
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

/// How long batches under way may take to be answered after Ctrl-C.
const FAREWELL: Duration = Duration::from_secs(5);

/// Sends batches.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) queue: String,
    pub(super) durability: Option<&'static str>,
    pub(super) in_flight: usize,
    pub(super) patience_ms: Millis,
    pub(super) state: Option<StateFile>,
    pub(super) bar: ProgressBar,
}

/// A batch that the server has taken.
struct Confirmed {
    batch: Batch,
    added: u64,
    present: u64,
}

type Sent = Result<Result<Confirmed, ClientError>, JoinError>;

impl Sender {
    /// Sends all batches; answers with how far it came, and why no further.
    pub(super) async fn run(
        self,
        mut batches: mpsc::Receiver<Result<Batch, Failure>>,
        begun: Progress,
    ) -> (Progress, Result<(), Failure>) {
        let rejected_before = begun.rejected;
        let mut ledger = Ledger { progress: begun, rejected_before, out_of_order: BTreeMap::new(), next: 0 };
        let ended = self.drive(&mut batches, &mut ledger).await;
        let ended = ended.and_then(|()| {
            ledger.progress.done = true;
            self.save(&ledger.progress)
        });
        self.bar.finish_and_clear();
        (ledger.progress, ended)
    }

    async fn drive(
        &self,
        batches: &mut mpsc::Receiver<Result<Batch, Failure>>,
        ledger: &mut Ledger,
    ) -> Result<(), Failure> {
        let mut under_way: JoinSet<Result<Confirmed, ClientError>> = JoinSet::new();
        let mut reading = true;
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        while reading || !under_way.is_empty() {
            tokio::select! {
                _ = &mut interrupt => return self.farewell(under_way, ledger).await,
                Some(sent) = under_way.join_next() => self.confirm(sent, ledger)?,
                batch = batches.recv(), if reading && under_way.len() < self.in_flight => match batch {
                    None => reading = false,
                    Some(batch) => drop(under_way.spawn(self.clone_for_call().send(batch?))),
                },
            }
        }
        Ok(())
    }

    /// Lets what is under way arrive, so that the next run has less to repeat.
    async fn farewell(
        &self,
        mut under_way: JoinSet<Result<Confirmed, ClientError>>,
        ledger: &mut Ledger,
    ) -> Result<(), Failure> {
        let drain = async {
            while let Some(sent) = under_way.join_next().await {
                self.confirm(sent, ledger)?;
            }
            Ok::<(), Failure>(())
        };
        tokio::select! {
            drained = tokio::time::timeout(FAREWELL, drain) => drained.unwrap_or(Ok(()))?,
            _ = tokio::signal::ctrl_c() => {}
        }
        Err(Failure::Interrupted("interrupted".to_owned()))
    }

    fn confirm(&self, sent: Sent, ledger: &mut Ledger) -> Result<(), Failure> {
        let confirmed = sent.map_err(|error| Failure::Check(format!("a task ended early: {error}")))??;
        if ledger.confirm(confirmed) {
            self.save(&ledger.progress)?;
            let progress = &ledger.progress;
            self.bar.set_position(progress.place.offset);
            self.bar.set_message(format!("{} rows", crate::cli::print::count(progress.place.row)));
        }
        Ok(())
    }

    fn save(&self, progress: &Progress) -> Result<(), Failure> {
        self.state.as_ref().map_or(Ok(()), |state| state.save(progress))
    }

    fn clone_for_call(&self) -> Call {
        Call {
            client: self.client.clone(),
            queue: self.queue.clone(),
            durability: self.durability,
            patience: Duration::from_millis(self.patience_ms),
        }
    }
}

/// What the task of one batch needs.
struct Call {
    client: Client,
    queue: String,
    durability: Option<&'static str>,
    patience: Duration,
}

impl Call {
    /// Sends one batch until the server says yes, or a no that repeating cannot change. A server that answers "not
    /// now" is asked again for as long as it takes; one that does not answer, for as long as patience lasts.
    async fn send(self, batch: Batch) -> Result<Confirmed, ClientError> {
        if batch.jobs == 0 {
            return Ok(Confirmed { batch, added: 0, present: 0 });
        }
        let mut silent_since: Option<Instant> = None;
        let mut wait_ms_min = 100;
        loop {
            let extras = Extras {
                idempotency_key: Some(&batch.idempotency_key),
                durability: self.durability,
                ..Extras::default()
            };
            let error = match self.client.push(&self.queue, batch.request.clone(), extras).await {
                Ok(answer) => {
                    let present = answer.jobs.iter().filter(|job| job.deduplicated).count() as u64;
                    return Ok(Confirmed { added: batch.jobs.saturating_sub(present), present, batch });
                }
                Err(error) => error,
            };
            let Some(wait_ms) = error.retry_after_ms() else { return Err(error) };
            if matches!(
                error.code(),
                Some("queue_full" | "pond_full" | "overloaded" | "memory_full" | "disk_full")
            ) {
                silent_since = None;
            } else if silent_since.get_or_insert_with(Instant::now).elapsed() >= self.patience {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(wait_ms.max(wait_ms_min))).await;
            wait_ms_min = (wait_ms_min * 2).min(2_000);
        }
    }
}

/// Puts confirmations back in order.
struct Ledger {
    progress: Progress,
    rejected_before: u64,
    out_of_order: BTreeMap<u64, Confirmed>,
    next: u64,
}

impl Ledger {
    /// Takes a confirmation; true if the stretch without a gap became longer.
    fn confirm(&mut self, confirmed: Confirmed) -> bool {
        self.out_of_order.insert(confirmed.batch.number, confirmed);
        let before = self.next;
        while let Some(confirmed) = self.out_of_order.remove(&self.next) {
            let progress = &mut self.progress;
            progress.place = confirmed.batch.end;
            progress.added += confirmed.added;
            progress.present += confirmed.present;
            progress.rejected = self.rejected_before + confirmed.batch.rejected;
            progress.rejects_bytes = confirmed.batch.rejects_bytes;
            self.next += 1;
        }
        self.next > before
    }
}

/// A bar on standard error, if that is a terminal.
pub(super) fn bar(size: Option<u64>, quiet: bool) -> ProgressBar {
    let visible = !quiet && std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = match size {
        Some(_) => "{bar:30} {percent:>3}%  {msg}  {bytes_per_sec}  {eta} left",
        None => "{spinner} {msg}  {bytes}  {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(size, target).with_style(style)
}
