use crate::job::Job;
use kit::Timestamp;
use model::Filter;

/// Whether every condition holds that can be seen without the body.
pub(crate) fn matches(filter: &Filter, job: &Job, shard: u16) -> bool {
    let Filter {
        states,
        tags_any,
        tags_all,
        error_kind,
        error_contains,
        created_before,
        created_after,
        finished_before,
        finished_after,
        priority_min,
        priority_max,
        attempts_min,
        attempts_max,
        id_prefix,
        body: _,
    } = filter;
    let error = job.run.as_ref().and_then(|run| run.error.as_ref());
    let finished = Some(job.finished_at()).filter(|at| *at != Timestamp::ZERO);
    (states.is_empty() || states.contains(&job.state))
        && (tags_any.is_empty() || tags_any.iter().any(|tag| job.has_tag(tag)))
        && tags_all.iter().all(|tag| job.has_tag(tag))
        && error_kind.as_ref().is_none_or(|kind| error.is_some_and(|error| error.kind == *kind))
        && error_contains
            .as_ref()
            .is_none_or(|text| error.is_some_and(|error| error.message.contains(text.as_str())))
        && created_before.is_none_or(|time| job.created_at < time)
        && created_after.is_none_or(|time| job.created_at >= time)
        && finished_before.is_none_or(|time| finished.is_some_and(|at| at < time))
        && finished_after.is_none_or(|time| finished.is_some_and(|at| at >= time))
        && priority_min.is_none_or(|least| job.priority >= least)
        && priority_max.is_none_or(|most| job.priority <= most)
        && attempts_min.is_none_or(|least| job.attempt >= least)
        && attempts_max.is_none_or(|most| job.attempt <= most)
        && id_prefix.as_ref().is_none_or(|prefix| job.id(shard).to_string().starts_with(prefix.as_str()))
}
