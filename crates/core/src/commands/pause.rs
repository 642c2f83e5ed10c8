use crate::shard::{Context, Shard};
use model::{QueueChange, QueueName, Reject, Reply};

impl Shard {
    /// Stops handing out a queue's jobs. Running ones go on.
    pub(crate) fn pause(&mut self, name: &QueueName, context: &mut Context<'_>) -> Result<Reply, Reject> {
        let queue = self.known_queue(name)?;
        if !std::mem::replace(&mut self.queues[queue as usize].paused, true) {
            self.tell_queue(queue, QueueChange::Paused, context);
        }
        self.touch_queue(queue);
        Ok(Reply::Done)
    }

    /// Undoes pause.
    pub(crate) fn resume(&mut self, name: &QueueName, context: &mut Context<'_>) -> Result<Reply, Reject> {
        let queue = self.known_queue(name)?;
        let home = &mut self.queues[queue as usize];
        let was_paused = std::mem::take(&mut home.paused);
        let waiting = home.waiting_count();
        if was_paused {
            self.tell_queue(queue, QueueChange::Resumed, context);
        }
        if waiting > 0 {
            context.ready.retain(|(other, _)| *other != queue);
            context.ready.push((queue, u32::try_from(waiting).unwrap_or(u32::MAX)));
        }
        self.touch_queue(queue);
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn what_runs_goes_on_and_what_is_due_waits() {
        check(
            "
            0s push mail id=a ; mail id=b delay=5s
            0s fetch mail                -> a 1/5 t1
            1s pause mail                -> ok
            1s pause mail                -> ok
            2s renew a t1                -> until 32s
            5s tick
            5s heard                     ->
            5s counts mail               -> 1 blocked, 1 active
            6s done a t1                 -> completed
            6s fetch mail                -> none
            7s resume mail               -> ok
            7s heard                     -> 1 in mail
            7s fetch mail                -> b 1/5 t2
            8s resume mail               -> ok
            8s heard                     ->
            8s pause nowhere             -> ! unknown_queue
            8s resume nowhere            -> ! unknown_queue
        ",
        );
    }
}
