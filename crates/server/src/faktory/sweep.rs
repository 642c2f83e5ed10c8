//! Changing all jobs of a queue that are in a state, a page at a time: what QUEUE REMOVE, MUTATE and FLUSH have in common.

use super::{answer::Refusal, session::Session};
use millpond_core::ListQuery;
use model::{Command, JobRef, JobView, QueueName, Reject, State};

/// Jobs of one page.
const PAGE: usize = 500;

/// What is done to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Forgets them.
    Remove,
    /// Makes those waiting that wait for a time.
    Promote,
    /// Gives those another life that have ended.
    Redrive,
    /// Calls them off, for this reason.
    Cancel(&'static str),
}

/// Which jobs are meant.
pub(super) trait Choice: Send + Sync {
    /// Whether this one is, as far as can be seen without its body.
    fn wants(&self, job: &JobView) -> bool;

    /// The same by its body; `None` if that does not count.
    fn wants_body(&self, _body: &[u8]) -> Option<bool> {
        None
    }
}

impl<F: Fn(&JobView) -> bool + Send + Sync> Choice for F {
    fn wants(&self, job: &JobView) -> bool {
        self(job)
    }
}

impl Session<'_> {
    /// Does something to the jobs of a queue that are in a state and meant.
    pub(super) async fn sweep(
        &self,
        queue: &QueueName,
        state: State,
        choice: &dyn Choice,
        act: Act,
    ) -> Result<(), Refusal> {
        let mut cursor = None;
        loop {
            let (name, query) = (
                queue.clone(),
                ListQuery { state: Some(state), limit: PAGE, cursor, ..ListQuery::default() },
            );
            let page = match self.app.node.read(move |shard| shard.list(&name, &query)).await? {
                Ok(page) => page,
                // Nothing was ever pushed there.
                Err(Reject::UnknownQueue { .. }) => return Ok(()),
                Err(reject) => return Err(reject.into()),
            };
            let mut meant = Vec::new();
            for view in page.jobs {
                let job = JobRef { queue: Some(view.queue.clone()), id: view.id.clone() };
                if choice.wants(&view) && self.wants_body(choice, view, &job).await? {
                    meant.push(job);
                }
            }
            self.act(meant, act).await?;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn wants_body(&self, choice: &dyn Choice, view: JobView, job: &JobRef) -> Result<bool, Refusal> {
        // Most choices need no body, and those on the disk are not read for them.
        let Some(empty) = choice.wants_body(b"") else { return Ok(true) };
        let body = match view.body {
            Some(body) => Some(body),
            None => self.app.node.job(job.clone()).await?.and_then(|view| view.body),
        };
        Ok(body.map_or(empty, |body| choice.wants_body(&body).unwrap_or(empty)))
    }

    async fn act(&self, jobs: Vec<JobRef>, act: Act) -> Result<(), Refusal> {
        if jobs.is_empty() {
            return Ok(());
        }
        let command = |jobs: Vec<JobRef>| match act {
            Act::Remove => Command::Remove { jobs },
            Act::Promote => Command::Promote { jobs },
            Act::Redrive => Command::Redrive { jobs },
            Act::Cancel(_) => unreachable!("jobs are called off one by one"),
        };
        if !matches!(act, Act::Cancel(_)) && self.call(command(jobs.clone())).await.is_ok() {
            return Ok(());
        }
        // One that has changed since it was seen refuses all of them.
        for job in jobs {
            let command = match act {
                Act::Cancel(reason) => Command::Cancel { job, reason: reason.into() },
                _ => command(vec![job]),
            };
            if let Err(refusal) = self.call(command).await {
                tracing::debug!(?refusal, "a job has changed meanwhile");
            }
        }
        Ok(())
    }
}
