use crate::shard::{Context, Shard};
use compact_str::CompactString;
use model::{LeaseRef, LogLine, Reject, Reply, limits};

impl Shard {
    /// Appends lines to a running job's log. The oldest lines go when the log is full.
    pub(crate) fn log(
        &mut self,
        lease: &LeaseRef,
        lines: &[CompactString],
        context: &Context<'_>,
    ) -> Result<Reply, Reject> {
        if lines.len() > limits::LOG_LINES_MAX {
            return Err(Reject::TooMany {
                what: "log lines in one call",
                limit: limits::LOG_LINES_MAX as u64,
            });
        }
        if lines.iter().any(|line| line.len() > limits::LOG_LINE_BYTES_MAX) {
            return Err(Reject::Invalid {
                field: "lines",
                reason: "a log line has at most 4096 bytes".into(),
            });
        }
        let slot = self.leased(lease)?;
        let job = &mut self.jobs[slot];
        let attempt = job.attempt;
        let log = job.run_mut().log.get_or_insert_default();
        for text in lines {
            log.bytes += text.len();
            log.lines.push_back(LogLine { at: context.now, attempt, text: text.clone() });
        }
        while log.lines.len() > limits::LOG_LINES_MAX || log.bytes > limits::LOG_BYTES_MAX {
            log.bytes -= log.lines.pop_front().map_or(0, |line| line.text.len());
        }
        self.touch(slot);
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn lines_stay_over_attempts() {
        check(
            "
            0s push mail id=a
            0s fetch mail                -> a 1/5 t1
            1s log a t1 one two          -> ok
            2s snooze a t1               -> waiting
            2s log a t1 late             -> ! stale_lease
            3s fetch mail                -> a 1/5 t2
            3s retry a t2 oops after=0s  -> waiting
            3s fetch mail                -> a 2/5 t3
            4s log a t3 three            -> ok
            4s lines a                   -> 1: one, 1: two, 2: three
        ",
        );
    }

    #[test]
    fn the_oldest_lines_go_by_count_and_by_bytes() {
        let mut script = check("0s push mail id=a\n0s fetch mail -> a 1/5 t1");
        for line in 0..1_005 {
            script.line(&format!("1s log a t1 n{line}"));
        }
        let lines = script.line("1s lines a");
        assert_eq!(lines.split(", ").count(), model::limits::LOG_LINES_MAX);
        assert!(lines.starts_with("1: n5, ") && lines.ends_with("1: n1004"));
        for _ in 0..17 {
            assert_eq!(script.line(&format!("2s log a t1 {}", "x".repeat(4_096))), "ok");
        }
        let lines = script.line("2s lines a");
        assert_eq!(lines.split(", ").count(), model::limits::LOG_BYTES_MAX / 4_096);
        assert_eq!(script.line(&format!("3s log a t1 {}", "x".repeat(4_097))), "! invalid lines");
        assert_eq!(script.line(&format!("3s log a t1 {}", "x ".repeat(1_001))), "! too_many 1000");
    }
}
