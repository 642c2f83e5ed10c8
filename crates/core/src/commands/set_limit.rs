use crate::{flow::GateKey, shard::Shard};
use compact_str::CompactString;
use model::{Breaker, Limit, Reject, Reply, limits};

impl Shard {
    /// Sets or removes a limit. It counts at once, for what waits and against what runs.
    pub(crate) fn set_limit(
        &mut self,
        pattern: &CompactString,
        limit: Option<&Limit>,
    ) -> Result<Reply, Reject> {
        if pattern.is_empty() || pattern.len() > limits::ID_BYTES_MAX {
            return Err(Reject::Invalid { field: "key", reason: "has 1 to 255 bytes".into() });
        }
        let prefix = pattern.strip_suffix('*').unwrap_or(pattern);
        if prefix.contains('*') {
            let reason = "has a `*` only at its end, where it stands for any text";
            return Err(Reject::Invalid { field: "key", reason: reason.into() });
        }
        limit.map_or(Ok(()), check_limit)?;
        let new = limit.is_some() && self.flow.rules.get(pattern).is_none();
        if new && self.flow.rules.len() >= limits::LIMITS_MAX {
            return Err(Reject::TooMany { what: "limits", limit: limits::LIMITS_MAX as u64 });
        }
        self.flow.rules.set(pattern, limit.copied());
        self.dirty.limits.insert(pattern.clone());
        let concerned: Vec<(CompactString, u32)> = self
            .flow
            .gate_index
            .range(GateKey::Limit(prefix.into())..)
            .map_while(|(key, gate)| match key {
                GateKey::Limit(name) if name.starts_with(prefix) => Some((name.clone(), *gate)),
                _ => None,
            })
            .collect();
        for (name, gate) in concerned {
            let limit = self.flow.rules.of(&name);
            self.flow.gates[gate].meter.set_limit(limit);
            self.dirty.gates.insert(GateKey::Limit(name));
            self.gate_moved(gate, true);
        }
        Ok(Reply::Done)
    }
}

/// Refuses a limit that means nothing.
pub(crate) fn check_limit(limit: &Limit) -> Result<(), Reject> {
    let invalid = |field, reason: &str| Err(Reject::Invalid { field, reason: reason.into() });
    let Limit { rate, breaker, .. } = limit;
    if rate.units > 0 && !(1..=limits::SPAN_MS_MAX).contains(&rate.per_ms) {
        return invalid("rate", "has a span of 1 ms to 1 year");
    }
    if rate.units > 0 && u64::from(rate.units) > rate.per_ms.saturating_mul(1_000_000) {
        return invalid("rate", "is at most one unit a nanosecond");
    }
    if rate.units == 0 && (rate.per_ms > 0 || rate.burst > 0) {
        return invalid("rate", "has at least 1 unit; leave it out for no rate");
    }
    if *breaker == Breaker::default() {
        return Ok(());
    }
    if breaker.failed_percent > 100 || breaker.slow_percent > 100 {
        return invalid("breaker", "has shares of 1 to 100 percent");
    }
    if breaker.failed_percent == 0 && breaker.slow_percent == 0 {
        return invalid("breaker", "opens by a share of failed or of slow attempts: give one");
    }
    if breaker.slow_percent > 0 && breaker.slow_ms == 0 {
        return invalid("breaker", "needs the time from which an attempt is slow");
    }
    let spans = limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX;
    if !spans.contains(&breaker.window_ms) || !spans.contains(&breaker.open_ms) {
        return invalid("breaker", "has a window and a time of being open of 100 ms to 24 h");
    }
    if breaker.calls == 0 || breaker.probes == 0 {
        return invalid("breaker", "needs at least 1 call in its window and 1 probe");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_held_job_takes_no_slot_and_no_attempt_and_others_pass_it() {
        check(
            "
            0s limit api slots=1                     -> ok
            0s push mail id=a limit=api ; mail id=b limit=api ; mail id=c
            0s fetch mail max=9                      -> a 1/5 t1, c 1/5 t2
            0s show b                                -> blocked 0/5
            0s why b                                 -> blocked limit api 1 of 1 at never
            0s counts mail                           -> 1 blocked, 2 active
            0s fetch mail                            -> none
            1s done a t1                             -> completed
            1s heard                                 -> 1 in mail
            1s why b                                 -> waiting NextInLine at 1s
            1s fetch mail                            -> b 1/5 t3
        ",
        );
    }

    #[test]
    fn slots_follow_from_live_leases_however_they_end() {
        check(
            "
            0s limit api slots=2                     -> ok
            0s push mail x4 limit=api
            0s fetch mail max=9 lease=5s             -> #1 1/5 t1, #2 1/5 t2
            1s cancel #1                             -> cancelled
            1s fetch mail max=9 lease=9s             -> #3 1/5 t3
            5s tick
            5s fetch mail max=9                      -> #4 1/5 t4
            6s snooze #3 t3 after=1m                 -> delayed
            6s fetch mail max=9                      -> #2 2/5 t5
            7s fail #4 t4 oops                       -> dead
            7s retry #2 t5 oops after=0s             -> waiting
            7s done #2 t5                            -> ! stale_lease
            8s fetch mail max=9                      -> #2 3/5 t6
            9s remove #1                             -> ok
            9s done #2 t6                            -> completed
            9s cancel #3                             -> cancelled
            9s gates                                 -> 0 gates, 0 lines
        ",
        );
    }

    #[test]
    fn a_rate_lets_a_burst_pass_and_then_one_at_a_time() {
        check(
            "
            0s limit api rate=2/1s                   -> ok
            0s push mail x5 limit=api
            0s fetch mail max=9                      -> #1 1/5 t1, #2 1/5 t2
            0s why #3                                -> blocked limit api spent until 500ms at 500ms
            0s next                                  -> 500ms
            499ms fetch mail max=9                   -> none
            500ms tick
            500ms heard                              -> 1 in mail
            500ms fetch mail max=9                   -> #3 1/5 t3
            3s fetch mail max=9                      -> #4 1/5 t4, #5 1/5 t5
        ",
        );
    }

    #[test]
    fn a_cost_is_that_many_units_and_at_most_all_there_are() {
        check(
            "
            0s limit api rate=10/10s                 -> ok
            0s limit cpu slots=4                     -> ok
            0s push mail id=a limit=api@7 ; mail id=b limit=api@7 ; mail id=c limit=api@3
            0s fetch mail max=9                      -> a 1/5 t1, c 1/5 t2
            6999ms fetch mail                        -> none
            7s fetch mail                            -> b 1/5 t3
            8s push work id=x limit=cpu@3 ; work id=y limit=cpu@9 ; work id=z limit=cpu
            8s fetch work max=9                      -> x 1/5 t4, z 1/5 t5
            8s done x t4                             -> completed
            8s fetch work max=9                      -> none
            8s done z t5                             -> completed
            8s fetch work max=9                      -> y 1/5 t6
        ",
        );
    }

    #[test]
    fn a_change_counts_at_once_and_the_most_specific_limit_wins() {
        check(
            "
            0s limit user:* slots=1                  -> ok
            0s push mail x3 limit=user:7 ; mail x2 limit=user:8
            0s fetch mail max=9                      -> #1 1/5 t1, #4 1/5 t2
            1s limit user:7 slots=2                  -> ok
            1s heard                                 -> 1 in mail
            1s fetch mail max=9                      -> #2 1/5 t3
            2s limit user:7 off                      -> ok
            2s fetch mail max=9                      -> none
            3s limit user:* off                      -> ok
            3s fetch mail max=9                      -> #3 1/5 t4, #5 1/5 t5
        ",
        );
    }

    #[test]
    fn a_queue_has_a_limit_of_its_own() {
        check(
            "
            0s push mail x4
            0s fetch mail                            -> #1 1/5 t1
            0s configure mail slots=2                -> configured
            0s fetch mail max=9                      -> #2 1/5 t2
            0s why #3                                -> blocked the queue 2 of 2 at never
            0s upnext mail                           -> !#3 !#4
            1s done #1 t1                            -> completed
            1s heard                                 -> 1 in mail
            1s upnext mail                           -> #3 !#4
            2s configure mail slots=0 rate=1/1m      -> configured
            2s fetch mail max=9                      -> #3 1/5 t3
            2s why #4                                -> blocked the queue spent until 62s at 62s
            62s fetch mail max=9                     -> #4 1/5 t4
        ",
        );
    }

    #[test]
    fn what_a_handler_needs_can_ask_to_be_left_alone() {
        check(
            "
            0s push mail id=a limit=api ; mail id=b limit=api ; mail id=c ; mail id=d
            0s fetch mail                            -> a 1/5 t1
            0s limited a t1 limit=sms after=10s      -> ! invalid limit
            0s limited a t1 limit=api after=0s       -> ! invalid after_ms
            0s limited a t1 limit=api after=10s      -> waiting
            0s show a                                -> blocked 0/5
            0s why b                                 -> blocked limit api told until 10s at 10s
            0s fetch mail                            -> c 1/5 t2
            1s limited c t2 after=5s                 -> waiting
            1s fetch mail max=9                      -> none
            1s why d                                 -> blocked the queue told until 6s at 6s
            6s heard                                 ->
            6s fetch mail max=9                      -> d 1/5 t3, c 1/5 t4
            10s fetch mail max=9                     -> b 1/5 t5, a 1/5 t6
            10s gates                                -> 1 gates, 2 lines
            20s done a t6                            -> completed
            20s done b t5                            -> completed
            20s gates                                -> 0 gates, 0 lines
        ",
        );
    }

    #[test]
    fn a_breaker_opens_probes_and_closes() {
        check(
            "
            0s  limit api breaker=50:4:10s:5s:2      -> ok
            0s  push mail x12 limit=api attempts=1
            0s  fetch mail max=4
            1s  done #1 t1                           -> completed
            1s  done #2 t2                           -> completed
            1s  fail #3 t3 down                      -> dead
            1s  fetch mail                           -> #5 1/1 t5
            2s  fail #4 t4 down                      -> dead
            2s  fetch mail                           -> none
            2s  why #6                               -> blocked limit api open until 7s at 7s
            3s  done #5 t5                           -> completed
            6s  fetch mail                           -> none
            7s  fetch mail max=9                     -> #6 1/1 t6, #7 1/1 t7
            7s  why #8                               -> blocked limit api probing 2 at never
            8s  fail #6 t6 down                      -> dead
            8s  done #7 t7                           -> completed
            8s  why #8                               -> blocked limit api open until 13s at 13s
            13s fetch mail max=9                     -> #8 1/1 t8, #9 1/1 t9
            14s done #8 t8                           -> completed
            14s done #9 t9                           -> completed
            14s heard                                -> 1 in mail
            14s fetch mail max=9                     -> #10 1/1 t10, #11 1/1 t11, #12 1/1 t12
        ",
        );
    }

    #[test]
    fn a_breaker_opens_for_slow_calls_and_old_ones_do_not_count() {
        check(
            "
            0s  configure mail breaker=0:2:10s:5s:1 slow=50:3s -> configured
            0s  push mail x9
            0s  fetch mail max=2
            1s  done #1 t1                           -> completed
            20s done #2 t2                           -> completed
            20s fetch mail max=3                     -> #3 1/5 t3, #4 1/5 t4, #5 1/5 t5
            24s done #3 t3                           -> completed
            24s fetch mail                           -> none
            24s why #6                               -> blocked the queue open until 29s at 29s
        ",
        );
    }

    #[test]
    fn classes_of_work_share_a_pool_without_starving() {
        check(
            "
            0s limit pool slots=4                          -> ok
            0s configure bulk pool=pool max=3              -> configured
            0s configure live pool=pool reserved=2         -> configured
            0s push bulk x9 ; live x9
            0s fetch bulk max=9                            -> #1 1/5 t1, #2 1/5 t2
            0s why #3                                      -> blocked pool pool 2 of 2 at never
            0s fetch live max=1                            -> #10 1/5 t3
            0s fetch bulk max=9                            -> none
            0s fetch live max=9                            -> #11 1/5 t4
            0s fetch live max=9                            -> none
            1s done #1 t1                                  -> completed
            1s fetch live max=9                            -> #12 1/5 t5
            2s done #10 t3                                 -> completed
            2s done #11 t4                                 -> completed
            2s fetch bulk max=9                            -> #3 1/5 t6
            3s configure live pool=pool reserved=0         -> configured
            3s fetch bulk max=9                            -> #4 1/5 t7
            3s why #5                                      -> blocked limit pool 4 of 4 at never
        ",
        );
    }

    #[test]
    fn retries_have_a_budget_and_first_attempts_are_free() {
        let mut script = check("0s configure mail budget=10:1 backoff=fixed:1s\n0s push mail x40 attempts=9");
        script.line("0s fetch mail max=20");
        for job in 1..=20 {
            script.line(&format!("0s retry #{job} t{job} down"));
        }
        let retried = |fetched: String| fetched.split(", ").filter(|job| job.contains(" 2/9 ")).count();
        assert_eq!(retried(script.line("1s fetch mail max=100")), 10, "the burst, beside all first attempts");
        assert_eq!(script.line("1s why #11"), "blocked budget spent until 61s at 61s");
        for job in 21..=30 {
            assert_eq!(script.line(&format!("2s done #{job} t{job}")), "completed");
        }
        assert_eq!(script.line("2s fetch mail max=9"), "#11 2/9 t51", "ten successes earn one");
        assert_eq!(script.line("3s configure mail budget=0:0"), "configured");
        assert_eq!(retried(script.line("3s fetch mail max=100")), 9);
    }

    #[test]
    fn a_limit_that_means_nothing_is_refused() {
        check(
            "
            0s limit a*b slots=1                     -> ! invalid key
            0s limit a rate=1/0s                     -> ! invalid rate
            0s limit a rate=9999999/1ms              -> ! invalid rate
            0s limit a breaker=101:1:1s:1s:1         -> ! invalid breaker
            0s limit a breaker=0:1:1s:1s:1           -> ! invalid breaker
            0s limit a breaker=50:1:1s:1s:0          -> ! invalid breaker
            0s push mail limit=a,a                   -> ! invalid limits
            0s push mail limit=a@0                   -> ! invalid limits
            0s push mail order=                      -> ! invalid ordering_key
            0s configure mail order=aging:0s         -> ! invalid order
            0s configure mail pool=p reserved=5 max=2 -> ! invalid bulkhead
        ",
        );
    }
}
