use super::{
    fetch::check_batch,
    scalar::{Text, Time, Urgency, job_id, queue_name},
};
use crate::http::problem::Problem;
use compact_str::CompactString;
use model::{BodyTest, BulkAction, Compare, Filter, JobRef, NewBulk, QueueName, State};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What to do to which jobs of a queue. The jobs: named ones, or those for which every condition holds. No condition means all
/// that the action applies to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkDto<'a> {
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow, default)]
    add: Vec<Text<'a>>,
    #[serde(borrow, default)]
    remove: Vec<Text<'a>>,
    priority: Option<Urgency>,
    #[serde(borrow)]
    to: Option<Text<'a>>,
    #[serde(borrow)]
    ids: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    state: Option<Text<'a>>,
    #[serde(borrow, default)]
    states: Vec<Text<'a>>,
    #[serde(borrow)]
    tag: Option<Text<'a>>,
    #[serde(borrow, default)]
    tags_any: Vec<Text<'a>>,
    #[serde(borrow, default)]
    tags_all: Vec<Text<'a>>,
    #[serde(borrow)]
    error_kind: Option<Text<'a>>,
    #[serde(borrow)]
    error_contains: Option<Text<'a>>,
    created_before: Option<Time>,
    created_after: Option<Time>,
    finished_before: Option<Time>,
    finished_after: Option<Time>,
    priority_min: Option<Urgency>,
    priority_max: Option<Urgency>,
    attempts_min: Option<u32>,
    attempts_max: Option<u32>,
    #[serde(borrow)]
    id_prefix: Option<Text<'a>>,
    #[serde(borrow, default)]
    body: Vec<BodyTestDto<'a>>,
    #[serde(default)]
    rate: u32,
    #[serde(borrow, default)]
    reason: Text<'a>,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// A condition on one value of the body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BodyTestDto<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(borrow, default)]
    compare: Option<Text<'a>>,
    #[serde(borrow)]
    value: &'a RawValue,
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

    /// The whole operation; a route that is made for one action takes no other.
    pub(crate) fn asked(&self, queue: QueueName, route: Option<BulkAction>) -> Result<NewBulk, Problem> {
        let action = match (route, &self.action) {
            (Some(action), None) => action,
            (Some(action), Some(named)) if **named == *action.name() => action,
            (Some(action), Some(_)) => {
                return Err(Problem::invalid(
                    "action",
                    format!("is {} here, and need not be said", action.name()),
                ));
            }
            (None, named) => self.action(named.as_deref().unwrap_or_default())?,
        };
        let reason = CompactString::from(&*self.reason);
        Ok(NewBulk { rate: self.rate, reason, ..NewBulk::new(queue, action, self.filter()?) })
    }

    fn action(&self, name: &str) -> Result<BulkAction, Problem> {
        Ok(match name {
            "purge" => BulkAction::Purge,
            "redrive" => BulkAction::Redrive,
            "remove" => BulkAction::Remove,
            "cancel" => BulkAction::Cancel,
            "promote" => BulkAction::Promote,
            "retag" => BulkAction::Retag { add: words(&self.add), remove: words(&self.remove) },
            "reprioritise" => match &self.priority {
                Some(priority) => BulkAction::Reprioritise { priority: priority.0 },
                None => return Err(Problem::invalid("priority", "is what reprioritise gives to each job")),
            },
            "move" => match &self.to {
                Some(to) => BulkAction::Move { to: queue_name("to", to)? },
                None => return Err(Problem::invalid("to", "is the queue that jobs are moved to")),
            },
            _ => {
                return Err(Problem::invalid(
                    "action",
                    "is one of purge, redrive, remove, cancel, promote, retag, reprioritise, move",
                ));
            }
        })
    }

    fn filter(&self) -> Result<Filter, Problem> {
        let word = |text: &Option<Text<'_>>| text.as_deref().map(CompactString::from);
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
        let level = |level: &Option<Urgency>| level.as_ref().map(|level| level.0);
        let states = self.state.iter().chain(&self.states);
        Ok(Filter {
            states: states.map(|state| read_state(state)).collect::<Result<_, _>>()?,
            tags_any: words(&self.tags_any),
            tags_all: self.tag.iter().chain(&self.tags_all).map(|tag| CompactString::from(&**tag)).collect(),
            error_kind: word(&self.error_kind),
            error_contains: word(&self.error_contains),
            created_before: time(&self.created_before),
            created_after: time(&self.created_after),
            finished_before: time(&self.finished_before),
            finished_after: time(&self.finished_after),
            priority_min: level(&self.priority_min),
            priority_max: level(&self.priority_max),
            attempts_min: self.attempts_min,
            attempts_max: self.attempts_max,
            id_prefix: word(&self.id_prefix),
            body: self.body.iter().map(BodyTestDto::test).collect::<Result<_, _>>()?,
        })
    }
}

impl BodyTestDto<'_> {
    fn test(&self) -> Result<BodyTest, Problem> {
        let sign = self.compare.as_deref().unwrap_or("==");
        let known = Compare::ALL.iter().find(|(_, known)| *known == sign);
        let (compare, _) = known.ok_or_else(|| Problem::invalid("compare", "is one of == != < <= > >= ~"))?;
        Ok(BodyTest { path: (*self.path).into(), compare: *compare, value: self.value.get().into() })
    }
}

fn words(texts: &[Text<'_>]) -> Vec<CompactString> {
    texts.iter().map(|text| CompactString::from(&**text)).collect()
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
