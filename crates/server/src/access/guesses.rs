//! How often an address may show wrong tokens.

use kit::Millis;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Wrong tokens from one address in a row; after that, one every [`EVERY_MS`].
pub(crate) const BURST: u64 = 20;
const EVERY_MS: Millis = 1_000;
/// Addresses that are remembered; those beyond share one place.
const ADDRESSES_MAX: usize = 10_000;
const OTHERS: u64 = 0;

/// An address, or for IPv6 the network of 2⁶⁴ addresses that one household gets. Never 0.
pub(crate) fn place(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 1 << 63 | u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64 | 1,
    }
}

/// For each address, when it will have made up for its wrong tokens.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    until: HashMap<u64, Millis>,
    /// When those that have made up for theirs were last forgotten.
    swept: Millis,
}

impl Places {
    fn of(&self, place: u64) -> u64 {
        if self.until.len() >= ADDRESSES_MAX && !self.until.contains_key(&place) { OTHERS } else { place }
    }
}

impl Guesses {
    /// How long this address has to wait before a token of it is looked at, if it has to.
    pub(crate) fn blocked(&self, place: u64, now: Millis) -> Option<Millis> {
        let places = self.lock();
        let ahead = places.until.get(&places.of(place))?.saturating_sub(now);
        (ahead > (BURST - 1) * EVERY_MS).then(|| ahead - (BURST - 1) * EVERY_MS)
    }

    /// Counts a wrong token. True if the address is blocked from now on.
    pub(crate) fn wrong(&self, place: u64, now: Millis) -> bool {
        let mut places = self.lock();
        // Not with each token: a flood from everywhere shall not cost a walk each time.
        if places.until.len() >= ADDRESSES_MAX && now >= places.swept + EVERY_MS {
            places.until.retain(|_, until| *until > now);
            places.swept = now;
        }
        let place = places.of(place);
        let until = places.until.entry(place).or_default();
        *until = ((*until).max(now) + EVERY_MS).min(now + BURST * EVERY_MS);
        *until - now > (BURST - 1) * EVERY_MS
    }

    /// A panic meanwhile leaves counts that are still good.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_burst_and_then_one_guess_a_second() {
        let guesses = Guesses::default();
        for guess in 1..=BURST {
            assert_eq!(guesses.blocked(1, 0), None, "guess {guess}");
            assert_eq!(guesses.wrong(1, 0), guess == BURST);
        }
        assert_eq!((guesses.blocked(1, 0), guesses.blocked(2, 0)), (Some(EVERY_MS), None));
        assert_eq!(guesses.blocked(1, 999), Some(1));
        assert_eq!(guesses.blocked(1, 1_000), None);
        guesses.wrong(1, 1_000);
        assert!(guesses.blocked(1, 1_000).is_some());
        assert_eq!(guesses.blocked(1, 60_000), None);
    }

    #[test]
    fn many_addresses_cost_bounded_memory_and_are_not_a_way_around() {
        let guesses = Guesses::default();
        for address in 1..=ADDRESSES_MAX as u64 * 2 {
            guesses.wrong(address, 0);
        }
        assert!(guesses.lock().until.len() <= ADDRESSES_MAX + 1);
        assert!(guesses.blocked(u64::MAX, 0).is_some(), "a new address shares what is left");
        guesses.wrong(u64::MAX, 3_600_000);
        assert_eq!(guesses.lock().until.len(), 1, "what is made up for is forgotten");
    }

    #[test]
    fn a_household_is_one_place_and_a_mapped_address_is_the_address() {
        let at = |text: &str| place(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8:0:3::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.2"), at("10.0.0.1"));
    }
}
