//! Handshakes over a pipe in memory: who gets in, and who does not.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn bundle(&self) -> Bundle {
        Bundle::new(vec![self.certificate.clone()]).unwrap()
    }

    fn credentials(&self, uri: &str) -> Credentials {
        self.credentials_for(uri, Duration::from_secs(7200), self.bundle())
    }

    /// A leaf that was issued an hour ago, for `life`.
    fn credentials_for(&self, uri: &str, life: Duration, bundle: Bundle) -> Credentials {
        let (chain, key) = self.leaf(vec![SanType::URI(uri.to_owned().try_into().unwrap())], life);
        Credentials::new(chain, key, bundle).unwrap()
    }

    fn leaf(&self, names: Vec<SanType>, life: Duration) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = params.not_before + life;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().clone()], pkcs8(key.serialize_der()))
    }
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

/// What each side knows of the other, and whether the session was resumed; or the first error of the two sides.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> Result<(Option<Id>, Option<Id>, Option<rustls::HandshakeKind>), String> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let accepted = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        let peer = peer(stream.get_ref().1);
        stream.shutdown().await?;
        Ok::<_, std::io::Error>(peer)
    });
    let name: ServerName<'static> = no_server_name();
    let connected = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        let mut text = [0; 5];
        // TLS 1.3: only now has the server judged our certificate.
        stream.read_exact(&mut text).await?;
        let connection = stream.get_ref().1;
        Ok::<_, std::io::Error>((peer(connection), connection.handshake_kind()))
    };
    let (client, server) = (connected.await, accepted.await.unwrap());
    match (client, server) {
        (Ok((server_id, kind)), Ok(client_id)) => Ok((client_id, server_id, kind)),
        (client, server) => Err(format!("client: {:?}; server: {:?}", client.err(), server.err())),
    }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = Ca::new();
    let (server, client) = (ca.credentials(CART), ca.credentials(WEB));
    let (client_id, server_id, _) = handshake(server.mesh_server(), client.mesh_client(&id(CART)))
        .await
        .unwrap();
    assert_eq!((client_id, server_id), (Some(id(WEB)), Some(id(CART))));
}

#[tokio::test]
async fn t33_a_client_without_a_certificate_is_refused() {
    let ca = Ca::new();
    let error = handshake(
        ca.credentials(CART).discovery_server(),
        identity_client(&ca.bundle(), &id(CART)),
    )
    .await;
    assert!(error.unwrap_err().contains("CertificateRequired"), "the alert says so");
}

#[tokio::test]
async fn t33_an_expired_certificate_is_refused_in_both_directions() {
    let ca = Ca::new();
    let expired = |uri| ca.credentials_for(uri, Duration::from_secs(3000), ca.bundle());
    assert!(expired(CART).expired(SystemTime::now()));
    let fresh = ca.credentials(WEB);
    let error = handshake(fresh.mesh_server(), expired(CART).mesh_client(&id(WEB)))
        .await
        .unwrap_err();
    assert!(error.contains("xpired"), "{error}");
    let error = handshake(expired(CART).mesh_server(), fresh.mesh_client(&id(CART)))
        .await
        .unwrap_err();
    assert!(error.contains("xpired"), "{error}");
}

#[tokio::test]
async fn t33_another_ca_is_refused_in_both_directions() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (our, their) = (ours.credentials(WEB), theirs.credentials(CART));
    assert!(handshake(our.mesh_server(), their.mesh_client(&id(WEB))).await.is_err());
    assert!(
        handshake(their.mesh_server(), our.mesh_client(&id(CART)))
            .await
            .is_err()
    );
    // One side that trusts both is not enough.
    let both = Bundle::new(vec![ours.certificate.clone(), theirs.certificate.clone()]).unwrap();
    let lenient = ours.credentials_for(WEB, Duration::from_secs(7200), both);
    assert!(
        handshake(lenient.mesh_server(), their.mesh_client(&id(WEB)))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn t51_another_trust_domain_is_refused_in_both_directions_although_the_ca_is_ours() {
    let ca = Ca::new();
    let (ours, foreign) = (
        ca.credentials(WEB),
        ca.credentials("spiffe://other.example/ns/shop/sa/cart"),
    );
    let error = handshake(ours.mesh_server(), foreign.mesh_client(&id(WEB)))
        .await
        .unwrap_err();
    assert!(
        error.contains("not in the trust domain") || error.contains("OtherError"),
        "{error}"
    );
    assert!(
        handshake(foreign.mesh_server(), ours.mesh_client(&id(CART)))
            .await
            .is_err()
    );
    assert!(ours.accepts(foreign.chain(), SystemTime::now()).is_err());
}

#[tokio::test]
async fn t33_another_workload_than_the_one_dialled_is_refused() {
    let ca = Ca::new();
    let error = handshake(
        ca.credentials(CART).mesh_server(),
        ca.credentials(WEB).mesh_client(&id(WEB)),
    )
    .await;
    let error = error.unwrap_err();
    assert!(
        error.contains("expected") && error.contains("sa/cart") && error.contains("sa/web"),
        "{error}"
    );
}

#[tokio::test]
async fn t50_a_leaf_without_exactly_one_id_is_refused_in_both_directions() {
    let ca = Ca::new();
    let ours = ca.credentials(WEB);
    let uri = |text: &str| SanType::URI(text.to_owned().try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.to_owned().try_into().unwrap());
    for names in [
        vec![uri(CART), uri("spiffe://cluster.local/ns/shop/sa/admin")],
        vec![uri("spiffe://cluster.local/ns/shop/sa/cart/")],
        vec![uri("spiffe://cluster.local/ns/shop/sa/c%61rt")],
        vec![uri("spiffe://cluster.local/ns/shop/sa/cart\0")],
        vec![uri("SPIFFE://cluster.local/ns/shop/sa/cart")],
        vec![dns(CART)],
        vec![],
    ] {
        let (chain, key) = ca.leaf(names.clone(), Duration::from_secs(7200));
        assert!(
            Credentials::new(chain.clone(), key.clone_key(), ca.bundle()).is_err(),
            "we never show it: {names:?}"
        );
        let hostile_server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .unwrap();
        let hostile_server = without_resumption(hostile_server, b"weft/1");
        assert!(
            handshake(hostile_server, ours.mesh_client(&id(CART))).await.is_err(),
            "as a server: {names:?}"
        );
        let hostile_client = client(verify::Server::new(&ca.bundle(), &id(WEB))).with_client_auth_cert(chain, key);
        let hostile_client = without_sni(hostile_client.unwrap(), b"weft/1");
        assert!(
            handshake(ours.mesh_server(), hostile_client).await.is_err(),
            "as a client: {names:?}"
        );
    }
}

#[tokio::test]
async fn t56_nothing_below_tls_13_is_spoken_inside_the_mesh() {
    let ca = Ca::new();
    let ours = ca.credentials(CART);
    let old = |verifier| {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])
            .unwrap();
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        without_sni(
            config.with_client_cert_resolver(ca.credentials(WEB).resolver()),
            b"weft/1",
        )
    };
    let verifier = || verify::Server::new(&ca.bundle(), &id(CART));
    let error = handshake(ours.mesh_server(), old(verifier())).await.unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
    assert!(handshake(ours.identity_server(), old(verifier())).await.is_err());

    let (chain, key) = ca.leaf(
        vec![SanType::URI(CART.to_owned().try_into().unwrap())],
        Duration::from_secs(7200),
    );
    let old_server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let client = ca.credentials(WEB).mesh_client(&id(CART));
    assert!(
        handshake(without_resumption(old_server, b"weft/1"), client)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn t52_no_session_is_resumed() {
    let ca = Ca::new();
    let (server, client) = (
        ca.credentials(CART).mesh_server(),
        ca.credentials(WEB).mesh_client(&id(CART)),
    );
    for _ in 0..3 {
        let (_, _, kind) = handshake(server.clone(), client.clone()).await.unwrap();
        assert!(matches!(
            kind,
            Some(rustls::HandshakeKind::Full | rustls::HandshakeKind::FullWithHelloRetryRequest)
        ));
    }
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.session_storage.can_cache());
    // Not even when the client would like to.
    let mut eager = (*client).clone();
    eager.resumption = Resumption::in_memory_sessions(8);
    let eager = Arc::new(eager);
    for _ in 0..3 {
        let (_, _, kind) = handshake(server.clone(), eager.clone()).await.unwrap();
        assert_ne!(kind, Some(rustls::HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn t52_a_live_peer_can_be_judged_again_after_the_bundle_has_changed() {
    let (old, new) = (Ca::new(), Ca::new());
    let peer = old.credentials(WEB);
    assert_eq!(
        old.credentials(CART).accepts(peer.chain(), SystemTime::now()).unwrap(),
        id(WEB)
    );
    assert!(new.credentials(CART).accepts(peer.chain(), SystemTime::now()).is_err());
    let later = SystemTime::now() + Duration::from_secs(7200);
    assert!(old.credentials(CART).accepts(peer.chain(), later).is_err());
}

#[tokio::test]
async fn another_protocol_than_ours_is_refused() {
    let ca = Ca::new();
    let error = handshake(
        ca.credentials(CART).mesh_server(),
        ca.credentials(WEB).discovery_client(&id(CART)),
    )
    .await;
    assert!(error.unwrap_err().contains("NoApplicationProtocol"));
}

#[tokio::test]
async fn new_credentials_count_from_the_next_handshake_on() {
    let (old, new) = (Ca::new(), Ca::new());
    let holder = Holder::new();
    assert!(holder.current().is_none());
    let waiting = {
        let holder = holder.clone();
        tokio::spawn(async move { holder.first().await })
    };
    let mut changes = holder.changes();
    holder.set(old.credentials(CART));
    changes.changed().await.unwrap();
    assert_eq!(*waiting.await.unwrap().id(), id(CART));

    let client = new.credentials(WEB).mesh_client(&id(CART));
    assert!(
        handshake(holder.first().await.mesh_server(), client.clone())
            .await
            .is_err()
    );
    holder.set(new.credentials(CART));
    assert!(handshake(holder.first().await.mesh_server(), client).await.is_ok());
}

#[test]
fn credentials_that_do_not_fit_together_are_refused() {
    let ca = Ca::new();
    let (chain, key) = ca.leaf(
        vec![SanType::URI(CART.to_owned().try_into().unwrap())],
        Duration::from_secs(7200),
    );
    let other = pkcs8(KeyPair::generate().unwrap().serialize_der());
    assert!(matches!(
        Credentials::new(chain.clone(), other, ca.bundle()),
        Err(CredentialsError::Key(_))
    ));
    assert!(matches!(
        Credentials::new(vec![], key, ca.bundle()),
        Err(CredentialsError::EmptyChain)
    ));
    assert!(matches!(Bundle::new(vec![]), Err(CredentialsError::EmptyBundle)));
    let error = Bundle::new(vec![ca.certificate.clone(), vec![1, 2, 3].into()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("certificate 2"), "{error}");
    assert!(
        certificates(b"no PEM here")
            .unwrap_err()
            .to_string()
            .contains("there is none")
    );
    assert!(
        !format!("{:?}", ca.credentials(CART)).contains("key"),
        "a key is never printed"
    );
}

#[tokio::test]
async fn the_webhook_server_speaks_to_a_client_that_knows_its_name_and_root() {
    let ca = Ca::new();
    let name = SanType::DnsName("weft-injector.weft-system.svc".to_owned().try_into().unwrap());
    let (chain, key) = ca.leaf(vec![name], Duration::from_secs(7200));
    let server = webhook_server(chain, key).unwrap();
    let client = webhook_client(&ca.bundle());
    for (name, good) in [
        ("weft-injector.weft-system.svc", true),
        ("other.weft-system.svc", false),
    ] {
        let (near, far) = tokio::io::duplex(64 << 10);
        let accepting = tokio::spawn(TlsAcceptor::from(server.clone()).accept(far).into_fallible());
        let connected = TlsConnector::from(client.clone())
            .connect(name.try_into().unwrap(), near)
            .await;
        assert_eq!(connected.is_ok(), good, "{name}");
        let _ = accepting.await.unwrap();
    }
}
