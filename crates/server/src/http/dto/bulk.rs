use super::{
    fetch::check_batch,
    scalar::{Text, Time, job_id},
};
use crate::http::problem::Problem;
use compact_str::CompactString;
use model::{Filter, JobRef, QueueName, State};
use serde::Deserialize;

/// Which jobs of a queue are meant: named ones, or those that match. Empty means all that the action applies to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkDto<'a> {
    #[serde(borrow)]
    ids: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    state: Option<Text<'a>>,
    #[serde(borrow)]
    tag: Option<Text<'a>>,
    #[serde(borrow)]
    error_kind: Option<Text<'a>>,
    created_before: Option<Time>,
}

impl BulkDto<'_> {
    /// The jobs named one by one; they exclude a filter.
    pub(crate) fn named(&self, queue: &QueueName) -> Result<Option<Vec<JobRef>>, Problem> {
        let Some(ids) = &self.ids else { return Ok(None) };
        if self.filter()? != Filter::default() {
            return Err(Problem::invalid("ids", "and a filter exclude each other"));
        }
        check_batch("ids", ids.len())?;
        ids.iter()
            .map(|id| Ok(JobRef { queue: Some(queue.clone()), id: job_id("ids", id)? }))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    pub(crate) fn filter(&self) -> Result<Filter, Problem> {
        let word = |text: &Option<Text<'_>>| text.as_deref().map(CompactString::from);
        Ok(Filter {
            states: self.state.as_deref().map(read_state).transpose()?.into_iter().collect(),
            tags_all: word(&self.tag).into_iter().collect(),
            error_kind: word(&self.error_kind),
            created_before: self.created_before.map(|time| time.0),
            ..Filter::default()
        })
    }
}

pub(super) fn read_state(text: &str) -> Result<State, Problem> {
    text.parse().map_err(|error| Problem::invalid("state", error))
}

/// Why a job is called off.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelDto<'a> {
    #[serde(borrow, default)]
    pub(crate) reason: Text<'a>,
}

/// A call that takes no fields: an empty body or `{}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NothingDto {}
