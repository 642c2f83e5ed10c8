use crate::shard::Shard;
use model::{Reject, Reply, limits};

impl Shard {
    /// Begins an epoch of tokens: above all that were granted here, and above all that may have been granted after the moment that this
    /// state was brought back from, of which it knows nothing. The clock stands for those: see [`limits::TOKEN_BITS`].
    pub(crate) fn raise_tokens(&mut self, seconds: u64) -> Result<Reply, Reject> {
        let next = (self.counters.token >> limits::TOKEN_BITS) + 1;
        let epoch = next.max(seconds);
        if epoch > limits::TOKEN_EPOCH_MAX {
            let reason = "the epochs of tokens have come to their end; set the clock".into();
            return Err(Reject::Invalid { field: "seconds", reason });
        }
        self.counters.token = epoch << limits::TOKEN_BITS;
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn later_tokens_are_above_all_that_the_clock_allows_and_above_those_before() {
        check(
            "
            0s push mail x5
            0s fetch mail                  -> #1 1/5 t1
            1s raise 2                     -> ok
            1s fetch mail                  -> #2 1/5 t2097153
            2s raise 2                     -> ok
            2s fetch mail                  -> #3 1/5 t3145729
            3s raise 7                     -> ok
            3s fetch mail                  -> #4 1/5 t7340033
            4s raise 8589934592            -> ! invalid seconds
            4s fetch mail                  -> #5 1/5 t7340034
            5s raise 8589934591            -> ok
            6s raise 8589934591            -> ! invalid seconds
        ",
        );
    }

    #[test]
    fn a_lease_that_runs_goes_on_and_one_that_ended_is_refused() {
        check(
            "
            0s push mail id=a
            0s fetch mail                  -> a 1/5 t1
            1s raise 9                     -> ok
            2s renew a t1                  -> until 32s
            3s done a t1                   -> completed
            4s done a t1                   -> ! stale_lease
        ",
        );
    }
}
