use crate::shard::{Context, Shard};
use bytes::Bytes;
use model::{Effect, LeaseRef, Reject, Reply, limits};

impl Shard {
    /// Stores the newest progress of a running job.
    pub(crate) fn progress(
        &mut self,
        lease: &LeaseRef,
        value: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if value.len() > limits::PROGRESS_BYTES_MAX {
            return Err(Reject::Invalid { field: "progress", reason: "has at most 16 KiB".into() });
        }
        let slot = self.leased(lease)?;
        let value = Bytes::copy_from_slice(value);
        self.jobs[slot].run_mut().progress = Some(value.clone());
        self.touch(slot);
        if context.effects.want_changes {
            let job = &self.jobs[slot];
            context.effects.list.push(Effect::Progress {
                queue: self.queues[job.queue as usize].name.clone(),
                id: job.id(self.id),
                attempt: job.attempt,
                value,
                at: context.now,
                position: context.position,
            });
        }
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn progress_belongs_to_one_attempt() {
        let mut script = check(
            "
            0s push mail id=a backoff=fixed:1s
            0s fetch mail                -> a 1/5 t1
            1s progress a t1 10          -> ok
            2s progress a t1 55          -> ok
            2s progress a t2 99          -> ! stale_lease
            2s progress b t1 99          -> ! unknown_job
        ",
        );
        let progress = |script: &crate::tests::Script| {
            script.shard.jobs.iter().next().and_then(|(_, job)| job.run.as_ref()?.progress.clone())
        };
        assert_eq!(progress(&script).as_deref(), Some(&b"55"[..]));
        assert_eq!(script.line(&format!("3s progress a t1 {}", "9".repeat(16_385))), "! invalid progress");
        assert_eq!(script.line("3s retry a t1 oops"), "retrying");
        assert_eq!(progress(&script).as_deref(), Some(&b"55"[..]), "it shows how far the attempt came");
        assert_eq!(script.line("4s progress a t1 60"), "! stale_lease");
        assert_eq!(script.line("5s fetch mail"), "a 2/5 t2");
        assert_eq!(progress(&script), None);
    }

    #[test]
    fn progress_is_told_to_whoever_listens() {
        check(
            "
            0s push mail id=a
            0s fetch mail                -> a 1/5 t1
            1s progress a t1 10          -> ok
            1s told                      -> 3.0 progress a
            1s brought                   -> progress a 10
            2s progress a t7 20          -> ! stale_lease
            2s told                      ->
        ",
        );
    }
}
