//! A CA of our own through time: the one that signs, the one before it, and the one that will be next.
//!
//! Pure, with the clock as an argument. It is also the content of a Secret that several replicas share: each of them
//! reads it, makes the step that is due, and writes it back when nobody else did. A new CA signs only once it has been
//! published for a while, and an old one stays published until it ends, so that no serving certificate is ever of a CA
//! that its clients do not know. How it is published, and who writes the Secret, is for others.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use weft_service::tls;

use super::{Issued, not_after};

/// Clocks differ: certificates are valid a little before they are made.
const SKEW: Duration = Duration::from_secs(60);

/// How long things live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// Life of a CA.
    pub ca: Duration,
    /// With less than this left of the CA that signs, the next one is made. Less than half of [`Self::ca`].
    pub ca_left: Duration,
    /// How long the next CA is published before it signs: every API server reads the webhook's configuration anew in seconds.
    pub settle: Duration,
    /// Life of a serving certificate. It is replaced when a third of it is left.
    pub serving: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            ca: 365 * DAY,
            ca_left: 60 * DAY,
            settle: Duration::from_secs(600),
            serving: DAY,
        }
    }
}

/// A CA whose key is at hand.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    made: SystemTime,
    not_after: SystemTime,
}

impl Ca {
    fn new(now: SystemTime, life: Duration) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "weft-injector webhook CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - SKEW).into();
        params.not_after = (now + life).into();
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            made: now,
            not_after: now + life,
        })
    }

    /// A CA that was kept as text.
    fn read(pem: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let certificate = one(pem)?;
        let key = std::str::from_utf8(key).context("the key is not text")?;
        let key = KeyPair::from_pem(key).context("the key cannot be read")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)?;
        ensure!(parsed.is_ca(), "the certificate is not one of a CA");
        ensure!(
            parsed.public_key().raw == key.subject_public_key_info(),
            "the key is not the certificate's"
        );
        Ok(Self {
            made: time(parsed.validity().not_before) + SKEW,
            not_after: time(parsed.validity().not_after),
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            // Kept as it was read: others compare it with what they have.
            pem: std::str::from_utf8(pem)
                .context("the certificate is not text")?
                .to_owned(),
        })
    }
}

/// A CA that signs no longer, and whose certificates may still be served.
struct Retired {
    pem: String,
    not_after: SystemTime,
}

/// Keys of the Secret's data.
mod key {
    pub(super) const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
    pub(super) const NEXT: [&str; 2] = ["next.crt", "next.key"];
    pub(super) const PREVIOUS: &str = "previous.crt";
}

/// Our own CA through time.
pub struct Authority {
    current: Ca,
    previous: Option<Retired>,
    next: Option<Ca>,
}

impl Authority {
    /// A new CA.
    pub fn new(now: SystemTime, lives: &Lives) -> Result<Self, rcgen::Error> {
        Ok(Self {
            current: Ca::new(now, lives.ca)?,
            previous: None,
            next: None,
        })
    }

    /// What a Secret holds. An error where the CA that signs cannot be used; another one that cannot be is left out.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> anyhow::Result<Self> {
        let of = |key: &str| data.get(key).map(|value| value.0.as_slice());
        let pair = |[certificate, key]: [&'static str; 2]| Some((of(certificate)?, of(key)?));
        let (certificate, private) = pair(key::CURRENT)
            .with_context(|| format!("{} and {} are not both there", key::CURRENT[0], key::CURRENT[1]))?;
        Ok(Self {
            current: Ca::read(certificate, private).context(key::CURRENT[0])?,
            previous: of(key::PREVIOUS).and_then(|pem| {
                Some(Retired {
                    not_after: not_after(&one(pem).ok()?).ok()?,
                    pem: std::str::from_utf8(pem).ok()?.to_owned(),
                })
            }),
            next: pair(key::NEXT).and_then(|(certificate, key)| Ca::read(certificate, key).ok()),
        })
    }

    /// What a Secret is to hold.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: String| data.insert(key.to_owned(), ByteString(text.into_bytes()));
        for ([certificate, key], ca) in [(key::CURRENT, Some(&self.current)), (key::NEXT, self.next.as_ref())] {
            if let Some(ca) = ca {
                put(certificate, ca.pem.clone());
                put(key, ca.issuer.key().serialize_pem());
            }
        }
        if let Some(previous) = &self.previous {
            put(key::PREVIOUS, previous.pem.clone());
        }
        data
    }

    /// Makes every step that is due; the same for everyone who asks at the same time. `is_published` says whether clients
    /// trust a CA, given as PEM.
    pub fn advance(
        &mut self,
        now: SystemTime,
        lives: &Lives,
        is_published: impl Fn(&str) -> bool,
    ) -> Result<(), rcgen::Error> {
        self.previous.take_if(|previous| previous.not_after <= now);
        self.next.take_if(|next| next.not_after <= now);
        if self.current.not_after <= now {
            // Nobody was here for long. There is nothing left that an old certificate would be good for.
            self.current = match self.next.take() {
                Some(next) => next,
                None => Ca::new(now, lives.ca)?,
            };
        }
        if let Some(next) = self
            .next
            .take_if(|next| next.made + lives.settle <= now && is_published(&next.pem))
        {
            let Ca { pem, not_after, .. } = std::mem::replace(&mut self.current, next);
            // No serving certificate outlives its CA: when that has ended, the last one is gone.
            self.previous = Some(Retired { pem, not_after });
        } else if self.next.is_none() && now + lives.ca_left > self.current.not_after {
            self.next = Some(Ca::new(now, lives.ca)?);
        }
        Ok(())
    }

    /// When [`Self::advance`] has something to do again.
    pub fn next_step(&self, lives: &Lives) -> SystemTime {
        let step = match &self.next {
            Some(next) => next.made + lives.settle,
            None => self.current.not_after - lives.ca_left,
        };
        self.previous
            .as_ref()
            .map_or(step, |previous| previous.not_after.min(step))
    }

    /// Signs a new serving certificate with these DNS names or addresses.
    pub fn issue(&self, names: &[String], now: SystemTime, lives: &Lives) -> anyhow::Result<Issued> {
        let not_after = (now + lives.serving).min(self.current.not_after);
        ensure!(now < not_after, "the webhook's CA has ended");
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names).context("--dns-name")?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "weft-injector");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW).into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.current.issuer)?;
        let config = tls::webhook_server(vec![certificate.der().clone()], tls::pkcs8(key.serialize_der()))?;
        let life = not_after.duration_since(now).unwrap_or_default();
        Ok(Issued {
            config,
            ca: self.current.pem.clone(),
            not_after,
            renew_at: Some(now + life * 2 / 3),
        })
    }

    /// The CA that signs now, as PEM.
    pub fn current(&self) -> &str {
        &self.current.pem
    }

    /// When the CA that signs now ends.
    pub fn not_after(&self) -> SystemTime {
        self.current.not_after
    }

    /// What clients must trust, as PEM: the CA that signs now, the next and the previous one where there are any.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|ca| ca.pem.as_str());
        let previous = self.previous.as_ref().map(|ca| ca.pem.as_str());
        [Some(self.current.pem.as_str()), next, previous]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Whether a bundle, PEM, holds this certificate, PEM. One that cannot be read holds none.
pub fn holds(bundle: &[u8], certificate: &str) -> bool {
    let Ok(certificate) = one(certificate.as_bytes()) else {
        return false;
    };
    tls::certificates(bundle).is_ok_and(|bundle| bundle.contains(&certificate))
}

fn one(pem: &[u8]) -> anyhow::Result<CertificateDer<'static>> {
    Ok(tls::certificates(pem)?.swap_remove(0))
}

fn time(time: x509_parser::time::ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> SystemTime {
        // Whole seconds: that is all that certificates can say.
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    #[test]
    fn what_a_secret_holds_is_read_back_as_it_was() {
        let lives = Lives::default();
        let mut authority = Authority::new(start(), &lives).unwrap();
        let late = start() + lives.ca - lives.ca_left + DAY;
        authority.advance(late, &lives, |_| true).unwrap();
        authority.advance(late + lives.settle, &lives, |_| true).unwrap();
        authority
            .advance(late + lives.ca - lives.ca_left + DAY, &lives, |_| true)
            .unwrap();
        let mut again = Authority::from_data(&authority.data()).unwrap();
        assert_eq!(again.data(), authority.data());
        assert_eq!(again.bundle(), authority.bundle());
        assert_eq!(again.not_after(), authority.not_after());
        assert_eq!(again.next_step(&lives), authority.next_step(&lives));
        let before = again.data();
        again.advance(late + lives.settle, &lives, |_| true).unwrap();
        assert_eq!(again.data(), before, "nothing is due");
    }

    #[test]
    fn what_cannot_be_used_is_an_error_with_its_reason() {
        let lives = Lives::default();
        let authority = Authority::new(start(), &lives).unwrap();
        let other = Authority::new(start(), &lives).unwrap();
        let text = |data: &BTreeMap<String, ByteString>| format!("{:#}", Authority::from_data(data).err().unwrap());
        assert!(text(&BTreeMap::new()).contains("ca.crt and ca.key are not both there"));
        let mut data = authority.data();
        data.insert("ca.key".into(), other.data()["ca.key"].clone());
        assert!(
            text(&data).contains("the key is not the certificate's"),
            "{}",
            text(&data)
        );
        data.insert("ca.crt".into(), ByteString(b"x".to_vec()));
        assert!(text(&data).contains("ca.crt"), "{}", text(&data));
        let mut data = authority.data();
        data.insert("next.crt".into(), ByteString(b"x".to_vec()));
        data.insert("previous.crt".into(), ByteString(b"x".to_vec()));
        assert_eq!(Authority::from_data(&data).unwrap().data(), authority.data());
    }

    #[test]
    fn a_new_ca_signs_only_after_it_was_published_for_a_while() {
        let lives = Lives::default();
        let mut authority = Authority::new(start(), &lives).unwrap();
        let old = authority.bundle();
        authority.advance(start() + DAY, &lives, |_| true).unwrap();
        assert_eq!(authority.bundle(), old);

        let late = authority.next_step(&lives) + DAY;
        authority.advance(late, &lives, |_| true).unwrap();
        let both = authority.bundle();
        assert!(
            both.starts_with(&old) && both.len() > old.len(),
            "the next stands behind the one that signs"
        );
        assert_eq!(authority.next_step(&lives), late + lives.settle);
        for (when, is_published) in [(late + lives.settle / 2, true), (late + DAY, false)] {
            authority.advance(when, &lives, |_| is_published).unwrap();
            assert_eq!(authority.bundle(), both, "too early, or not known to its clients");
        }
        authority.advance(late + lives.settle, &lives, |_| true).unwrap();
        let after = authority.bundle();
        assert!(
            after.ends_with(&old) && after.len() == both.len(),
            "the old one stays behind the one that signs"
        );
        authority.advance(start() + lives.ca, &lives, |_| true).unwrap();
        assert!(
            !authority.bundle().contains(&old),
            "it has ended, and all that it signed"
        );
    }

    #[test]
    fn a_ca_that_ended_while_nobody_was_here_is_replaced() {
        let lives = Lives::default();
        let mut authority = Authority::new(start(), &lives).unwrap();
        let old = authority.bundle();
        let later = start() + 2 * lives.ca;
        assert!(authority.issue(&["a.svc".into()], later, &lives).is_err());
        authority.advance(later, &lives, |_| true).unwrap();
        assert!(!authority.bundle().contains(&old));
        assert!(authority.issue(&["a.svc".into()], later, &lives).is_ok());
    }

    #[test]
    fn no_certificate_outlives_its_ca() {
        let lives = Lives::default();
        let authority = Authority::new(start(), &lives).unwrap();
        let issued = authority
            .issue(&["a.svc".into()], start() + lives.ca - DAY / 2, &lives)
            .unwrap();
        assert_eq!(issued.not_after, authority.not_after());
        assert!(issued.renew_at.unwrap() < issued.not_after);
    }

    #[test]
    fn a_bundle_is_searched_by_certificate_and_not_by_text() {
        let lives = Lives::default();
        let (a, b) = (
            Authority::new(start(), &lives).unwrap(),
            Authority::new(start(), &lives).unwrap(),
        );
        let both = format!("# a note\n{}\r\n{}", a.bundle(), b.bundle());
        assert!(holds(both.as_bytes(), a.current()) && holds(both.as_bytes(), b.current()));
        assert!(!holds(b.bundle().as_bytes(), a.current()) && !holds(b"", a.current()));
    }
}
