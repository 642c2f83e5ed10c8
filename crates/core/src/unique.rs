//! Unique keys: who holds one, who stands by for it, and for how long one is throttled.
//!
//! A key of a queue has one *holder*, a job that is not final, and at most one job that *stands by*: delayed without a time, it takes
//! the key when the holder ends. Both follow from the jobs. A *throttled* key is a record of its own, for it outlives its job.

use crate::{
    job::Job,
    shard::{Context, Shard},
    throttle::Throttle,
    transition::Change,
};
use compact_str::{CompactString, ToCompactString};
use kit::Timestamp;
use model::{Cause, ErrorInfo, NewJob, OnConflict, Pushed, Reject, State, Unique, limits};

/// Who has a unique key, by sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hold {
    /// Zero only while a checkpoint is read.
    pub(crate) holder: u64,
    /// Who stands by.
    pub(crate) next: Option<u64>,
}

/// What a push with a unique key meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// Nobody has the key.
    Free,
    /// The push is answered with this job.
    Found(u32),
    /// The push is answered with a job that is no longer kept.
    Forgotten(Pushed),
    /// The push is refused: this job has the key.
    Conflict(u32),
    /// This job is cancelled, and the new one takes the key.
    Replace(u32),
    /// This job takes the body and the options.
    Renew(u32),
    /// A new job stands by until the holder ends.
    StandBy,
}

impl Shard {
    /// What a push with this key meets now; `ending` is a holder that will have ended by then.
    pub(crate) fn meet(&self, queue: u32, unique: &Unique, ending: Option<u32>, now: Timestamp) -> Meeting {
        if unique.on_conflict == OnConflict::Throttle
            && let Some(first) = self.throttles.get(queue, &unique.key, now)
        {
            return match (self.slot_of(first.sequence), first.gone) {
                (Some(slot), _) => Meeting::Found(slot),
                (None, gone) => Meeting::Forgotten(Pushed {
                    id: first.id.clone(),
                    state: gone.unwrap_or(State::Cancelled),
                    deduplicated: true,
                    forgotten: true,
                }),
            };
        }
        let Some((mut holder, mut next)) = self.hold(queue, &unique.key, now) else { return Meeting::Free };
        if ending == Some(holder) {
            let Some(heir) = next.take() else { return Meeting::Free };
            holder = heir;
        }
        let job = &self.jobs[holder];
        match unique.on_conflict {
            OnConflict::Return | OnConflict::Throttle => Meeting::Found(holder),
            OnConflict::Reject => Meeting::Conflict(holder),
            OnConflict::Replace if job.state == State::Active => Meeting::Found(holder),
            OnConflict::Replace => Meeting::Replace(holder),
            OnConflict::Debounce { .. } | OnConflict::KeepLast => match next {
                _ if !job.has_begun() => Meeting::Renew(holder),
                Some(next) => Meeting::Renew(next),
                None => Meeting::StandBy,
            },
        }
    }

    /// The holder of a key now, and who stands by.
    fn hold(&self, queue: u32, key: &CompactString, now: Timestamp) -> Option<(u32, Option<u32>)> {
        let hold = self.unique.get(&(queue, key.clone()))?;
        let holder = self.slot_of(hold.holder)?;
        let until = self.jobs[holder].asked.as_ref()?.unique_until;
        let held = until == Timestamp::ZERO || until > now;
        held.then(|| (holder, hold.next.and_then(|next| self.slot_of(next))))
    }

    /// The refusal that names who holds a key.
    pub(crate) fn conflict(&self, key: &CompactString, holder: u32) -> Reject {
        Reject::UniqueConflict { key: key.clone(), holder: self.jobs[holder].id(self.id).to_compact_string() }
    }

    /// The job that holds a unique key now.
    pub(crate) fn unique_holder(&self, queue: u32, key: &CompactString, now: Timestamp) -> Option<u32> {
        self.hold(queue, key, now).map(|(holder, _)| holder)
    }

    /// Gives a unique key to a job. A holder whose time is over loses it for good, so a key is always with one job.
    pub(crate) fn take_unique(&mut self, queue: u32, key: &CompactString, sequence: u64) {
        let hold = Hold { holder: sequence, next: None };
        let Some(former) = self.unique.insert((queue, key.clone()), hold) else { return };
        let Some(slot) = self.slot_of(former.holder) else { return };
        if let Some(asked) = &mut self.jobs[slot].asked {
            asked.unique_key = None;
        }
        self.touch(slot);
    }

    /// Lets a new job stand by for a key that is held. From now on the holder keeps it to its end, whatever its span.
    pub(crate) fn stand_by(&mut self, queue: u32, key: &CompactString, sequence: u64) {
        let key = (queue, key.clone());
        let Some(hold) = self.unique.get(&key).copied() else { return };
        self.unique.insert(key, Hold { next: Some(sequence), ..hold });
        if let Some(slot) = self.slot_of(hold.holder)
            && let Some(asked) = &mut self.jobs[slot].asked
            && asked.unique_until != Timestamp::ZERO
        {
            asked.unique_until = Timestamp::ZERO;
            self.touch(slot);
        }
    }

    /// Takes its key from a job that has ended or is forgotten. Who stood by holds it now and starts when its wait is over: its timer
    /// is set, and fires with the next command or tick.
    pub(crate) fn release_unique(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let Some(key) = job.asked.as_ref().and_then(|asked| asked.unique_key.clone()) else { return };
        let (sequence, key) = (job.sequence, (job.queue, key));
        let Some(hold) = self.unique.get(&key).copied() else { return };
        if hold.next == Some(sequence) {
            self.unique.insert(key, Hold { next: None, ..hold });
            if let Some(asked) = &mut self.jobs[slot].asked {
                asked.stands_by = None;
            }
            return;
        }
        if hold.holder != sequence {
            return;
        }
        let Some(next) = hold.next else {
            self.unique.remove(&key);
            return;
        };
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::ForgetWhoStandsBy) {
            self.unique.remove(&key);
            return;
        }
        self.unique.insert(key, Hold { holder: next, next: None });
        let heir = self.slot_of(next).expect("who stands by is a job");
        let run_at = self.jobs[heir].asked.as_mut().and_then(|asked| asked.stands_by.take());
        let due = run_at.unwrap_or(Timestamp::ZERO).max(self.counters.time);
        let due = self.jobs[heir].expires_at().map_or(due, |expires| due.min(expires));
        self.reschedule(heir, due);
    }

    /// Calls off the holder of a key and whoever stands by for it: a newer job takes it.
    pub(crate) fn replace_holder(&mut self, holder: u32, context: &mut Context<'_>) {
        let job = &self.jobs[holder];
        let key = job.asked.as_ref().and_then(|asked| asked.unique_key.clone()).unwrap_or_default();
        let next = self.hold(job.queue, &key, context.now).and_then(|(_, next)| next);
        for slot in next.into_iter().chain([holder]) {
            let reason = ErrorInfo {
                kind: "replaced".into(),
                message: "a newer job took its unique key".into(),
                ..ErrorInfo::default()
            };
            self.transition(slot, Change::new(State::Cancelled, Cause::Replace).error(reason), context);
        }
    }

    /// Gives a new job its unique key, or lets it stand by for it.
    pub(crate) fn claim(&mut self, job: &mut Job, unique: &Unique, new: &NewJob, now: Timestamp) {
        let mut run_at = start_of(new, now);
        let asked = job.asked.get_or_insert_default();
        if let OnConflict::Debounce { max_wait_ms } = unique.on_conflict {
            asked.unique_latest = latest_of(max_wait_ms, run_at, now);
            run_at = run_at.min(asked.unique_latest);
        }
        // Whoever had the key may just have been dropped to make room.
        let held = self.unique_holder(job.queue, &unique.key, now).is_some();
        asked.stands_by = held.then_some(run_at);
        (job.state, job.due) = job.begins(run_at, now);
        if held {
            self.stand_by(job.queue, &unique.key, job.sequence);
        } else {
            self.take_unique(job.queue, &unique.key, job.sequence);
        }
        if unique.on_conflict == OnConflict::Throttle {
            let throttle = Throttle {
                until: now + unique.ttl_ms,
                sequence: job.sequence,
                id: job.id(self.id),
                gone: None,
            };
            self.throttles.begin(job.queue, unique.key.clone(), throttle, now);
        }
    }

    /// Gives a job that has not begun the body and the options of a newer push.
    pub(crate) fn renew_content(
        &mut self,
        slot: u32,
        new: &NewJob,
        rule: OnConflict,
        context: &mut Context<'_>,
    ) {
        let job = &self.jobs[slot];
        let asked = job.asked.as_deref().cloned().unwrap_or_default();
        let mut fresh = self.build(job.queue, new, job.sequence, context);
        let wanted = start_of(new, context.now);
        let mut latest = asked.unique_latest;
        let run_at = if let OnConflict::Debounce { max_wait_ms } = rule {
            if latest == Timestamp::ZERO {
                latest = latest_of(max_wait_ms, wanted, context.now);
            }
            #[cfg(feature = "plant")]
            let latest = match crate::plant::is(crate::plant::Bug::DebounceForEver) {
                true => Timestamp::MAX,
                false => latest,
            };
            wanted.min(latest)
        } else {
            // It starts no later than it would have.
            let before = match (asked.stands_by, job.state) {
                (Some(run_at), _) => Some(run_at),
                (None, State::Waiting) => Some(context.now),
                // A timer that was to expire it says nothing of its start.
                (None, _) => Some(job.due).filter(|due| asked.expires_at != Some(*due)),
            };
            before.map_or(wanted, |before| wanted.min(before))
        };
        let given = fresh.asked.get_or_insert_default();
        (given.id, given.pusher, given.parent) = (asked.id, asked.pusher, asked.parent);
        given.ties = asked.ties;
        given.unique_latest = latest;
        given.stands_by = asked.stands_by.map(|_| run_at);
        (fresh.state, fresh.due) = fresh.begins(run_at, context.now);
        self.rewrite(slot, fresh, context);
    }
}

impl Job {
    /// Whether its content is its own: it was leased once, or waits for more than its time.
    pub(crate) fn has_begun(&self) -> bool {
        self.token() != 0 || !matches!(self.state, State::Waiting | State::Delayed)
    }

    pub(crate) fn stands_by(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.stands_by.is_some())
    }

    /// The state and the timer of a job that is to start at `run_at`. One that stands by has no timer but that of its expiry.
    pub(crate) fn begins(&self, run_at: Timestamp, now: Timestamp) -> (State, Timestamp) {
        let expires_at = self.expires_at();
        if self.stands_by() {
            (State::Delayed, expires_at.unwrap_or(Timestamp::ZERO))
        } else if run_at > now {
            (State::Delayed, expires_at.map_or(run_at, |expires| expires.min(run_at)))
        } else {
            (State::Waiting, expires_at.unwrap_or(Timestamp::ZERO))
        }
    }
}

/// When a job pushed now asks to start.
pub(crate) fn start_of(new: &NewJob, now: Timestamp) -> Timestamp {
    (now + new.delay_ms).max(new.run_at.unwrap_or(now))
}

/// Beyond this instant the wait of a debounced job does not begin anew.
fn latest_of(max_wait_ms: u64, wanted: Timestamp, now: Timestamp) -> Timestamp {
    let wait = wanted.0.saturating_sub(now.0);
    now + if max_wait_ms == 0 { wait.saturating_mul(limits::DEBOUNCE_WAITS) } else { max_wait_ms }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_unique_key_has_one_live_holder() {
        check(
            "
            0s push mail id=a unique=k                  -> a waiting
            0s push mail id=b unique=k                  -> a waiting again
            0s push mail id=b unique=k conflict=reject  -> ! unique_conflict
            0s push video id=v unique=k                 -> v waiting
            1s push mail id=c unique=k conflict=replace -> c waiting
            1s history a                                -> 0s 1 w1 push waiting 0, 1s 5 w1 replace cancelled 0 replaced
            2s fetch mail                               -> c 1/5 t1
            2s push mail id=d unique=k conflict=replace -> c active again
            3s retry c t1 oops after=5s                 -> retrying
            3s push mail id=d unique=k                  -> c retrying again
            4s push mail id=d unique=k conflict=replace -> d waiting
            5s fetch mail                               -> d 1/5 t2
            5s done d t2                                -> completed
            6s push mail id=e unique=k conflict=reject  -> e waiting
        ",
        );
    }

    #[test]
    fn a_unique_key_is_free_after_its_span_or_with_the_end() {
        check(
            "
            0s  push mail id=a unique=k ttl=10s         -> a waiting
            9s  push mail id=b unique=k ttl=10s         -> a waiting again
            10s push mail id=b unique=k ttl=10s         -> b waiting
            11s cancel a                                -> cancelled
            11s push mail id=c unique=k                 -> b waiting again
            12s cancel b                                -> cancelled
            12s push mail id=c unique=k                 -> c waiting
            12s push mail id=d unique=k ; mail id=e unique=k -> c waiting again, c waiting again
        ",
        );
    }

    #[test]
    fn within_one_push_the_first_takes_the_unique_key() {
        check(
            "
            0s push mail id=a unique=k ; mail id=b unique=k                   -> a waiting, a waiting again
            1s push mail id=c unique=l ; mail id=d unique=l conflict=reject   -> ! unique_conflict
            1s show c                                                         -> gone
            2s push mail id=c unique=l ; mail id=d unique=l conflict=replace  -> c waiting, d waiting
            2s show c                                                         -> cancelled 0/5
            2s show d                                                         -> waiting 0/5
        ",
        );
    }

    #[test]
    fn a_debounced_job_waits_anew_with_every_push_but_not_for_ever() {
        check(
            "
            0s  push mail id=a unique=k conflict=debounce delay=10s max=25s body=1 -> a delayed
            5s  push mail id=b unique=k conflict=debounce delay=10s body=22 p=high -> a delayed again
            5s  show a                   -> delayed 0/5 due 15s
            5s  history a                -> 0s 1 w1 push delayed 0, 5s 2 w1 replace delayed 0
            5s  show b                   -> gone
            14s push mail unique=k conflict=debounce delay=10s body=333 -> a delayed again
            14s show a                   -> delayed 0/5 due 24s
            20s push mail unique=k conflict=debounce delay=10s body=4444 -> a delayed again
            20s show a                   -> delayed 0/5 due 25s
            24s fetch mail               -> none
            25s push mail unique=k conflict=debounce delay=10s body=last -> a waiting again
            25s body a                   -> last
            25s fetch mail               -> a 1/5 t1
        ",
        );
    }

    #[test]
    fn a_debounce_that_names_no_longest_wait_takes_ten_waits_of_its_first_push() {
        let mut script = check("0s push mail id=a unique=k conflict=debounce delay=10s");
        for second in 1..100 {
            script.line(&format!("{second}s push mail unique=k conflict=debounce delay=60s"));
        }
        assert_eq!(script.line("99s show a"), "delayed 0/5 due 100s");
        assert_eq!(script.line("100s fetch mail"), "a 1/5 t1");
    }

    #[test]
    fn a_push_while_the_holder_runs_stands_by_and_the_last_survives() {
        for rule in ["keep_last", "debounce delay=1s"] {
            let mut script = check(&format!(
                "
                0s  push mail id=a unique=k conflict={rule} -> a {}
                1s  fetch mail                             -> a 1/5 t1
                2s  push mail id=b unique=k conflict={rule} body=1 -> b delayed
                3s  push mail id=c unique=k conflict={rule} body=22 -> b delayed again
                3s  show c                                 -> gone
                3s  explain b                              -> delayed StandsBy at never
                3s  promote b                              -> ! wrong_state delayed
                3s  push mail unique=k                     -> a active again
                3s  push mail unique=k conflict=reject     -> ! unique_conflict
                3s  push mail unique=k conflict=replace    -> a active again
                4s  retry a t1 oops after=10s              -> retrying
                4s  push mail unique=k conflict={rule} body=333 -> b delayed again
                4s  body a                                 -> b
                14s fetch mail                             -> a 2/5 t2
                15s next                                   -> 44s
                15s done a t2                              -> completed
                15s next                                   -> 15s
                15s fetch mail                             -> b 1/5 t3
                15s body b                                 -> 333
                15s push mail id=d unique=k conflict={rule} -> d delayed
                16s done b t3                              -> completed
                17s fetch mail                             -> d 1/5 t4
            ",
                if rule == "keep_last" { "waiting" } else { "delayed" }
            ));
            assert_eq!(script.line("18s done d t4"), "completed");
            assert_eq!(script.line("18s push mail id=e unique=k conflict=reject"), "e waiting");
        }
    }

    #[test]
    fn a_job_that_stands_by_waits_for_its_own_time_too() {
        check(
            "
            0s  push mail id=a unique=k
            0s  fetch mail                              -> a 1/5 t1
            1s  push mail id=b unique=k conflict=keep_last delay=10s -> b delayed
            2s  done a t1                               -> completed
            2s  show b                                  -> delayed 0/5 due 11s
            3s  push mail unique=k conflict=keep_last delay=20s body=22 -> b delayed again
            3s  show b                                  -> delayed 0/5 due 11s
            4s  push mail unique=k conflict=keep_last   -> b waiting again
            4s  fetch mail                              -> b 1/5 t2
        ",
        );
    }

    #[test]
    fn a_job_that_stands_by_can_be_called_off_expire_or_be_purged() {
        check(
            "
            0s  push mail id=a unique=k
            0s  fetch mail                              -> a 1/5 t1
            1s  push mail id=b unique=k conflict=keep_last -> b delayed
            2s  cancel b                                -> cancelled
            2s  redrive b                               -> ! unique_conflict
            3s  push mail id=c unique=k conflict=keep_last expires=5s -> c delayed
            3s  show c                                  -> delayed 0/5
            3s  next                                    -> 8s
            8s  tick
            8s  show c                                  -> expired 0/5
            9s  push mail id=d unique=k conflict=keep_last -> d delayed
            9s  remove d                                -> ok
            9s  push mail id=e unique=k conflict=keep_last -> e delayed
            9s  bulk purge mail
            9s  tick
            9s  show e                                  -> gone
            10s done a t1                               -> completed
            10s redrive b                               -> waiting
        ",
        );
    }

    #[test]
    fn whatever_ends_the_holder_calls_who_stands_by() {
        for end in ["cancel a", "fail a t1 oops", "giveup a t1 over", "done a t1 push mail unique=k"] {
            let mut script = check(
                "
                0s  push mail id=a unique=k
                0s  fetch mail                              -> a 1/5 t1
                1s  push mail id=b unique=k conflict=keep_last -> b delayed
            ",
            );
            script.line(&format!("2s {end}"));
            assert_eq!(script.line("2s fetch mail"), "b 1/5 t2", "{end}");
            assert_eq!(script.line("2s fetch mail"), "none", "{end}");
        }
        check(
            "
            0s  push mail id=a unique=k attempts=1 crashes=1
            0s  fetch mail lease=5s                     -> a 1/1 t1
            1s  push mail id=b unique=k conflict=keep_last -> b delayed
            5s  tick
            5s  show a                                  -> dead 1/1 crashes 1
            5s  fetch mail                              -> b 1/5 t2
            5s  redrive a                               -> ! unique_conflict
            6s  retry b t2 oops after=1h                -> retrying
            6s  push mail id=c unique=k conflict=keep_last -> c delayed
            7s  remove b                                -> ok
            7s  fetch mail                              -> c 1/5 t3
        ",
        );
    }

    #[test]
    fn who_stands_by_keeps_the_key_beyond_the_span_of_the_holder() {
        check(
            "
            0s  push mail id=a unique=k ttl=10s
            0s  fetch mail                              -> a 1/5 t1
            1s  push mail id=b unique=k conflict=keep_last ttl=10s -> b delayed
            20s push mail id=c unique=k conflict=keep_last ttl=10s -> b delayed again
            20s push mail unique=k                      -> a active again
            21s done a t1                               -> completed
            21s push mail unique=k                      -> b waiting again
            30s push mail id=d unique=k                 -> d waiting
        ",
        );
    }

    #[test]
    fn a_replacement_calls_off_who_stands_by_as_well() {
        check(
            "
            0s  push mail id=a unique=k
            0s  fetch mail                              -> a 1/5 t1
            1s  push mail id=b unique=k conflict=keep_last -> b delayed
            2s  retry a t1 oops after=1h                -> retrying
            3s  push mail id=c unique=k conflict=replace -> c waiting
            3s  counts mail                             -> 1 waiting, 2 cancelled
            3s  fetch mail                              -> c 1/5 t2
        ",
        );
    }

    #[test]
    fn a_throttled_key_stays_taken_for_its_span_whatever_becomes_of_the_job() {
        check(
            "
            0s  configure mail keep=5s:9
            0s  push mail id=a unique=k ttl=10s conflict=throttle -> a waiting
            1s  fetch mail                              -> a 1/5 t1
            1s  push mail unique=k ttl=10s conflict=throttle -> a active again
            2s  done a t1                               -> completed
            3s  push mail unique=k ttl=10s conflict=throttle -> a completed again
            3s  push mail id=r unique=k                 -> r waiting
            3s  remove r                                -> ok
            7s  tick
            7s  show a                                  -> gone
            8s  push mail unique=k ttl=99s conflict=throttle -> a completed again, forgotten
            9s  push mail id=b unique=other ttl=10s conflict=throttle -> b waiting
            10s push mail id=c unique=k ttl=10s conflict=throttle -> c waiting
            11s remove c                                -> ok
            11s push mail unique=k ttl=10s conflict=throttle -> c waiting again, forgotten
            20s push mail id=d unique=k ttl=10s conflict=throttle ; mail unique=k ttl=10s conflict=throttle -> d waiting, d waiting again
            20s push mail unique=z conflict=throttle    -> ! invalid unique
        ",
        );
    }

    #[test]
    fn throttles_go_when_their_span_is_over() {
        let mut script = check("0s push mail id=a");
        for key in 0..100 {
            script.line(&format!("0s push mail unique=k{key} ttl=1s conflict=throttle"));
        }
        assert_eq!(script.shard.throttles.len(), 100);
        script.line("1s push mail x9 unique=l ttl=1s conflict=throttle");
        for _ in 0..7 {
            script.line("1s tick");
        }
        assert_eq!(script.shard.throttles.len(), 1);
    }

    #[test]
    fn within_one_push_the_last_survives() {
        check(
            "
            0s push mail id=a unique=k conflict=keep_last body=1 ; mail id=b unique=k conflict=keep_last body=22 -> a waiting, a waiting again
            0s body a                                   -> 22
            0s show b                                   -> gone
            0s push mail id=c unique=k conflict=keep_last p=high ; mail id=d -> a waiting again, d waiting
            0s upcoming mail                            -> a d
        ",
        );
    }

    #[test]
    fn a_renewed_job_keeps_its_place_in_line() {
        check(
            "
            0s push mail id=a unique=k conflict=keep_last ; mail id=b
            1s push mail unique=k conflict=keep_last body=22 tag=red delay=1h expires=9s -> a waiting again
            1s upcoming mail                            -> a b
            1s list mail tag=red                        -> a
            1s heard                                    ->
            10s tick
            10s show a                                  -> expired 0/5
        ",
        );
    }

    #[test]
    fn what_takes_the_place_of_another_needs_no_room_of_its_own() {
        check(
            "
            0s configure mail jobs=2 bytes=10           -> configured
            0s push mail id=a bytes=4 unique=k ; mail id=b bytes=4 -> a waiting, b waiting
            1s push mail id=c bytes=6 unique=k conflict=replace -> c waiting
            1s push mail bytes=7 unique=k conflict=replace -> ! queue_full
            1s push mail bytes=7 unique=k conflict=keep_last -> ! queue_full
            1s push mail bytes=5 unique=k conflict=keep_last -> c waiting again
            1s push mail id=d bytes=6 unique=k conflict=debounce delay=1s -> c delayed again
            1s push mail id=d bytes=6 unique=k conflict=replace ; mail id=e bytes=6 unique=k conflict=replace -> d waiting, e waiting
            1s counts mail                              -> 2 waiting, 3 cancelled
            2s fetch mail                               -> b 1/5 t1
            2s fetch mail                               -> e 1/5 t2
            2s push mail bytes=0 unique=k conflict=keep_last -> ! queue_full
        ",
        );
    }

    #[test]
    fn a_queue_that_drops_makes_room_for_a_renewed_job_by_others() {
        check(
            "
            0s configure mail bytes=10 full=drop        -> configured
            0s push mail id=a bytes=4 unique=k ; mail id=b bytes=3 ; mail id=c bytes=3
            1s push mail bytes=6 unique=k conflict=keep_last -> a waiting again
            1s counts mail                              -> 2 waiting, 1 cancelled
            1s upcoming mail                            -> a c
            2s push mail id=d bytes=9 unique=k conflict=replace -> d waiting
            2s upcoming mail                            -> d
        ",
        );
    }

    #[test]
    fn a_debounce_without_a_wait_is_refused() {
        check(
            "
            0s push mail unique=k conflict=debounce           -> ! invalid unique
            0s push mail id=a unique=k conflict=debounce at=5s -> a delayed
        ",
        );
    }
}
