//! How many connections each address has.

use crate::access::place;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts connections by address; for IPv6 by network, as one household has more addresses than it could ever use.
#[derive(Debug)]
pub(crate) struct Crowd {
    max: usize,
    counts: Mutex<HashMap<u64, usize>>,
}

impl Crowd {
    /// At most `max` for each; 0 for any number.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, counts: Mutex::default() })
    }

    /// One more of this address, until what is answered is dropped; `None` if it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Member> {
        let place = (self.max > 0).then(|| place(from));
        if let Some(place) = place {
            let mut counts = self.lock();
            let count = counts.entry(place).or_default();
            if *count >= self.max {
                return None;
            }
            *count += 1;
        }
        Some(Member { crowd: Arc::clone(self), place })
    }

    /// A panic meanwhile leaves counts that are still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of an address.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    place: Option<u64>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut counts = self.crowd.lock();
        if let Some(count) = counts.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_who_leaves_is_forgotten() {
        let crowd = Crowd::new(2);
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (first, _second) = (crowd.enter(here), crowd.enter(here).unwrap());
        assert!(crowd.enter(here).is_none());
        assert!(crowd.enter(there).is_some());
        assert_eq!(crowd.lock().len(), 1, "who has left costs nothing");
        drop(first);
        assert!(crowd.enter(here).is_some());
        let any = Crowd::new(0);
        let _all: Vec<_> = (0..100).map(|_| any.enter(here).unwrap()).collect();
    }
}
