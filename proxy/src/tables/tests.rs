use super::*;
use std::time::Duration;

const SERVICE: &str = "10.96.0.1:80";

fn tables() -> (Arc<Tables>, mpsc::UnboundedReceiver<Ask>) {
    let (asks, asked) = mpsc::unbounded_channel();
    let cluster = "10.0.0.0/8".parse().unwrap();
    (
        Arc::new(Tables::new(cluster, vec!["10.1.0.7".parse().unwrap()], false, asks)),
        asked,
    )
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> Vec<u8> {
    match text.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn endpoint(address: &str, uid: &str) -> rpc::Endpoint {
    let address = at(address);
    rpc::Endpoint {
        address: Some(rpc::Address {
            ip: ip(&address.ip().to_string()),
            port: address.port().into(),
        }),
        pod: Some(rpc::ObjectName {
            namespace: "shop".into(),
            name: uid.into(),
        }),
        pod_uid: uid.into(),
        identity: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        terminating: false,
    }
}

fn service(endpoints: Vec<rpc::Endpoint>) -> rpc::Destination {
    rpc::Destination {
        kind: rpc::DestinationKind::Service.into(),
        backends: vec![rpc::Backend {
            id: "shop/cart:80".into(),
            endpoints,
            ..Default::default()
        }],
        default_backend: Some(0),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn f10_an_address_of_the_cluster_that_nobody_explains_fails_in_time_and_says_why() {
    let (tables, mut asked) = tables();
    let since = Instant::now();
    let followed = tables.follow(LooksUp::Controller, at(SERVICE)).await;
    assert_eq!(since.elapsed(), limits::DESTINATION_TIME);
    assert_eq!(
        followed.current().default_backend().unwrap_err().reason,
        Reason::DiscoveryTimeout
    );
    assert_eq!(asked.recv().await, Some(Ask::Follow(at(SERVICE))));
    // The answer comes late and holds for the connection that waits no longer.
    tables.answer(at(SERVICE), "v1", service(vec![endpoint("10.1.0.8:8080", "a")]));
    assert_eq!(&*followed.current().default_backend().unwrap().id, "shop/cart:80");
}

#[tokio::test(start_paused = true)]
async fn an_address_outside_of_the_cluster_passes_and_nobody_is_asked() {
    let (tables, mut asked) = tables();
    let followed = tables.follow(LooksUp::Controller, at("192.0.2.1:443")).await;
    let backend = followed.current().default_backend().unwrap().clone();
    assert_eq!(
        (backend.endpoints[0].address, &backend.endpoints[0].identity),
        (at("192.0.2.1:443"), &None)
    );
    assert!(asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_controller_is_asked_once_and_all_who_wait_are_told() {
    let (tables, mut asked) = tables();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let tables = tables.clone();
            tokio::spawn(async move {
                tables
                    .follow(LooksUp::Controller, at(SERVICE))
                    .await
                    .current()
                    .version
                    .clone()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(asked.recv().await, Some(Ask::Follow(at(SERVICE))));
    tables.answer(at(SERVICE), "v7", service(Vec::new()));
    for one in waiting {
        assert_eq!(one.await.unwrap(), "v7");
    }
    assert!(asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_load_of_an_endpoint_outlives_a_change_of_the_table() {
    let (tables, _asked) = tables();
    let follower = {
        let tables = tables.clone();
        tokio::spawn(async move { tables.follow(LooksUp::Controller, at(SERVICE)).await })
    };
    tokio::task::yield_now().await;
    tables.answer(at(SERVICE), "v1", service(vec![endpoint("10.1.0.8:8080", "a")]));
    let followed = follower.await.unwrap();
    let load = followed.current().backends[0].endpoints[0].load.clone();
    let both = vec![endpoint("10.1.0.9:8080", "b"), endpoint("10.1.0.8:8080", "a")];
    tables.answer(at(SERVICE), "v2", service(both));
    let kept = followed.current().backends[0]
        .endpoints
        .iter()
        .any(|endpoint| Arc::ptr_eq(&endpoint.load, &load));
    assert!(kept);
    // The same address, another pod: nothing is known of it.
    tables.answer(at(SERVICE), "v3", service(vec![endpoint("10.1.0.8:8080", "c")]));
    assert!(!Arc::ptr_eq(&followed.current().backends[0].endpoints[0].load, &load));
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_is_forgotten_and_what_is_in_use_is_not() {
    let (tables, mut asked) = tables();
    let _used = tables.follow(LooksUp::Itself, at("10.1.0.7:80")).await;
    let short = tokio::time::timeout(Duration::from_secs(1), tables.follow(LooksUp::Controller, at(SERVICE)));
    assert!(short.await.is_err());
    tables.sweep();
    assert_eq!(tables.dump().len(), 2);
    tokio::time::sleep(limits::DESTINATION_IDLE + Duration::from_secs(1)).await;
    tables.sweep();
    assert_eq!(tables.dump().len(), 1);
    assert_eq!(asked.recv().await, Some(Ask::Follow(at(SERVICE))));
    assert_eq!(asked.recv().await, Some(Ask::Forget(at(SERVICE))));
    // A worker's own map does not bring it back from the dead.
    let again = tokio::time::timeout(Duration::from_secs(1), tables.follow(LooksUp::Controller, at(SERVICE)));
    assert!(again.await.is_err());
    assert_eq!(asked.recv().await, Some(Ask::Follow(at(SERVICE))));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_identity_cannot_be_read_is_left_out_and_never_plaintext() {
    let (tables, _asked) = tables();
    let short = tokio::time::timeout(Duration::from_secs(1), tables.follow(LooksUp::Controller, at(SERVICE)));
    assert!(short.await.is_err());
    let mut bad = endpoint("10.1.0.8:8080", "a");
    bad.identity = "spiffe://cluster.local/other".into();
    tables.answer(at(SERVICE), "v1", service(vec![bad]));
    let followed = tables.follow(LooksUp::Controller, at(SERVICE)).await;
    assert!(followed.current().backends[0].endpoints.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_admitted_as_strict_is_so_without_a_word_of_the_controller_and_until_it_says_otherwise() {
    let (asks, _asked) = mpsc::unbounded_channel();
    let tables = Tables::new(Cidrs::default(), Vec::new(), true, asks);
    tables.workload_known().await;
    assert!(tables.is_strict());
    tables.set_workload(Workload::default());
    assert!(!tables.is_strict());
}

#[tokio::test(start_paused = true)]
async fn a_port_of_the_pod_itself_has_the_protocol_that_its_service_declares() {
    let (tables, mut asked) = tables();
    let followed = tables.follow(LooksUp::Itself, at("10.1.0.7:50051")).await;
    assert_eq!(followed.current().protocol, Protocol::Detect);
    tables.set_workload(Workload {
        strict_mtls: true,
        protocols: vec![(50051, Protocol::H2c)],
    });
    assert_eq!(followed.current().protocol, Protocol::H2c);
    assert!(tables.workload().strict_mtls);
    assert!(asked.try_recv().is_err());
}
