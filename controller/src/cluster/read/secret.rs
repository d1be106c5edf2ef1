//! Secrets and ConfigMaps: certificates, their keys, and certificates of authorities. What is wrong with one is kept in the place of
//! its value, so that whoever refers to it can say so.

use std::{collections::BTreeMap, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use weft_service::tls;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{Mistakes, key};
use crate::{
    cluster::types::{Certificate, ConfigMap, Secret},
    objects::core,
};

/// Reads a Secret.
pub fn secret(object: core::Secret) -> Result<Secret, Mistakes> {
    let key = key(&object.metadata)?;
    let mut mistakes = Mistakes::new();
    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, text) in object.data.unwrap_or_default() {
        match BASE64_STANDARD.decode(text.trim()) {
            Ok(bytes) => drop(data.insert(name, bytes)),
            Err(_) => mistakes.push(format!("data.{name} is not base64")),
        }
    }
    // "stringData [...] overwriting any existing values"
    let texts = object.string_data.unwrap_or_default().into_iter();
    data.extend(texts.map(|(name, text)| (name, text.into_bytes())));
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let entry = |name: &str| data.get(name).map(Vec::as_slice);
    Ok(Secret {
        key,
        certificate: certificate(entry("tls.crt"), entry("tls.key")).map(Arc::new),
        roots: roots(entry("ca.crt")),
    })
}

/// Reads a ConfigMap.
pub fn config_map(object: core::ConfigMap) -> Result<ConfigMap, Mistakes> {
    let key = key(&object.metadata)?;
    let data = object.data.unwrap_or_default();
    Ok(ConfigMap {
        key,
        roots: roots(data.get("ca.crt").map(String::as_bytes)),
        data: Arc::new(data),
    })
}

/// A certificate with a key that fits it.
fn certificate(chain: Option<&[u8]>, key: Option<&[u8]>) -> Result<Certificate, Arc<str>> {
    let chain = chain.ok_or("it has no tls.crt")?;
    let key = key.ok_or("it has no tls.key")?;
    let certificates = tls::certificates(chain).map_err(|error| format!("tls.crt: {error}"))?;
    let private = tls::private_key(key).map_err(|error| format!("tls.key: {error}"))?;
    let leaf = certificates.first().ok_or("tls.crt has no certificate")?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| format!("tls.crt: {error}"))?;
    let names = names(&parsed);
    CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "tls.key is not the key of tls.crt".to_owned(),
        error => format!("tls.crt and tls.key: {error}"),
    })?;
    let text = |pem: &[u8], name: &str| {
        let text = std::str::from_utf8(pem).map_err(|_| format!("{name} is not text"));
        text.map(Arc::<str>::from)
    };
    Ok(Certificate {
        chain: text(chain, "tls.crt")?,
        key: text(key, "tls.key")?,
        names,
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<Arc<str>> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<Arc<str>> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Certificates of authorities, each of which can be read.
fn roots(pem: Option<&[u8]>) -> Result<Arc<str>, Arc<str>> {
    let pem = pem.ok_or("it has no ca.crt")?;
    let certificates = tls::certificates(pem).map_err(|error| format!("ca.crt: {error}"))?;
    for one in &certificates {
        X509Certificate::from_der(one).map_err(|error| format!("ca.crt: {error}"))?;
    }
    let text = std::str::from_utf8(pem).map_err(|_| "ca.crt is not text")?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn of(entries: &[(&str, &str)]) -> Secret {
        let metadata = core::Meta {
            name: Some("s".into()),
            namespace: Some("shop".into()),
            ..core::Meta::default()
        };
        let entries = entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        secret(core::Secret {
            metadata,
            data: None,
            string_data: Some(entries.collect()),
        })
        .unwrap()
    }

    #[test]
    fn a_certificate_is_read_with_its_names_and_its_key() {
        let (chain, key) = pair("*.Example.com");
        let certificate = of(&[("tls.crt", &chain), ("tls.key", &key)]).certificate.unwrap();
        assert_eq!(certificate.names, [Arc::from("*.example.com")]);
        assert!(!format!("{certificate:?}").contains("KEY"));
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said() {
        let ((chain, key), (other, _)) = (pair("a.example"), pair("b.example"));
        for (entries, what) in [
            (&[("tls.key", key.as_str())][..], "no tls.crt"),
            (&[("tls.crt", &chain)], "no tls.key"),
            (&[("tls.crt", "Hello"), ("tls.key", &key)], "tls.crt"),
            (&[("tls.crt", &chain), ("tls.key", "Hello")], "tls.key"),
            (&[("tls.crt", &other), ("tls.key", &key)], "not the key of"),
        ] {
            let wrong = of(entries).certificate.unwrap_err();
            assert!(wrong.contains(what), "{wrong} tells of {what}");
        }
        assert!(of(&[("ca.crt", &chain)]).roots.is_ok());
        assert!(
            of(&[(
                "ca.crt",
                "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
            )])
            .roots
            .is_err()
        );
        assert!(of(&[]).roots.is_err());
    }
}
