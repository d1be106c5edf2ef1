//! Sessions that stay at one endpoint (GEP-1619): what a client is given to keep, and what it shows again.
//!
//! A token is `v1.KEY.ENDPOINT.CREATED.USED.SIGNATURE`. ENDPOINT is made of the pod's UID with the route's key, so that a
//! token tells no address and nothing that another route, or another rule of the same one, would take; the times are
//! seconds since 1970 and are signed with it. Pure: time is an argument, in seconds since 1970.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use http::{HeaderName, HeaderValue, header::SET_COOKIE};
use sha2::Sha256;
use smallvec::SmallVec;

use crate::{
    HttpView, limits,
    rule::{self, Origin, SessionCarrier},
};

const VERSION: &str = "v1";
/// Bytes of a token: its texts, three numbers in hexadecimal, and what is encoded.
const LONGEST: usize = 128;
/// A token may come from a proxy whose clock is ahead by so many seconds.
const SKEW: u64 = 300;
/// A session that is in use is told anew when so much of its idle time is over, as a fraction.
const RENEWED_AT: u32 = 4;

/// The sessions of one rule.
#[derive(Debug)]
pub struct Sessions {
    name: Box<str>,
    /// The field of the response, for sessions that a header field tells.
    header: Option<HeaderName>,
    is_permanent: bool,
    absolute: Option<u64>,
    idle: Option<u64>,
    keys: Vec<Key>,
}

struct Key {
    id: u32,
    /// The keyed hash, with the rule's identity taken in already.
    endpoint: Hmac<Sha256>,
    signature: Hmac<Sha256>,
}

/// Which endpoint a session is at, as its tokens say it: the same for every token of one rule, key and pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId([u8; 16]);

/// A session that a client has shown, and that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where it is.
    pub endpoint: EndpointId,
    /// Index of the key that signed it.
    key: usize,
    created: u64,
    used: u64,
}

impl Sessions {
    /// `None` where the rule has none, or no key to sign with yet.
    pub(crate) fn new(session: &rule::Session, origin: &Origin) -> Option<Self> {
        let rule = format!(
            "{}/{}/{}/{}",
            origin.kind,
            origin.namespace,
            origin.name,
            origin.rule_label()
        );
        let key = |key: &rule::SessionKey| {
            let hash = |purpose: &[u8]| {
                let mut hash = Hmac::<Sha256>::new_from_slice(&key.secret).ok()?;
                hash.update(purpose);
                hash.update(&(rule.len() as u64).to_be_bytes());
                hash.update(rule.as_bytes());
                Some(hash)
            };
            Some(Key {
                id: key.id,
                endpoint: hash(b"weft session endpoint")?,
                signature: hash(b"weft session signature")?,
            })
        };
        let is_header = session.carrier == SessionCarrier::Header;
        let sessions = Sessions {
            name: (&*session.name).into(),
            header: if is_header { session.name.parse().ok() } else { None },
            is_permanent: session.carrier == SessionCarrier::PermanentCookie,
            absolute: session.absolute_timeout.map(|limit| limit.as_secs().max(1)),
            idle: session.idle_timeout.map(|limit| limit.as_secs().max(1)),
            keys: session.keys.iter().filter_map(key).collect(),
        };
        (!sessions.keys.is_empty()).then_some(sessions)
    }

    /// The session that a request shows, where one holds at `now`; of several the first that does.
    pub fn shown(&self, view: &dyn HttpView, now: u64) -> Option<Shown> {
        let mut found = None;
        let mut tries = 0;
        // Browsers send every cookie of a name, if it was set for several paths.
        let mut take = |text: &[u8]| {
            if found.is_none() && tries < limits::SESSION_TOKENS {
                tries += 1;
                found = self.read(text, now);
            }
        };
        if let Some(header) = &self.header {
            view.each_header(header.as_str(), &mut |value| take(value.trim_ascii()));
        } else {
            view.each_header("cookie", &mut |value| {
                let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let values = pairs.filter_map(|pair| pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b"="));
                values.for_each(&mut take);
            });
        }
        found
    }

    fn read(&self, text: &[u8], now: u64) -> Option<Shown> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= LONGEST)?;
        let parts: SmallVec<[&str; 8]> = text.split('.').take(7).collect();
        let &[VERSION, key, endpoint, created, used, signature] = &parts[..] else {
            return None;
        };
        let key = self
            .keys
            .iter()
            .position(|known| number(key) == Some(known.id.into()))?;
        let mut id = [0; 16];
        decode(endpoint, &mut id)?;
        let mut signed = [0; 16];
        decode(signature, &mut signed)?;
        let (endpoint, created, used) = (EndpointId(id), number(created)?, number(used)?);
        let hash = self.keys[key].hash(endpoint, created, used);
        // In constant time.
        hash.verify_truncated_left(&signed).ok()?;
        let is_over = |since: u64, limit: Option<u64>| limit.is_some_and(|limit| now.saturating_sub(since) >= limit);
        let from_the_future = created.max(used) > now.saturating_add(SKEW);
        (!from_the_future && !is_over(created, self.absolute) && !is_over(used, self.idle)).then_some(Shown {
            endpoint,
            key,
            created,
            used,
        })
    }

    /// Which endpoint a pod is, in sessions like `shown`. It does not change with time: callers may keep it.
    pub fn endpoint(&self, shown: &Shown, pod_uid: &str) -> EndpointId {
        self.keys[shown.key].endpoint(pod_uid)
    }

    /// Whether the session is at the pod with this UID.
    pub fn matches(&self, shown: &Shown, pod_uid: &str) -> bool {
        self.endpoint(shown, pod_uid) == shown.endpoint
    }

    /// The field that tells the client its session, to be added to the response of the pod with this UID. `None`: what
    /// the client has shown is good as it is. `shown` is what led the request to this pod: where that failed and the
    /// request went elsewhere, there is no session yet.
    pub fn field(
        &self,
        shown: Option<&Shown>,
        pod_uid: &str,
        now: u64,
        over_tls: bool,
    ) -> Option<(HeaderName, HeaderValue)> {
        if let Some(shown) = shown
            && shown.key == 0
            && self
                .idle
                .is_none_or(|idle| now.saturating_sub(shown.used) < idle / u64::from(RENEWED_AT))
        {
            return None;
        }
        let key = &self.keys[0];
        let created = shown.map_or(now, |shown| shown.created);
        let endpoint = key.endpoint(pod_uid);
        let signature = key.hash(endpoint, created, now).finalize().into_bytes();
        let token = format!(
            "{VERSION}.{:x}.{}.{created:x}.{now:x}.{}",
            key.id,
            URL_SAFE_NO_PAD.encode(endpoint.0),
            URL_SAFE_NO_PAD.encode(&signature[..16])
        );
        if let Some(header) = &self.header {
            return Some((header.clone(), HeaderValue::from_str(&token).ok()?));
        }
        // GEP-1619, "Secure, HttpOnly, SameSite": as strict as the connection allows.
        let mut cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict", self.name);
        if over_tls {
            cookie.push_str("; Secure");
        }
        if let Some(absolute) = self.absolute.filter(|_| self.is_permanent) {
            let left = absolute.saturating_sub(now.saturating_sub(created));
            cookie.push_str(&format!("; Max-Age={left}"));
        }
        Some((SET_COOKIE, HeaderValue::from_str(&cookie).ok()?))
    }
}

impl Key {
    fn endpoint(&self, pod_uid: &str) -> EndpointId {
        let bytes = self.endpoint.clone().chain_update(pod_uid).finalize().into_bytes();
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        EndpointId(id)
    }

    fn hash(&self, endpoint: EndpointId, created: u64, used: u64) -> Hmac<Sha256> {
        let hash = self.signature.clone().chain_update(endpoint.0);
        hash.chain_update(created.to_be_bytes())
            .chain_update(used.to_be_bytes())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Written in one way only, so that there is one text of each token.
fn number(text: &str) -> Option<u64> {
    let is_plain =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && (text == "0" || !text.starts_with('0'));
    u64::from_str_radix(text, 16).ok().filter(|_| is_plain)
}

fn decode(text: &str, into: &mut [u8; 16]) -> Option<()> {
    let length = URL_SAFE_NO_PAD.decode_slice(text, into).ok()?;
    (length == into.len()).then_some(())
}

/// Everything that is wrong with a rule's session.
pub(crate) fn mistakes(session: &rule::Session) -> Vec<String> {
    let mut all = Vec::new();
    let name = &session.name;
    let is_name = name.len() <= limits::SESSION_NAME && name.parse::<HeaderName>().is_ok();
    if !is_name {
        all.push(format!("'{name}' cannot be the name of a cookie or header field"));
    } else if session.carrier == SessionCarrier::Header && !crate::edit::headers::is_for_rules(name) {
        all.push(format!("the field '{name}' belongs to the connection or its framing"));
    }
    if session.carrier == SessionCarrier::PermanentCookie && session.absolute_timeout.is_none() {
        all.push("a permanent cookie needs an absolute timeout".into());
    }
    if [session.absolute_timeout, session.idle_timeout].contains(&Some(std::time::Duration::ZERO)) {
        all.push("a session of no time at all".into());
    }
    let short = |key: &&rule::SessionKey| key.secret.len() < limits::SESSION_KEY;
    if let Some(key) = session.keys.iter().find(short) {
        all.push(format!("key {} is shorter than {} bytes", key.id, limits::SESSION_KEY));
    }
    all
}
