use super::{Caller, Message, Shared};
use crate::{
    answer::{CallError, Poison},
    driver::{Sealed, Snapshot},
    error::OpenError,
    keeper::Keeper,
    writer::Writer,
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};
use storage::Frozen;
use tokio::sync::oneshot;

/// Starts a thread with a name that tools show.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    Builder::new().name(format!("millpond-{name}")).spawn(run).map_err(|source| OpenError::Io {
        operation: "start the thread",
        path: name.into(),
        source,
    })
}

/// Runs `work` on each task; a panic in it is told to the shard, which then knows nothing for certain and stops.
pub(crate) fn serve<T>(
    tasks: &mpsc::Receiver<T>,
    inbox: &mpsc::Sender<Message>,
    mut work: impl FnMut(T) -> Option<Message>,
) {
    while let Ok(task) = tasks.recv() {
        let message = catch_unwind(AssertUnwindSafe(|| work(task)))
            .unwrap_or_else(|panic| Some(Message::Failed(describe(&*panic))));
        if message.is_some_and(|message| inbox.send(message).is_err()) {
            return;
        }
    }
}

/// Writes sealed batches.
pub(crate) fn write_log(
    tasks: &mpsc::Receiver<Sealed<Caller>>,
    inbox: &mpsc::Sender<Message>,
    writer: &Writer,
    shared: &Shared,
) {
    serve(tasks, inbox, |mut sealed| {
        shared.pulse.writing(|| writer.write(&mut sealed));
        Some(Message::Written(sealed))
    });
}

/// What is asked of the checkpoints.
pub(crate) enum Stored {
    /// To store this.
    Snapshot(Snapshot),
    /// To show what was stored last, as it stays.
    Frozen(oneshot::Sender<Result<Box<dyn Frozen>, CallError>>),
}

/// Stores snapshots.
pub(crate) fn write_checkpoints(
    tasks: &mpsc::Receiver<Stored>,
    inbox: &mpsc::Sender<Message>,
    mut keeper: Keeper,
    writer: &Arc<Writer>,
) {
    serve(tasks, inbox, |task| match task {
        Stored::Snapshot(snapshot) => Some(match keeper.store(&snapshot, writer) {
            Ok(stored) => Message::Stored(snapshot, stored),
            Err(reason) => Message::Failed(reason),
        }),
        Stored::Frozen(caller) => {
            // Whoever asked may have left.
            let _ = caller.send(keeper.freeze().map_err(|error| CallError::unknown(&error.to_string())));
            None
        }
    });
}

/// What a panic said.
pub(crate) fn describe(panic: &(dyn Any + Send)) -> Poison {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a thread of the pond panicked ({}); restart", text.unwrap_or("no message")).into()
}
