//! What people are told of dead letters: where one died, where one goes, and whether there is an alert.

use super::META;
use crate::{explain::Reason, job::Job, shard::Shard};
use model::{Cause, JobRef, State, limits};

/// Whether it died before and went on. Only then is it the core that wrote its meta.
fn was_sent_on(job: &Job) -> bool {
    let entries = job.run.as_ref().and_then(|run| run.history.entries((job.created_at, job.position)).ok());
    entries.is_some_and(|entries| entries.iter().any(|entry| entry.cause == Cause::DeadLetter))
}

fn meta<'a>(job: &'a Job, wanted: &str) -> &'a str {
    let meta = job.asked.as_ref().map_or(&[][..], |asked| &asked.meta);
    meta.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value)
}

impl Shard {
    /// A job that is looked for where it died, found where it went.
    pub(crate) fn find_sent_on(&self, job: &JobRef) -> Option<u32> {
        let mut from = job.queue.as_ref()?;
        for _ in 0..limits::DEAD_LETTER_HOPS_MAX {
            let to = self.queue_by_name(from)?.settings.dead_letter.queue.as_ref()?;
            let there = self.find(&JobRef { queue: Some(to.clone()), id: job.id.clone() });
            let came = |slot: &u32| {
                let job = &self.jobs[*slot];
                meta(job, META[0]) == from.as_str() && was_sent_on(job)
            };
            if let Some(slot) = there.filter(came) {
                return Some(slot);
            }
            from = to;
        }
        None
    }

    /// What is to be said of a job as a dead letter, or as one that may become one.
    pub(crate) fn dead_letter_reasons(&self, slot: u32) -> Vec<Reason> {
        let job = &self.jobs[slot];
        let mut reasons = Vec::new();
        let target = self.queues[job.queue as usize].settings.dead_letter.queue.as_ref();
        match (job.state, target) {
            (State::Dead, Some(target)) => {
                let id_taken = self.onward(slot, 0).is_none();
                reasons.push(Reason::StaysDead { target: target.clone(), id_taken });
            }
            (State::Active | State::Retrying, Some(target)) if self.onward(slot, 0).is_some() => {
                reasons.push(Reason::DeadGoTo { target: target.clone() });
            }
            _ => {}
        }
        if was_sent_on(job) {
            reasons.push(Reason::SentOn {
                from: meta(job, META[0]).into(),
                error: meta(job, META[2]).into(),
                attempts: meta(job, META[4]).parse().unwrap_or(0),
            });
        }
        let alert = self.alert_since(job.queue).filter(|_| job.state == State::Dead);
        if let Some(since) = alert {
            let dead = self.queues[job.queue as usize].counts.of(State::Dead);
            reasons.push(Reason::DeadAlert { since, dead });
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;
    use model::{JobId, JobRef, QueueName};

    #[test]
    fn a_dead_letter_says_where_it_died_and_is_found_from_there() {
        check(
            "
            0s configure mail dead=letters          -> configured
            0s push mail id=a attempts=2 backoff=fixed:1s
            0s why mail/a                           -> waiting NextInLine at 0s
            1s fetch mail                           -> a 1/2 t1
            1s why mail/a                           -> active Running, DeadGoTo at never
            1s retry mail/a t1 oops                 -> retrying
            1s why mail/a                           -> retrying RetryAt, DeadGoTo at 2s
            1s summary mail/a                       -> attempt 1 of 2 failed; the next is at 2023-11-14T22:13:22.000Z; \
                if its last attempt fails it goes on to queue letters
            2s fetch mail                           -> a 2/2 t2
            2s retry mail/a t2 oops                 -> dead
            2s why letters/a                        -> waiting NextInLine, SentOn at 2s
            2s why mail/a                           -> waiting NextInLine, SentOn at 2s
            2s summary mail/a                       -> it is next: the first worker that asks gets it; \
                it died in queue mail after attempt 2 (oops) and is in queue letters now
        ",
        );
    }

    #[test]
    fn it_is_found_over_several_queues_and_a_stranger_with_its_id_is_not_taken_for_it() {
        let script = check(
            "
            0s configure mail dead=letters          -> configured
            0s configure letters dead=last          -> configured
            0s push letters id=a delay=1h
            0s push mail id=b attempts=1 ; mail id=c attempts=1
            1s fetch mail max=2                     -> b 1/1 t1, c 1/1 t2
            1s retry mail/b t1 oops                 -> dead
            1s retry mail/c t2 oops                 -> dead
            2s fetch letters                        -> b 1/1 t3
            2s retry letters/b t3 oops              -> dead
            2s why mail/b                           -> waiting NextInLine, SentOn at 2s
            2s summary mail/b                       -> it is next: the first worker that asks gets it; \
                it died in queue letters after attempt 1 (oops) and is in queue last now
        ",
        );
        let stranger = JobRef { queue: Some(QueueName::new("mail").unwrap()), id: JobId::Text("a".into()) };
        assert_eq!(script.shard.explain(&stranger), None);
    }

    #[test]
    fn a_dead_job_says_why_it_stayed_and_that_there_is_an_alert() {
        check(
            "
            0s configure mail alert=1               -> configured
            0s push mail id=a attempts=1 ; mail id=b attempts=1
            1s fetch mail max=2                     -> a 1/1 t1, b 1/1 t2
            1s retry mail/a t1 oops                 -> dead
            2s why mail/a                           -> dead Final, DeadAlert at never
            2s summary mail/a                       -> it ended dead after 1 attempts: oops; \
                queue mail has an alert since 2023-11-14T22:13:21.000Z, with 1 dead
            3s configure mail dead=letters alert=1  -> configured
            3s summary mail/a                       -> it ended dead after 1 attempts: oops; it stayed here: \
                it died before the dead of its queue went on to queue letters, or letters had a job of its id; a bulk move \
                sends it there; queue mail has an alert since 2023-11-14T22:13:21.000Z, with 1 dead
            3s push letters id=b
            3s why mail/b                           -> active Running at never
            3s retry mail/b t2 oops                 -> dead
            3s why mail/b                           -> dead Final, StaysDead, DeadAlert at never
        ",
        );
    }
}
