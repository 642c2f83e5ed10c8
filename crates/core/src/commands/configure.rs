use crate::shard::{Context, Shard};
use model::{Order, QueueChange, QueueName, QueuePatch, Reject, Reply, State, limits};

impl Shard {
    /// Changes settings of a queue, made if new. Jobs keep what they were pushed with.
    pub(crate) fn configure(
        &mut self,
        name: &QueueName,
        patch: &QueuePatch,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        check_patch(patch)?;
        self.check_target(name, patch)?;
        let target = patch.dead_letter.as_ref().and_then(|policy| policy.queue.as_ref());
        let new = [Some(name), target].into_iter().flatten();
        let new = new.filter(|name| !self.queue_index.contains_key(*name)).count();
        if self.queues.len() + new > limits::QUEUES_MAX && new > 0 {
            return Err(Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 });
        }
        let index = self.ensure_queue(name);
        if let Some(target) = target {
            self.ensure_queue(target);
        }
        let queue = &mut self.queues[index as usize];
        let alert = queue.settings.dead_letter.alert;
        queue.settings.apply(patch);
        let settings = queue.settings.clone();
        if patch.limit.is_some() || patch.bulkhead.is_some() || patch.retry_budget.is_some() {
            self.set_queue_gates(index);
        }
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            self.schedule_retention(index, state);
        }
        self.touch_queue(index);
        self.tell_queue(index, QueueChange::Configured, context);
        if settings.dead_letter.alert != alert {
            self.set_alert(index, context);
        }
        Ok(Reply::Configured(Box::new(settings)))
    }
}

fn check_patch(patch: &QueuePatch) -> Result<(), Reject> {
    let invalid = |field, reason: &str| Err(Reject::Invalid { field, reason: reason.into() });
    let spans = limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX;
    let counts = 1..=limits::ATTEMPTS_MAX;
    if patch.attempts.is_some_and(|value| !counts.contains(&value)) {
        return invalid("attempts", "is 1 to 10000");
    }
    if patch.max_crashes.is_some_and(|value| !counts.contains(&value)) {
        return invalid("max_crashes", "is 1 to 10000");
    }
    if patch.timeout_ms.is_some_and(|value| !spans.contains(&value)) {
        return invalid("timeout_ms", "is 100 ms to 24 h");
    }
    if patch.lease_ms.is_some_and(|value| !spans.contains(&value)) {
        return invalid("lease_ms", "is 100 ms to 24 h");
    }
    if let Some(limit) = &patch.limit {
        super::set_limit::check_limit(limit)?;
    }
    if patch.order.is_some_and(
        |order| matches!(order, Order::Aging { step_ms } if !(1..=limits::SPAN_MS_MAX).contains(&step_ms)),
    ) {
        return invalid("order", "ages by steps of 1 ms to 1 year");
    }
    if let Some(bulkhead) = &patch.bulkhead
        && (bulkhead.pool.len() > limits::ID_BYTES_MAX
            || bulkhead.max > 0 && bulkhead.reserved > bulkhead.max)
    {
        return invalid("bulkhead", "has a pool of at most 255 bytes, and reserves no more than its maximum");
    }
    if patch.retry_budget.is_some_and(|budget| budget.percent > 1_000 || budget.per_minute > 1_000_000) {
        return invalid("retry_budget", "is at most 1000 percent and 1000000 a minute");
    }
    if patch.dead_letter.as_ref().is_some_and(|policy| {
        policy.alert.per_minute > limits::ALERT_MAX || policy.alert.count > limits::ALERT_MAX
    }) {
        return invalid("dead_letter", "has an alert at 1 to 1000000 jobs, or deaths a minute");
    }
    patch.backoff.as_ref().map_or(Ok(()), super::push::check_backoff)
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn jobs_keep_what_they_were_pushed_with() {
        check(
            "
            0s push mail id=a
            0s configure mail attempts=1 timeout=1m lease=2m -> configured
            0s push mail id=b
            0s fetch mail max=2          -> a 1/5 t1, b 1/1 t2
            0s show a                    -> active 1/5 due 120s
            0s show b                    -> active 1/1 due 60s
        ",
        );
    }

    #[test]
    fn settings_beyond_their_limits_are_refused_and_make_no_queue() {
        check(
            "
            0s configure mail attempts=0                     -> ! invalid attempts
            0s configure mail crashes=10001                  -> ! invalid max_crashes
            0s configure mail timeout=25h                    -> ! invalid timeout_ms
            0s configure mail lease=1ms                      -> ! invalid lease_ms
            0s configure mail backoff=list:                  -> ! invalid backoff
            0s pause mail                                    -> ! unknown_queue
            0s configure mail                                -> configured
            0s pause mail                                    -> ok
        ",
        );
    }

    #[test]
    fn a_shorter_retention_holds_for_what_has_ended_already() {
        check(
            "
            0s  push mail id=a
            0s  cancel a                         -> cancelled
            10s configure mail keep=30s:100      -> configured
            10s next                             -> 30s
            29s tick
            29s show a                           -> cancelled 0/5
            30s tick
            30s show a                           -> gone
        ",
        );
    }
}
