use kit::{Millis, Timestamp};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, except that it never stands still or runs backwards: when somebody sets the wall clock back, time goes on from
/// where it was, so that timers neither fire twice nor wait for the old hour to return.
pub(crate) struct Clock {
    last: Timestamp,
    read_at: Instant,
}

impl Clock {
    /// A clock that shows nothing earlier than `after`.
    pub(crate) fn new(after: Timestamp) -> Self {
        Self { last: after, read_at: Instant::now() }
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.advance(
            Instant::now(),
            Timestamp(u64::try_from(wall.as_millis()).unwrap_or(0)).min(Timestamp::MAX),
        )
    }

    fn advance(&mut self, instant: Instant, wall: Timestamp) -> Timestamp {
        let elapsed = instant.saturating_duration_since(self.read_at);
        let carried = self.last + Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX);
        if wall >= carried {
            self.last = wall;
            self.read_at = instant;
        } else if carried > self.last {
            self.last = carried;
            // Only whole milliseconds are taken over, so that frequent readings do not lose the rest.
            self.read_at += std::time::Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(0));
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_wall_clock_set_back_does_not_stop_time_and_one_set_forward_moves_it() {
        let start = Instant::now();
        let mut clock = Clock { last: Timestamp(1_000_000), read_at: start };
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.advance(at(10), Timestamp(1_000_010)), Timestamp(1_000_010));
        assert_eq!(clock.advance(at(20), Timestamp(400_000)), Timestamp(1_000_020));
        assert_eq!(clock.advance(at(30), Timestamp(400_010)), Timestamp(1_000_030));
        assert_eq!(clock.advance(at(40), Timestamp(2_000_000)), Timestamp(2_000_000));
    }
}
