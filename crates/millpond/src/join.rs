//! Jobs that wait for jobs.

use crate::{Error, Pond, Push, Receipt};
use compact_str::{CompactString, format_compact};
use kit::Durability;
use model::{
    Command, Envelope, Graph, Ignore, JobId, JoinState, JoinView, MemberOf, MemberState, MemberView,
    NamedJob, NewJob, NewJoin, OnFailure, Policy, Reply, Rest,
};
use serde::de::DeserializeOwned;
use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

/// A join being put together: members, and when it ends. [`Pond::join`] adds it, [`crate::Outcome::wait`] waits for it.
///
/// ```
/// # use millpond::{Join, Pond};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), millpond::Error> {
/// # let pond = Pond::in_memory().await?;
/// let images = pond.queue::<String>("images")?;
/// let pages = pond.queue::<u32>("pages")?;
/// let resized = ["a.jpg", "b.jpg"].map(|file| images.push(&file.to_string()));
/// let added = pond.join(Join::all(resized).then(pages.push(&7))).await?;
/// assert_eq!(pond.show_join(&added.id).await?.map(|join| join.total()), Some(2));
/// # pond.close().await
/// # }
/// ```
#[must_use = "a join does nothing until it is added"]
pub struct Join {
    policy: Policy,
    members: Vec<Member>,
    then: Option<Result<NewJob, Error>>,
    on_failure: OnFailure,
    rest: Rest,
    ignore: Vec<MemberState>,
}

/// A member: a job or a join, with a name or without. Made from a [`Push`], a [`Join`], or a pair of a name and one of them.
pub struct Member {
    name: Option<CompactString>,
    what: What,
}

enum What {
    Job(Box<Result<NewJob, Error>>),
    Join(Box<Join>),
}

impl From<Push> for Member {
    fn from(push: Push) -> Self {
        Self { name: None, what: What::Job(Box::new(push.job())) }
    }
}

impl From<Join> for Member {
    fn from(join: Join) -> Self {
        Self { name: None, what: What::Join(Box::new(join)) }
    }
}

impl<S: AsRef<str>, M: Into<Member>> From<(S, M)> for Member {
    fn from((name, member): (S, M)) -> Self {
        Self { name: Some(name.as_ref().into()), ..member.into() }
    }
}

impl Join {
    fn new<M: Into<Member>>(policy: Policy, members: impl IntoIterator<Item = M>) -> Self {
        Self {
            policy,
            members: members.into_iter().map(Into::into).collect(),
            then: None,
            on_failure: OnFailure::default(),
            rest: Rest::default(),
            ignore: Vec::new(),
        }
    }

    /// Completes when all members have completed; fails with the first failure.
    pub fn all<M: Into<Member>>(members: impl IntoIterator<Item = M>) -> Self {
        Self::new(Policy::All, members)
    }

    /// Completes when all members have ended, however they did.
    pub fn all_settled<M: Into<Member>>(members: impl IntoIterator<Item = M>) -> Self {
        Self::new(Policy::AllSettled, members)
    }

    /// Completes with the first member that completes.
    pub fn any<M: Into<Member>>(members: impl IntoIterator<Item = M>) -> Self {
        Self::new(Policy::Any, members)
    }

    /// Ends with the first member that ends, and like it.
    pub fn race<M: Into<Member>>(members: impl IntoIterator<Item = M>) -> Self {
        Self::new(Policy::Race, members)
    }

    /// Completes when so many members have completed.
    pub fn k_of_n<M: Into<Member>>(needed: u32, members: impl IntoIterator<Item = M>) -> Self {
        Self::new(Policy::KOfN(needed), members)
    }

    /// Adds a member, of another kind perhaps.
    pub fn and(mut self, member: impl Into<Member>) -> Self {
        self.members.push(member.into());
        self
    }

    /// The job that starts when the join ends, with the members' results in [`crate::Job::children`].
    pub fn then(mut self, job: Push) -> Self {
        self.then = Some(job.job());
        self
    }

    /// If the join fails, its continuation runs all the same. Without this it is dead.
    pub fn run_on_failure(mut self) -> Self {
        self.on_failure = OnFailure::Run;
        self
    }

    /// If the join fails, its continuation is cancelled. Without this it is dead.
    pub fn cancel_on_failure(mut self) -> Self {
        self.on_failure = OnFailure::Cancel;
        self
    }

    /// Members that have not ended when the join has go on. Without this they are cancelled.
    pub fn let_the_rest_run(mut self) -> Self {
        self.rest = Rest::Run;
        self
    }

    /// Members that end like this are no failures.
    pub fn ignore(mut self, ends: impl IntoIterator<Item = MemberState>) -> Self {
        self.ignore.extend(ends);
        self
    }

    /// As data. The join itself comes last.
    pub(crate) fn into_graph(self) -> Result<Graph, Error> {
        let mut graph = Graph::default();
        self.lower(None, &mut graph)?;
        Ok(graph)
    }

    fn lower(self, name: Option<CompactString>, graph: &mut Graph) -> Result<CompactString, Error> {
        let mut members = Vec::with_capacity(self.members.len());
        for member in self.members {
            members.push(match member.what {
                What::Job(job) => add_job(graph, member.name, (*job)?),
                What::Join(join) => join.lower(member.name, graph)?,
            });
        }
        let then = self.then.transpose()?.map(|job| add_job(graph, None, job));
        let name = name.unwrap_or_else(|| format_compact!("join-{}", graph.joins.len() + 1));
        graph.joins.push(NewJoin {
            name: name.clone(),
            members,
            policy: self.policy,
            then,
            on_failure: self.on_failure,
            rest: self.rest,
            ignore: Ignore::of(&self.ignore),
            open: false,
        });
        Ok(name)
    }
}

fn add_job(graph: &mut Graph, name: Option<CompactString>, job: NewJob) -> CompactString {
    let name = name.unwrap_or_else(|| format_compact!("job-{}", graph.jobs.len() + 1));
    graph.jobs.push(NamedJob { name: name.clone(), job });
    name
}

/// What [`Pond::join`] brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The join's id.
    pub id: JobId,
    /// The jobs: members in order, depth first, each continuation behind the members of its join.
    pub jobs: Vec<Receipt>,
}

/// A join about to be added; `.await` carries it out. See [`Pond::join`].
#[must_use = "a join does nothing until it is awaited"]
pub struct AddJoin {
    pond: Pond,
    join: Join,
    idempotency_key: Option<CompactString>,
}

impl AddJoin {
    /// For 24 hours a join with the same key and content gets the first answer again: repeat it after a doubtful answer.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        self.idempotency_key = Some(key.as_ref().into());
        self
    }
}

impl IntoFuture for AddJoin {
    type Output = Result<Joined, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { pond, join, idempotency_key } = self;
            let command = Command::Join { graph: join.into_graph()? };
            let envelope = Envelope { actor: pond.inner.actor.clone(), idempotency_key, command };
            let answer = pond.inner.backend.call(envelope, pond.inner.level).await?;
            let (position, durability): (u64, Durability) = (answer.position, answer.durability);
            let Reply::Joined(joined) = answer.reply else { return Err(Error::Mismatch) };
            let receipt = |pushed: model::Pushed| Receipt::of(pushed, position, durability);
            Ok(Joined {
                id: joined.joins.last().cloned().ok_or(Error::Mismatch)?,
                jobs: joined.jobs.into_iter().map(receipt).collect(),
            })
        })
    }
}

impl Pond {
    /// Adds a join with its jobs, all or none; `.await` the call, or give it an idempotency key before.
    pub fn join(&self, join: Join) -> AddJoin {
        AddJoin { pond: self.clone(), join, idempotency_key: None }
    }

    /// A join with its members; `None` if there is none.
    pub async fn show_join(&self, id: &JobId) -> Result<Option<JoinView>, Error> {
        self.inner.backend.join(id.clone()).await
    }

    /// Calls a join off, with its continuation and the members that have not ended.
    pub async fn cancel_join(&self, id: &JobId, reason: &str) -> Result<(), Error> {
        let command = Command::CancelJoin { join: id.clone(), reason: reason.into() };
        self.inner.command(command).await.map(drop)
    }
}

/// The members of the join that a job waited for, and what came of them.
#[derive(Debug, Clone, Copy)]
pub struct Children<'a>(pub(crate) &'a JoinView);

impl<'a> Children<'a> {
    /// The join itself.
    pub fn join(&self) -> &'a JoinView {
        self.0
    }

    /// Whether the policy was met.
    pub fn is_completed(&self) -> bool {
        self.0.state == JoinState::Completed
    }

    /// The members that are jobs, those of nested joins included, in order.
    pub fn members(&self) -> Vec<&'a MemberView> {
        let mut out = Vec::new();
        collect(self.0, &mut out);
        out
    }

    /// The results of the members that completed, in order. A result that was too large to be handed over is an error: read the job.
    pub fn results<T: DeserializeOwned>(&self) -> Result<Vec<T>, Error> {
        let completed = self.members().into_iter().filter(|member| member.state == MemberState::Completed);
        completed.map(result).collect()
    }

    /// The result of the member with this name; `None` if there is none, or it did not complete.
    pub fn result<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let found = self.members().into_iter().find(|member| member.name == name);
        found.filter(|member| member.state == MemberState::Completed).map(result).transpose()
    }

    /// Those that did not complete.
    pub fn failed(&self) -> Vec<&'a MemberView> {
        let over = |state| !matches!(state, MemberState::Completed | MemberState::Pending);
        self.members().into_iter().filter(|member| over(member.state)).collect()
    }
}

fn collect<'a>(join: &'a JoinView, out: &mut Vec<&'a MemberView>) {
    for member in &join.members {
        match &member.what {
            MemberOf::Join(nested) => collect(nested, out),
            MemberOf::Job(..) | MemberOf::Gone => out.push(member),
        }
    }
}

fn result<T: DeserializeOwned>(member: &MemberView) -> Result<T, Error> {
    let json = match &member.result {
        Some(json) => &json[..],
        // Empty stands for "not handed over", which is no JSON; nothing returned is `null`.
        None if member.result_bytes > 0 => b"",
        None => b"null",
    };
    Ok(serde_json::from_slice(json)?)
}
