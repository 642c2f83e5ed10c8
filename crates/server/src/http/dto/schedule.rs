use super::{
    job::JobDto,
    scalar::{Source, Text, Time},
    settings::write_backoff,
};
use crate::http::{
    json::{self, Raw, Writer},
    problem::Problem,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use kit::{Millis, Timestamp};
use model::{
    CatchUp, Firing, FiringResult, NewJob, OnConflict, Overlap, Priority, QueueName, Reject, Route,
    ScheduleSpec, ScheduleView, When, limits,
};
use serde::Deserialize;

/// How many slots are shown unless a number is given, and at most.
const SLOTS_DEFAULT: usize = 5;
const SLOTS_MAX: usize = 1_000;

/// A schedule as it is put.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleDto<'a> {
    #[serde(borrow)]
    cron: Option<Text<'a>>,
    #[serde(borrow)]
    zone: Option<Text<'a>>,
    every_ms: Option<Millis>,
    start: Option<Time>,
    end: Option<Time>,
    #[serde(default)]
    limit: u64,
    #[serde(default)]
    jitter_ms: Millis,
    #[serde(default)]
    overlap: OverlapDto,
    #[serde(default)]
    catch_up: CatchUpDto,
    #[serde(borrow)]
    job: JobDto<'a>,
}

/// Times of which somebody wants to see the slots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewDto<'a> {
    #[serde(borrow)]
    cron: Option<Text<'a>>,
    #[serde(borrow)]
    zone: Option<Text<'a>>,
    every_ms: Option<Millis>,
    start: Option<Time>,
    end: Option<Time>,
    after: Option<Time>,
    n: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OverlapDto {
    #[default]
    Allow,
    Skip,
    Queue,
    CancelPrevious,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CatchUpDto {
    Skip,
    #[default]
    One,
    All(u32),
}

impl ScheduleDto<'_> {
    pub(crate) fn read(input: &Bytes) -> Result<ScheduleSpec, Problem> {
        let dto = json::parse::<ScheduleDto<'_>>(input)?;
        let when = when(dto.cron.as_deref(), dto.zone.as_deref(), dto.every_ms)?;
        let job = dto.job.into_job(Source(input), None).map_err(|problem| problem.inside("job"))?;
        Ok(ScheduleSpec {
            when,
            start: dto.start.map(|time| time.0),
            end: dto.end.map(|time| time.0),
            limit: dto.limit,
            jitter_ms: dto.jitter_ms,
            overlap: match dto.overlap {
                OverlapDto::Allow => Overlap::Allow,
                OverlapDto::Skip => Overlap::Skip,
                OverlapDto::Queue => Overlap::Queue,
                OverlapDto::CancelPrevious => Overlap::CancelPrevious,
            },
            catch_up: match dto.catch_up {
                CatchUpDto::Skip => CatchUp::Skip,
                CatchUpDto::One => CatchUp::One,
                CatchUpDto::All(most) => CatchUp::All { most },
            },
            job,
        })
    }
}

impl PreviewDto<'_> {
    /// The times, after when, and how many.
    pub(crate) fn read(&self) -> Result<(ScheduleSpec, Option<Timestamp>, usize), Problem> {
        let nowhere = QueueName::new("preview").map_err(|error| Problem::invalid("queue", error))?;
        let when = when(self.cron.as_deref(), self.zone.as_deref(), self.every_ms)?;
        let spec = ScheduleSpec {
            start: self.start.map(|time| time.0),
            end: self.end.map(|time| time.0),
            ..ScheduleSpec::new(when, NewJob::new(nowhere, Bytes::new()))
        };
        Ok((spec, self.after.map(|time| time.0), self.n.unwrap_or(SLOTS_DEFAULT).clamp(1, SLOTS_MAX)))
    }
}

/// `n` of a query: how many slots.
pub(crate) fn slots_wanted(text: Option<&str>) -> Result<usize, Problem> {
    let pairs = super::query(text, &["n"])?;
    match pairs.first() {
        None => Ok(SLOTS_DEFAULT),
        Some((_, text)) => match text.parse::<usize>() {
            Ok(n) => Ok(n.clamp(1, SLOTS_MAX)),
            Err(_) => Err(Problem::invalid("n", "is a number of 1 to 1000")),
        },
    }
}

fn when(cron: Option<&str>, zone: Option<&str>, every_ms: Option<Millis>) -> Result<When, Problem> {
    match (cron, every_ms) {
        (Some(expression), None) => {
            let (zone, rules) = rules(zone.unwrap_or("UTC"))?;
            Ok(When::Cron {
                expression: expression.into(),
                zone: zone.into(),
                rules: Bytes::from_static(rules),
            })
        }
        (None, Some(_)) if zone.is_some() => {
            Err(Problem::invalid("zone", "belongs to `cron`; an interval is the same in every zone"))
        }
        (None, Some(interval_ms)) => Ok(When::Every { interval_ms }),
        (Some(_), Some(_)) => Err(Problem::invalid("every_ms", "and cron exclude each other")),
        (None, None) => Err(Problem::invalid("cron", "is missing; a schedule has `cron` or `every_ms`")),
    }
}

/// The rules of a zone travel in the command: what the log means must not depend on the database of a machine.
fn rules(name: &str) -> Result<(&'static str, &'static [u8]), Problem> {
    kit::zone::find(name).ok_or_else(|| {
        // It may be as long as a body, and comparing takes room for its length.
        let shown: String = name.chars().take(limits::CRON_BYTES_MAX).collect();
        let near = kit::zone::names()
            .map(|known| {
                (strsim::normalized_damerau_levenshtein(&known.to_lowercase(), &shown.to_lowercase()), known)
            })
            .filter(|(likeness, _)| *likeness >= 0.6)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        let help = match near {
            Some((_, known)) => format!("is not known; did you mean {known}?"),
            None => "is not known; zones have IANA names, such as Europe/Berlin".to_string(),
        };
        let problem = Problem::from(Reject::BadZone { zone: shown.into(), help: help.into() });
        match near {
            Some((_, known)) => problem.with("did_you_mean", known),
            None => problem,
        }
    })
}

/// A schedule, in the fields of a [`ScheduleDto`] and those that say how it goes.
pub(crate) fn write_schedule(out: &mut Writer, view: &ScheduleView) {
    let spec = &view.spec;
    out.field("id", view.id.as_str());
    out.field("state", view.state.name());
    out.field("summary", view.summary.as_str());
    out.field("next_slot", view.next_slot);
    out.field("next_at", view.next_at);
    match &spec.when {
        When::Cron { expression, zone, .. } => {
            out.field("cron", expression);
            out.field("zone", zone);
        }
        When::Every { interval_ms } => out.field("every_ms", *interval_ms),
    }
    out.optional("start", spec.start);
    out.optional("end", spec.end);
    out.optional("limit", Some(spec.limit).filter(|limit| *limit > 0));
    out.optional("jitter_ms", Some(spec.jitter_ms).filter(|jitter| *jitter > 0));
    out.field("overlap", spec.overlap.name());
    match spec.catch_up {
        CatchUp::Skip => out.field("catch_up", "skip"),
        CatchUp::One => out.field("catch_up", "one"),
        CatchUp::All { most } => out.key("catch_up").object(|out| out.field("all", most)),
    }
    out.key("job").object(|out| write_job(out, &spec.job));
    out.field("created_at", view.created_at);
    out.field("updated_at", view.updated_at);
    for (name, count) in [
        ("fired", view.fired),
        ("skipped", view.skipped),
        ("missed", view.missed),
        ("refused", view.refused),
        ("queued", view.queued),
        ("live", view.live),
    ] {
        out.field(name, count);
    }
    out.key("firings").array(&view.firings, |out, firing| out.object(|out| write_firing(out, firing)));
}

/// The fields that differ from the defaults. Spelled out, so that a new option of a job is not forgotten here.
fn write_job(out: &mut Writer, job: &NewJob) {
    let NewJob {
        queue,
        id: _,
        body,
        content_type,
        priority,
        delay_ms,
        run_at: _,
        attempts,
        max_crashes,
        backoff,
        timeout_ms,
        expires_ms,
        unique,
        tags,
        meta,
        route,
    } = job;
    out.field("queue", queue);
    if content_type.is_empty() {
        out.field("body", Raw(body));
    } else {
        out.field("body_base64", BASE64_STANDARD.encode(body).as_str());
        out.field("content_type", content_type);
    }
    out.optional("priority", Some(priority.0).filter(|_| *priority != Priority::NORMAL));
    out.optional("delay_ms", Some(*delay_ms).filter(|delay| *delay > 0));
    out.optional("attempts", *attempts);
    out.optional("max_crashes", *max_crashes);
    if let Some(backoff) = backoff {
        out.key("backoff").object(|out| write_backoff(out, backoff));
    }
    out.optional("timeout_ms", *timeout_ms);
    out.optional("expires_ms", *expires_ms);
    if let Some(unique) = unique {
        out.key("unique").object(|out| {
            out.field("key", &unique.key);
            out.field("ttl_ms", unique.ttl_ms);
            out.field("on_conflict", unique.on_conflict.name());
            if let OnConflict::Debounce { max_wait_ms } = unique.on_conflict {
                out.field("max_wait_ms", max_wait_ms);
            }
        });
    }
    if !tags.is_empty() {
        out.key("tags").array(tags, |out, tag| out.value(tag));
    }
    if !meta.is_empty() {
        out.key("meta").object(|out| meta.iter().for_each(|(key, value)| out.field(key, value)));
    }
    if let Some(route) = route.as_deref() {
        let Route { group, ordering_key, limits, deadline } = route;
        out.optional("group", group.as_ref());
        out.optional("ordering_key", ordering_key.as_ref());
        if !limits.is_empty() {
            out.key("limits").array(limits, |out, limit| {
                out.object(|out| {
                    out.field("key", &limit.key);
                    out.field("cost", limit.cost);
                });
            });
        }
        out.optional("deadline", *deadline);
    }
}

fn write_firing(out: &mut Writer, firing: &Firing) {
    out.field("slot", firing.slot);
    out.field("at", firing.at);
    match &firing.result {
        FiringResult::Fired { job } => {
            out.field("result", "fired");
            out.field("job", job);
        }
        FiringResult::Ran { job } => {
            out.field("result", "ran");
            out.field("job", job);
        }
        FiringResult::Skipped => out.field("result", "skipped"),
        FiringResult::Missed { until } => {
            out.field("result", "missed");
            out.field("until", *until);
        }
        FiringResult::Refused { code } => {
            out.field("result", "refused");
            out.field("code", code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScheduleSpec, Problem> {
        ScheduleDto::read(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_rules_of_a_zone_are_looked_up_here_and_nowhere_else() {
        let spec =
            read(r#"{"cron":"0 3 * * *","zone":"europe/berlin","job":{"queue":"q","body":1}}"#).unwrap();
        let When::Cron { zone, rules, .. } = spec.when else { panic!() };
        assert_eq!(zone, "Europe/Berlin");
        assert!(rules.starts_with(b"TZif"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, code, says) in [
            (r#"{"job":{"queue":"q","body":1}}"#, "invalid", "cron"),
            (r#"{"cron":"@daily","every_ms":9,"job":{"queue":"q","body":1}}"#, "invalid", "every_ms"),
            (r#"{"every_ms":9,"zone":"UTC","job":{"queue":"q","body":1}}"#, "invalid", "zone"),
            (
                r#"{"cron":"@daily","zone":"Europe/Berln","job":{"queue":"q","body":1}}"#,
                "bad_zone",
                "Europe/Berlin",
            ),
            (r#"{"cron":"@daily","job":{"body":1}}"#, "invalid", "job.queue"),
            (
                r#"{"cron":"@daily","overlaps":"skip","job":{"queue":"q","body":1}}"#,
                "unknown_field",
                "overlap",
            ),
        ] {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.code(), code, "{text}");
            assert!(String::from_utf8_lossy(&problem.to_json()).contains(says), "{text}");
        }
    }

    #[test]
    fn a_schedule_reads_back_as_it_was_written() {
        let text = r#"{"every_ms":60000,"start":"2026-01-01T00:00:00.000Z","limit":3,"jitter_ms":5,"overlap":"cancel_previous",
            "catch_up":{"all":7},"job":{"queue":"q","body":{"n":1},"priority":3,"tags":["a"],"meta":{"k":"v"},"attempts":2}}"#;
        let spec = read(text).unwrap();
        let id = model::ScheduleId::new("tick").unwrap();
        let mut shard = millpond_core::Shard::new(0);
        let command = model::Command::PutSchedule { id: id.clone(), spec: Box::new(spec.clone()) };
        let envelope = model::Envelope { actor: Default::default(), idempotency_key: None, command };
        shard.apply(1, Timestamp(0), &envelope, &mut Default::default()).unwrap();
        let mut out = Writer::with_capacity(0);
        out.object(|out| write_schedule(out, &shard.schedule(&id).unwrap()));
        let mut written: serde_json::Value = serde_json::from_slice(&out.finish()).unwrap();
        let known =
            ["cron", "zone", "every_ms", "start", "end", "limit", "jitter_ms", "overlap", "catch_up", "job"];
        written.as_object_mut().unwrap().retain(|key, _| known.contains(&key.as_str()));
        let again = read(&written.to_string()).unwrap();
        assert_eq!(again, spec);
    }
}
