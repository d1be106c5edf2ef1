//! The keys that sessions are signed with: the mesh has one secret or two, of which each route's own keys are made, so that a route's
//! cookie says nothing about another route. Pure; [`keep`] holds them in a Secret, or in a file of the sandbox.
//!
//! A new secret is first only accepted, and signs once every proxy has had time to hear of it; the old one stays until the next.

pub mod keep;

use std::{fmt, sync::Arc, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};
use weft_proto::limits;
use weft_route::rule::{Kind, SessionKey};

/// Length of a secret.
const LENGTH: usize = 32;
/// Block of SHA-256 (RFC 2104).
const BLOCK: usize = 64;

/// One secret of the mesh.
#[derive(Clone, PartialEq, Eq)]
pub struct Master {
    /// Counts up.
    pub id: u32,
    /// Seconds since 1970.
    pub created: u64,
    secret: [u8; LENGTH],
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret never reaches a log.
        write!(f, "Master({})", self.id)
    }
}

/// The secrets of the mesh; the first one signs. Without any, sessions are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masters(Arc<[Master]>);

/// What is wrong with the text of a Secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not 'ID SECONDS BASE64' with a secret of 32 bytes")]
pub struct Wrong(usize);

impl Masters {
    /// A first secret, made of these random bytes now.
    pub fn first(random: [u8; LENGTH], now: u64) -> Self {
        Self::from(vec![Master {
            id: 1,
            created: now,
            secret: random,
        }])
    }

    /// Reads what [`Masters::text`] writes. Empty lines do not count.
    pub fn read(text: &str) -> Result<Self, Wrong> {
        let mut masters = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            masters.push(master(line).ok_or(Wrong(index + 1))?);
        }
        Ok(Self::from(masters))
    }

    /// One line for each: `ID SECONDS BASE64`, the one that signs first.
    pub fn text(&self) -> String {
        let line = |master: &Master| {
            let secret = BASE64_STANDARD.encode(master.secret);
            format!("{} {} {secret}\n", master.id, master.created)
        };
        self.0.iter().map(line).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they are to become now. `None`: they stay. `random` is asked for a new secret.
    pub fn next(&self, now: u64, random: impl FnOnce() -> [u8; LENGTH]) -> Option<Self> {
        let age = |master: &Master| Duration::from_secs(now.saturating_sub(master.created));
        let Some(signs) = self.0.first() else {
            return Some(Self::first(random(), now));
        };
        let newest = self.0.iter().max_by_key(|master| master.id).unwrap_or(signs);
        if newest.id != signs.id {
            // Everyone accepts it by now.
            let settled = age(newest) >= limits::SESSION_KEY_SETTLES;
            return settled.then(|| Self::from(vec![newest.clone(), signs.clone()]));
        }
        (age(signs) >= limits::SESSION_KEY_LIFE).then(|| {
            let new = Master {
                id: signs.id.wrapping_add(1),
                created: now,
                secret: random(),
            };
            Self::from(vec![signs.clone(), new])
        })
    }

    /// How long until [`Masters::next`] has something to say.
    pub fn due(&self, now: u64) -> Duration {
        let Some(signs) = self.0.first() else {
            return Duration::ZERO;
        };
        let newest = self.0.iter().max_by_key(|master| master.id).unwrap_or(signs);
        let (since, life) = if newest.id == signs.id {
            (signs.created, limits::SESSION_KEY_LIFE)
        } else {
            (newest.created, limits::SESSION_KEY_SETTLES)
        };
        life.saturating_sub(Duration::from_secs(now.saturating_sub(since)))
    }

    /// The keys of a route's sessions: the first one signs, all are accepted.
    pub fn keys(&self, kind: Kind, namespace: &str, name: &str) -> Vec<SessionKey> {
        // No part of it can hold a slash.
        let place = format!("weft session/{kind}/{namespace}/{name}");
        let key = |master: &Master| SessionKey {
            id: master.id,
            secret: hmac(&master.secret, place.as_bytes()).as_slice().into(),
        };
        self.0.iter().map(key).collect()
    }
}

impl From<Vec<Master>> for Masters {
    fn from(masters: Vec<Master>) -> Self {
        Self(masters.into())
    }
}

fn master(line: &str) -> Option<Master> {
    let mut words = line.split_ascii_whitespace();
    let (id, created) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let secret = BASE64_STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
    words.next().is_none().then_some(Master { id, created, secret })
}

/// HMAC-SHA-256 (RFC 2104) with a key that is shorter than a block.
fn hmac(key: &[u8; LENGTH], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| -> [u8; BLOCK] { std::array::from_fn(|i| key.get(i).copied().unwrap_or(0) ^ with) };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn the_code_of_a_text_is_that_of_the_rfc() {
        // RFC 4231, case 1: the key of 20 bytes is followed by zeros, as in a block.
        let mut key = [0; LENGTH];
        key[..20].fill(0x0b);
        let text: String = hmac(&key, b"Hi There").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn each_route_has_keys_of_its_own() {
        let masters = Masters::first([7; LENGTH], 0);
        let key = |kind, name| masters.keys(kind, "shop", name).remove(0);
        let keys = [
            key(Kind::HttpRoute, "a"),
            key(Kind::GrpcRoute, "a"),
            key(Kind::HttpRoute, "b"),
        ];
        assert!(keys[0].secret != keys[1].secret && keys[0].secret != keys[2].secret);
        assert!(keys.iter().all(|key| key.id == 1 && key.secret.len() == 32));
        assert_eq!(key(Kind::HttpRoute, "a").secret, keys[0].secret);
        assert!(Masters::default().keys(Kind::HttpRoute, "shop", "a").is_empty());
    }

    #[test]
    fn a_new_secret_is_accepted_before_it_signs_and_the_old_one_is_kept() {
        let ids = |masters: &Masters| masters.0.iter().map(|master| master.id).collect::<Vec<_>>();
        let one = Masters::default().next(0, || [1; LENGTH]).unwrap();
        assert_eq!(ids(&one), [1]);
        assert_eq!(one.next(DAY, || [2; LENGTH]), None);
        let old = limits::SESSION_KEY_LIFE.as_secs();
        assert_eq!(one.due(old - 5), Duration::from_secs(5));
        let two = one.next(old, || [2; LENGTH]).unwrap();
        assert_eq!(ids(&two), [1, 2]);
        assert_eq!(two.next(old + 1, || [3; LENGTH]), None);
        let settles = limits::SESSION_KEY_SETTLES.as_secs();
        assert_eq!(two.due(old), limits::SESSION_KEY_SETTLES);
        let turned = two.next(old + settles, || [3; LENGTH]).unwrap();
        assert_eq!(ids(&turned), [2, 1]);
        assert_eq!(ids(&turned.next(2 * old, || [3; LENGTH]).unwrap()), [2, 3]);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_told_by_its_line() {
        let masters = Masters::first([9; LENGTH], 12).next(u64::MAX, || [1; LENGTH]).unwrap();
        assert_eq!(Masters::read(&masters.text()), Ok(masters.clone()));
        assert_eq!(
            Masters::read(&format!("{}\n1 2 short\n", masters.text())),
            Err(Wrong(4))
        );
        assert!(!format!("{masters:?}").contains(&BASE64_STANDARD.encode([9; LENGTH])));
        assert!(Masters::read("").unwrap().is_empty());
    }
}
