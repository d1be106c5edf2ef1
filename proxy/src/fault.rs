//! What went wrong, at which stage, whose doing it was, and whether the same may be tried again.
//!
//! A fault is made where it happens. [`Reason`] is a closed list: it gives the metric's label, the text of the
//! `weft-error` field, the HTTP status and the gRPC code, so that all of them always agree. How a client is told is
//! `respond.rs`' matter.

use std::{error::Error, fmt, io};

/// The stages of the one path, in order. The name is the file's, the span's and the label's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Listeners.
    Accept,
    /// Where the client meant to go.
    OriginalDst,
    /// The first bytes.
    Detect,
    /// TLS that is addressed to weft.
    Terminate,
    /// The decision.
    Route,
    /// Whether the peer may.
    Authorize,
    /// Which pod.
    Endpoint,
    /// The connection to it.
    Hop,
    /// Requests, bodies, bytes.
    Relay,
}

impl Stage {
    /// The stage's name, as in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::OriginalDst => "original_dst",
            Self::Detect => "detect",
            Self::Terminate => "terminate",
            Self::Route => "route",
            Self::Authorize => "authorize",
            Self::Endpoint => "endpoint",
            Self::Hop => "hop",
            Self::Relay => "relay",
        }
    }
}

/// Whose doing a fault was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client's.
    Client,
    /// Weft's or its configuration's.
    Us,
    /// The server's, or of what stands in front of it.
    Server,
}

impl Blame {
    /// The name, as in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Us => "weft",
            Self::Server => "server",
        }
    }
}

/// Whether weft itself may try again at another endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Certainly nothing was processed: no byte was sent, REFUSED_STREAM, or a GOAWAY below the stream.
    IfNothingSent,
    /// Something may have been processed.
    Never,
}

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $label:literal, $status:literal, $grpc:ident, $stage:ident, $blame:ident, $text:literal; )+) => {
        /// Why. A closed list: its labels are the only ones that metrics know.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( $(#[doc = $doc])+ $name, )+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$( Self::$name, )+];

            /// The label in metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $( Self::$name => $label, )+ }
            }

            /// The text of the `weft-error` field: what failed.
            pub fn text(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }

            /// The status with which an HTTP request is answered.
            pub fn status(self) -> u16 {
                match self { $( Self::$name => $status, )+ }
            }

            /// The code with which a gRPC call is answered.
            pub fn grpc(self) -> GrpcCode {
                match self { $( Self::$name => GrpcCode::$grpc, )+ }
            }

            /// The stage at which it happens, unless said otherwise.
            pub fn stage(self) -> Stage {
                match self { $( Self::$name => Stage::$stage, )+ }
            }

            /// Whose doing it is, unless said otherwise.
            pub fn blame(self) -> Blame {
                match self { $( Self::$name => Blame::$blame, )+ }
            }
        }
    };
}

/// gRPC's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GrpcCode {
    /// 1
    Cancelled = 1,
    /// 2
    Unknown = 2,
    /// 4
    DeadlineExceeded = 4,
    /// 7
    PermissionDenied = 7,
    /// 8
    ResourceExhausted = 8,
    /// 12
    Unimplemented = 12,
    /// 13
    Internal = 13,
    /// 14
    Unavailable = 14,
    /// 16
    Unauthenticated = 16,
}

reasons! {
    /// The proxy holds as many connections as it may.
    ConnectionLimit = "connection_limit", 503, Unavailable, Accept, Us, "too many connections";
    /// The kernel does not tell where the client meant to go.
    NoOriginalDestination = "no_original_destination", 502, Unavailable, OriginalDst, Us, "no original destination";
    /// The connection came from the proxy itself, or would go to it.
    Loop = "loop", 508, Unavailable, OriginalDst, Us, "the connection leads back to the proxy";

    /// The client said nothing and closed.
    ClientSilent = "client_silent", 400, Cancelled, Detect, Client, "the client closed without a word";
    /// A ClientHello that is no ClientHello, or too long.
    BadHello = "bad_hello", 400, Internal, Detect, Client, "malformed or oversized ClientHello";
    /// The first bytes did not come in time.
    DetectTimeout = "detect_timeout", 408, DeadlineExceeded, Detect, Client, "the first bytes did not come in time";
    /// The client broke off while the protocol was looked for.
    DetectClosed = "detect_closed", 400, Cancelled, Detect, Client, "the client broke off";

    /// The handshake with the client failed.
    ClientTls = "client_tls", 400, Unauthenticated, Terminate, Client, "the TLS handshake with the client failed";
    /// The handshake with the client took too long.
    ClientTlsTimeout = "client_tls_timeout", 408, DeadlineExceeded, Terminate, Client, "the TLS handshake with the client took too long";
    /// No listener of the port takes the name that TLS asks for.
    UnknownServerName = "unknown_server_name", 421, Unauthenticated, Terminate, Client, "no listener takes this server name";
    /// The listener has no certificate, or a client validation, that can be used.
    ListenerRefused = "listener_refused", 503, Unavailable, Terminate, Us, "the listener's TLS configuration cannot be used";
    /// TLS on a port for HTTP in the clear.
    NotHttp = "not_http", 400, Unavailable, Detect, Client, "the port takes HTTP, and the client speaks TLS";
    /// Anything but TLS on a port for TLS.
    NotTls = "not_tls", 400, Unavailable, Detect, Client, "the port takes TLS, and the client does not speak it";
    /// There is no certificate of our own yet, or it has expired.
    NoCertificate = "no_certificate", 503, Unavailable, Terminate, Us, "the proxy has no valid certificate";

    /// A head that is not HTTP, or that two readers could frame differently.
    BadRequest = "bad_request", 400, Internal, Route, Client, "malformed request";
    /// A head that is too large.
    HeadTooLarge = "head_too_large", 431, ResourceExhausted, Route, Client, "the request's head is too large";
    /// A request line that is too large.
    TargetTooLarge = "target_too_large", 414, ResourceExhausted, Route, Client, "the request's target is too large";
    /// A head that did not come in time.
    HeadTimeout = "head_timeout", 408, DeadlineExceeded, Route, Client, "the request's head did not come in time";
    /// A version of HTTP that weft does not speak.
    HttpVersion = "http_version", 505, Unimplemented, Route, Client, "HTTP version not supported";
    /// A field that is allowed inside the mesh only, or a field of weft's own with a bad value.
    BadMeshField = "bad_mesh_field", 400, Internal, Route, Client, "a weft field has a bad value";
    /// No listener of the gateway's port takes the request's host.
    NoListener = "no_listener", 404, Unimplemented, Route, Client, "no listener takes this host";
    /// The request is for another listener than the one that its connection's TLS was made with (RFC 9110 15.5.20).
    Misdirected = "misdirected", 421, Unavailable, Route, Client, "the host is another listener's than the connection";
    /// A client's own CONNECT at a gateway.
    NoForwardProxy = "no_forward_proxy", 501, Unimplemented, Authorize, Client, "a gateway does not take CONNECT";
    /// There are rules, and none takes the request.
    NoRule = "no_rule", 404, Unimplemented, Route, Client, "no rule matches the request";
    /// The rule names a backend that is not valid.
    InvalidBackend = "invalid_backend", 500, Unavailable, Route, Us, "the rule names a backend that is not valid";
    /// A policy of the backend cannot be used, and nothing is sent without it.
    BackendRefused = "backend_refused", 502, Unavailable, Route, Us, "the backend has a policy that cannot be used";
    /// An edit of the rule makes a request that cannot be sent.
    BadEdit = "bad_edit", 500, Internal, Route, Us, "a filter of the rule makes an invalid request";
    /// An address of the cluster that nothing has.
    UnknownDestination = "unknown_destination", 502, Unavailable, Route, Us, "nothing in the cluster has this address";
    /// The controller did not say in time what an address of the cluster is.
    DiscoveryTimeout = "discovery_timeout", 503, Unavailable, Route, Us, "the controller did not answer in time about this address";

    /// Plaintext where mTLS is demanded.
    PlaintextRefused = "plaintext_refused", 403, PermissionDenied, Authorize, Client, "plaintext is refused (mtls strict)";
    /// The peer may not have this.
    NotAllowed = "not_allowed", 403, PermissionDenied, Authorize, Client, "the peer may not have this";
    /// A CONNECT whose authority is not the connection's destination.
    ForeignAuthority = "foreign_authority", 403, PermissionDenied, Authorize, Client, "the CONNECT names another destination";

    /// No endpoint is there.
    NoEndpoint = "no_endpoint", 503, Unavailable, Endpoint, Server, "no endpoint is available";
    /// Too many wait for the endpoint.
    TooManyWaiting = "too_many_waiting", 503, ResourceExhausted, Endpoint, Us, "too many requests wait for the endpoint";

    /// The server refused the connection.
    ConnectRefused = "connect_refused", 503, Unavailable, Hop, Server, "connection refused";
    /// The server's address cannot be reached.
    Unreachable = "unreachable", 503, Unavailable, Hop, Server, "the server cannot be reached";
    /// No connection within the time.
    ConnectTimeout = "connect_timeout", 504, Unavailable, Hop, Server, "the connection took too long";
    /// The handshake with the server failed.
    ServerTls = "server_tls", 502, Unavailable, Hop, Server, "the TLS handshake with the server failed";
    /// The certificate of the application's own server does not hold: its root, its names or its time.
    ServerCertificate = "server_certificate", 502, Unavailable, Hop, Server, "the server's certificate is not valid for it";
    /// The server speaks no protocol that the backend's policy offers.
    ServerAlpn = "server_alpn", 502, Unavailable, Hop, Server, "the server speaks none of the protocols that are offered";
    /// The server's certificate is for another identity than the expected one.
    ServerIdentity = "server_identity", 502, Unavailable, Hop, Server, "the server has another identity than expected";
    /// The server's HTTP/2 handshake failed.
    ServerHandshake = "server_handshake", 502, Unavailable, Hop, Server, "the HTTP/2 handshake with the server failed";
    /// The server did not offer RFC 8441.
    NoExtendedConnect = "no_extended_connect", 502, Unimplemented, Hop, Server, "the server does not take extended CONNECT";
    /// The hop's connection ended before the request was processed.
    HopGone = "hop_gone", 503, Unavailable, Hop, Server, "the connection to the server ended";
    /// The server refused the stream, before it did anything with it.
    StreamRefused = "stream_refused", 503, Unavailable, Hop, Server, "the server refused the stream";

    /// The rule's time for the request has passed.
    RequestTimeout = "request_timeout", 504, DeadlineExceeded, Relay, Server, "the request took longer than the rule allows";
    /// The rule's time for one attempt has passed.
    BackendTimeout = "backend_timeout", 504, DeadlineExceeded, Relay, Server, "the backend took longer than the rule allows";
    /// Every attempt that the rule allows failed before an answer.
    RetriesFailed = "retries_failed", 503, Unavailable, Relay, Server, "every attempt that the rule allows has failed";
    /// The client went away.
    ClientGone = "client_gone", 499, Cancelled, Relay, Client, "the client went away";
    /// The client's body is malformed, or not as long as it said.
    BadRequestBody = "bad_request_body", 400, Internal, Relay, Client, "malformed request body";
    /// The client's body stopped.
    RequestBodyIdle = "request_body_idle", 408, DeadlineExceeded, Relay, Client, "the request's body stopped";
    /// The server closed without an answer.
    ServerGone = "server_gone", 502, Unavailable, Relay, Server, "the server closed without an answer";
    /// The server's answer is not HTTP.
    BadResponse = "bad_response", 502, Internal, Relay, Server, "malformed response";
    /// The server's answer broke off.
    ResponseCut = "response_cut", 502, Unavailable, Relay, Server, "the response broke off";
    /// The server answered 101 without being asked, or with another token.
    BadUpgrade = "bad_upgrade", 502, Internal, Relay, Server, "the server switched to a protocol that was not asked for";
    /// The server reset the stream.
    ServerReset = "server_reset", 502, Unavailable, Relay, Server, "the server reset the stream";
    /// Nothing went through the tunnel for too long.
    Idle = "idle", 504, DeadlineExceeded, Relay, Client, "idle for too long";
    /// The drain's time has passed.
    Drained = "drained", 503, Unavailable, Relay, Us, "the proxy is shutting down";
    /// A connection was given up in the middle.
    Abandoned = "abandoned", 499, Cancelled, Relay, Client, "given up in the middle";
    /// A mistake of weft's.
    Internal = "internal", 500, Internal, Relay, Us, "internal error";
}

/// Something went wrong.
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// Whose doing.
    pub blame: Blame,
    /// Why.
    pub reason: Reason,
    /// Whether it may be tried again.
    pub replay: Replay,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault at the reason's own stage, by the reason's usual culprit, not to be tried again.
    pub fn new(reason: Reason) -> Self {
        Self {
            stage: reason.stage(),
            blame: reason.blame(),
            reason,
            replay: Replay::Never,
            source: None,
        }
    }

    /// The same with the error that caused it.
    pub fn because(reason: Reason, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(reason)
        }
    }

    /// Says that certainly nothing was processed, so that another endpoint may be tried.
    pub fn replayable(self) -> Self {
        Self {
            replay: Replay::IfNothingSent,
            ..self
        }
    }

    /// The same fault, blamed on someone else.
    pub fn blaming(self, blame: Blame) -> Self {
        Self { blame, ..self }
    }

    /// A dial that failed. Nothing was sent, so that another endpoint may be tried.
    pub fn dial(error: io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reason::ConnectRefused,
            io::ErrorKind::TimedOut => Reason::ConnectTimeout,
            _ => Reason::Unreachable,
        };
        Self::because(reason, error).replayable()
    }

    /// What caused it, without the reason's own words; empty where nothing is known of it.
    pub fn cause(&self) -> String {
        self.source.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Whether another endpoint may be tried.
    pub fn may_replay(&self) -> bool {
        self.replay == Replay::IfNothingSent
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.reason.text())?;
        if let Some(source) = &self.source {
            write!(out, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} at {} by {}: {self}",
            self.reason.label(),
            self.stage.name(),
            self.blame.name()
        )
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_label_and_a_text_of_its_own() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        let texts: HashSet<_> = Reason::ALL.iter().map(|reason| reason.text()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert_eq!(texts.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(
                reason
                    .label()
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{reason:?}"
            );
            assert!((400..600).contains(&reason.status()), "{reason:?}");
        }
    }

    #[test]
    fn only_a_failed_dial_may_be_tried_elsewhere_of_itself() {
        assert!(Fault::dial(io::ErrorKind::ConnectionRefused.into()).may_replay());
        assert!(!Fault::new(Reason::ServerGone).may_replay());
    }
}
