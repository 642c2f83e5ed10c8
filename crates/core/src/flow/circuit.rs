use kit::{
    Timestamp,
    codec::{Malformed, Reader, put_u64},
};
use model::Breaker;

/// Parts of the window; what is older than the window leaves a tenth of it at a time.
const PARTS: usize = 10;

/// What a breaker remembers: the attempts of its window, or since when it is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Circuit {
    pub(crate) state: CircuitState,
    parts: [Part; PARTS],
    /// Which tenth of a window, counted from the epoch, the newest part is.
    newest: u64,
}

/// Closed counts, open holds, half open probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CircuitState {
    #[default]
    Closed,
    /// Nothing starts before.
    Open(Timestamp),
    /// So many probes succeeded.
    HalfOpen(u32),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Part {
    calls: u32,
    failed: u32,
    slow: u32,
}

impl Circuit {
    /// The state at a time: what was open is half open once its time is over, and closed once it has forgotten why.
    pub(crate) fn at(&self, rule: &Breaker, now: Timestamp) -> CircuitState {
        match self.state {
            _ if self.forgets_at(rule) <= now => CircuitState::Closed,
            CircuitState::Open(until) if until <= now => CircuitState::HalfOpen(0),
            state => state,
        }
    }

    /// An attempt starts: the first after an open time makes it half open.
    pub(crate) fn probe(&mut self, rule: &Breaker, now: Timestamp) {
        self.state = self.at(rule, now);
        if matches!(self.state, CircuitState::HalfOpen(_)) {
            self.turn(rule, now);
        }
    }

    /// Takes note of how an attempt ended; true if the state changed.
    pub(crate) fn record(&mut self, rule: &Breaker, failed: bool, took_ms: u64, now: Timestamp) -> bool {
        let slow = rule.slow_percent > 0 && took_ms > rule.slow_ms;
        let before = self.at(rule, now);
        if self.forgets_at(rule) <= now {
            *self = Self::default();
        }
        self.turn(rule, now);
        match before {
            CircuitState::Open(_) => {}
            CircuitState::HalfOpen(_) if failed || slow => {
                self.state = CircuitState::Open(now + rule.open_ms)
            }
            CircuitState::HalfOpen(succeeded) if succeeded + 1 >= rule.probes.max(1) => {
                *self = Self::default()
            }
            CircuitState::HalfOpen(succeeded) => self.state = CircuitState::HalfOpen(succeeded + 1),
            CircuitState::Closed => {
                let part = &mut self.parts[(self.newest % PARTS as u64) as usize];
                part.calls += 1;
                part.failed += u32::from(failed);
                part.slow += u32::from(slow);
                if self.trips(rule) {
                    let state = CircuitState::Open(now + rule.open_ms);
                    *self = Self { state, newest: self.newest, ..Self::default() };
                }
            }
        }
        self.at(rule, now) != before
    }

    /// When nothing that it saw counts any more. Half open it stays until an attempt tells, or a window has passed without one.
    pub(crate) fn forgets_at(&self, rule: &Breaker) -> Timestamp {
        let window = Timestamp((self.newest + PARTS as u64) * (rule.window_ms / PARTS as u64).max(1));
        match self.state {
            CircuitState::Open(until) => until + rule.window_ms,
            CircuitState::HalfOpen(_) => window,
            CircuitState::Closed if self.parts.iter().all(|part| part.calls == 0) => Timestamp::ZERO,
            CircuitState::Closed => window,
        }
    }

    /// Empties the parts that the window has left behind.
    fn turn(&mut self, rule: &Breaker, now: Timestamp) {
        let part = now.0 / (rule.window_ms / PARTS as u64).max(1);
        let passed = part.saturating_sub(self.newest).min(PARTS as u64);
        for old in 0..passed {
            self.parts[((part - old) % PARTS as u64) as usize] = Part::default();
        }
        self.newest = self.newest.max(part);
    }

    fn trips(&self, rule: &Breaker) -> bool {
        let sum = |of: fn(&Part) -> u32| self.parts.iter().map(|part| u64::from(of(part))).sum::<u64>();
        let calls = sum(|part| part.calls);
        let reaches = |share: u64, percent: u8| percent > 0 && share * 100 >= calls * u64::from(percent);
        calls >= u64::from(rule.calls.max(1))
            && (reaches(sum(|part| part.failed), rule.failed_percent)
                || reaches(sum(|part| part.slow), rule.slow_percent))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let (state, value) = match self.state {
            CircuitState::Closed => (0, 0),
            CircuitState::Open(until) => (1, until.0),
            CircuitState::HalfOpen(succeeded) => (2, u64::from(succeeded)),
        };
        out.push(state);
        put_u64(out, value);
        put_u64(out, self.newest);
        for Part { calls, failed, slow } in self.parts {
            [calls, failed, slow].into_iter().for_each(|number| put_u64(out, number.into()));
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = reader.u8("circuit")?;
        let value = reader.u64("circuit")?;
        let state = match kind {
            0 => CircuitState::Closed,
            1 => CircuitState::Open(Timestamp(value)),
            2 => CircuitState::HalfOpen(u32::try_from(value).map_err(|_| reader.malformed("circuit"))?),
            _ => return Err(reader.malformed("circuit")),
        };
        let mut circuit = Self { state, newest: reader.u64("window")?, ..Self::default() };
        for part in &mut circuit.parts {
            *part = Part {
                calls: reader.u32("calls")?,
                failed: reader.u32("failed")?,
                slow: reader.u32("slow")?,
            };
        }
        Ok(circuit)
    }
}
