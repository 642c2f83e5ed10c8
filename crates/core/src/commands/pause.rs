use crate::shard::{Context, Shard};
use model::{QueueName, Reject, Reply};

impl Shard {
    /// Stops handing out a queue's jobs. Running ones go on.
    pub(crate) fn pause(&mut self, name: &QueueName) -> Result<Reply, Reject> {
        let queue = self.known_queue(name)?;
        self.queues[queue as usize].paused = true;
        self.touch_queue(queue);
        Ok(Reply::Done)
    }

    /// Undoes pause.
    pub(crate) fn resume(&mut self, name: &QueueName, context: &mut Context<'_>) -> Result<Reply, Reject> {
        let queue = self.known_queue(name)?;
        let home = &mut self.queues[queue as usize];
        home.paused = false;
        let waiting = home.waiting_count();
        if waiting > 0 {
            context.ready.retain(|(other, _)| *other != queue);
            context.ready.push((queue, u32::try_from(waiting).unwrap_or(u32::MAX)));
        }
        self.touch_queue(queue);
        Ok(Reply::Done)
    }
}
