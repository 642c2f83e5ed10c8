use compact_str::CompactString;
use model::Limit;
use std::collections::BTreeMap;

/// The limits that were set, by key and by the beginning of keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    exact: BTreeMap<CompactString, Limit>,
    /// By the text before the `*`.
    prefixes: BTreeMap<CompactString, Limit>,
}

impl Rules {
    /// The limit of a key: its own, else that of the longest pattern it begins with, else none.
    pub(crate) fn of(&self, key: &str) -> Limit {
        if let Some(limit) = self.exact.get(key) {
            return *limit;
        }
        let beginnings = (0..=key.len()).rev().filter(|end| key.is_char_boundary(*end));
        let found = beginnings
            .take(if self.prefixes.is_empty() { 0 } else { usize::MAX })
            .find_map(|end| self.prefixes.get(&key[..end]));
        found.copied().unwrap_or_default()
    }

    /// Sets or removes a limit.
    pub(crate) fn set(&mut self, pattern: &str, limit: Option<Limit>) {
        let (map, name) = match pattern.strip_suffix('*') {
            Some(prefix) => (&mut self.prefixes, prefix),
            None => (&mut self.exact, pattern),
        };
        match limit {
            Some(limit) => map.insert(name.into(), limit),
            None => map.remove(name),
        };
    }

    pub(crate) fn get(&self, pattern: &str) -> Option<Limit> {
        match pattern.strip_suffix('*') {
            Some(prefix) => self.prefixes.get(prefix).copied(),
            None => self.exact.get(pattern).copied(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.prefixes.len()
    }

    /// Every pattern with its limit, in the order of the text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CompactString, Limit)> + '_ {
        let exact = self.exact.iter().map(|(key, limit)| (key.clone(), *limit));
        let prefixes = self.prefixes.iter().map(|(prefix, limit)| {
            let mut pattern = prefix.clone();
            pattern.push('*');
            (pattern, *limit)
        });
        exact.chain(prefixes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_counts() {
        let mut rules = Rules::default();
        let slots = |concurrency| Limit { concurrency, ..Limit::default() };
        for (pattern, concurrency) in
            [("*", 1), ("user:*", 2), ("user:vip-*", 3), ("user:vip-7", 4), ("ä*", 5)]
        {
            rules.set(pattern, Some(slots(concurrency)));
        }
        let of = |key: &str| rules.of(key).concurrency;
        assert_eq!(
            [of("api"), of("user:1"), of("user:vip-1"), of("user:vip-7"), of("ääö"), of("")],
            [1, 2, 3, 4, 5, 1]
        );
        rules.set("user:vip-*", None);
        rules.set("*", None);
        assert_eq!([rules.of("user:vip-1").concurrency, rules.of("api").concurrency], [2, 0]);
        assert_eq!(rules.len(), 3);
    }
}
