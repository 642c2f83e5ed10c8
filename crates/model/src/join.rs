use crate::{ErrorInfo, JobId, NewJob, QueueName};
use bytes::Bytes;
use compact_str::CompactString;
use core::{fmt, str::FromStr};
use kit::Timestamp;
use std::collections::BTreeSet;

/// When a join ends, and whether it then completed or failed.
///
/// A member *succeeds* when it completes. Every other end is a failure, unless the join ignores that kind of end: then the member
/// counts neither way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Completes when all have succeeded; fails with the first failure.
    #[default]
    All,
    /// Completes when all have ended, however they did.
    AllSettled,
    /// Completes with the first success; fails when none can come any more.
    Any,
    /// Ends with the first end, and like it.
    Race,
    /// Completes with so many successes; fails when they can no longer be reached.
    KOfN(u32),
}

impl Policy {
    /// The name used on every surface; how many are needed is told apart.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::All => "all",
            Policy::AllSettled => "all_settled",
            Policy::Any => "any",
            Policy::Race => "race",
            Policy::KOfN(_) => "k_of_n",
        }
    }

    /// How a join stands with so many members, of which so many succeeded and failed and so many were ignored. `sealed` means that
    /// no member can come.
    pub const fn verdict(
        self,
        members: u32,
        succeeded: u32,
        failed: u32,
        ignored: u32,
        sealed: bool,
    ) -> JoinState {
        let pending = members - succeeded - failed - ignored;
        let over = sealed && pending == 0;
        let needed = match self {
            Policy::All if failed > 0 => return JoinState::Failed,
            Policy::All | Policy::AllSettled if over => return JoinState::Completed,
            Policy::All | Policy::AllSettled => return JoinState::Open,
            Policy::Race if succeeded == 0 && failed > 0 => return JoinState::Failed,
            Policy::Race | Policy::Any => 1,
            Policy::KOfN(needed) => needed,
        };
        if succeeded >= needed {
            JoinState::Completed
        } else if sealed && succeeded + pending < needed {
            JoinState::Failed
        } else {
            JoinState::Open
        }
    }
}

/// What happens to the continuation of a join that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum OnFailure {
    /// It is dead, and can be redriven.
    #[default]
    Fail = 0,
    /// It is cancelled.
    Cancel = 1,
    /// It runs, and sees which members failed.
    Run = 2,
}

impl OnFailure {
    /// All of them, by number.
    pub const ALL: [OnFailure; 3] = [OnFailure::Fail, OnFailure::Cancel, OnFailure::Run];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            OnFailure::Fail => "fail",
            OnFailure::Cancel => "cancel",
            OnFailure::Run => "run",
        }
    }
}

/// What happens to members that have not ended when their join has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Rest {
    /// They are cancelled, unless another open join waits for them; what a running one reports later is refused.
    #[default]
    Cancel = 0,
    /// They go on; nobody waits for them.
    Run = 1,
}

impl Rest {
    /// All of them, by number.
    pub const ALL: [Rest; 2] = [Rest::Cancel, Rest::Run];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Rest::Cancel => "cancel",
            Rest::Run => "run",
        }
    }
}

/// How a join stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum JoinState {
    /// Not yet decided.
    #[default]
    Open = 0,
    /// Its policy was met.
    Completed = 1,
    /// Its policy can no longer be met.
    Failed = 2,
    /// It was called off, or nobody waits for it any more.
    Cancelled = 3,
}

impl JoinState {
    /// All of them, by number.
    pub const ALL: [JoinState; 4] =
        [JoinState::Open, JoinState::Completed, JoinState::Failed, JoinState::Cancelled];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            JoinState::Open => "open",
            JoinState::Completed => "completed",
            JoinState::Failed => "failed",
            JoinState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JoinState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a member of a join stands: a job, or a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum MemberState {
    /// It has not ended.
    #[default]
    Pending = 0,
    /// The job or the join completed: the only success.
    Completed = 1,
    /// The job is dead, or the join failed.
    Failed = 2,
    /// It was cancelled.
    Cancelled = 3,
    /// The job was not started in time.
    Expired = 4,
    /// The job was removed before its end.
    Removed = 5,
}

impl MemberState {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them, by number.
    pub const ALL: [MemberState; MemberState::COUNT] = [
        MemberState::Pending,
        MemberState::Completed,
        MemberState::Failed,
        MemberState::Cancelled,
        MemberState::Expired,
        MemberState::Removed,
    ];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            MemberState::Pending => "pending",
            MemberState::Completed => "completed",
            MemberState::Failed => "failed",
            MemberState::Cancelled => "cancelled",
            MemberState::Expired => "expired",
            MemberState::Removed => "removed",
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MemberState {
    type Err = crate::BadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(crate::BadName {
            what: "a member's state",
            reason: "is one of pending, completed, failed, cancelled, expired, removed",
        })
    }
}

/// Ends of members that a join does not count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignore(u8);

impl Ignore {
    /// Nothing is ignored.
    pub const NONE: Ignore = Ignore(0);

    /// These ends. A pending or completed member is what it is: those two are left out.
    pub fn of(states: &[MemberState]) -> Ignore {
        let bits = states.iter().fold(0, |bits, state| bits | 1 << *state as u8);
        Ignore(bits & !0b11)
    }

    /// Whether such an end is ignored.
    pub const fn has(self, state: MemberState) -> bool {
        self.0 & 1 << state as u8 != 0
    }

    /// The ends in the order of their numbers.
    pub fn states(self) -> impl Iterator<Item = MemberState> {
        MemberState::ALL.into_iter().filter(move |state| self.has(*state))
    }

    /// One bit for each state, by its number.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What [`Ignore::bits`] gave; `None` for bits that mean nothing.
    pub const fn from_bits(bits: u8) -> Option<Ignore> {
        if bits & 0b11 == 0 && bits < 1 << MemberState::COUNT { Some(Ignore(bits)) } else { None }
    }
}

/// Jobs and joins to be added as one change, all or none. Names hold within the graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    /// The jobs, over any queues. Those that are a continuation are held until their join ends.
    pub jobs: Vec<NamedJob>,
    /// The joins.
    pub joins: Vec<NewJoin>,
}

impl Graph {
    /// What no join of the graph waits for, jobs first, but for `then`; of joins only those that lead to nothing.
    pub fn not_awaited(&self, then: Option<&CompactString>) -> Vec<CompactString> {
        let awaited: BTreeSet<_> = self.joins.iter().flat_map(|join| &join.members).chain(then).collect();
        let ends = self.joins.iter().filter(|join| join.then.is_none()).map(|join| &join.name);
        let names = self.jobs.iter().map(|named| &named.name).chain(ends);
        names.filter(|name| !awaited.contains(name)).cloned().collect()
    }
}

/// A job to be added, and what its graph calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedJob {
    /// Its name in the graph, and for good as a member of joins.
    pub name: CompactString,
    /// The job. If its id or its unique key finds an existing job, that is the member; a continuation must be new.
    pub job: NewJob,
}

/// A join to be added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewJoin {
    /// Its name in the graph.
    pub name: CompactString,
    /// The names of jobs and joins of the graph.
    pub members: Vec<CompactString>,
    /// When it ends.
    pub policy: Policy,
    /// The job of the graph that starts when it ends; at most one join for each job.
    pub then: Option<CompactString>,
    /// What happens to that job if the join fails.
    pub on_failure: OnFailure,
    /// What happens to members that have not ended when the join has.
    pub rest: Rest,
    /// Which ends of members are no failures.
    pub ignore: Ignore,
    /// More members may come until it is sealed.
    pub open: bool,
}

/// A join as people, tools and continuations see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinView {
    /// Its id.
    pub id: JobId,
    /// What its graph called it.
    pub name: CompactString,
    /// How it stands.
    pub state: JoinState,
    /// When it ends.
    pub policy: Policy,
    /// What happens to the continuation if it fails.
    pub on_failure: OnFailure,
    /// What happens to members that have not ended when it has.
    pub rest: Rest,
    /// Which ends of members are no failures.
    pub ignore: Ignore,
    /// Whether no more members can come.
    pub sealed: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The job that starts when it ends, while there is one.
    pub then: Option<(QueueName, JobId)>,
    /// Members by state, indexed by [`MemberState`] as a number.
    pub counts: [u32; MemberState::COUNT],
    /// The members in order; see [`JoinView::next`].
    pub members: Vec<MemberView>,
    /// Where the rest of the members begins, if these are not all.
    pub next: Option<u32>,
}

impl JoinView {
    /// How many members it has.
    pub fn total(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// How many members are in a state.
    pub const fn count(&self, state: MemberState) -> u32 {
        self.counts[state as usize]
    }
}

/// A member as people, tools and continuations see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// What its graph calls it.
    pub name: CompactString,
    /// How it stands.
    pub state: MemberState,
    /// Which job or join it is.
    pub what: MemberOf,
    /// What the job returned, if that is small enough to be handed on.
    pub result: Option<Bytes>,
    /// Bytes of what the job returned. With `result` absent, the job itself has it for as long as it is kept.
    pub result_bytes: u32,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberOf {
    /// A job, by queue and id.
    Job(QueueName, JobId),
    /// A join, with its own members.
    Join(Box<JoinView>),
    /// A job that is no longer kept.
    Gone,
}

/// What was added with a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// In the order of the graph's jobs.
    pub jobs: Vec<crate::Pushed>,
    /// The ids of the joins, in the order of the graph.
    pub joins: Vec<JobId>,
}
