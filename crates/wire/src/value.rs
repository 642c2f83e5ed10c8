//! The parts of messages that are the model's own: names, jobs, joins.

use crate::pack::{Fields, Input, Pack, map, names, put_array, put_number, put_text, read_fields};
use compact_str::CompactString;
use kit::{Backoff, Durability, Timestamp, codec::Malformed};
use model::{
    Actor, Cause, DispatchedJob, ErrorInfo, Graph, Ignore, JobId, JobRef, JoinState, JoinView, LeaseRef,
    LimitUse, MemberOf, MemberState, MemberView, NamedJob, NewJob, NewJoin, OnConflict, OnFailure, Policy,
    Priority, Pushed, QueueName, Rest, Revocation, Route, ScheduleId, ScheduleState, State, Unique,
};

names! {
    State: State::ALL;
    Durability: Durability::ALL;
    Cause: Cause::ALL;
    Revocation: Revocation::ALL;
    JoinState: JoinState::ALL;
    MemberState: MemberState::ALL;
    OnFailure: OnFailure::ALL, usually OnFailure::Fail;
    Rest: Rest::ALL, usually Rest::Cancel;
    ScheduleState: ScheduleState::ALL;
}

/// Milliseconds since 1970.
impl Pack for Timestamp {
    fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, self.0);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("a time");
        let time = Timestamp(input.number("a time")?);
        if time <= Timestamp::MAX { Ok(time) } else { Err(start) }
    }
}

impl Pack for Priority {
    fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, self.0.into());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("a priority");
        u8::try_from(input.number("a priority")?).map(Priority).map_err(|_| start)
    }

    fn is_empty(&self) -> bool {
        *self == Priority::NORMAL
    }

    fn empty() -> Option<Self> {
        Some(Priority::NORMAL)
    }
}

impl Pack for QueueName {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self.as_str());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("the name of a queue");
        QueueName::new(input.text("the name of a queue")?).map_err(|_| start)
    }
}

impl Pack for ScheduleId {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self.as_str());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("the id of a schedule");
        ScheduleId::new(input.text("the id of a schedule")?).map_err(|_| start)
    }
}

impl Pack for Actor {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self.as_str());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.text("a name").map(Actor::new)
    }
}

impl Pack for JobId {
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            JobId::Text(text) => put_text(out, text),
            JobId::Uuid(bits) => {
                // A UUID in text has 36 bytes.
                out.extend_from_slice(&[0xd9, 36]);
                out.extend_from_slice(&JobId::uuid_text(*bits));
            }
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("the id of a job");
        JobId::parse(input.text("the id of a job")?).map_err(|_| start)
    }
}

map!(JobRef { queue, id });
map!(ErrorInfo { kind, message, stack });
map!(LimitUse { key, cost });
map!(Pushed { id, state, deduplicated, forgotten });
map!(NamedJob { name, job });
map!(NewJoin { name, members, policy, then, on_failure, rest, ignore, open });
map!(Graph { jobs, joins });
map!(JoinView {
    id,
    name,
    state,
    policy,
    on_failure,
    rest,
    ignore,
    sealed,
    created_at,
    ended_at,
    then,
    counts,
    members,
    next
});

/// A map with the fields of its job reference and its token.
impl Pack for LeaseRef {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        fields.add("queue", &self.job.queue).add("id", &self.job.id).add("lease_token", &self.token);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        read_fields!(input, "a lease", queue, id, lease_token);
        Ok(LeaseRef { job: JobRef { queue, id }, token: lease_token })
    }
}

/// A map with a `type`; see the HTTP routes.
impl Pack for Backoff {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        match self {
            Backoff::Exponential { base, cap } => {
                fields.text("type", "exponential").add("base_ms", base).add("cap_ms", cap);
            }
            Backoff::Fixed { delay } => {
                fields.text("type", "fixed").add("delay_ms", delay);
            }
            Backoff::Sidekiq => {
                fields.text("type", "sidekiq");
            }
            Backoff::List { delays } => {
                fields.text("type", "list").add("delays_ms", delays);
            }
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("a backoff");
        let (mut kind, mut base, mut cap, mut delay, mut delays) = ("", 0, 0, 0, Vec::new());
        input.map("a backoff", |name, input| {
            match name {
                b"type" => kind = input.text("type")?,
                b"base_ms" => base = input.number("base_ms")?,
                b"cap_ms" => cap = input.number("cap_ms")?,
                b"delay_ms" => delay = input.number("delay_ms")?,
                b"delays_ms" => delays = Pack::unpack(input)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match kind {
            "exponential" => Ok(Backoff::Exponential { base, cap }),
            "fixed" => Ok(Backoff::Fixed { delay }),
            "sidekiq" => Ok(Backoff::Sidekiq),
            "list" => Ok(Backoff::List { delays }),
            _ => Err(start),
        }
    }
}

impl Pack for Unique {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        fields.add("key", &self.key).add("ttl_ms", &self.ttl_ms);
        if self.on_conflict != OnConflict::Return {
            fields.text("on_conflict", self.on_conflict.name());
        }
        if let OnConflict::Debounce { max_wait_ms } = &self.on_conflict {
            fields.add("max_wait_ms", max_wait_ms);
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("on_conflict");
        let (mut key, mut ttl_ms, mut rule, mut max_wait_ms) = (CompactString::default(), 0, "return", 0);
        input.map("unique", |name, input| {
            match name {
                b"key" => key = Pack::unpack(input)?,
                b"ttl_ms" => ttl_ms = input.number("ttl_ms")?,
                b"on_conflict" => rule = input.text("on_conflict")?,
                b"max_wait_ms" => max_wait_ms = input.number("max_wait_ms")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let rules = [
            OnConflict::Return,
            OnConflict::Reject,
            OnConflict::Replace,
            OnConflict::Debounce { max_wait_ms },
            OnConflict::Throttle,
            OnConflict::KeepLast,
        ];
        let on_conflict = rules.into_iter().find(|one| one.name() == rule).ok_or(start)?;
        Ok(Unique { key, ttl_ms, on_conflict })
    }
}

/// The fields of [`Route`] stand beside the others.
impl Pack for NewJob {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        fields
            .add("queue", &self.queue)
            .add("body", &self.body)
            .add("id", &self.id)
            .add("content_type", &self.content_type)
            .add("priority", &self.priority)
            .add("delay_ms", &self.delay_ms)
            .add("run_at", &self.run_at)
            .add("attempts", &self.attempts)
            .add("max_crashes", &self.max_crashes)
            .add("backoff", &self.backoff)
            .add("timeout_ms", &self.timeout_ms)
            .add("expires_ms", &self.expires_ms)
            .add("unique", &self.unique)
            .add("tags", &self.tags)
            .add("meta", &self.meta);
        if let Some(route) = &self.route {
            fields
                .add("group", &route.group)
                .add("ordering_key", &route.ordering_key)
                .add("limits", &route.limits)
                .add("deadline", &route.deadline);
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("queue and body of a job");
        let (mut queue, mut body) = (None, None);
        // Most jobs have nothing but these two, so the others are put where they belong when they come.
        let mut rest: Option<Box<NewJob>> = None;
        let mut route = Route::default();
        input.map("a job", |name, input| {
            match name {
                b"queue" => queue = Some(QueueName::unpack(input)?),
                b"body" => body = Some(input.blob("body")?),
                b"group" => route.group = Pack::unpack(input)?,
                b"ordering_key" => route.ordering_key = Pack::unpack(input)?,
                b"limits" => route.limits = Pack::unpack(input)?,
                b"deadline" => route.deadline = Pack::unpack(input)?,
                _ => {
                    let job = rest.get_or_insert_with(plain);
                    match name {
                        b"id" => job.id = Pack::unpack(input)?,
                        b"content_type" => job.content_type = Pack::unpack(input)?,
                        b"priority" => job.priority = Pack::unpack(input)?,
                        b"delay_ms" => job.delay_ms = Pack::unpack(input)?,
                        b"run_at" => job.run_at = Pack::unpack(input)?,
                        b"attempts" => job.attempts = Pack::unpack(input)?,
                        b"max_crashes" => job.max_crashes = Pack::unpack(input)?,
                        b"backoff" => job.backoff = Pack::unpack(input)?,
                        b"timeout_ms" => job.timeout_ms = Pack::unpack(input)?,
                        b"expires_ms" => job.expires_ms = Pack::unpack(input)?,
                        b"unique" => job.unique = Pack::unpack(input)?,
                        b"tags" => job.tags = Pack::unpack(input)?,
                        b"meta" => job.meta = Pack::unpack(input)?,
                        _ => return Ok(false),
                    }
                }
            }
            Ok(true)
        })?;
        let (queue, body) = queue.zip(body).ok_or(start)?;
        let route = (route != Route::default()).then(|| Box::new(route));
        Ok(match rest {
            None => NewJob { route, ..NewJob::new(queue, body) },
            Some(job) => NewJob { queue, body, route, ..*job },
        })
    }
}

fn plain() -> Box<NewJob> {
    let queue = QueueName::new("-").unwrap_or_else(|bad| unreachable!("{bad}"));
    Box::new(NewJob::new(queue, bytes::Bytes::new()))
}

/// All but the shard's own number of the job.
impl Pack for DispatchedJob {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        fields
            .add("queue", &self.queue)
            .add("id", &self.id)
            .add("body", &self.body)
            .add("content_type", &self.content_type)
            .add("attempt", &self.attempt)
            .add("attempts", &self.attempts)
            .add("crashes", &self.crashes)
            .add("lease_token", &self.lease_token)
            .add("lease_until", &self.lease_until)
            .add("timeout_at", &self.timeout_at)
            .add("priority", &self.priority)
            .add("created_at", &self.created_at)
            .add("tags", &self.tags)
            .add("meta", &self.meta)
            .add("children", &self.children)
            .add("steps", &self.steps)
            .add("group", &self.group);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        read_fields!(
            input,
            "a job",
            queue,
            id,
            body,
            content_type,
            attempt,
            attempts,
            crashes,
            lease_token,
            lease_until,
            timeout_at,
            priority,
            created_at,
            tags,
            meta,
            children,
            steps,
            group,
        );
        Ok(DispatchedJob {
            sequence: 0,
            queue,
            id,
            body,
            content_type,
            attempt,
            attempts,
            crashes,
            lease_token,
            lease_until,
            timeout_at,
            priority,
            created_at,
            tags,
            meta,
            children,
            steps,
            group,
        })
    }
}

/// Its name, or `["k_of_n", k]`.
impl Pack for Policy {
    fn pack(&self, out: &mut Vec<u8>) {
        if let Policy::KOfN(needed) = self {
            put_array(out, 2);
            put_text(out, self.name());
            put_number(out, (*needed).into());
        } else {
            put_text(out, self.name());
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("policy");
        if input.clone().array("policy").is_ok() {
            let (name, needed) = <(CompactString, u32)>::unpack(input)?;
            return if name == "k_of_n" { Ok(Policy::KOfN(needed)) } else { Err(start) };
        }
        let name = input.text("policy")?;
        let plain = [Policy::All, Policy::AllSettled, Policy::Any, Policy::Race];
        plain.into_iter().find(|policy| policy.name() == name).ok_or(start)
    }

    fn is_empty(&self) -> bool {
        *self == Policy::All
    }

    fn empty() -> Option<Self> {
        Some(Policy::All)
    }
}

/// A list of states.
impl Pack for Ignore {
    fn pack(&self, out: &mut Vec<u8>) {
        self.states().collect::<Vec<_>>().pack(out);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        Ok(Ignore::of(&Vec::unpack(input)?))
    }

    fn is_empty(&self) -> bool {
        *self == Ignore::NONE
    }

    fn empty() -> Option<Self> {
        Some(Ignore::NONE)
    }
}

impl<const N: usize, T: Pack + Copy + Default> Pack for [T; N] {
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, N);
        for item in self {
            item.pack(out);
        }
    }

    /// A longer list is cut, a shorter one filled: kinds that one side does not know.
    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let mut all = [T::default(); N];
        for (one, slot) in Vec::<T>::unpack(input)?.into_iter().zip(&mut all) {
            *slot = one;
        }
        Ok(all)
    }
}

/// `queue` and `id` for a job, `join` for a join, neither for what is gone.
impl Pack for MemberView {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        fields.add("name", &self.name).add("state", &self.state);
        match &self.what {
            MemberOf::Job(queue, id) => {
                fields.add("queue", queue).add("id", id);
            }
            MemberOf::Join(join) => {
                fields.add("join", join);
            }
            MemberOf::Gone => {}
        }
        fields.add("result", &self.result).add("result_bytes", &self.result_bytes).add("error", &self.error);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        read_fields!(input, "a member", name, state, queue, id, join, result, result_bytes, error);
        let job: (Option<QueueName>, Option<JobId>) = (queue, id);
        let join: Option<Box<JoinView>> = join;
        let what = match (job, join) {
            ((Some(queue), Some(id)), None) => MemberOf::Job(queue, id),
            (_, Some(join)) => MemberOf::Join(join),
            _ => MemberOf::Gone,
        };
        Ok(MemberView { name, state, what, result, result_bytes, error })
    }
}
