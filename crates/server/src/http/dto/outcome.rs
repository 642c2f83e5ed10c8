use super::{
    fetch::{check_batch, worker},
    job::{JobDto, Source, convert},
    join::GraphDto,
    scalar::{Text, Token, job_ref, some_raw},
};
use crate::http::problem::Problem;
use bytes::Bytes;
use compact_str::CompactString;
use kit::Millis;
use model::{Actor, Crash, ErrorInfo, JobRef, LeaseRef, Outcome, Settlement, Until};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A worker reports how attempts ended.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutcomesDto<'a> {
    #[serde(borrow)]
    worker: Text<'a>,
    #[serde(borrow)]
    outcomes: Vec<OutcomeDto<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeDto<'a> {
    #[serde(borrow)]
    queue: Option<Text<'a>>,
    #[serde(borrow)]
    id: Text<'a>,
    lease_token: Token,
    outcome: OutcomeKind,
    #[serde(borrow, default, deserialize_with = "some_raw")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<ErrorDto<'a>>,
    after_ms: Option<Millis>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    children: Option<GraphDto<'a>>,
    #[serde(borrow, default)]
    push: Vec<JobDto<'a>>,
    #[serde(borrow)]
    limit: Option<Text<'a>>,
    #[serde(borrow)]
    step: Option<Text<'a>>,
    #[serde(borrow)]
    signal: Option<Text<'a>>,
    timeout_ms: Option<Millis>,
    #[serde(borrow)]
    child: Option<Box<JobDto<'a>>>,
    #[serde(borrow)]
    crash: Option<CrashDto<'a>>,
}

/// How a handler's process died.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrashDto<'a> {
    #[serde(borrow)]
    signal: Option<Text<'a>>,
    exit: Option<u32>,
    #[serde(borrow, default)]
    stderr: Text<'a>,
}

impl From<CrashDto<'_>> for Crash {
    fn from(dto: CrashDto<'_>) -> Self {
        Crash {
            signal: dto.signal.as_deref().map(CompactString::from),
            exit: dto.exit,
            stderr: CompactString::from(&*dto.stderr),
        }
    }
}

/// How long what is rate limited is left alone if the handler does not say.
const RATE_LIMITED_MS: Millis = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeKind {
    Done,
    Retry,
    Fail,
    Snooze,
    RateLimited,
    Cancel,
    Wait,
    Sleep,
    WaitForSignal,
    WaitForChild,
    Crash,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorDto<'a> {
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    message: Text<'a>,
    #[serde(borrow)]
    stack: Option<Text<'a>>,
}

impl From<ErrorDto<'_>> for ErrorInfo {
    fn from(dto: ErrorDto<'_>) -> Self {
        ErrorInfo {
            kind: CompactString::from(&*dto.kind),
            message: CompactString::from(&*dto.message),
            stack: dto.stack.as_deref().map(CompactString::from).unwrap_or_default(),
        }
    }
}

impl OutcomesDto<'_> {
    pub(crate) fn worker(&self) -> Result<Actor, Problem> {
        worker(&self.worker)
    }

    pub(crate) fn into_settlements(self, source: Source<'_>) -> Result<Vec<Settlement>, Problem> {
        check_batch("outcomes", self.outcomes.len())?;
        let mut out = Vec::with_capacity(self.outcomes.len());
        for (nth, outcome) in self.outcomes.into_iter().enumerate() {
            out.push(
                outcome
                    .into_settlement(source)
                    .map_err(|problem| problem.inside(&format!("outcomes[{nth}]")))?,
            );
        }
        Ok(out)
    }
}

impl OutcomeDto<'_> {
    fn into_settlement(mut self, source: Source<'_>) -> Result<Settlement, Problem> {
        self.check_fields()?;
        let job = job_ref(self.queue.as_ref(), &self.id)?;
        let push = convert(std::mem::take(&mut self.push), source, None)?;
        let error = self.error.map(ErrorInfo::from).unwrap_or_default();
        let outcome = match self.outcome {
            OutcomeKind::Done => {
                Outcome::Done { result: self.result.map(|value| source.raw("result", value)).transpose()? }
            }
            OutcomeKind::Retry => Outcome::Retry { error, after_ms: self.after_ms },
            OutcomeKind::Fail => Outcome::Fail { error },
            OutcomeKind::Snooze => Outcome::Snooze { after_ms: self.after_ms.unwrap_or(0) },
            OutcomeKind::RateLimited => Outcome::RateLimited {
                key: self.limit.as_deref().map(CompactString::from),
                after_ms: self.after_ms.unwrap_or(RATE_LIMITED_MS),
            },
            OutcomeKind::Cancel => {
                Outcome::Cancel { reason: self.reason.as_deref().map_or(error.message, CompactString::from) }
            }
            OutcomeKind::Wait => {
                let children = self.children.ok_or_else(|| Problem::invalid("children", "are missing"))?;
                let children =
                    children.into_graph(source, true).map_err(|problem| problem.inside("children"))?;
                Outcome::Wait { children }
            }
            OutcomeKind::Sleep => Outcome::Suspend {
                step: needed("step", self.step)?,
                until: Until::Time { after_ms: self.after_ms.unwrap_or(0) },
            },
            OutcomeKind::WaitForSignal => {
                let name = needed("signal", self.signal)?;
                let step = self.step.as_deref().map_or_else(|| name.clone(), CompactString::from);
                Outcome::Suspend {
                    step,
                    until: Until::Signal { name, timeout_ms: self.timeout_ms.unwrap_or(0) },
                }
            }
            OutcomeKind::WaitForChild => {
                let step = needed("step", self.step)?;
                let child = self.child.ok_or_else(|| Problem::invalid("child", "is missing"))?;
                let child = convert(vec![*child], source, None)?.pop();
                let job = child.ok_or_else(|| Problem::invalid("child", "is missing"))?;
                Outcome::Suspend { step, until: Until::Child { job: Box::new(job) } }
            }
            OutcomeKind::Crash => Outcome::Crash(self.crash.map(Crash::from).unwrap_or_default()),
        };
        Ok(Settlement { lease: LeaseRef { job, token: self.lease_token.0 }, outcome, push })
    }

    /// A field that an outcome has no use for is a misunderstanding, and is said so.
    fn check_fields(&self) -> Result<(), Problem> {
        use OutcomeKind::{
            Cancel, Crash, Done, Fail, RateLimited, Retry, Sleep, Snooze, Wait, WaitForChild, WaitForSignal,
        };
        let fields: [(&str, bool, &[OutcomeKind], &str); 11] = [
            ("result", self.result.is_some_and(|value| value.get() != "null"), &[Done], "done"),
            ("error", self.error.is_some(), &[Retry, Fail, Cancel], "retry, fail and cancel"),
            (
                "after_ms",
                self.after_ms.is_some(),
                &[Retry, Snooze, Sleep, RateLimited],
                "retry, snooze, sleep and rate_limited",
            ),
            ("limit", self.limit.is_some(), &[RateLimited], "rate_limited"),
            ("reason", self.reason.is_some(), &[Cancel], "cancel"),
            ("children", self.children.is_some(), &[Wait], "wait"),
            (
                "step",
                self.step.is_some(),
                &[Sleep, WaitForSignal, WaitForChild],
                "sleep, wait_for_signal and wait_for_child",
            ),
            ("signal", self.signal.is_some(), &[WaitForSignal], "wait_for_signal"),
            ("timeout_ms", self.timeout_ms.is_some(), &[WaitForSignal], "wait_for_signal"),
            ("child", self.child.is_some(), &[WaitForChild], "wait_for_child"),
            ("crash", self.crash.is_some(), &[Crash], "crash"),
        ];
        for (field, given, allowed, names) in fields {
            if given && !allowed.contains(&self.outcome) {
                return Err(Problem::invalid(field, format_args!("belongs to the outcome {names}")));
            }
        }
        Ok(())
    }
}

fn needed(field: &str, text: Option<Text<'_>>) -> Result<CompactString, Problem> {
    text.map(|text| CompactString::from(&*text)).ok_or_else(|| Problem::invalid(field, "is missing"))
}

/// A running handler says how far it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgressDto<'a> {
    #[serde(borrow)]
    pub(crate) worker: Option<Text<'a>>,
    lease_token: Token,
    #[serde(borrow)]
    progress: &'a RawValue,
}

impl ProgressDto<'_> {
    pub(crate) fn lease(&self, job: JobRef) -> LeaseRef {
        LeaseRef { job, token: self.lease_token.0 }
    }

    pub(crate) fn value(&self, source: Source<'_>) -> Result<Bytes, Problem> {
        source.raw("progress", self.progress)
    }
}

/// A running handler writes to its job's log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogDto<'a> {
    #[serde(borrow)]
    pub(crate) worker: Option<Text<'a>>,
    lease_token: Token,
    #[serde(borrow)]
    lines: Vec<Text<'a>>,
}

impl LogDto<'_> {
    pub(crate) fn lease(&self, job: JobRef) -> LeaseRef {
        LeaseRef { job, token: self.lease_token.0 }
    }

    pub(crate) fn lines(&self) -> Result<Vec<CompactString>, Problem> {
        check_batch("lines", self.lines.len())?;
        Ok(self.lines.iter().map(|line| CompactString::from(&**line)).collect())
    }
}
