use super::bulk::read_state;
use crate::http::{json, problem::Problem};
use compact_str::CompactString;
use kit::Millis;
use millpond_core::JoinQuery;
use model::{EventFilter, EventId, EventKind, JobId, QueueName, State, limits};
use std::borrow::Cow;

/// Items of one page: the default and the most.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;

/// The parameters of a query; one that is not in `known`, or is there twice, is refused.
pub(crate) fn query<'q>(
    text: Option<&'q str>,
    known: &[&'static str],
) -> Result<Vec<(&'static str, Cow<'q, str>)>, Problem> {
    let mut out: Vec<(&'static str, Cow<'q, str>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
        let Some(known_name) = known.iter().find(|known| **known == name) else {
            return Err(json::unknown("parameter", &name, known.iter().copied(), ""));
        };
        if out.iter().any(|(there, _)| there == known_name) {
            return Err(Problem::invalid(known_name, "is there twice"));
        }
        out.push((known_name, value));
    }
    Ok(out)
}

fn find<'a>(pairs: &'a [(&'static str, Cow<'_, str>)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
}

/// `limit` and `cursor` of any listing.
#[derive(Debug)]
pub(crate) struct PageParams {
    pub(crate) limit: usize,
    pub(crate) cursor: Option<String>,
}

impl PageParams {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Problem> {
        Self::from_pairs(&query(text, &["limit", "cursor"])?)
    }

    fn from_pairs(pairs: &[(&'static str, Cow<'_, str>)]) -> Result<Self, Problem> {
        let limit = match find(pairs, "limit") {
            None => PAGE_DEFAULT,
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| Problem::invalid("limit", "is a number of 1 to 1000"))?
                .clamp(1, PAGE_MAX),
        };
        Ok(Self { limit, cursor: find(pairs, "cursor").map(str::to_owned) })
    }
}

/// Which jobs of a queue are listed.
#[derive(Debug)]
pub(crate) struct ListParams {
    pub(crate) state: Option<State>,
    pub(crate) tag: Option<CompactString>,
    pub(crate) error_kind: Option<CompactString>,
    pub(crate) page: PageParams,
}

impl ListParams {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let pairs = query(text, &["state", "tag", "error_kind", "limit", "cursor"])?;
        let tag = find(&pairs, "tag").map(CompactString::from);
        if tag.as_ref().is_some_and(|tag| tag.len() > limits::TAG_BYTES_MAX) {
            return Err(Problem::invalid("tag", "has at most 128 bytes"));
        }
        Ok(Self {
            state: find(&pairs, "state").map(read_state).transpose()?,
            tag,
            error_kind: find(&pairs, "error_kind").map(CompactString::from),
            page: PageParams::from_pairs(&pairs)?,
        })
    }
}

/// Which members of a join are shown.
#[derive(Debug)]
pub(crate) struct JoinParams(pub(crate) JoinQuery);

impl JoinParams {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let pairs = query(text, &["state", "limit", "cursor"])?;
        let state = find(&pairs, "state").map(str::parse).transpose();
        let state = state.map_err(|bad: model::BadName| Problem::invalid("state", bad.reason))?;
        let limit = PageParams::from_pairs(&pairs)?.limit;
        let cursor = find(&pairs, "cursor").unwrap_or("0").parse();
        let cursor = cursor.map_err(|_| Problem::invalid("cursor", "is the one of the page before"))?;
        Ok(Self(JoinQuery { state, limit, cursor }))
    }
}

/// Which events are wanted, and from where.
#[derive(Debug)]
pub(crate) struct EventsQuery {
    pub(crate) filter: EventFilter,
    /// Behind this.
    pub(crate) from: Option<EventId>,
    /// With what the changes brought along.
    pub(crate) values: bool,
}

impl EventsQuery {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let pairs = query(text, &["queue", "id", "kind", "state", "from", "values"])?;
        let queue = find(&pairs, "queue").map(CompactString::from);
        if let Some(pattern) = &queue {
            // A name with a letter for each star.
            QueueName::new(&pattern.replace('*', "x")).map_err(|error| Problem::invalid("queue", error))?;
        }
        let kind = |name| {
            EventKind::of(name).ok_or_else(|| {
                let kinds: Vec<_> = EventKind::all().map(EventKind::name).collect();
                Problem::invalid("kind", format!("is one of {}", kinds.join(", ")))
            })
        };
        let job = find(&pairs, "id").map(JobId::parse).transpose();
        let from = find(&pairs, "from").map(str::parse).transpose();
        let filter = EventFilter {
            queue,
            job: job.map_err(|error| Problem::invalid("id", error))?,
            kinds: words(&pairs, "kind").map(kind).collect::<Result<_, _>>()?,
            states: words(&pairs, "state").map(read_state).collect::<Result<_, _>>()?,
        };
        let values = match find(&pairs, "values") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Problem::invalid("values", "is true or false")),
        };
        Ok(Self { filter, from: from.map_err(|error| Problem::invalid("from", error))?, values })
    }
}

/// A list with commas between its words.
fn words<'a>(pairs: &'a [(&'static str, Cow<'_, str>)], name: &str) -> impl Iterator<Item = &'a str> {
    find(pairs, name).into_iter().flat_map(|text| text.split(',')).filter(|word| !word.is_empty())
}

const MILLISECONDS: &str = "is a number of milliseconds";

/// How long a push waits for room, milliseconds, where it may.
pub(crate) fn push_wait(text: Option<&str>) -> Result<Millis, Problem> {
    Ok(number(&query(text, &["wait_ms"])?, "wait_ms", MILLISECONDS)?.unwrap_or(crate::http::PUSH_WAIT_MS))
}

/// From where, and for how long, a worker asks for what it lost.
#[derive(Debug)]
pub(crate) struct RevokedQuery {
    pub(crate) after: Option<u64>,
    pub(crate) wait_ms: Millis,
}

impl RevokedQuery {
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let pairs = query(text, &["after", "wait_ms"])?;
        let after = number(&pairs, "after", "is a position: the one of the answer before")?;
        let wait_ms = number(&pairs, "wait_ms", MILLISECONDS)?.unwrap_or(0);
        Ok(Self { after, wait_ms })
    }
}

fn number(
    pairs: &[(&'static str, Cow<'_, str>)],
    name: &'static str,
    is: &str,
) -> Result<Option<u64>, Problem> {
    find(pairs, name).map(|text| text.parse().map_err(|_| Problem::invalid(name, is))).transpose()
}
