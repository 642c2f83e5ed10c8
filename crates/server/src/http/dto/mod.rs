//! The JSON types of requests. They live at this edge only: each turns into a type of the model, or into a refusal.
//!
//! They borrow from the request's bytes where they can, because a push of a hundred jobs should not copy each word.

mod backoff;
mod backup;
mod bulk;
mod fetch;
mod flow;
mod job;
mod join;
mod outcome;
mod query;
mod scalar;
mod schedule;
mod settings;
mod steps;

pub(crate) use backup::BackupDto;
pub(crate) use bulk::{BulkDto, CancelDto, NothingDto};
pub(crate) use fetch::{FetchDto, RenewDto, worker};
pub(crate) use flow::{GroupDto, LimitDto, write_limit};
pub(crate) use job::{Source, read_jobs};
pub(crate) use join::{ExtendDto, GraphDto};
pub(crate) use outcome::{LogDto, OutcomesDto, ProgressDto};
pub(crate) use query::{EventsQuery, JoinParams, ListParams, PageParams, RevokedQuery, push_wait, query};
pub(crate) use schedule::{PreviewDto, ScheduleDto, slots_wanted, write_schedule};
pub(crate) use settings::{SettingsDto, write_alert, write_settings};
pub(crate) use steps::{SignalDto, StepDto};

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// What a reader knows is what it lists when asked for something it does not know.
    fn known<'a, T: Deserialize<'a> + std::fmt::Debug>() -> BTreeSet<String> {
        let error = serde_json::from_str::<T>(r#"{"?":1}"#).unwrap_err().to_string();
        let (_, list) = error.split_once("expected ").unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_schemas_have_the_fields_that_are_read() {
        let schemas: Value = serde_json::from_str(include_str!("../schemas.json")).unwrap();
        for (name, fields) in [
            ("Job", known::<job::JobDto<'_>>()),
            ("Schedule", known::<ScheduleDto<'_>>()),
            ("Preview", known::<PreviewDto<'_>>()),
            ("PushMany", known::<job::PushDto<'_>>()),
            ("Fetch", known::<FetchDto<'_>>()),
            ("Renew", known::<RenewDto<'_>>()),
            ("Outcomes", known::<OutcomesDto<'_>>()),
            ("Progress", known::<ProgressDto<'_>>()),
            ("LogLines", known::<LogDto<'_>>()),
            ("Step", known::<StepDto<'_>>()),
            ("Signal", known::<SignalDto<'_>>()),
            ("Cancel", known::<CancelDto<'_>>()),
            ("Joins", known::<GraphDto<'_>>()),
            ("Join", known::<join::JoinDto<'_>>()),
            ("Members", known::<ExtendDto<'_>>()),
            ("Bulk", known::<BulkDto<'_>>()),
            ("Settings", known::<SettingsDto>()),
            ("Backup", known::<BackupDto>()),
            ("Limit", known::<LimitDto>()),
            ("Group", known::<GroupDto>()),
        ] {
            let described = schemas["schemas"][name]["properties"].as_object().unwrap();
            assert_eq!(described.keys().cloned().collect::<BTreeSet<_>>(), fields, "{name}");
        }
    }
}
