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
        context: &Context<'_>,
    ) -> Result<Renewed, Reject> {
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
