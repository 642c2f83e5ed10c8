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
