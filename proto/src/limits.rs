//! Every queue, buffer, table and time of weft that outsiders can fill or stretch has a finite limit, and all of them stand here.
//!
//! The names are the contract: `weft limits` prints this table, and a test holds that each limit is set and finite.
//! A limit that is reached is counted (`weft_limit_reached_total{limit}`) and answered with its reason.

use std::time::Duration;

macro_rules! limits {
    ($( $(#[doc = $doc:literal])+ $name:ident: $kind:ident = $value:expr; )+) => {
        $( $(#[doc = $doc])+ pub const $name: limits!(@type $kind) = $value; )+

        /// Every limit: its name, its value with the unit, and what it bounds.
        pub fn all() -> Vec<(&'static str, String, &'static str)> {
            vec![$( (stringify!($name), limits!(@show $kind $name), concat!($($doc),+).trim_ascii()), )+]
        }
    };
    (@type bytes) => { usize };
    (@type count) => { usize };
    (@type time) => { Duration };
    (@show bytes $name:ident) => { format!("{} bytes", $name) };
    (@show count $name:ident) => { format!("{}", $name) };
    (@show time $name:ident) => { format!("{:?}", $name) };
}

limits! {
    /// Connections that one proxy holds open from clients; the next ones wait in the kernel's queue.
    CONNECTIONS: count = 100_000;
    /// Length of the kernel's queue of connections not accepted yet.
    ACCEPT_QUEUE: count = 4096;
    /// Pause after an accept that failed for want of descriptors or memory.
    ACCEPT_BACK_OFF: time = Duration::from_millis(20);

    /// An HTTP head, request or response, with its line.
    HEAD: bytes = 64 << 10;
    /// Header fields of one head.
    FIELDS: count = 100;
    /// Time for a complete request head, from its first byte.
    HEAD_TIME: time = Duration::from_secs(10);
    /// Time that a kept-alive client connection may be silent between requests.
    CLIENT_IDLE: time = Duration::from_secs(600);
    /// Time that a pooled connection to a server may be unused; shorter than common servers' own.
    SERVER_IDLE: time = Duration::from_secs(4);
    /// Time without a byte of a request's body.
    BODY_IDLE: time = Duration::from_secs(300);
    /// Extensions of all chunks of one message (RFC 9112 7.1.1).
    CHUNK_EXTENSIONS: bytes = 4 << 10;
    /// Trailer section of one message.
    TRAILERS: bytes = 16 << 10;
    /// Requests that a client may send ahead of their responses are read no further than this.
    PIPELINE: bytes = 64 << 10;
    /// Bytes after an Upgrade or CONNECT head that are held until the other side agrees; then back-pressure.
    EARLY: bytes = 64 << 10;
    /// Time to wait for `100 Continue` from the server before the body is sent all the same (RFC 9110 10.1.1).
    EXPECT: time = Duration::from_secs(1);
    /// Interim responses (1xx) before one response; a server that sends more is taken for broken.
    INTERIM: count = 100;
    /// Length of a `:protocol` or `Upgrade` token.
    UPGRADE_TOKEN: bytes = 64;

    /// A TLS ClientHello, all records.
    CLIENT_HELLO: bytes = 16 << 10;
    /// Time for a complete ClientHello, from its first byte, and for a handshake that weft ends.
    HANDSHAKE_TIME: time = Duration::from_secs(5);
    /// TLS handshakes with a gateway's clients at once, behind their ClientHello; the next ones wait.
    HANDSHAKES: count = 10_000;
    /// Gateways of weft that one request may pass; it goes in circles then.
    GATEWAYS_PASSED: count = 8;
    /// Time without a byte of a request's body at a gateway.
    GATEWAY_BODY_IDLE: time = Duration::from_secs(60);
    /// Time for a gateway's HTTP or TLS client to take what it was sent, before its connection ends (TCP_USER_TIMEOUT).
    GATEWAY_CLIENT_STALL: time = Duration::from_secs(300);
    /// Time for the first bytes of a connection to a gateway's HTTP port.
    FIRST_BYTES: time = Duration::from_secs(30);
    /// Pause before a gateway's port that could not be bound is tried again.
    BIND_PAUSE: time = Duration::from_secs(1);
    /// Silence after which a dial to the server starts, to see whether the server speaks first. An efficiency, never a verdict.
    SILENCE: time = Duration::from_millis(10);
    /// Dials on behalf of silent clients, to one destination.
    SILENT_DIALS_EACH: count = 256;
    /// Dials on behalf of silent clients, in all.
    SILENT_DIALS: count = 4096;
    /// Bytes of a server's greeting that are held while its client is waited for.
    GREETING: bytes = 16 << 10;
    /// How long a destination that is followed is remembered as one whose server speaks first.
    OPAQUE_MEMORY_TIME: time = Duration::from_secs(600);

    /// HTTP/2 streams that a client may have open on one connection.
    H2_STREAMS: count = 1000;
    /// HTTP/2 streams that weft opens on one connection before it opens another.
    H2_STREAMS_USED: count = 100;
    /// HTTP/2 header list after decoding (RFC 9113 10.5.1).
    H2_HEADER_LIST: bytes = 64 << 10;
    /// HTTP/2 flow-control window of a stream.
    H2_STREAM_WINDOW: bytes = 4 << 20;
    /// HTTP/2 flow-control window of a connection: four streams' worth, so that one that is not read cannot stop the others.
    H2_CONNECTION_WINDOW: bytes = 16 << 20;
    /// Largest HTTP/2 frame accepted.
    H2_FRAME: bytes = 64 << 10;
    /// Bytes queued to be sent on one HTTP/2 stream.
    H2_SEND_BUFFER: bytes = 256 << 10;
    /// Streams that the peer reset and weft still remembers (rapid reset, CVE-2023-44487).
    H2_RESET_STREAMS: count = 50;
    /// Streams reset by the peer before weft accepted them.
    H2_PENDING_RESET_STREAMS: count = 20;
    /// Streams that weft had to reset because of the peer's errors (CVE-2025-8671).
    H2_LOCAL_RESET_STREAMS: count = 1024;
    /// Time between PINGs on a mesh connection that has streams but no traffic.
    H2_PING: time = Duration::from_secs(10);
    /// Time for the answer to a PING before the peer is taken for dead.
    H2_PING_ANSWER: time = Duration::from_secs(3);
    /// Time after which an HTTP/2 connection of weft's own without streams is closed.
    H2_IDLE: time = Duration::from_secs(300);

    /// Time for a TCP connection to a server.
    CONNECT_TIME: time = Duration::from_secs(5);
    /// Idle connections that are kept to one HTTP/1 endpoint, for each worker.
    IDLE_CONNECTIONS: count = 64;
    /// Dials or streams that wait for one endpoint, for each worker.
    WAITING: count = 10_000;
    /// Attempts for one request, where nothing was sent before.
    ATTEMPTS: count = 3;
    /// Pause before a rule's first retry, where it says none; doubled with each one after it.
    RETRY_WAIT: time = Duration::from_millis(10);
    /// Longest of these pauses, unless the rule's own is longer.
    RETRY_WAIT_MOST: time = Duration::from_secs(1);
    /// Copies of requests for mirrors that are on their way; the next ones are not sent.
    MIRRORS: count = 1000;
    /// Time for one copy, from its request's head to the end of its answer.
    MIRROR_TIME: time = Duration::from_secs(30);
    /// Endpoints that a destination knows by what tokens of sessions call them; begun anew when there are more.
    STICKY: count = 20_000;
    /// Bytes in flight in each direction of a byte relay.
    RELAY: bytes = 64 << 10;
    /// Silence after which a tunnel or an opaque connection is closed.
    TUNNEL_IDLE: time = Duration::from_secs(24 * 3600);
    /// Time for which one half of an opaque connection may stay open after the other was closed, without a byte.
    HALF_CLOSED: time = Duration::from_secs(3600);
    /// Time for a client to take what it was sent, before it is told that nothing more of it is heard.
    LINGER: time = Duration::from_secs(5);
    /// TCP keepalive: silence before the first probe, on both sides of every connection.
    KEEPALIVE: time = Duration::from_secs(60);
    /// TCP_USER_TIMEOUT: data not acknowledged for so long ends the connection.
    USER_TIMEOUT: time = Duration::from_secs(30);

    /// Destinations that a proxy follows; the one unused for longest goes first.
    DESTINATIONS: count = 10_000;
    /// Time after which a destination without connections is forgotten.
    DESTINATION_IDLE: time = Duration::from_secs(600);
    /// Time for an answer about an unknown destination.
    DESTINATION_TIME: time = Duration::from_secs(3);
    /// Time that connections have to end after SIGTERM.
    DRAIN: time = Duration::from_secs(25);
    /// Time that `weft-init` waits for a starting proxy before it fails the pod.
    CHECK_TIME: time = Duration::from_secs(30);
    /// Time for one of `weft-init`'s connections to land on the proxy: one retransmission fits in.
    CHECK_ATTEMPT: time = Duration::from_secs(2);
    /// Time that `weft-init` waits for another program that holds the lock of iptables.
    RULES_LOCK: time = Duration::from_secs(20);
    /// Time that tunnels have, after the drain's time has passed, to say that they end.
    FAREWELL: time = Duration::from_secs(2);
    /// Time in which a WebSocket's application that ended without a Close frame shows whether its pod ends.
    FAREWELL_WAIT: time = Duration::from_secs(1);
    /// Spans that wait to be exported; the next ones are dropped and counted.
    SPANS: count = 2048;
    /// Spans of one export.
    SPAN_BATCH: count = 512;
    /// Time after which a batch of spans is exported although it is not full.
    SPAN_WAIT: time = Duration::from_secs(1);
    /// Time for one export of spans; what it held is dropped and counted then.
    SPAN_EXPORT_TIME: time = Duration::from_secs(5);
    /// Longest pause after exports that failed.
    SPAN_PAUSE: time = Duration::from_secs(30);
    /// Length of an attribute of a span that a request gives.
    SPAN_TEXT: bytes = 1 << 10;
    /// Entries of the access log that wait to be written; the next ones are dropped and counted.
    ACCESS_LOG: count = 8192;
    /// Series that the metrics may have; the next ones are counted in one series of their own.
    METRIC_SERIES: count = 10_000;

    /// Body of a call to the webhook.
    ADMISSION: bytes = 3 << 20;
    /// Time for one call to the webhook.
    ADMISSION_TIME: time = Duration::from_secs(5);
    /// Time that the webhook goes on accepting after SIGTERM: so long may a Service still send to a pod that ends.
    ADMISSION_LEAVE: time = Duration::from_secs(5);
    /// Calls to the webhook that are worked on at once; the next ones wait, no longer than a call may take.
    ADMISSION_CALLS: count = 16;
    /// Items of all lists in one pod that the webhook reads: a list of `{}` takes three bytes each to write and kilobytes to hold.
    ADMISSION_ITEMS: count = 10_000;
    /// Connections to the webhook; the next ones wait in the kernel's queue.
    ADMISSION_CONNECTIONS: count = 1024;
    /// Names that one proxy may follow at the controller.
    FOLLOWED: count = 20_000;
    /// Streams that one controller serves.
    DISCOVERY_STREAMS: count = 20_000;
    /// One response of discovery is closed when it has this size; a single answer may be longer.
    DISCOVERY_RESPONSE: bytes = 512 << 10;
    /// Age at which a discovery stream is ended, so that proxies spread over replicas again.
    DISCOVERY_AGE: time = Duration::from_secs(3600);
    /// TLS handshakes that one listener of the controller works on at once; the next ones wait in the kernel's queue.
    CONTROLLER_HANDSHAKES: count = 512;
    /// A request for a certificate, with its token.
    CERTIFY_REQUEST: bytes = 64 << 10;
    /// Connections to one admin server; the next ones wait in the kernel's queue.
    ADMIN_CONNECTIONS: count = 64;
    /// Time for one exchange with an admin server, and for one of its connections to be idle.
    ADMIN_TIME: time = Duration::from_secs(30);
    /// Certificates that one pod, as one identity, may ask for in a minute.
    CERTIFICATES_PER_MINUTE: count = 30;
    /// One call of the API server that is no watch.
    API_TIME: time = Duration::from_secs(15);
    /// Time for the API server to say whose a token is.
    TOKEN_REVIEW: time = Duration::from_secs(4);
    /// TCP keepalive of connections to the API server: silence before the first probe.
    API_KEEPALIVE: time = Duration::from_secs(10);
    /// Objects of one page of a list.
    API_PAGE: count = 250;
    /// Bytes of one page of a list, and of one event of a watch.
    API_BYTES: bytes = 64 << 20;
    /// Time of one watch, after which the API server ends it; below the 240 s after which some load balancers drop what is silent.
    WATCH_TIME: time = Duration::from_secs(200);
    /// Silence after which a watch is taken for dead. API servers send a bookmark about once a minute.
    WATCH_SILENCE: time = Duration::from_secs(90);
    /// Longest pause between two attempts to watch.
    WATCH_PAUSE: time = Duration::from_secs(20);
    /// Time after which a leader that is not heard of has lost its Lease.
    LEASE: time = Duration::from_secs(15);
    /// Time in which a leader must have renewed its Lease, or leads no longer.
    LEASE_RENEWAL: time = Duration::from_secs(10);
    /// Time between two looks at the Lease.
    LEASE_LOOK: time = Duration::from_secs(2);
    /// Pause between two Events about pods that are not meshed.
    EVENT_PAUSE: time = Duration::from_millis(200);
    /// Time between two looks at the file with the roots that gateways' pods are told.
    TRUST_LOOK: time = Duration::from_secs(10);
    /// Objects of Gateways that are written to an API server at the same time.
    GATEWAY_WRITES: count = 8;
    /// Time in which changes of Gateways are gathered before what they want is written.
    GATEWAY_SETTLES: time = Duration::from_millis(50);
    /// Statuses that are written to an API server at the same time.
    STATUS_WRITES: count = 8;
    /// Least time between the beginnings of two writes of statuses: a flood of changes is no flood for the API server.
    STATUS_PACE: time = Duration::from_millis(10);
    /// Least time between two rounds of looking for statuses to write; a round after a long one comes later.
    STATUS_PAUSE: time = Duration::from_millis(200);
    /// Time after which a Secret or ConfigMap that a Gateway or policy refers to is read again.
    REFERENCE_LOOK: time = Duration::from_secs(2);
    /// Least time between two reads of Secrets and ConfigMaps: with more of them than fit, each is read less often.
    REFERENCE_PACE: time = Duration::from_millis(20);
    /// Time that a change waits for what it newly refers to, before it is taken in without.
    REFERENCE_WAIT: time = Duration::from_secs(2);
    /// Reads of Secrets and ConfigMaps at the same time.
    REFERENCE_READS: count = 8;
    /// Age at which a new secret for the keys of sessions is made.
    SESSION_KEY_LIFE: time = Duration::from_secs(30 * 24 * 3600);
    /// Time in which a new secret is only accepted, until every proxy knows it and it signs.
    SESSION_KEY_SETTLES: time = Duration::from_secs(600);
    /// A regular expression of a route.
    REGEX: bytes = 1 << 10;
    /// A compiled regular expression.
    REGEX_COMPILED: bytes = 1 << 20;
    /// Attempts of a request after its first one, whatever a route asks for.
    RETRIES: count = 10;
    /// Pause before another attempt, whatever a route asks for.
    RETRY_PAUSE: time = Duration::from_secs(60);
    /// Name of a session's cookie or header field.
    SESSION_NAME: bytes = 128;
    /// Tokens of sessions that are tried of one request.
    SESSION_TOKENS: count = 4;
    /// Time for `weft` to open a connection to an API server.
    API_CONNECT: time = Duration::from_secs(5);
    /// Time for an API server to answer `weft`; admission of a dry run is part of it.
    API_ANSWER: time = Duration::from_secs(30);
    /// Objects of one page of a list that `weft` asks for.
    CHECK_PAGE: count = 500;
    /// Questions of `weft check` to an API server at the same time.
    CHECK_CALLS: count = 8;
    /// Labelled namespaces in which `weft check` tries the webhook with a pod that is not stored.
    CHECK_DRY_RUNS: count = 20;
    /// Pods that `weft check` tries in one namespace while nobody answers for the webhook.
    CHECK_TRIES: count = 4;
    /// Pause between two of them: nodes learn of a new address of the webhook within about a second.
    CHECK_PAUSE: time = Duration::from_secs(1);
    /// Lines of one finding of `weft check`; the rest is a number.
    CHECK_LINES: count = 40;
    /// A file of objects that is read.
    OBJECT_FILE: bytes = 16 << 20;
    /// The log of a sandbox's container; it begins anew when it is full.
    SANDBOX_LOG: bytes = 64 << 20;
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_limit_is_set_and_finite_and_says_what_it_bounds() {
        let all = super::all();
        assert!(all.len() > 50);
        for (name, value, about) in all {
            let number: String = value.chars().take_while(char::is_ascii_digit).collect();
            let number: u64 = number.parse().unwrap_or_else(|_| panic!("{name} = {value}"));
            assert!(number > 0, "{name} is not set");
            assert!(number < u64::from(u32::MAX), "{name} is as good as infinite");
            assert!(
                about.ends_with('.') && about.len() > 15,
                "{name} does not say what it bounds"
            );
        }
    }
}
