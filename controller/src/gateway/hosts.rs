//! Host patterns: exact, `*.suffix`, or none for every host.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// Whether a wildcard pattern takes a host or every host of another pattern. It takes any number of labels, and never its bare domain.
fn covers(wildcard: &str, other: &str) -> bool {
    let Some(suffix) = wildcard.strip_prefix('*') else {
        return false;
    };
    let other = other.strip_prefix('*').unwrap_or(other);
    other.len() > suffix.len() && other.ends_with(suffix)
}

/// What two patterns have in common: the more specific of them, or nothing.
pub fn intersection<'a>(a: &'a Arc<str>, b: &'a Arc<str>) -> Option<&'a Arc<str>> {
    if a == b || covers(b, a) {
        Some(a)
    } else if covers(a, b) {
        Some(b)
    } else {
        None
    }
}

/// The hosts that a route has at a listener. `None`: they have none in common. Empty: every host.
pub fn at_listener(listener: Option<&Arc<str>>, route: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
    let Some(listener) = listener else {
        return Some(route.to_vec());
    };
    if route.is_empty() {
        return Some(vec![listener.clone()]);
    }
    let common = route.iter().filter_map(|host| intersection(listener, host));
    let mut hosts: Vec<Arc<str>> = Vec::new();
    for host in common {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    (!hosts.is_empty()).then_some(hosts)
}

/// Patterns with what each belongs to, in which those that meet a pattern are found without looking at all.
#[derive(Debug)]
pub struct Taken<T> {
    every: Option<T>,
    /// By the pattern read from its end, without the star: what a wildcard covers begins with it.
    by_end: BTreeMap<String, (bool, T)>,
}

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Self {
            every: None,
            by_end: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Taken<T> {
    /// Adds patterns; none: every host.
    pub fn add(&mut self, hosts: &[Arc<str>], of: T) {
        if hosts.is_empty() {
            self.every.get_or_insert(of);
        }
        for host in hosts {
            let (wildcard, end) = from_end(host);
            self.by_end.entry(end).or_insert((wildcard, of));
        }
    }

    /// To what belongs a pattern that has hosts in common with one of these.
    pub fn meets(&self, hosts: &[Arc<str>]) -> Option<T> {
        if self.every.is_some() {
            return self.every;
        }
        if hosts.is_empty() {
            return self.by_end.values().next().map(|(_, of)| *of);
        }
        hosts.iter().find_map(|host| self.meets_one(host))
    }

    fn meets_one(&self, host: &str) -> Option<T> {
        let (wildcard, end) = from_end(host);
        if let Some((_, of)) = self.by_end.get(&end) {
            return Some(*of);
        }
        // Wildcards that cover it: `*.a.b` is kept as `b.a.`.
        let above = end.match_indices('.').map(|(at, _)| &end[..=at]);
        for above in above.filter(|above| above.len() < end.len()) {
            if let Some((true, of)) = self.by_end.get(above) {
                return Some(*of);
            }
        }
        if !wildcard {
            return None;
        }
        let from = (Bound::Excluded(end.as_str()), Bound::Unbounded);
        let first = self.by_end.range::<str, _>(from).next();
        first
            .filter(|(other, _)| other.starts_with(&end))
            .map(|(_, (_, of))| *of)
    }
}

/// Whether it is a wildcard, and its characters from the end: `*.a.b` gives `b.a.`.
fn from_end(host: &str) -> (bool, String) {
    match host.strip_prefix('*') {
        Some(suffix) => (true, suffix.chars().rev().collect()),
        None => (false, host.chars().rev().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<Arc<str>> {
        text.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn a_route_has_at_a_listener_what_both_have() {
        for (listener, route, expected) in [
            ("", "", Some("")),
            ("", "a.example", Some("a.example")),
            ("a.example", "", Some("a.example")),
            ("a.example", "a.example b.example", Some("a.example")),
            ("a.example", "*.example", Some("a.example")),
            (
                "*.example",
                "a.example b.a.example example a.test",
                Some("a.example b.a.example"),
            ),
            ("*.example", "*.a.example *.example", Some("*.a.example *.example")),
            ("*.a.example", "*.example", Some("*.a.example")),
            ("*.com", "*.example.com", Some("*.example.com")),
            ("*.example", "example", None),
            ("a.example", "b.example", None),
            ("*.a.example", "*.b.example", None),
            ("*.ample", "ex.ample *.x.ample", Some("ex.ample *.x.ample")),
            ("*.ample", "example", None),
        ] {
            let given: Option<Arc<str>> = (!listener.is_empty()).then(|| listener.into());
            let found = at_listener(given.as_ref(), &hosts(route));
            assert_eq!(found, expected.map(hosts), "{listener} and {route}");
        }
    }

    #[test]
    fn patterns_that_meet_are_found_without_looking_at_all() {
        let patterns = [
            "a.example",
            "b.a.example",
            "*.a.example",
            "*.example",
            "example",
            "*.test",
            "a.test",
            "b.b.test",
            "xa.example",
        ];
        for one in patterns {
            for other in patterns {
                let mut taken = Taken::default();
                taken.add(&hosts(one), 1);
                let meet = intersection(&one.into(), &other.into()).is_some();
                assert_eq!(taken.meets(&hosts(other)).is_some(), meet, "{one} and {other}");
            }
            let mut taken = Taken::default();
            assert_eq!(taken.meets(&hosts(one)), None);
            taken.add(&[], 1);
            assert_eq!(taken.meets(&hosts(one)), Some(1));
        }
    }
}
