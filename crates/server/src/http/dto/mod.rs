//! The JSON types of requests. They live at this edge only: each turns into a type of the model, or into a refusal.
//!
//! They borrow from the request's bytes where they can, because a push of a hundred jobs should not copy each word.

mod backoff;
mod bulk;
mod fetch;
mod job;
mod outcome;
mod query;
mod scalar;
mod settings;

pub(crate) use bulk::{BulkDto, CancelDto, NothingDto};
pub(crate) use fetch::{FetchDto, RenewDto};
pub(crate) use job::{Source, read_jobs};
pub(crate) use outcome::{LogDto, OutcomesDto, ProgressDto};
pub(crate) use query::{EventsQuery, ListParams, PageParams, query};
pub(crate) use settings::{SettingsDto, write_settings};

