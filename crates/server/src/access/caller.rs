//! Who sent a request, and in whose name it acts.

use super::{Right, Role, token::Token};
use compact_str::{CompactString, format_compact};
use model::{Actor, QueueName, limits};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Whoever showed a token; or everybody, where none is asked for.
#[derive(Debug, Clone)]
pub struct Caller(pub(super) Arc<Token>);

impl Caller {
    /// The token's name; empty where tokens have none.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the other has the same name, roles and queues, be it by another token.
    pub fn is_like(&self, other: &Caller) -> bool {
        (&self.0.name, &self.0.roles, &self.0.queues) == (&other.0.name, &other.0.roles, &other.0.queues)
    }

    /// The names of its roles.
    pub fn roles(&self) -> String {
        self.0.roles_text()
    }

    /// Whether it may take a route that needs `right`.
    pub fn may(&self, right: Right) -> bool {
        self.0.may(right)
    }

    /// Whether it may see and touch this queue.
    pub fn reaches(&self, queue: &QueueName) -> bool {
        self.0.reaches(queue)
    }

    /// Whether there are queues that it may not see.
    pub fn is_confined(&self) -> bool {
        !self.0.queues.is_empty()
    }

    /// In whose name it asks, if it is known at all. Who is not admin stays itself: what it says of itself follows the token's name.
    pub fn actor(&self, said: Option<&str>) -> Option<Actor> {
        match said {
            Some(said) => Some(self.within(said)),
            None if self.name().is_empty() => None,
            None => Some(Actor::new(self.name())),
        }
    }

    /// The name of a worker of this caller, from then on everywhere.
    pub fn worker(&self, said: &Actor) -> Actor {
        self.within(said.as_str())
    }

    fn within(&self, said: &str) -> Actor {
        let name = self.name();
        // A worker may have read its full name in an answer of ours.
        let own = said.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if name.is_empty() || own || self.0.roles.contains(&Role::Admin) {
            return Actor::new(said);
        }
        Actor::new(&format_compact!("{name}/{said}"))
    }

    /// An idempotency key as the pond knows it: who does not see all queues has keys of its own, so that it neither meets nor blocks
    /// those of others.
    pub(crate) fn scoped(&self, key: CompactString) -> CompactString {
        if !self.is_confined() {
            return key;
        }
        let scoped = format_compact!("{}/{key}", self.name());
        if scoped.len() <= limits::ID_BYTES_MAX {
            return scoped;
        }
        let digest = Sha256::digest(key.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format_compact!("{}//{digest}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Fingerprint;

    fn caller(line: &str) -> Caller {
        Caller(Arc::new(format!("{line} {}", Fingerprint::of(b"x")).parse().unwrap()))
    }

    #[test]
    fn nobody_but_an_admin_acts_in_the_name_of_another() {
        let (web, ops) = (caller("web producer mail never"), caller("ops admin * never"));
        assert_eq!(web.actor(None).unwrap().as_str(), "web");
        for (said, known) in
            [("ops", "web/ops"), ("web/7", "web/7"), ("web", "web"), ("webmaster", "web/webmaster")]
        {
            assert_eq!(web.actor(Some(said)).unwrap().as_str(), known);
            assert_eq!(web.worker(&Actor::new(said)).as_str(), known);
        }
        assert_eq!(ops.actor(Some("ada")).unwrap().as_str(), "ada");
        assert_eq!(ops.actor(None).unwrap().as_str(), "ops");
    }

    #[test]
    fn the_keys_of_confined_callers_never_meet() {
        let (a, b) = (caller("a producer mail never"), caller("b producer mail never"));
        let long = CompactString::from("k".repeat(limits::ID_BYTES_MAX));
        for key in [CompactString::from("k"), long] {
            let (of_a, of_b) = (a.scoped(key.clone()), b.scoped(key.clone()));
            assert!(of_a != of_b && of_a.len() <= limits::ID_BYTES_MAX, "{of_a} {of_b}");
            assert_eq!(caller("c producer * never").scoped(key.clone()), key);
        }
    }
}
