use crate::shard::{Context, Shard};
use kit::Timestamp;
use model::{Reject, Reply, ScheduleChange, ScheduleId};

impl Shard {
    /// Lets a paused schedule go on with the first slot from now on.
    pub(crate) fn resume_schedule(
        &mut self,
        id: &ScheduleId,
        context: &Context<'_>,
    ) -> Result<Reply, Reject> {
        let was_paused = self
            .schedules
            .change(id, |schedule| {
                let course = &mut schedule.course;
                let was_paused = std::mem::take(&mut course.paused);
                if was_paused {
                    course.cursor = course.cursor.max(context.now);
                    course.owed_until = Timestamp::ZERO;
                    schedule.aim();
                }
                was_paused
            })
            .ok_or_else(|| Reject::UnknownSchedule { id: id.clone() })?;
        let change = if was_paused { ScheduleChange::Updated } else { ScheduleChange::Unchanged };
        self.dirty.courses.insert(id.clone());
        Ok(Reply::Scheduled(self.scheduled(id, change)))
    }
}
