//! What the redirects leave alone: ports, address ranges and users, typed.
//!
//! The injector checks annotations with these types and writes them as arguments of the `weft-init` container;
//! `weft-init` reads them; the controller reads them from the Pod's spec. A string never reaches a rule (RELIABILITY T38).

use std::{fmt, str::FromStr};

/// Inclusive ranges of ports, as `80,8000-8010`. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

/// Inclusive ranges of user ids, as `1000,2000-2010`. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uids(Vec<(u32, u32)>);

/// Address ranges of either family, as `10.0.0.0/8,fd00::/8`; a bare address stands for itself. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cidrs(Vec<ipnet::IpNet>);

/// One entry of a list that cannot be read. The text says what was wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{entry}' is not {expected}")]
pub struct BadEntry {
    /// The entry as it was written.
    pub entry: String,
    /// What would have been right.
    pub expected: &'static str,
}

pub(crate) fn entries<T>(
    text: &str,
    read: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Vec<T>, BadEntry> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|entry| {
            read(entry.trim()).ok_or_else(|| BadEntry {
                entry: entry.trim().chars().take(64).collect(),
                expected,
            })
        })
        .collect()
}

/// Digits only: `u16::from_str` would take `+80`.
pub(crate) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn range<T: FromStr + PartialOrd + Copy>(entry: &str) -> Option<(T, T)> {
    let (low, high) = entry.split_once('-').unwrap_or((entry, entry));
    let (low, high) = (number(low)?, number(high)?);
    (low <= high).then_some((low, high))
}

impl Ports {
    /// The ranges, in the order in which they were written.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
    /// Whether a port lies in one of the ranges.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&port))
    }
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Uids {
    /// The ranges, in the order in which they were written.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Cidrs {
    /// The ranges, in the order in which they were written.
    pub fn ranges(&self) -> &[ipnet::IpNet] {
        &self.0
    }
    /// Whether an address lies in one of the ranges.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Put in order, with neighbours joined and what lies in another left out.
impl FromIterator<ipnet::IpNet> for Cidrs {
    fn from_iter<I: IntoIterator<Item = ipnet::IpNet>>(ranges: I) -> Self {
        let ranges: Vec<_> = ranges.into_iter().map(|range| range.trunc()).collect();
        let mut ranges = ipnet::IpNet::aggregate(&ranges);
        ranges.sort();
        Self(ranges)
    }
}

impl FromStr for Ports {
    type Err = BadEntry;
    fn from_str(text: &str) -> Result<Self, BadEntry> {
        entries(
            text,
            |e| range::<u16>(e).filter(|r| r.0 > 0),
            "a port from 1 to 65535 or a range such as 8000-8010",
        )
        .map(Self)
    }
}

impl FromStr for Uids {
    type Err = BadEntry;
    fn from_str(text: &str) -> Result<Self, BadEntry> {
        entries(text, range, "a numeric user id or a range such as 2000-2010").map(Self)
    }
}

impl FromStr for Cidrs {
    type Err = BadEntry;
    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let read = |e: &str| {
            e.parse()
                .ok()
                .or_else(|| e.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
        };
        entries(text, read, "an address range such as 10.0.0.0/8 or fd00::/8").map(Self)
    }
}

fn write_ranges<T: fmt::Display + PartialEq>(f: &mut fmt::Formatter<'_>, ranges: &[(T, T)]) -> fmt::Result {
    for (i, (low, high)) in ranges.iter().enumerate() {
        f.write_str(if i > 0 { "," } else { "" })?;
        if low == high {
            write!(f, "{low}")?
        } else {
            write!(f, "{low}-{high}")?
        }
    }
    Ok(())
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ranges(f, &self.0)
    }
}

impl fmt::Display for Uids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ranges(f, &self.0)
    }
}

impl fmt::Display for Cidrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, net) in self.0.iter().enumerate() {
            write!(f, "{}{net}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!("80, 8000-8010".parse::<Ports>().unwrap().to_string(), "80,8000-8010");
        assert_eq!("".parse::<Ports>().unwrap(), Ports::default());
        assert_eq!(
            "10.0.0.0/8,fd00::1".parse::<Cidrs>().unwrap().to_string(),
            "10.0.0.0/8,fd00::1/128"
        );
        assert_eq!("0,5-6".parse::<Uids>().unwrap().to_string(), "0,5-6");
    }

    #[test]
    fn t38_nothing_but_numbers_and_ranges_is_taken() {
        for bad in [
            "80,abc",
            "+80",
            "0",
            "65536",
            "90-80",
            "80,",
            "80\n-j ACCEPT",
            "80 -j",
            "-",
            "1-2-3",
            "８０",
        ] {
            assert!(bad.parse::<Ports>().is_err(), "{bad:?}");
        }
        for bad in ["10.0.0.0/33", "::/129", "10.0.0.0/8 -j ACCEPT", "example.com"] {
            assert!(bad.parse::<Cidrs>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "80,abc".parse::<Ports>().unwrap_err().to_string(),
            "'abc' is not a port from 1 to 65535 or a range such as 8000-8010"
        );
    }
}
