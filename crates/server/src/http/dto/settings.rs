use super::backoff::BackoffDto;
use crate::http::json::Writer;
use kit::{Backoff, Millis};
use model::{Capacity, Keep, OnFull, QueuePatch, QueueSettings};
use serde::Deserialize;

/// A change of a queue's settings. `capacity` and the two `keep_…` are replaced as a whole.
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
                },
            }),
            keep_completed: keep(dto.keep_completed),
            keep_dead: keep(dto.keep_dead),
            ..QueuePatch::default()
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
        };
        out.field("on_full", on_full);
    });
    for (key, keep) in [("keep_completed", settings.keep_completed), ("keep_dead", settings.keep_dead)] {
        out.key(key).object(|out| {
            out.field("age_ms", keep.age_ms);
            out.field("count", keep.count);
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
}
