//! What the CA signs and what it refuses, without a network.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use weft_service::tls::{self, Bundle};

use super::{
    ca::{
        self, Ca,
        files::{CaFiles, create, load},
    },
    *,
};

const DOMAIN: &str = "cluster.local";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path(), DOMAIN).unwrap();
    directory
}

fn cart() -> Id {
    Id::workload(DOMAIN, "shop", "cart").unwrap()
}

fn request(change: impl FnOnce(&mut CertificateParams)) -> (KeyPair, Vec<u8>) {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    let csr = params.serialize_request(&pair).unwrap().der().to_vec();
    (pair, csr)
}

fn sign(ca: &Ca, life: Duration) -> Result<ca::Leaf, Refused> {
    ca.sign(
        &cart(),
        &ca::public_key(&request(|_| {}).1).unwrap(),
        life,
        SystemTime::now(),
    )
}

fn modulo(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_made_ca_is_kept_and_its_key_is_for_its_owner_only() {
    let directory = directory();
    assert_eq!(modulo(&directory.path().join("ca.key")), 0o600);
    let before = fs::read(directory.path().join("ca.crt")).unwrap();
    create(directory.path(), DOMAIN).unwrap();
    assert_eq!(fs::read(directory.path().join("ca.crt")).unwrap(), before);
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = create(directory.path(), DOMAIN).unwrap_err().to_string();
    assert!(error.contains("ca.key is not"), "{error}");
    let error = format!("{:#}", load(directory.path(), DOMAIN).err().unwrap());
    assert!(error.contains("ca.key cannot be read"), "{error}");
}

#[test]
fn a_leaf_has_one_id_and_one_day_and_is_no_ca() {
    let directory = directory();
    let ca = load(directory.path(), DOMAIN).unwrap();
    let now = SystemTime::now();
    let leaf = sign(&ca, DAY).unwrap();
    assert_eq!(leaf.chain.len(), 1, "the root does not travel");
    assert_eq!(Id::of_certificate(&leaf.chain[0]).unwrap(), cart());
    let (from, to) = tls::validity(&leaf.chain[0]).unwrap();
    assert!(
        from <= now - Duration::from_secs(59) && from >= now - Duration::from_secs(62),
        "clocks differ"
    );
    assert!(to <= now + DAY && to >= now + DAY - Duration::from_secs(2));
    assert_eq!(leaf.not_after, to);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    assert!(!parsed.is_ca());
    assert!(parsed.key_usage().unwrap().unwrap().value.digital_signature());
    assert_eq!(parsed.raw_serial().len(), 16);
    assert_ne!(sign(&ca, DAY).unwrap().serial, leaf.serial);
    let authority = parsed.extensions().iter().any(|one| {
        matches!(
            one.parsed_extension(),
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(_)
        )
    });
    assert!(authority);
}

#[test]
fn t53_whatever_a_request_asks_for_only_its_key_is_taken() {
    let directory = directory();
    let ca = load(directory.path(), DOMAIN).unwrap();
    let (pair, csr) = request(|params| {
        let uri = "spiffe://cluster.local/ns/weft-system/sa/weft-identity".to_owned();
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into().unwrap()),
            SanType::DnsName("bank.example".to_owned().try_into().unwrap()),
        ];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let leaf = ca
        .sign(&cart(), &ca::public_key(&csr).unwrap(), DAY, SystemTime::now())
        .unwrap();
    assert_eq!(Id::of_certificate(&leaf.chain[0]).unwrap(), cart());
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    assert!(!parsed.is_ca() && !parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(
        parsed
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len(),
        1
    );
    let bundle = ca.bundle().clone();
    assert!(
        Credentials::new(leaf.chain, tls::pkcs8(pair.serialize_der()), bundle).is_ok(),
        "it is the request's key"
    );
}

#[test]
fn t53_a_request_that_is_not_signed_by_its_own_key_is_refused() {
    let (_, mut csr) = request(|_| {});
    let last = csr.len() - 1;
    csr[last] ^= 1;
    assert!(ca::public_key(&csr).is_err());
    assert!(ca::public_key(b"").is_err());
    assert!(ca::public_key(&[0x30, 0x80]).is_err());
}

/// Writes a root that ends at `end`, and its key.
fn root(directory: &Path, end: SystemTime) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = end.into();
    let pair = KeyPair::generate().unwrap();
    fs::write(directory.join("ca.key"), pair.serialize_pem()).unwrap();
    fs::write(directory.join("ca.crt"), params.self_signed(&pair).unwrap().pem()).unwrap();
}

#[test]
fn f21_nothing_is_signed_past_the_cas_own_end() {
    let directory = tempfile::tempdir().unwrap();
    let end = SystemTime::now() + Duration::from_secs(600);
    root(directory.path(), end);
    let leaf = sign(&load(directory.path(), DOMAIN).unwrap(), DAY).unwrap();
    assert!(leaf.not_after <= end, "a leaf does not outlive its CA");
    let refused = |end: SystemTime| {
        root(directory.path(), end);
        let refused = sign(&load(directory.path(), DOMAIN).unwrap(), DAY).err();
        refused.unwrap().to_string()
    };
    let error = refused(SystemTime::now() - Duration::from_secs(60));
    assert!(
        error.contains("has expired") && error.contains("its Secret or directory"),
        "{error}"
    );
    let error = refused(SystemTime::now() + Duration::from_secs(5));
    assert!(
        error.contains("ends in ") && error.contains("its Secret or directory"),
        "{error}"
    );
}

#[test]
fn an_intermediate_signs_and_the_root_comes_from_the_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let intermediate = params.signed_by(&key, &issuer).unwrap();
    fs::write(directory.path().join("ca.key"), key.serialize_pem()).unwrap();
    fs::write(directory.path().join("ca.crt"), intermediate.pem()).unwrap();
    let error = format!("{:#}", load(directory.path(), DOMAIN).err().unwrap());
    assert!(error.contains("there is no root"), "{error}");
    fs::write(directory.path().join("ca-bundle.crt"), root.pem()).unwrap();

    let ca = load(directory.path(), DOMAIN).unwrap();
    let (pair, csr) = request(|_| {});
    let leaf = ca
        .sign(&cart(), &ca::public_key(&csr).unwrap(), DAY, SystemTime::now())
        .unwrap();
    assert_eq!(leaf.chain.len(), 2);
    let ours = Credentials::new(
        leaf.chain.clone(),
        tls::pkcs8(pair.serialize_der()),
        ca.bundle().clone(),
    )
    .unwrap();
    assert_eq!(
        ours.accepts(&leaf.chain, SystemTime::now()).unwrap(),
        cart(),
        "the chain leads to the root"
    );
}

#[test]
fn a_ca_whose_files_do_not_fit_is_refused_with_the_file_s_name() {
    let (one, other) = (directory(), directory());
    fs::copy(other.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let error = format!("{:#}", load(one.path(), DOMAIN).err().unwrap());
    assert!(
        error.contains("ca.key is not the key of") && error.contains("ca.crt"),
        "{error}"
    );
    let leaf = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&leaf).unwrap();
    fs::write(one.path().join("ca.key"), leaf.serialize_pem()).unwrap();
    fs::write(one.path().join("ca.crt"), certificate.pem()).unwrap();
    let error = format!("{:#}", load(one.path(), DOMAIN).err().unwrap());
    assert!(error.contains("not a CA's"), "{error}");
}

#[test]
fn f22_a_second_root_is_told_as_soon_as_it_is_there() {
    let (ours, next) = (directory(), directory());
    let files = CaFiles::new(ours.path(), DOMAIN).unwrap();
    assert_eq!(files.authority().current().unwrap().bundle().certificates().len(), 1);
    let changes = files.authority().changes();
    fs::copy(next.path().join("ca.crt"), ours.path().join("ca-bundle.crt")).unwrap();
    files.look_again();
    assert!(changes.has_changed().unwrap());
    assert_eq!(files.authority().current().unwrap().bundle().certificates().len(), 2);
    // Leaves of both are believed during the overlap.
    let both: Bundle = files.authority().current().unwrap().bundle().clone();
    let theirs = load(next.path(), DOMAIN).unwrap();
    let chain: Vec<CertificateDer<'static>> = sign(&theirs, DAY).unwrap().chain;
    let (pair, csr) = request(|_| {});
    let leaf = files
        .authority()
        .current()
        .unwrap()
        .sign(&cart(), &ca::public_key(&csr).unwrap(), DAY, SystemTime::now())
        .unwrap();
    let credentials = Credentials::new(leaf.chain, tls::pkcs8(pair.serialize_der()), both).unwrap();
    assert!(credentials.accepts(&chain, SystemTime::now()).is_ok());

    fs::write(ours.path().join("ca-bundle.crt"), "half a file").unwrap();
    files.look_again();
    assert_eq!(
        files.authority().current().unwrap().bundle().certificates().len(),
        2,
        "what cannot be read changes nothing"
    );
}

#[test]
fn a_pod_that_asks_too_often_is_refused_and_others_are_not() {
    let quota = Quota::default();
    let claim = |uid: &str| Claim {
        namespace: "shop".into(),
        service_account: "cart".into(),
        pod_name: "cart-1".into(),
        pod_uid: uid.into(),
    };
    let start = Instant::now();
    for _ in 0..limits::CERTIFICATES_PER_MINUTE {
        assert!(quota.take(&claim("a"), start));
    }
    assert!(!quota.take(&claim("a"), start));
    assert!(quota.take(&claim("b"), start));
    assert!(quota.take(&claim("a"), start + Duration::from_secs(61)));
}
