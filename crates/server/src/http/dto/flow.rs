//! Limits, order, groups: what decides when a job may start. Parts that are null or absent are off.

use super::scalar::{Text, Time};
use crate::http::json::Writer;
use compact_str::CompactString;
use kit::Millis;
use model::{Breaker, Bulkhead, Limit, LimitUse, Order, Rate, RetryBudget, Route};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::fmt;

/// `"api"`, or `{"key":"api","cost":2}`.
#[derive(Debug)]
pub(crate) struct LimitUseDto<'a> {
    key: Text<'a>,
    cost: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Costly<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(default = "one")]
    cost: u32,
}

const fn one() -> u32 {
    1
}

impl<'de: 'a, 'a> Deserialize<'de> for LimitUseDto<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = LimitUseDto<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit's key, or an object with `key` and `cost`")
            }
            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(LimitUseDto { key: Text::from(key), cost: 1 })
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
                Ok(LimitUseDto { key: Text::from(key.to_owned()), cost: 1 })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Costly { key, cost } = Costly::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LimitUseDto { key, cost })
            }
        }
        input.deserialize_any(Either)
    }
}

/// The route of a push; `None` if it says nothing, so that a queue without routes pays for none.
pub(crate) fn route(
    group: Option<&Text<'_>>,
    ordering_key: Option<&Text<'_>>,
    limits: &[LimitUseDto<'_>],
    deadline: Option<Time>,
) -> Option<Box<Route>> {
    if group.is_none() && ordering_key.is_none() && limits.is_empty() && deadline.is_none() {
        return None;
    }
    let text = |text: &Text<'_>| CompactString::from(&**text);
    Some(Box::new(Route {
        group: group.map(text),
        ordering_key: ordering_key.map(text),
        limits: limits.iter().map(|used| LimitUse { key: text(&used.key), cost: used.cost }).collect(),
        deadline: deadline.map(|time| time.0),
    }))
}

/// What may happen at once, how often, and what happens after failures.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitDto {
    concurrency: Option<u32>,
    rate: Option<RateDto>,
    breaker: Option<BreakerDto>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateDto {
    units: u32,
    per_ms: Millis,
    #[serde(default)]
    burst: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerDto {
    #[serde(default)]
    failed_percent: u8,
    #[serde(default)]
    slow_percent: u8,
    #[serde(default)]
    slow_ms: Millis,
    window_ms: Millis,
    calls: u32,
    open_ms: Millis,
    #[serde(default = "one")]
    probes: u32,
}

impl From<LimitDto> for Limit {
    fn from(dto: LimitDto) -> Self {
        Limit {
            concurrency: dto.concurrency.unwrap_or(0),
            rate: dto.rate.map_or(Rate::default(), |rate| Rate {
                units: rate.units,
                per_ms: rate.per_ms,
                burst: rate.burst,
            }),
            breaker: dto.breaker.map_or(Breaker::default(), |breaker| Breaker {
                failed_percent: breaker.failed_percent,
                slow_percent: breaker.slow_percent,
                slow_ms: breaker.slow_ms,
                window_ms: breaker.window_ms,
                calls: breaker.calls,
                open_ms: breaker.open_ms,
                probes: breaker.probes,
            }),
        }
    }
}

/// `"priority"`, `"deadline"` or `{"aging_ms":60000}`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderDto {
    Priority,
    Deadline,
    AgingMs(Millis),
}

impl From<OrderDto> for Order {
    fn from(dto: OrderDto) -> Self {
        match dto {
            OrderDto::Priority => Order::Priority,
            OrderDto::Deadline => Order::Deadline,
            OrderDto::AgingMs(step_ms) => Order::Aging { step_ms },
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkheadDto {
    pool: String,
    #[serde(default)]
    reserved: u32,
    #[serde(default)]
    max: u32,
}

impl From<BulkheadDto> for Bulkhead {
    fn from(dto: BulkheadDto) -> Self {
        Bulkhead { pool: dto.pool.into(), reserved: dto.reserved, max: dto.max }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBudgetDto {
    percent: u32,
    #[serde(default)]
    per_minute: u32,
}

impl From<RetryBudgetDto> for RetryBudget {
    fn from(dto: RetryBudgetDto) -> Self {
        RetryBudget { percent: dto.percent, per_minute: dto.per_minute }
    }
}

/// A change of a group. What is absent stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupDto {
    pub(crate) weight: Option<u32>,
    pub(crate) paused: Option<bool>,
}

/// The fields of an object that a [`LimitDto`] would read back.
pub(crate) fn write_limit(out: &mut Writer, limit: &Limit) {
    let Limit { concurrency, rate, breaker } = limit;
    out.field("concurrency", (*concurrency > 0).then_some(*concurrency));
    if rate.units == 0 {
        out.field("rate", None::<bool>);
    } else {
        out.key("rate").object(|out| {
            out.field("units", rate.units);
            out.field("per_ms", rate.per_ms);
            out.field("burst", rate.burst);
        });
    }
    if *breaker == Breaker::default() {
        return out.field("breaker", None::<bool>);
    }
    out.key("breaker").object(|out| {
        out.field("failed_percent", breaker.failed_percent);
        out.field("slow_percent", breaker.slow_percent);
        out.field("slow_ms", breaker.slow_ms);
        out.field("window_ms", breaker.window_ms);
        out.field("calls", breaker.calls);
        out.field("open_ms", breaker.open_ms);
        out.field("probes", breaker.probes);
    });
}

/// The value that an [`OrderDto`] would read back.
pub(crate) fn write_order(out: &mut Writer, order: Order) {
    match order {
        Order::Priority => out.value("priority"),
        Order::Deadline => out.value("deadline"),
        Order::Aging { step_ms } => out.object(|out| out.field("aging_ms", step_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_used_by_its_name_or_at_a_cost() {
        let read = |text| serde_json::from_str::<Vec<LimitUseDto<'_>>>(text);
        let used = read(r#"["api",{"key":"gp\u0075","cost":2},{"key":"x"},"\u0061"]"#).unwrap();
        let uses: Vec<_> = used.iter().map(|used| (&*used.key, used.cost)).collect();
        assert_eq!(uses, [("api", 1), ("gpu", 2), ("x", 1), ("a", 1)]);
        for bad in ["[3]", r#"[{"cost":2}]"#, r#"[{"key":"a","costs":2}]"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_push_that_says_nothing_about_its_route_has_none() {
        assert_eq!(route(None, None, &[], None), None);
        let group = Text::from("");
        let route = route(Some(&group), None, &[], None).unwrap();
        assert_eq!(route.group.as_deref(), Some(""));
    }
}
