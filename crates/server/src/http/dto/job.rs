pub(crate) use super::scalar::Source;
use super::{
    backoff::BackoffDto,
    flow::{LimitUseDto, route},
    scalar::{Text, Time, Urgency, job_id, pairs, queue_name, some_raw},
};
use crate::http::{
    json,
    problem::{self, Problem},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Millis;
use model::{NewJob, OnConflict, Priority, QueueName, Unique, limits};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One job to be pushed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobDto<'a> {
    #[serde(borrow)]
    queue: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "some_raw")]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    body_base64: Option<Text<'a>>,
    #[serde(borrow)]
    content_type: Option<Text<'a>>,
    priority: Option<Urgency>,
    #[serde(default)]
    delay_ms: Millis,
    run_at: Option<Time>,
    attempts: Option<u32>,
    max_crashes: Option<u32>,
    backoff: Option<BackoffDto>,
    timeout_ms: Option<Millis>,
    expires_ms: Option<Millis>,
    #[serde(borrow)]
    unique: Option<UniqueDto<'a>>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    ordering_key: Option<Text<'a>>,
    #[serde(borrow, default)]
    limits: Vec<LimitUseDto<'a>>,
    deadline: Option<Time>,
    #[serde(borrow, default)]
    tags: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "pairs")]
    meta: Vec<(Text<'a>, Text<'a>)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UniqueDto<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(default)]
    ttl_ms: Millis,
    #[serde(default)]
    on_conflict: ConflictDto,
    max_wait_ms: Option<Millis>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConflictDto {
    #[default]
    Return,
    Reject,
    Replace,
    Debounce,
    Throttle,
    KeepLastIfActive,
}

impl UniqueDto<'_> {
    fn into_unique(self) -> Result<Unique, Problem> {
        let on_conflict = match self.on_conflict {
            ConflictDto::Return => OnConflict::Return,
            ConflictDto::Reject => OnConflict::Reject,
            ConflictDto::Replace => OnConflict::Replace,
            ConflictDto::Debounce => OnConflict::Debounce { max_wait_ms: self.max_wait_ms.unwrap_or(0) },
            ConflictDto::Throttle => OnConflict::Throttle,
            ConflictDto::KeepLastIfActive => OnConflict::KeepLast,
        };
        if self.max_wait_ms.is_some() && !matches!(on_conflict, OnConflict::Debounce { .. }) {
            return Err(Problem::invalid("unique.max_wait_ms", "goes with `on_conflict` `debounce` alone"));
        }
        Ok(Unique { key: CompactString::from(&*self.key), ttl_ms: self.ttl_ms, on_conflict })
    }
}

/// Several jobs in one atomic push.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushDto<'a> {
    #[serde(borrow)]
    jobs: Vec<JobDto<'a>>,
}

/// The jobs of a push: `{"jobs":[…]}`, one job alone, or one per line. `queue` is that of the path, if it names one.
pub(crate) fn read_jobs(
    input: &Bytes,
    lines: bool,
    queue: Option<&QueueName>,
) -> Result<Vec<NewJob>, Problem> {
    let source = Source(input);
    if lines {
        return read_lines(source, queue);
    }
    if queue.is_some() && !json::first_key(input, "jobs") {
        return Ok(vec![json::parse::<JobDto<'_>>(input)?.into_job(source, queue)?]);
    }
    let push: PushDto<'_> = json::parse(input)?;
    convert(push.jobs, source, queue)
}

pub(super) fn convert(
    jobs: Vec<JobDto<'_>>,
    source: Source<'_>,
    queue: Option<&QueueName>,
) -> Result<Vec<NewJob>, Problem> {
    check_count(jobs.len())?;
    let mut out = Vec::with_capacity(jobs.len());
    for (nth, job) in jobs.into_iter().enumerate() {
        out.push(job.into_job(source, queue).map_err(|problem| problem.inside(&format!("jobs[{nth}]")))?);
    }
    Ok(out)
}

fn check_count(jobs: usize) -> Result<(), Problem> {
    if jobs <= limits::BATCH_MAX {
        return Ok(());
    }
    let detail = format!("a push carries at most {} jobs", limits::BATCH_MAX);
    Err(Problem::new(&problem::TOO_MANY, detail).with("limit", limits::BATCH_MAX as u64))
}

fn read_lines(source: Source<'_>, queue: Option<&QueueName>) -> Result<Vec<NewJob>, Problem> {
    let mut jobs = Vec::new();
    for (nth, line) in source.0.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        check_count(jobs.len() + 1)?;
        let read = || json::parse::<JobDto<'_>>(line)?.into_job(source, queue);
        jobs.push(read().map_err(|problem| {
            let start = json::offset_in(source.0, line).unwrap_or(0) as u64;
            let offset = problem.number("offset").map(|offset| offset + start);
            let problem = problem.inside(&format!("line {}", nth + 1)).with("line", nth as u64 + 1);
            match offset {
                Some(offset) => problem.with("offset", offset),
                None => problem,
            }
        })?);
    }
    Ok(jobs)
}

impl JobDto<'_> {
    pub(super) fn into_job(self, source: Source<'_>, queue: Option<&QueueName>) -> Result<NewJob, Problem> {
        let (body, content_type) = self.read_body(source)?;
        Ok(NewJob {
            queue: self.read_queue(queue)?,
            id: self.id.as_deref().map(|id| job_id("id", id)).transpose()?,
            body,
            content_type,
            priority: self.priority.map_or(Priority::NORMAL, |urgency| urgency.0),
            delay_ms: self.delay_ms,
            run_at: self.run_at.map(|time| time.0),
            attempts: self.attempts,
            max_crashes: self.max_crashes,
            backoff: self.backoff.map(|dto| dto.0),
            timeout_ms: self.timeout_ms,
            expires_ms: self.expires_ms,
            unique: self.unique.map(UniqueDto::into_unique).transpose()?,
            tags: self.tags.iter().map(|tag| CompactString::from(&**tag)).collect(),
            meta: self
                .meta
                .iter()
                .map(|(key, value)| (CompactString::from(&**key), CompactString::from(&**value)))
                .collect(),
            route: route(self.group.as_ref(), self.ordering_key.as_ref(), &self.limits, self.deadline),
        })
    }

    fn read_queue(&self, path: Option<&QueueName>) -> Result<QueueName, Problem> {
        match (path, &self.queue) {
            (Some(path), None) => Ok(path.clone()),
            (Some(path), Some(named)) if path.as_str() == &**named => Ok(path.clone()),
            (Some(_), Some(_)) => {
                Err(Problem::invalid("queue", "is not the queue of the path; use POST /v1/push"))
            }
            (None, Some(named)) => queue_name("queue", named),
            (None, None) => Err(Problem::invalid("queue", "is missing")),
        }
    }

    /// Body and content type; an empty content type says that the body is well-formed JSON.
    fn read_body(&self, source: Source<'_>) -> Result<(Bytes, CompactString), Problem> {
        let content_type = self.content_type.as_deref().filter(|name| !is_json(name));
        match (self.body, &self.body_base64, content_type) {
            (Some(body), None, None) => Ok((source.raw("body", body)?, CompactString::default())),
            (None, Some(text), Some(name)) => {
                let bytes = BASE64_STANDARD.decode(text.as_bytes()).map_err(|error| {
                    Problem::invalid("body_base64", format_args!("is no base64 ({error})"))
                })?;
                Ok((bytes.into(), CompactString::from(name)))
            }
            (Some(_), Some(_), _) => Err(Problem::invalid("body", "and body_base64 exclude each other")),
            (Some(_), None, Some(_)) => Err(Problem::invalid(
                "content_type",
                "of a `body` is JSON; send other content as `body_base64`",
            )),
            (None, Some(_), None) => {
                Err(Problem::invalid("content_type", "is needed beside body_base64; send JSON as `body`"))
            }
            (None, None, _) => Err(Problem::invalid("body", "is missing; any JSON value will do, null too")),
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    name.is_empty() || name.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<NewJob>, Problem> {
        read_jobs(&Bytes::copy_from_slice(text.as_bytes()), false, QueueName::new("q").ok().as_ref())
    }

    #[test]
    fn a_body_is_kept_byte_for_byte() {
        let jobs = read(r#"{"jobs":[{"body": {"a" : 1e400, "a":"\ud800"} },{"body":null}]}"#).unwrap();
        assert_eq!(&jobs[0].body[..], br#"{"a" : 1e400, "a":"\ud800"}"#);
        assert_eq!(&jobs[1].body[..], b"null");
        assert_eq!(jobs[0].content_type, "");
    }

    #[test]
    fn other_content_needs_base64_and_its_type() {
        let jobs = read(r#"{"body_base64":"AP8=","content_type":"image/png"}"#).unwrap();
        assert_eq!((&jobs[0].body[..], jobs[0].content_type.as_str()), (&[0u8, 255][..], "image/png"));
        for bad in [
            "{}",
            r#"{"body_base64":"AP8="}"#,
            r#"{"body":1,"content_type":"text/plain"}"#,
            r#"{"body":1,"body_base64":"AP8=","content_type":"a/b"}"#,
            r#"{"body_base64":"*","content_type":"a/b"}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().code(), "invalid", "{bad}");
        }
    }

    #[test]
    fn refusals_name_the_job_and_the_line() {
        let problem = read(r#"{"jobs":[{"body":1},{"body":1,"id":""}]}"#).unwrap_err();
        assert!(problem.detail().starts_with("jobs[1].id: "), "{}", problem.detail());
        let input = Bytes::from_static(b"{\"body\":1}\n\n{\"body\":}\n");
        let problem = read_jobs(&input, true, QueueName::new("q").ok().as_ref()).unwrap_err();
        assert_eq!((problem.number("line"), problem.number("offset")), (Some(3), Some(20)));
    }

    #[test]
    fn a_body_nests_at_most_128_deep() {
        let nested = |depth: usize| format!(r#"{{"body":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(128)).is_ok());
        let problem = read(&nested(129)).unwrap_err();
        assert_eq!((problem.code(), problem.number("offset")), ("invalid_json", Some(8 + 128)));
        assert_eq!(read(&nested(100_000)).unwrap_err().code(), "invalid_json");
    }
}
