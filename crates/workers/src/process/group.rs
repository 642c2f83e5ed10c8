use rustix::process::{Pid, Signal, kill_process_group};

/// A process group that is killed when this is dropped.
///
/// The number of a group stays taken while any member lives, so a signal after the leader was reaped reaches
/// its left-over children or nobody.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// SIGTERM to all members.
    pub(super) fn terminate(&self) {
        self.send(Signal::TERM);
    }

    /// SIGKILL to all members.
    pub(super) fn kill(&self) {
        self.send(Signal::KILL);
    }

    fn send(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It fails when nobody is left, which is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
