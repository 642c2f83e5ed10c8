use super::{
    backoff::BackoffDto,
    flow::{BulkheadDto, LimitDto, OrderDto, RetryBudgetDto, write_limit, write_order},
};
use crate::http::json::Writer;
use kit::{Backoff, Millis};
use model::{
    Alert, Bulkhead, Capacity, DeadLetter, Keep, OnFull, QueueName, QueuePatch, QueueSettings, RetryBudget,
};
use serde::{Deserialize, Deserializer, de::Error};

/// A change of a queue's settings. What is an object is replaced as a whole; `limit`, `bulkhead`, `retry_budget` and `dead_letter` are
/// off where null.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsDto {
    attempts: Option<u32>,
    max_crashes: Option<u32>,
    timeout_ms: Option<Millis>,
    lease_ms: Option<Millis>,
    backoff: Option<BackoffDto>,
    capacity: Option<CapacityDto>,
    keep_completed: Option<KeepDto>,
    keep_dead: Option<KeepDto>,
    #[serde(default, deserialize_with = "given")]
    limit: Option<Option<LimitDto>>,
    order: Option<OrderDto>,
    #[serde(default, deserialize_with = "given")]
    bulkhead: Option<Option<BulkheadDto>>,
    #[serde(default, deserialize_with = "given")]
    retry_budget: Option<Option<RetryBudgetDto>>,
    #[serde(default, deserialize_with = "given")]
    dead_letter: Option<Option<DeadLetterDto>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetterDto {
    #[serde(default, deserialize_with = "queue_name")]
    queue: Option<QueueName>,
    alert: Option<AlertDto>,
}

fn queue_name<'de, D: Deserializer<'de>>(input: D) -> Result<Option<QueueName>, D::Error> {
    let name = Option::<String>::deserialize(input)?;
    name.map(|name| QueueName::new(&name).map_err(D::Error::custom)).transpose()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertDto {
    #[serde(default)]
    count: u64,
    #[serde(default)]
    per_minute: u64,
}

impl From<DeadLetterDto> for DeadLetter {
    fn from(dto: DeadLetterDto) -> Self {
        let AlertDto { count, per_minute } = dto.alert.unwrap_or_default();
        DeadLetter { queue: dto.queue, alert: Alert { count, per_minute } }
    }
}

/// Tells null from "not there".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityDto {
    #[serde(default)]
    jobs: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    on_full: OnFullDto,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFullDto {
    #[default]
    Reject,
    DropOldest,
    Block,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepDto {
    age_ms: Millis,
    count: u64,
}

impl From<SettingsDto> for QueuePatch {
    fn from(dto: SettingsDto) -> Self {
        let keep = |keep: Option<KeepDto>| keep.map(|keep| Keep { age_ms: keep.age_ms, count: keep.count });
        QueuePatch {
            attempts: dto.attempts,
            max_crashes: dto.max_crashes,
            timeout_ms: dto.timeout_ms,
            lease_ms: dto.lease_ms,
            backoff: dto.backoff.map(|backoff| backoff.0),
            capacity: dto.capacity.map(|capacity| Capacity {
                jobs: capacity.jobs,
                bytes: capacity.bytes,
                on_full: match capacity.on_full {
                    OnFullDto::Reject => OnFull::Reject,
                    OnFullDto::DropOldest => OnFull::DropOldest,
                    OnFullDto::Block => OnFull::Block,
                },
            }),
            keep_completed: keep(dto.keep_completed),
            keep_dead: keep(dto.keep_dead),
            limit: dto.limit.map(|limit| limit.unwrap_or_default().into()),
            order: dto.order.map(Into::into),
            bulkhead: dto.bulkhead.map(|bulkhead| bulkhead.unwrap_or_default().into()),
            retry_budget: dto.retry_budget.map(|budget| budget.unwrap_or_default().into()),
            dead_letter: dto.dead_letter.map(|policy| Box::new(policy.unwrap_or_default().into())),
        }
    }
}

/// The fields of an object that a [`SettingsDto`] would read back.
pub(crate) fn write_settings(out: &mut Writer, settings: &QueueSettings) {
    out.field("attempts", settings.attempts);
    out.field("max_crashes", settings.max_crashes);
    out.field("timeout_ms", settings.timeout_ms);
    out.field("lease_ms", settings.lease_ms);
    out.key("backoff").object(|out| write_backoff(out, &settings.backoff));
    out.key("capacity").object(|out| {
        out.field("jobs", settings.capacity.jobs);
        out.field("bytes", settings.capacity.bytes);
        let on_full = match settings.capacity.on_full {
            OnFull::Reject => "reject",
            OnFull::DropOldest => "drop_oldest",
            OnFull::Block => "block",
        };
        out.field("on_full", on_full);
    });
    for (key, keep) in [("keep_completed", settings.keep_completed), ("keep_dead", settings.keep_dead)] {
        out.key(key).object(|out| {
            out.field("age_ms", keep.age_ms);
            out.field("count", keep.count);
        });
    }
    if settings.limit.is_none() {
        out.field("limit", None::<bool>);
    } else {
        out.key("limit").object(|out| write_limit(out, &settings.limit));
    }
    write_order(out.key("order"), settings.order);
    let Bulkhead { pool, reserved, max } = &settings.bulkhead;
    if pool.is_empty() {
        out.field("bulkhead", None::<bool>);
    } else {
        out.key("bulkhead").object(|out| {
            out.field("pool", pool);
            out.field("reserved", *reserved);
            out.field("max", *max);
        });
    }
    let RetryBudget { percent, per_minute } = settings.retry_budget;
    if percent == 0 {
        out.field("retry_budget", None::<bool>);
    } else {
        out.key("retry_budget").object(|out| {
            out.field("percent", percent);
            out.field("per_minute", per_minute);
        });
    }
    if settings.dead_letter == DeadLetter::default() {
        out.field("dead_letter", None::<bool>);
    } else {
        let DeadLetter { queue, alert } = &settings.dead_letter;
        out.key("dead_letter").object(|out| {
            out.field("queue", queue.as_ref());
            write_alert(out, *alert);
        });
    }
}

/// The field `alert`; null if there is none.
pub(crate) fn write_alert(out: &mut Writer, alert: Alert) {
    if alert == Alert::default() {
        out.field("alert", None::<bool>);
    } else {
        out.key("alert").object(|out| {
            out.field("count", alert.count);
            out.field("per_minute", alert.per_minute);
        });
    }
}

pub(super) fn write_backoff(out: &mut Writer, backoff: &Backoff) {
    match backoff {
        Backoff::Exponential { base, cap } => {
            out.field("type", "exponential");
            out.field("base_ms", *base);
            out.field("cap_ms", *cap);
        }
        Backoff::Fixed { delay } => {
            out.field("type", "fixed");
            out.field("delay_ms", *delay);
        }
        Backoff::Sidekiq => out.field("type", "sidekiq"),
        Backoff::List { delays } => {
            out.field("type", "list");
            out.key("delays_ms").array(delays, |out, delay| out.value(delay));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Breaker, Limit, Order, Rate};

    #[test]
    fn settings_read_back_as_they_were_written() {
        for backoff in [
            Backoff::DEFAULT,
            Backoff::Fixed { delay: 3 },
            Backoff::Sidekiq,
            Backoff::List { delays: vec![1, 2] },
        ] {
            let settings = QueueSettings {
                backoff,
                capacity: Capacity { jobs: 5, bytes: 6, on_full: OnFull::DropOldest },
                ..QueueSettings::DEFAULT
            };
            let mut out = Writer::with_capacity(0);
            out.object(|out| write_settings(out, &settings));
            let patch = QueuePatch::from(serde_json::from_slice::<SettingsDto>(&out.finish()).unwrap());
            assert_eq!(patch.backoff.as_ref(), Some(&settings.backoff));
            assert_eq!(patch.capacity, Some(settings.capacity));
            assert_eq!(patch.keep_dead, Some(settings.keep_dead));
            assert_eq!(patch.attempts, Some(settings.attempts));
        }
    }

    #[test]
    fn limits_read_back_as_they_were_written_and_null_turns_them_off() {
        let breaker = Breaker {
            failed_percent: 50,
            slow_percent: 80,
            slow_ms: 2_000,
            window_ms: 60_000,
            calls: 20,
            open_ms: 30_000,
            probes: 3,
        };
        let rate = Rate { units: 10, per_ms: 1_000, burst: 20 };
        let mut settings = QueueSettings {
            limit: Limit { concurrency: 5, rate, breaker },
            bulkhead: Bulkhead { pool: "gpu".into(), reserved: 2, max: 4 },
            retry_budget: RetryBudget { percent: 20, per_minute: 10 },
            dead_letter: DeadLetter {
                queue: Some(QueueName::new("letters").unwrap()),
                alert: Alert { count: 100, per_minute: 0 },
            },
            ..QueueSettings::DEFAULT
        };
        for order in [Order::Priority, Order::Deadline, Order::Aging { step_ms: 60_000 }] {
            settings.order = order;
            let mut out = Writer::with_capacity(0);
            out.object(|out| write_settings(out, &settings));
            let patch = QueuePatch::from(serde_json::from_slice::<SettingsDto>(&out.finish()).unwrap());
            let mut read = QueueSettings::DEFAULT;
            read.apply(&patch);
            assert_eq!(read, settings);
        }
        let off =
            r#"{"limit":null,"bulkhead":null,"retry_budget":null,"dead_letter":null,"order":"priority"}"#;
        settings.apply(&serde_json::from_str::<SettingsDto>(off).unwrap().into());
        assert_eq!(settings, QueueSettings::DEFAULT);
        let nothing = QueuePatch::from(serde_json::from_str::<SettingsDto>("{}").unwrap());
        assert_eq!(nothing, QueuePatch::default());
    }
}
