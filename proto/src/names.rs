//! Every name that is a contract between weft's programs, or with its users, said once.
//!
//! The injector writes what the proxy reads; the controller recognises what the injector wrote. Nothing here needs
//! a runtime, so that `weft-init` and `weft-injector` can use it without the rest.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    time::Duration,
};

/// Constants whose doc comments are their manual: `all()` lists them, and docs/config.md is written from it.
macro_rules! manual {
    ($( $(#[doc = $doc:literal])+ pub const $name:ident: &str = $value:expr; )+) => {
        $( $(#[doc = $doc])+ pub const $name: &str = $value; )+

        /// Each name with its manual.
        pub fn all() -> Vec<(&'static str, &'static str)> {
            vec![$( ($value, concat!($($doc),+).trim_ascii()), )+]
        }
    };
}

/// The namespace that weft itself runs in.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
/// UID and GID of the proxy. Refused for every other container, since its traffic is not redirected.
pub const PROXY_UID: u32 = 2717;
/// The SPIFFE trust domain, unless configured.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Audience of the projected token that a proxy shows when it asks for a certificate.
pub const TOKEN_AUDIENCE: &str = "weft-ca";
/// Life of the projected token, in seconds: the shortest that Kubernetes allows.
pub const TOKEN_LIFE_SECONDS: i64 = 600;
/// Lives that a workload certificate may be given.
pub const LEAF_LIFE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);
/// ALPN id of the mesh hop, offered alone and without SNI.
pub const MESH_ALPN: &[u8] = b"weft/1";
/// Prefix of every metric.
pub const METRIC_PREFIX: &str = "weft_";

/// ServiceAccount of the controller in role `routes`.
pub const ROUTES_SERVICE_ACCOUNT: &str = "weft-routes";
/// ServiceAccount of the controller in role `identity`.
pub const IDENTITY_SERVICE_ACCOUNT: &str = "weft-identity";
/// ServiceAccount of the injector.
pub const INJECTOR_SERVICE_ACCOUNT: &str = "weft-injector";
/// Component of what runs for a Gateway: the value of the label `app.kubernetes.io/name`.
pub const GATEWAY_COMPONENT: &str = "weft-gateway";

/// TCP ports.
pub mod port {
    /// Outbound listener, on loopback of both families.
    pub const OUTBOUND: u16 = 15001;
    /// Inbound listener, on the pod's addresses.
    pub const INBOUND: u16 = 15006;
    /// Metrics, readiness and rewritten probes: plain HTTP, GET only.
    pub const METRICS: u16 = 15020;
    /// Discovery service of the controller; TLS only.
    pub const DISCOVERY: u16 = 15010;
    /// Identity service of the controller; TLS only.
    pub const IDENTITY: u16 = 15012;
    /// The injector's webhook; HTTPS only.
    pub const WEBHOOK: u16 = 8443;
    /// Ports of a meshed pod that no application container may use.
    pub const RESERVED: [u16; 3] = [OUTBOUND, INBOUND, METRICS];
}

/// Paths on [`port::METRICS`].
pub mod path {
    /// 200 while the process runs.
    pub const LIVE: &str = "/live";
    /// 200 once a certificate is there and the listeners are bound; never depends on the controller afterwards.
    pub const READY: &str = "/ready";
    /// Prometheus text format.
    pub const METRICS: &str = "/metrics";
    /// `GET /probe/tcp/PORT`: 200 when the application accepts a connection on PORT, else 503. Stands for a `tcpSocket` probe.
    pub const TCP_PROBE_PREFIX: &str = "/probe/tcp/";
    /// `GET /probe/https/PORT/PATH`: what the application answers to `GET https://POD:PORT/PATH`. Stands for an `httpGet` probe with
    /// `scheme: HTTPS`, whose TLS nobody could tell from a stranger's.
    pub const HTTPS_PROBE_PREFIX: &str = "/probe/https/";
}

/// Labels and annotations.
pub mod label {
    manual! {
        /// `enabled` or `disabled`: a label of a namespace, an annotation of a pod.
        pub const INJECT: &str = "weft.dev/inject";
        /// `permissive` or `strict`: a label of a namespace, an annotation of a pod, which may only tighten it.
        pub const MTLS: &str = "weft.dev/mtls";
        /// Annotation: inbound ports that are not redirected, as `80,8000-8010`.
        pub const SKIP_INBOUND_PORTS: &str = "weft.dev/skip-inbound-ports";
        /// Annotation: destination ports that are not redirected.
        pub const SKIP_OUTBOUND_PORTS: &str = "weft.dev/skip-outbound-ports";
        /// Annotation: destinations that are not redirected, as `10.0.0.0/8,fd00::/8`.
        pub const SKIP_OUTBOUND_CIDRS: &str = "weft.dev/skip-outbound-cidrs";
        /// Annotation: users whose traffic is not redirected, as `1000,2000-2010`.
        pub const SKIP_UIDS: &str = "weft.dev/skip-uids";
        /// Annotation that the injector sets: the version that injected the pod.
        pub const INJECTED: &str = "weft.dev/injected";
    }
}

/// Containers and volumes that the injector adds to a pod.
pub mod container {
    /// The proxy: a native sidecar, first of the init containers.
    pub const PROXY: &str = "weft-proxy";
    /// Sets the redirects and proves them; second of the init containers.
    pub const INIT: &str = "weft-init";
    /// Projected ServiceAccount token.
    pub const TOKEN_VOLUME: &str = "weft-token";
    /// Where the token volume is mounted.
    pub const TOKEN_MOUNT: &str = "/var/run/secrets/weft.dev";
    /// File name of the token in its volume.
    pub const TOKEN_FILE: &str = "token";
    /// Memory-backed emptyDir for the admin socket.
    pub const RUN_VOLUME: &str = "weft-run";
    /// Where the run volume is mounted.
    pub const RUN_MOUNT: &str = "/run/weft";
    /// The admin socket's file.
    pub const ADMIN_SOCKET: &str = "/run/weft/admin.sock";
}

/// Environment of the proxy's container. Each doc comment is the variable's manual.
pub mod env {
    manual! {
        /// Name of the pod.
        pub const POD_NAME: &str = "WEFT_POD_NAME";
        /// Namespace of the pod.
        pub const POD_NAMESPACE: &str = "WEFT_POD_NAMESPACE";
        /// UID of the pod object.
        pub const POD_UID: &str = "WEFT_POD_UID";
        /// Addresses of the pod, comma-separated, IPv4 or IPv6 (`status.podIPs`).
        pub const POD_IPS: &str = "WEFT_POD_IPS";
        /// ServiceAccount of the pod.
        pub const SERVICE_ACCOUNT: &str = "WEFT_SERVICE_ACCOUNT";
        /// SPIFFE trust domain.
        pub const TRUST_DOMAIN: &str = "WEFT_TRUST_DOMAIN";
        /// PEM certificates that the controller's and every peer's chain must lead to at start; later bundles come with each certificate.
        pub const TRUST_BUNDLE: &str = "WEFT_TRUST_BUNDLE";
        /// `host:port` of the discovery service.
        pub const DISCOVERY_ADDRESS: &str = "WEFT_DISCOVERY_ADDRESS";
        /// `host:port` of the identity service.
        pub const IDENTITY_ADDRESS: &str = "WEFT_IDENTITY_ADDRESS";
        /// File that holds the projected token; read anew at each use.
        pub const TOKEN_FILE: &str = "WEFT_TOKEN_FILE";
        /// Ranges of the cluster's pods and Services, comma-separated CIDRs. An unknown destination inside of them fails; one outside passes.
        pub const CLUSTER_CIDRS: &str = "WEFT_CLUSTER_CIDRS";
        /// Ports that `/probe/tcp/PORT` may dial, comma-separated.
        pub const PROBE_PORTS: &str = "WEFT_PROBE_PORTS";
        /// The httpGet and grpc probes of the pod's containers, which a strict pod lets in without mTLS, as
        /// `http:8080:/healthz,grpc:50051`; and, as `https:8443:/healthz`, those that `/probe/https/PORT/PATH` stands for. In a path `,` is percent-encoded; the query is not compared.
        pub const PROBES: &str = "WEFT_PROBES";
        /// `strict`: plaintext is refused until the controller says otherwise. Left out, or `permissive`: it is accepted until then.
        /// The injector writes the mode that the pod had when it was made; what the controller has said once counts more, and
        /// lies in a file beside the admin socket for a proxy that is started again.
        pub const MTLS: &str = "WEFT_MTLS";
        /// Inbound ports that are not redirected and so not weft's, as in the annotation.
        pub const SKIP_INBOUND_PORTS: &str = "WEFT_SKIP_INBOUND_PORTS";
        /// Worker threads, each with its own runtime and pools. Default: the CPUs that the container may use, of a sidecar at most 4.
        pub const WORKERS: &str = "WEFT_WORKERS";
        /// Filter of the log, as `info,weft_proxy=debug`.
        pub const LOG: &str = "WEFT_LOG";
        /// `off`, `stdout` (default) or a file's path: where the JSON access log goes.
        pub const ACCESS_LOG: &str = "WEFT_ACCESS_LOG";
        /// Path of the admin socket.
        pub const ADMIN_SOCKET: &str = "WEFT_ADMIN_SOCKET";
        /// Seconds that open connections have after SIGTERM before they are closed by force. Default 25.
        pub const DRAIN_SECONDS: &str = "WEFT_DRAIN_SECONDS";
        /// `namespace/name` of the Gateway that `weft-proxy gateway` serves.
        pub const GATEWAY: &str = "WEFT_GATEWAY";
        /// Where spans are exported to, as `http://host:4317`: OTLP over gRPC, without TLS. No spans are made without it.
        pub const OTLP_ENDPOINT: &str = "WEFT_OTLP_ENDPOINT";
        /// The share of traces that begin at this proxy and are recorded, from 0 to 1. Default 0.01. What a request's own
        /// `traceparent` says counts more.
        pub const TRACE_SAMPLING: &str = "WEFT_TRACE_SAMPLING";
    }
}

/// HTTP fields of weft's own, and those that a gateway says for its clients.
pub mod http {
    /// RFC 7239: the client's address, the host that it asked for, and the scheme.
    pub const FORWARDED: &str = "forwarded";
    /// The client's address.
    pub const FORWARDED_FOR: &str = "x-forwarded-for";
    /// `http` or `https`, as the client speaks to the gateway.
    pub const FORWARDED_PROTO: &str = "x-forwarded-proto";
    /// The host that the client asked for, as it was sent.
    pub const FORWARDED_HOST: &str = "x-forwarded-host";
    /// The port of the gateway that the client dialled.
    pub const FORWARDED_PORT: &str = "x-forwarded-port";
    /// What a gateway takes away from requests, `_` in place of `-` too: claims that only it can make, by name.
    pub const CLAIMS: [&str; 2] = [FORWARDED, "x-real-ip"];
    /// The same by the beginning of their names.
    pub const CLAIM_PREFIXES: [&str; 2] = ["x-forwarded-", "x-ssl-"];
    /// Prefix of the request fields that are set and read inside `weft/1` only; stripped from every other request.
    pub const INTERNAL_PREFIX: &str = "weft-";
    /// Response field: why weft itself answered.
    pub const ERROR: &str = "weft-error";
    /// Inside `weft/1`: the version that the client spoke, `1.0` or `1.1`; absent for HTTP/2.
    pub const VERSION: &str = "weft-version";
    /// Inside `weft/1`: the method of an Upgrade request that crosses as extended CONNECT.
    pub const METHOD: &str = "weft-method";
    /// Inside `weft/1`: the target as sent, where `:path` cannot say it.
    pub const TARGET: &str = "weft-target";
    /// Inside `weft/1`: what the `Host` field was when it named no host: `none` or `empty`.
    pub const HOST: &str = "weft-host";
    /// Inside `weft/1`, in responses: the reason phrase, where it is not the status' usual one.
    pub const REASON: &str = "weft-reason";
    /// Inside `weft/1`, in responses: the status of a refused Upgrade, which a 2xx of HTTP/2 would turn into a tunnel.
    pub const STATUS: &str = "weft-status";
    /// Inside `weft/1`, in responses: `close` where the body lasted until the server closed.
    pub const BODY: &str = "weft-body";
}

/// How `weft-init` proves its redirects: a connection to one of these must land on the proxy, which answers with [`check::ANSWER`].
pub mod check {
    use super::{Ipv4Addr, Ipv6Addr};
    /// An address of TEST-NET-1 (RFC 5737) that nothing answers.
    pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 27);
    /// An address of the documentation range (RFC 3849) that nothing answers.
    pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x27);
    /// The port dialled.
    pub const PORT: u16 = 2717;
    /// What the outbound side of the proxy writes at once, before it closes, to a connection whose original destination is the check's.
    pub const ANSWER: &[u8] = b"weft outbound\n";
}

/// Gateway API.
pub mod gateway_api {
    /// Its API group.
    pub const GROUP: &str = "gateway.networking.k8s.io";
    /// Name of our GatewayClass.
    pub const CLASS: &str = "weft";
    /// Our controller name, in GatewayClass and in route statuses.
    pub const CONTROLLER: &str = "weft.dev/gateway-controller";
    /// Prefix of our own condition types.
    pub const CONDITION_PREFIX: &str = "weft.dev/";
    /// Label of what runs for a Gateway: its name (GEP-1762), shortened like the names of these objects.
    pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
    /// Label of what runs for a Gateway: the name of its class.
    pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
    /// What the names of objects end with that run for a Gateway.
    pub const SUFFIX: &str = "-weft";
}

/// Objects of weft's own in a cluster; all of them in the namespace of weft unless they belong to none.
pub mod kubernetes {
    /// Secret with the mesh's CA, of which the controller in role `identity` alone knows.
    pub const CA_SECRET: &str = "weft-ca";
    /// Key of [`CA_SECRET`]: the certificate that signs, and behind it the intermediates up to the root.
    pub const CA_CERTIFICATE: &str = "ca.crt";
    /// Key of [`CA_SECRET`]: the private key in PKCS#8.
    pub const CA_KEY: &str = "ca.key";
    /// Key of [`CA_SECRET`], which may be missing, and of [`TRUST_CONFIG_MAP`]: roots that peers may chain to.
    pub const CA_BUNDLE: &str = "ca-bundle.crt";
    /// ConfigMap with the roots that programs of weft trust at start.
    pub const TRUST_CONFIG_MAP: &str = "weft-trust";
    /// ConfigMap with what is known of the cluster's addresses.
    pub const CLUSTER_CONFIG_MAP: &str = "weft-cluster";
    /// Key of [`CLUSTER_CONFIG_MAP`]: ranges of pods and Services, comma-separated.
    pub const CLUSTER_CIDRS: &str = "cidrs";
    /// Lease of the controller that writes, in role `routes`.
    pub const LEASE: &str = "weft-routes";
    /// Secret with the keys of sessions, made by the controller that leads and read by each in role `routes`.
    pub const SESSION_SECRET: &str = "weft-session-keys";
    /// Key of [`SESSION_SECRET`]: a line for each, `ID SECONDS BASE64`; the one that signs comes first.
    pub const SESSION_KEYS: &str = "keys";
    /// Secret with the CA of the injector's webhook.
    pub const WEBHOOK_SECRET: &str = "weft-injector-webhook";
    /// MutatingWebhookConfiguration.
    pub const WEBHOOK: &str = "weft-injector";
    /// Name of the webhook that injects.
    pub const INJECT_WEBHOOK: &str = "inject.weft.dev";
    /// Name of the webhook that injects in namespaces that are labelled `weft.dev/mtls=strict`.
    pub const STRICT_WEBHOOK: &str = "strict.inject.weft.dev";
    /// Name of the webhook that speaks for namespaces whose Pod Security forbids the injected containers.
    pub const POD_SECURITY_WEBHOOK: &str = "pod-security.inject.weft.dev";
    /// Reason of the Event that tells of a pod which should be meshed and is not.
    pub const NOT_MESHED: &str = "NotMeshed";
    /// Label of every object of weft, with the value [`PART_OF_WEFT`].
    pub const PART_OF: &str = "app.kubernetes.io/part-of";
    /// Value of [`PART_OF`].
    pub const PART_OF_WEFT: &str = "weft";
    /// Label of every object of weft: the component that it belongs to.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// Namespaces in which nothing is injected.
    pub const EXCLUDED_NAMESPACES: [&str; 4] =
        ["kube-system", "kube-public", "kube-node-lease", super::SYSTEM_NAMESPACE];
}
