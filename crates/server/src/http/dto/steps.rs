use super::{
    job::Source,
    scalar::{Text, Token, some_raw},
};
use crate::http::problem::Problem;
use bytes::Bytes;
use compact_str::CompactString;
use model::{JobRef, LeaseRef};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A running handler stores the result of a step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepDto<'a> {
    #[serde(borrow)]
    worker: Option<Text<'a>>,
    lease_token: Token,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "some_raw")]
    result: Option<&'a RawValue>,
}

impl StepDto<'_> {
    pub(crate) fn worker(&self) -> Option<&str> {
        self.worker.as_deref()
    }

    pub(crate) fn lease(&self, job: JobRef) -> LeaseRef {
        LeaseRef { job, token: self.lease_token.0 }
    }

    pub(crate) fn name(&self) -> CompactString {
        CompactString::from(&*self.name)
    }

    pub(crate) fn result(&self, source: Source<'_>) -> Result<Bytes, Problem> {
        raw_or_null(source, "result", self.result)
    }
}

/// Somebody tells a job what it waits for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalDto<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "some_raw")]
    body: Option<&'a RawValue>,
}

impl SignalDto<'_> {
    pub(crate) fn name(&self) -> CompactString {
        CompactString::from(&*self.name)
    }

    pub(crate) fn body(&self, source: Source<'_>) -> Result<Bytes, Problem> {
        raw_or_null(source, "body", self.body)
    }
}

fn raw_or_null(source: Source<'_>, field: &'static str, value: Option<&RawValue>) -> Result<Bytes, Problem> {
    value.map_or_else(|| Ok(Bytes::from_static(b"null")), |value| source.raw(field, value))
}
