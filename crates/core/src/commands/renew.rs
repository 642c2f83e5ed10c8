use crate::shard::{Context, Shard};
use kit::Millis;
use model::{LeaseRef, Reject, Renewed, Reply, limits};

impl Shard {
    /// Extends leases, each by itself. A lease never shrinks, and never outlives the attempt's timeout.
    pub(crate) fn renew(
        &mut self,
        leases: &[LeaseRef],
        lease_ms: Millis,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if leases.len() > limits::BATCH_MAX {
            return Err(Reject::TooMany { what: "leases in one renew", limit: limits::BATCH_MAX as u64 });
        }
        super::fetch::check_lease(lease_ms)?;
        Ok(Reply::Renewed(leases.iter().map(|lease| self.renew_one(lease, lease_ms, context)).collect()))
    }

    fn renew_one(
        &mut self,
        lease: &LeaseRef,
        lease_ms: Millis,
        context: &mut Context<'_>,
    ) -> Result<Renewed, Reject> {
        self.fence_lease(lease, context);
        let slot = self.leased(lease)?;
        let settings = &self.queues[self.jobs[slot].queue as usize].settings;
        let span = if lease_ms == 0 { settings.lease_ms } else { lease_ms };
        let run = self.jobs[slot].run_mut();
        run.lease_until = run.lease_until.max(context.now + span).min(run.timeout_at);
        let lease_until = run.lease_until;
        self.reschedule(slot, lease_until);
        Ok(Renewed { lease_until })
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_lease_grows_but_neither_shrinks_nor_outlives_the_attempt() {
        check(
            "
            0s  push mail id=a timeout=60s backoff=fixed:1s
            0s  fetch mail lease=30s           -> a 1/5 t1
            5s  renew a t1 lease=10s           -> until 30s
            20s renew a t1                     -> until 50s
            45s renew a t1 lease=1h            -> until 60s
            59s show a                         -> active 1/5 due 60s
            60s renew a t1                     -> ! stale_lease
            60s show a                         -> retrying 1/5 due 61s
        ",
        );
    }

    #[test]
    fn only_the_holder_renews() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail                     -> a 1/5 t1
            1s  renew a t2                     -> ! stale_lease
            1s  renew b t1                     -> ! unknown_job
            1s  renew a t1 lease=1ms           -> ! invalid lease_ms
            2s  cancel a                       -> cancelled
            2s  heard                          -> w1 lost a t1 cancelled
            3s  renew a t1                     -> ! cancelled
            3s  renew a t2                     -> ! stale_lease
        ",
        );
    }
}
