//! Whose is a name: of the patterns on one port, the most specific that takes it. Chooses the listener of a connection by
//! its server name and of a request by its host, and tells when the two are not the same.

use foldhash::HashMap;

/// Values by pattern: exact, `*.suffix`, or none, which takes every name. Patterns are in lower case.
#[derive(Clone, Debug)]
pub struct Names<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows the `*`, as `.example.com`.
    wildcard: HashMap<Box<str>, T>,
    any: Option<T>,
}

/// Why a request is not for the listener that its connection came to (GatewaySpec.listeners, GEP-3567).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// No listener takes the connection's server name.
    NoConnection,
    /// Another listener takes the host: "the Gateway SHOULD return a 421".
    Misdirected,
    /// No listener takes the host: "the Gateway MUST return a 404".
    Nowhere,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names {
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            any: None,
        }
    }
}

impl<T> Names<T> {
    /// Gives a pattern to `value`, unless it was given away before: then the two are told, and the first one keeps it.
    pub fn claim(&mut self, pattern: Option<&str>, value: T) -> Result<(), (&T, T)> {
        let Some(pattern) = pattern else {
            return match &mut self.any {
                Some(first) => Err((first, value)),
                none => {
                    *none = Some(value);
                    Ok(())
                }
            };
        };
        let (map, name) = match pattern.strip_prefix('*') {
            Some(suffix) => (&mut self.wildcard, suffix),
            None => (&mut self.exact, pattern),
        };
        match map.entry(name.into()) {
            std::collections::hash_map::Entry::Occupied(first) => Err((first.into_mut(), value)),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(value);
                Ok(())
            }
        }
    }

    /// Whose `name` is, which is in lower case and without a port: that of the same exact pattern, then of the longest
    /// wildcard, then of every name. No name is taken by the last alone.
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        let named = name.and_then(|name| {
            // A wildcard stands for at least one character, and the first suffix is the longest.
            let suffixes = name
                .match_indices('.')
                .filter(|(at, _)| *at > 0)
                .map(|(at, _)| &name[at..]);
            let mut wildcards = suffixes.filter_map(|suffix| self.wildcard.get(suffix));
            self.exact.get(name).or_else(|| wildcards.next())
        });
        named.or(self.any.as_ref())
    }

    /// Whose a request is, on a connection whose TLS was ended for `server_name`. The two need not be equal, but they must
    /// lead to the same listener: its certificate and its demands on the client are what the connection stands for. A
    /// request without a host asks for nothing else.
    pub fn of_request(&self, server_name: Option<&str>, host: Option<&str>) -> Result<&T, Elsewhere> {
        let own = self.find(server_name).ok_or(Elsewhere::NoConnection)?;
        let Some(host) = host else { return Ok(own) };
        let found = self.find(Some(host)).ok_or(Elsewhere::Nowhere)?;
        if std::ptr::eq(own, found) {
            Ok(own)
        } else {
            Err(Elsewhere::Misdirected)
        }
    }
}
