//! SPIFFE ids: the one grammar, and the one way to read an id from a certificate.
//!
//! An id of the mesh is `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT`, exactly, and two ids are the same when
//! their bytes are. Nothing is normalised, decoded or guessed: what does not fit the grammar is not an id. Whether a
//! certificate may be believed at all is for [`crate::tls`].

use std::{fmt, str::FromStr, sync::Arc};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// The identity of a workload.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Arc<str>);

/// Why some text is not a SPIFFE id of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a SPIFFE id of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT: {why}")]
pub struct BadId {
    text: String,
    why: &'static str,
}

/// Why a certificate names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoId {
    /// The certificate cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// The certificate has no subject alternative name of type URI.
    #[error("the certificate has no URI subject alternative name; other names are never taken for an identity")]
    None,
    /// The certificate has several, so that two readers could take different ones.
    #[error("the certificate has {0} URI subject alternative names, of which exactly one is allowed")]
    Several(usize),
    /// The one URI is not an id.
    #[error(transparent)]
    Bad(#[from] BadId),
}

const SCHEME: &str = "spiffe://";

impl Id {
    /// The id of a workload. Fails when one of the parts does not fit the grammar.
    pub fn workload(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, BadId> {
        // Checked as a whole, so that a part with a slash in it cannot pass for two.
        let id: Self = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()?;
        if id.parts() == (trust_domain, namespace, service_account) {
            Ok(id)
        } else {
            Err(BadId {
                text: id.0.chars().take(128).collect(),
                why: "a part holds a slash",
            })
        }
    }

    /// The id that a certificate carries: its one URI subject alternative name. Proves nothing about the certificate.
    ///
    /// SPIFFE X509-SVID, section 2: exactly one URI SAN; validators must reject a certificate with more than one.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, NoId> {
        let (rest, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(|_| NoId::Malformed)?;
        if !rest.is_empty() {
            return Err(NoId::Malformed);
        }
        // Also an error when the extension is there twice.
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| NoId::Malformed)?
            .ok_or(NoId::None)?;
        if names
            .value
            .general_names
            .iter()
            .any(|name| matches!(name, GeneralName::Invalid(..)))
        {
            return Err(NoId::Malformed);
        }
        let uris = || {
            names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
        };
        match (uris().count(), uris().next()) {
            (1, Some(uri)) => Ok(uri.parse()?),
            (0, _) => Err(NoId::None),
            (several, _) => Err(NoId::Several(several)),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.parts().0
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.parts().1
    }

    /// The ServiceAccount.
    pub fn service_account(&self) -> &str {
        self.parts().2
    }

    fn parts(&self) -> (&str, &str, &str) {
        let mut parts = self.0[SCHEME.len()..].split('/');
        let mut next = || parts.next().expect("the grammar was checked when the id was made");
        let (trust_domain, _, namespace, _, service_account) = (next(), next(), next(), next(), next());
        (trust_domain, namespace, service_account)
    }
}

impl FromStr for Id {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        check(text).map_err(|why| BadId {
            text: text.chars().take(128).collect(),
            why,
        })?;
        Ok(Self(text.into()))
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    // SPIFFE-ID, section 2.3: at most 2048 bytes.
    if text.len() > 2048 {
        return Err("it is longer than 2048 bytes");
    }
    let rest = text.strip_prefix(SCHEME).ok_or("it does not start with spiffe://")?;
    let parts: Vec<&str> = rest.split('/').collect();
    let &[trust_domain, "ns", namespace, "sa", service_account] = parts.as_slice() else {
        return Err("its path is not /ns/NAMESPACE/sa/SERVICEACCOUNT");
    };
    check_trust_domain(trust_domain)?;
    if !is_label(namespace) {
        return Err("its namespace is not a DNS label");
    }
    if service_account.len() > 253 || !service_account.split('.').all(is_label) {
        return Err("its ServiceAccount is not a DNS name");
    }
    Ok(())
}

/// Whether some text can be a trust domain; the error says why not. SPIFFE-ID, section 2.1.
pub fn check_trust_domain(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 255 {
        return Err("a trust domain has 1 to 255 characters");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
    {
        return Err("a trust domain has only lower-case letters, digits, '.', '-' and '_'");
    }
    Ok(())
}

/// RFC 1123 label, as Kubernetes names namespaces.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text.to_owned()).unwrap())
    }

    fn id_of(change: impl FnOnce(&mut CertificateParams)) -> Result<Id, NoId> {
        let mut params = CertificateParams::default();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Id::of_certificate(certificate.der())
    }

    const GOOD: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        let id = Id::workload("cluster.local", "shop", "cart").unwrap();
        assert_eq!(id.as_str(), GOOD);
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "shop", "cart")
        );
        assert_eq!(id_of(|p| p.subject_alt_names = vec![uri(GOOD)]).unwrap(), id);
    }

    #[test]
    fn t50_text_that_is_not_exactly_an_id_is_refused() {
        let bad = [
            "",
            "spiffe://",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe://cluster.local/ns/shop/sa/cart/",
            "spiffe://cluster.local//ns/shop/sa/cart",
            "spiffe://cluster.local/ns//shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns//sa/cart",
            "spiffe://cluster.local/ns/../sa/cart",
            "spiffe://cluster.local/ns/./sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart/extra",
            "spiffe://cluster.local/ns/shop/sb/cart",
            "spiffe://cluster.local/sa/cart/ns/shop",
            "SPIFFE://cluster.local/ns/shop/sa/cart",
            "Spiffe://cluster.local/ns/shop/sa/cart",
            "spiffe://Cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/Shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/Cart",
            "spiffe://cluster.local/NS/shop/sa/cart",
            "spiffe://cluster.local/ns/%73hop/sa/cart",
            "spiffe://cluster.local/ns/shop%2Fsa%2Fcart",
            "spiffe://cluster.local/ns/shop/sa/cart%00",
            "spiffe://cluster.local/ns/shop/sa/cart\0",
            "spiffe://cluster.local\0.evil/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart?x=1",
            "spiffe://cluster.local/ns/shop/sa/cart#x",
            "spiffe://user@cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local:443/ns/shop/sa/cart",
            "spiffe:/cluster.local/ns/shop/sa/cart",
            "spiffe:cluster.local/ns/shop/sa/cart",
            "https://cluster.local/ns/shop/sa/cart",
            " spiffe://cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart ",
            "spiffe://cluster.local/ns/shop/sa/cart\n",
            "spiffe://clüster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/-shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart..x",
            "spiffe://cluster.local/ns/shop.x/sa/cart",
            "spiffe://cluster.local\\ns\\shop\\sa\\cart",
        ];
        for text in bad {
            assert!(text.parse::<Id>().is_err(), "{text:?}");
        }
        assert!(
            format!("spiffe://{}/ns/shop/sa/cart", "a".repeat(256))
                .parse::<Id>()
                .is_err()
        );
        assert!(
            format!("spiffe://td/ns/{}/sa/cart", "a".repeat(64))
                .parse::<Id>()
                .is_err()
        );
        assert!(
            format!("spiffe://td/ns/shop/sa/{}", "a.".repeat(1200))
                .parse::<Id>()
                .is_err()
        );
        assert!(Id::workload("td", "shop/sa/cart", "x").is_err());
        assert!(Id::workload("td/ns/shop", "a", "b").is_err());
    }

    #[test]
    fn t50_a_certificate_names_a_workload_by_exactly_one_uri() {
        let other = "spiffe://cluster.local/ns/shop/sa/admin";
        let dns = |text: &str| SanType::DnsName(Ia5String::try_from(text.to_owned()).unwrap());
        let none = Err(NoId::None);
        assert_eq!(
            id_of(|p| p.subject_alt_names = vec![uri(GOOD), uri(other)]),
            Err(NoId::Several(2))
        );
        assert_eq!(
            id_of(|p| p.subject_alt_names = vec![uri(GOOD), uri(GOOD)]),
            Err(NoId::Several(2))
        );
        assert_eq!(
            id_of(|p| p.subject_alt_names = vec![uri("https://a.example"), uri(GOOD)]),
            Err(NoId::Several(2))
        );
        assert_eq!(id_of(|p| p.subject_alt_names = vec![dns(GOOD)]), none);
        assert_eq!(id_of(|p| p.distinguished_name.push(DnType::CommonName, GOOD)), none);
        let mail = SanType::Rfc822Name(Ia5String::try_from(GOOD.to_owned()).unwrap());
        assert_eq!(id_of(|p| p.subject_alt_names = vec![mail]), none);
        let other_name = SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], GOOD.to_owned().into()));
        assert_eq!(id_of(|p| p.subject_alt_names = vec![other_name]), none);
        // Names of other types say nothing, and do no harm.
        assert!(id_of(|p| p.subject_alt_names = vec![dns("cart.shop"), uri(GOOD)]).is_ok());
    }

    #[test]
    fn t50_a_certificate_whose_uri_is_not_an_id_is_refused() {
        for text in [
            "spiffe://cluster.local/ns/shop/sa/cart/",
            "spiffe://cluster.local/ns/shop/sa/cart\0",
            "spiffe://cluster.local/ns/shop/sa/c%61rt",
            "SPIFFE://cluster.local/ns/shop/sa/cart",
            "https://cluster.local/ns/shop/sa/cart",
            "",
        ] {
            let result = id_of(|p| p.subject_alt_names = vec![uri(text)]);
            assert!(matches!(result, Err(NoId::Bad(_))), "{text:?}: {result:?}");
        }
    }

    #[test]
    fn t50_two_extensions_of_names_or_bytes_after_the_certificate_are_refused() {
        // 2.5.29.17 a second time: GeneralNames { [6] uri }.
        let mut content = vec![0x30, GOOD.len() as u8 + 2, 0x86, GOOD.len() as u8];
        content.extend_from_slice(GOOD.as_bytes());
        let twice = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
        let result = id_of(|p| {
            p.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/admin")];
            p.custom_extensions.push(twice);
        });
        assert_eq!(result, Err(NoId::Malformed));

        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(GOOD)];
        let mut der = params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec();
        der.push(0);
        assert_eq!(Id::of_certificate(&der.into()), Err(NoId::Malformed));
        assert_eq!(Id::of_certificate(&Vec::new().into()), Err(NoId::Malformed));
    }
}
