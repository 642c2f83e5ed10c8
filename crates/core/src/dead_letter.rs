//! Where dead letters go, and when somebody is told of them.
//!
//! A queue may name a target. A job that dies there is dead for whoever waits for it (its joins, its parent, its schedule, its unique
//! key), and in the same command it goes on to the target: the same job with its id, body, route and history, waiting, with attempts
//! and crashes from zero. It is moved and not copied, for its body may be on disk only, where the core cannot read it. Capacity and
//! pause of the target do not refuse it. It stays dead where it died if the target has another job of its given id.

mod view;

use crate::{
    dead::{MINUTE, Window, cut},
    shard::{Context, Shard},
};
use compact_str::{CompactString, ToCompactString, format_compact};
use kit::Timestamp;
use model::{Alert, Cause, QueueChange, QueueName, QueuePatch, Reject, State, limits};

/// Meta of a dead letter that was sent on, the newest death's: where, of what, after how many attempts.
const META: [&str; 5] = [
    "dead-letter-queue",
    "dead-letter-error",
    "dead-letter-message",
    "dead-letter-class",
    "dead-letter-attempts",
];
/// Bytes of the error's message that a dead letter carries; the whole is in the history.
const MESSAGE_BYTES: usize = 1_024;

/// Where a dying job goes next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Onward {
    to: u32,
    /// Of its error.
    class: u64,
}

/// What a queue with an alert remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// Deaths.
    pub(crate) minute: Window,
    /// When it was raised; `None` while nobody need be told.
    pub(crate) raised_at: Option<Timestamp>,
}

impl Shard {
    /// Where a job that dies now goes on to; `None` if it stays.
    pub(crate) fn onward(&self, slot: u32, class: u64) -> Option<Onward> {
        let job = &self.jobs[slot];
        let target = self.queues[job.queue as usize].settings.dead_letter.queue.as_ref()?;
        let to = *self.queue_index.get(target)?;
        let id = job.asked.as_ref().and_then(|asked| asked.id.as_ref());
        let taken = id.is_some_and(|id| self.by_given_id.get(&(to, id.clone())).is_some());
        (!taken).then_some(Onward { to, class })
    }

    /// Lets a job that has just died wait in another queue.
    pub(crate) fn send_on(&mut self, slot: u32, Onward { to, class }: Onward, context: &mut Context<'_>) {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::LoseDeadLetter) {
            return self.forget(slot);
        }
        self.leave(slot);
        let job = &mut self.jobs[slot];
        let from = std::mem::replace(&mut job.queue, to);
        let attempts = std::mem::take(&mut job.attempt);
        (job.state, job.due, job.crashes) = (State::Waiting, Timestamp::ZERO, 0);
        let run = job.run_mut();
        (run.finished_at, run.result) = (Timestamp::ZERO, None);
        let error = run.error.as_deref().cloned().unwrap_or_default();
        let sequence = job.sequence;
        let asked = job.asked.get_or_insert_default();
        // Its time to start and its unique key were of its first life; its parent has heard of its end.
        (asked.expires_at, asked.parent) = (None, None);
        (asked.unique_until, asked.unique_latest) = (Timestamp::ZERO, Timestamp::ZERO);
        if let Some(key) = asked.unique_key.take() {
            self.throttles.outlive(from, &key, sequence, State::Dead);
        }
        asked.meta.retain(|(key, _)| !META.contains(&key.as_str()));
        let values = [
            self.queues[from as usize].name.to_compact_string(),
            error.kind,
            cut(&error.message, MESSAGE_BYTES).into(),
            format_compact!("{class:016x}"),
            attempts.to_compact_string(),
        ];
        asked.meta.extend(META.into_iter().map(CompactString::from).zip(values));
        if let Some(id) = asked.id.clone() {
            self.by_given_id.remove(&(from, id.clone()));
            self.by_given_id.insert((to, id), sequence);
        }
        self.record(slot, State::Dead, Cause::DeadLetter, None, context);
        self.join_line(slot);
        self.enter(slot);
        self.after_change(slot, Some(State::Dead), Cause::DeadLetter, context);
    }

    /// Refuses a target from which dead letters would come back.
    pub(crate) fn check_target(&self, name: &QueueName, patch: &QueuePatch) -> Result<(), Reject> {
        let Some(target) = patch.dead_letter.as_ref().and_then(|policy| policy.queue.as_ref()) else {
            return Ok(());
        };
        let mut at = target;
        for _ in 0..limits::DEAD_LETTER_HOPS_MAX {
            if at == name {
                return Err(Reject::DeadLetterCycle { queue: name.clone(), target: target.clone() });
            }
            let queue = self.queue_by_name(at);
            match queue.and_then(|queue| queue.settings.dead_letter.queue.as_ref()) {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
        Err(Reject::TooMany {
            what: "queues from one dead-letter queue to the next",
            limit: limits::DEAD_LETTER_HOPS_MAX as u64,
        })
    }

    /// A queue has another alert: what it remembered was for the old one.
    pub(crate) fn set_alert(&mut self, queue: u32, context: &mut Context<'_>) {
        let home = &mut self.queues[queue as usize];
        let wanted = home.settings.dead_letter.alert != Alert::default();
        home.alarm = wanted.then(Box::default);
        self.raise_alert(queue, context);
    }

    /// A job is about to die: if all is quiet by now, the next alert is a new one.
    pub(crate) fn count_for_alert(&mut self, queue: u32, now: Timestamp) {
        let home = &mut self.queues[queue as usize];
        let (alert, dead) = (home.settings.dead_letter.alert, home.counts.of(State::Dead));
        let Some(alarm) = &mut home.alarm else { return };
        if alarm.is_quiet(alert, dead, now) {
            alarm.raised_at = None;
        }
        alarm.minute.add(now, MINUTE);
    }

    /// Tells of an alert that was not told yet.
    pub(crate) fn raise_alert(&mut self, queue: u32, context: &mut Context<'_>) {
        let home = &mut self.queues[queue as usize];
        let (Alert { count, per_minute }, dead) =
            (home.settings.dead_letter.alert, home.counts.of(State::Dead));
        let Some(alarm) = &mut home.alarm else { return };
        let reached = count > 0 && dead >= count
            || per_minute > 0 && alarm.minute.rate(context.now, MINUTE) >= per_minute;
        #[cfg(feature = "plant")]
        let reached = reached && !(crate::plant::is(crate::plant::Bug::TellAlertLate) && dead == count);
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::TellAlertAgain) {
            alarm.raised_at = None;
        }
        if reached && alarm.raised_at.is_none() {
            alarm.raised_at = Some(context.now);
            self.tell_queue(queue, QueueChange::DeadAlert, context);
        }
    }

    /// Since when a queue's dead letters are an alert; `None` once they are below half of its threshold.
    pub(crate) fn alert_since(&self, queue: u32) -> Option<Timestamp> {
        let home = &self.queues[queue as usize];
        let alarm = home.alarm.as_ref()?;
        let (alert, dead) = (home.settings.dead_letter.alert, home.counts.of(State::Dead));
        alarm.raised_at.filter(|_| !alarm.is_quiet(alert, dead, self.counters.time))
    }
}

impl Alarm {
    /// Whether everything is below half of its threshold.
    fn is_quiet(&self, alert: Alert, dead: u64, now: Timestamp) -> bool {
        let low = |level: u64, threshold: u64| threshold == 0 || level < threshold.div_ceil(2);
        low(dead, alert.count) && low(self.minute.rate(now, MINUTE), alert.per_minute)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;
    use model::{JobId, JobRef, QueueName};

    #[test]
    fn a_dead_letter_waits_in_its_target_as_the_same_job() {
        let script = check(
            "
            0s configure mail dead=letters          -> configured
            0s push mail id=a body=hello attempts=1 tag=red expires=5s
            1s fetch mail                           -> a 1/1 t1
            2s retry a t1 Oops:id-17                -> dead
            2s told                                 -> 4.0 dead a, 4.1 empty mail, 4.2 waiting a
            2s heard                                -> 1 in letters
            2s counts mail                          ->
            2s counts letters                       -> 1 waiting
            2s show mail/a                          -> gone
            2s show letters/a                       -> waiting 0/1
            2s body letters/a                       -> hello
            2s totals mail                          -> pushed 1 started 1 completed 0 failed 1 dead 1
            2s totals letters                       -> pushed 0 started 0 completed 0 failed 0 dead 0
            2s classes mail                         -> 0 dead since never: id-# 1 (2s to 2s, a, 1/min)
            2s history letters/a -> 0s 2 w1 push waiting 0, 1s 3 w1 fetch active 1, 2s 4 w1 fail dead 1 Oops, \
                2s 4 w1 dead_letter waiting 0
            9s fetch letters                        -> a 1/1 t2
            9s done letters/a t2                    -> completed
        ",
        );
        let queue = QueueName::new("letters").unwrap();
        let job = script.shard.job(&JobRef { queue: Some(queue), id: JobId::Text("a".into()) }).unwrap();
        let meta: Vec<_> = job.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let class =
            script.shard.dead_letters(&QueueName::new("mail").unwrap()).unwrap().classes[0].fingerprint;
        let class = format!("dead-letter-class={class:016x}");
        let wanted = [
            "dead-letter-queue=mail",
            "dead-letter-error=Oops",
            "dead-letter-message=id-17",
            class.as_str(),
            "dead-letter-attempts=1",
        ];
        assert_eq!(meta, wanted);
        assert_eq!(job.tags, ["red"]);
    }

    #[test]
    fn a_full_or_paused_target_takes_it_and_drops_nothing_for_it() {
        check(
            "
            0s configure letters jobs=1 full=drop   -> configured
            0s configure mail dead=letters keep_dead=1d:0 -> configured
            0s push letters id=old
            0s pause letters                        -> ok
            0s push mail id=a attempts=1 ; mail id=b attempts=1
            1s fetch mail max=2                     -> a 1/1 t1, b 1/1 t2
            2s retry a t1 oops                      -> dead
            2s retry b t2 oops                      -> dead
            2s counts letters                       -> 3 blocked
            3s resume letters                       -> ok
            3s fetch letters max=9                  -> old 1/5 t3, a 1/1 t4, b 1/1 t5
        ",
        );
    }

    #[test]
    fn one_that_dies_again_goes_where_its_new_queue_says() {
        check(
            "
            0s configure a dead=b                   -> configured
            0s configure b dead=c                   -> configured
            0s push a id=x attempts=1
            0s fetch a                              -> x 1/1 t1
            1s fail x t1 first                      -> dead
            1s fetch b                              -> x 1/1 t2
            2s fail b/x t2 second                   -> dead
            2s fetch c                              -> x 1/1 t3
            3s fail c/x t3 third                    -> dead
            3s show c/x                             -> dead 1/1
            3s list c kind=third                    -> x
        ",
        );
    }

    #[test]
    fn a_target_from_which_dead_letters_come_back_is_refused() {
        let mut script = check(
            "
            0s configure a dead=a                   -> ! dead_letter_cycle
            0s configure a dead=b                   -> configured
            0s configure b dead=c                   -> configured
            0s configure c dead=a                   -> ! dead_letter_cycle
            0s configure b dead=-                   -> configured
            0s configure c dead=a                   -> configured
            0s configure b dead=c                   -> ! dead_letter_cycle
        ",
        );
        for hop in (1..17).rev() {
            assert_eq!(script.line(&format!("0s configure q{hop} dead=q{}", hop + 1)), "configured", "{hop}");
        }
        assert_eq!(script.line("0s configure q0 dead=q1"), "! too_many 16");
    }

    #[test]
    fn one_whose_id_is_taken_in_the_target_stays_dead() {
        check(
            "
            0s configure mail dead=letters          -> configured
            0s push letters id=a ; mail id=a attempts=1
            0s fetch mail                           -> a 1/1 t1
            1s fail mail/a t1 oops                  -> dead
            1s show mail/a                          -> dead 1/1
            1s counts letters                       -> 1 waiting
            2s remove letters/a                     -> ok
            3s bulk move mail to=letters state=dead
            3s tick
            3s counts letters                       -> 1 dead
        ",
        );
    }

    #[test]
    fn a_lost_worker_sends_on_what_it_killed_and_its_unique_key_is_free() {
        check(
            "
            0s configure mail dead=letters          -> configured
            0s push mail id=a crashes=1 unique=k ; mail id=b unique=t conflict=throttle ttl=1h attempts=1
            0s fetch mail max=2 lease=1s            -> a 1/5 t1, b 1/1 t2
            1s tick
            1s heard                                -> w1 lost a t1 lease_lost, w1 lost b t2 lease_lost, 2 in letters
            1s counts letters                       -> 2 waiting
            2s push mail id=c unique=k              -> c waiting
            2s push mail unique=t conflict=throttle ttl=1h -> b waiting again
            3s remove letters/b                     -> ok
            3s push mail unique=t conflict=throttle ttl=1h -> b dead again, forgotten
        ",
        );
    }

    #[test]
    fn a_join_counts_it_as_failed_and_leaves_it_alone() {
        check(
            "
            0s configure mail dead=letters          -> configured
            0s join mail id=a attempts=1 ; mail id=b ; mail id=c | j all a b then=c -> a waiting, b waiting, c waiting-children | #4
            0s fetch mail                           -> a 1/1 t1
            1s fail a t1 oops                       -> dead
            1s counts letters                       -> 2 waiting
            1s counts mail                          -> 1 cancelled
            1s joined #4                            -> failed a=failed b=cancelled
            2s fetch letters max=2                  -> a 1/1 t2, c 1/5 t3 [failed a=failed b=cancelled]
            2s done letters/a t2                    -> completed
        ",
        );
    }

    #[test]
    fn an_alert_is_told_once_and_again_after_all_was_below_half() {
        check(
            "
            0s configure mail alert=4               -> configured
            0s push mail id=a ; mail id=b ; mail id=c ; mail id=d ; mail id=e
            0s fetch mail max=5                     -> a 1/5 t1, b 1/5 t2, c 1/5 t3, d 1/5 t4, e 1/5 t5
            1s fail a t1 oops                       -> dead
            1s fail b t2 oops                       -> dead
            1s fail c t3 oops                       -> dead
            1s told                                 -> 6.0 dead c
            2s fail d t4 oops                       -> dead
            2s told                                 -> 7.0 dead d, 7.1 dead_alert mail
            2s alert mail                           -> since 2s
            3s redrive a b                          -> waiting, waiting
            3s alert mail                           -> since 2s
            3s fail e t5 oops                       -> dead
            3s fetch mail max=2                     -> a 1/5 t6, b 1/5 t7
            3s fail a t6 oops                       -> dead
            3s told                                 -> 11.0 dead a
            4s redrive c d a                        -> waiting, waiting, waiting
            4s alert mail                           -> none
            5s fail b t7 oops                       -> dead
            5s fetch mail max=3                     -> c 1/5 t8, d 1/5 t9, a 1/5 t10
            5s fail c t8 oops                       -> dead
            5s told                                 -> 15.0 dead c
            6s fail d t9 oops                       -> dead
            6s told                                 -> 16.0 dead d, 16.1 dead_alert mail
        ",
        );
    }

    #[test]
    fn a_rate_is_of_deaths_wherever_the_dead_go_and_passes_by_itself() {
        check(
            "
            0s   configure mail dead=letters alert=0/2 -> configured
            0s   push mail id=a ; mail id=b ; mail id=c ; mail id=d
            40s  fetch mail max=4 lease=1h          -> a 1/5 t1, b 1/5 t2, c 1/5 t3, d 1/5 t4
            41s  fail a t1 oops                     -> dead
            42s  fail b t2 oops                     -> dead
            42s  told                               -> 5.0 dead b, 5.1 waiting b, 5.2 dead_alert mail
            43s  alert mail                         -> since 42s
            300s tick
            300s alert mail                         -> none
            300s fail c t3 oops                     -> dead
            300s told                               -> 7.0 dead c, 7.1 waiting c
            301s fail d t4 oops                     -> dead
            301s told                               -> 8.0 dead d, 8.1 empty mail, 8.2 waiting d, 8.3 dead_alert mail
        ",
        );
    }

    #[test]
    fn a_new_alert_looks_at_what_is_there() {
        check(
            "
            0s configure mail alert=2               -> configured
            0s push mail id=a ; mail id=b
            0s fetch mail max=2                     -> a 1/5 t1, b 1/5 t2
            1s fail a t1 oops                       -> dead
            2s configure mail alert=1               -> configured
            2s told                                 -> 5.0 configured mail, 5.1 dead_alert mail
            3s configure mail attempts=2            -> configured
            3s told                                 -> 6.0 configured mail
            3s alert mail                           -> since 2s
            4s configure mail alert=0/0             -> configured
            4s alert mail                           -> none
            4s fail b t2 oops                       -> dead
            4s told                                 -> 8.0 dead b, 8.1 empty mail
            5s configure mail alert=0/1000001       -> ! invalid dead_letter
        ",
        );
    }
}
