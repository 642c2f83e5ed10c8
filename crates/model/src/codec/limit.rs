//! Limits, and what else decides which job starts.

use super::{checked, read_compact};
use crate::{Breaker, Bulkhead, Limit, Order, Rate, RetryBudget};
use kit::codec::{Malformed, Reader, put_str, put_u64};

/// Concurrency, rate, breaker.
pub fn put_limit(out: &mut Vec<u8>, limit: &Limit) {
    put_u64(out, limit.concurrency.into());
    put_rate(out, &limit.rate);
    put_breaker(out, &limit.breaker);
}

/// What [`put_limit`] wrote.
pub fn read_limit(reader: &mut Reader<'_>) -> Result<Limit, Malformed> {
    Ok(Limit {
        concurrency: reader.u32("concurrency")?,
        rate: read_rate(reader)?,
        breaker: read_breaker(reader)?,
    })
}

/// Units, span, burst.
pub fn put_rate(out: &mut Vec<u8>, rate: &Rate) {
    put_u64(out, rate.units.into());
    put_u64(out, rate.per_ms);
    put_u64(out, rate.burst.into());
}

/// What [`put_rate`] wrote.
pub fn read_rate(reader: &mut Reader<'_>) -> Result<Rate, Malformed> {
    Ok(Rate { units: reader.u32("rate")?, per_ms: reader.u64("rate span")?, burst: reader.u32("burst")? })
}

/// The shares, then the numbers, in the order of the struct.
pub fn put_breaker(out: &mut Vec<u8>, breaker: &Breaker) {
    out.extend([breaker.failed_percent, breaker.slow_percent]);
    put_u64(out, breaker.slow_ms);
    put_u64(out, breaker.window_ms);
    put_u64(out, breaker.calls.into());
    put_u64(out, breaker.open_ms);
    put_u64(out, breaker.probes.into());
}

/// What [`put_breaker`] wrote.
pub fn read_breaker(reader: &mut Reader<'_>) -> Result<Breaker, Malformed> {
    Ok(Breaker {
        failed_percent: reader.u8("share of failures")?,
        slow_percent: reader.u8("share of slow attempts")?,
        slow_ms: reader.u64("slow")?,
        window_ms: reader.u64("window")?,
        calls: reader.u32("calls")?,
        open_ms: reader.u64("open")?,
        probes: reader.u32("probes")?,
    })
}

/// Pool, reserved, most.
pub fn put_bulkhead(out: &mut Vec<u8>, bulkhead: &Bulkhead) {
    put_str(out, &bulkhead.pool);
    put_u64(out, bulkhead.reserved.into());
    put_u64(out, bulkhead.max.into());
}

/// What [`put_bulkhead`] wrote.
pub fn read_bulkhead(reader: &mut Reader<'_>) -> Result<Bulkhead, Malformed> {
    Ok(Bulkhead {
        pool: read_compact(reader, "pool")?,
        reserved: reader.u32("reserved slots")?,
        max: reader.u32("most slots")?,
    })
}

/// Share of successes, retries a minute.
pub fn put_retry_budget(out: &mut Vec<u8>, budget: &RetryBudget) {
    put_u64(out, budget.percent.into());
    put_u64(out, budget.per_minute.into());
}

/// What [`put_retry_budget`] wrote.
pub fn read_retry_budget(reader: &mut Reader<'_>) -> Result<RetryBudget, Malformed> {
    Ok(RetryBudget { percent: reader.u32("share of retries")?, per_minute: reader.u32("retries")? })
}

/// 0 priority, 1 deadline, 2 aging (step).
pub fn put_order(out: &mut Vec<u8>, order: &Order) {
    match order {
        Order::Priority => out.push(0),
        Order::Deadline => out.push(1),
        Order::Aging { step_ms } => {
            out.push(2);
            put_u64(out, *step_ms);
        }
    }
}

/// What [`put_order`] wrote.
pub fn read_order(reader: &mut Reader<'_>) -> Result<Order, Malformed> {
    checked(reader, "order", |r| {
        Ok(Some(match r.u8("order")? {
            0 => Order::Priority,
            1 => Order::Deadline,
            2 => Order::Aging { step_ms: r.u64("aging step")? },
            _ => return Ok(None),
        }))
    })
}
