//! The protocol from the first bytes of a connection, as soon as it is certain and no later. Nothing is consumed.

/// What a client's first bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// They may still become several things.
    Partial,
    /// An HTTP/1 request line, up to ` HTTP/1.`.
    Http1,
    /// The HTTP/2 connection preface.
    H2Preface,
    /// A TLS record with a ClientHello.
    Tls,
    /// Nothing that weft parses.
    Opaque,
}

/// What a server's first bytes are, when it speaks before its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// They may still become several things.
    Partial,
    /// An HTTP/2 SETTINGS frame.
    H2Settings,
    /// An HTTP/1 status line.
    Http1Status,
    /// A TLS record.
    Tls,
    /// Nothing that weft parses.
    Opaque,
}

/// RFC 9110 5.6.2 tchar.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Looks at a client's first bytes.
pub fn client(bytes: &[u8]) -> Client {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if bytes.starts_with(PREFACE) {
        return Client::H2Preface;
    }
    if PREFACE.starts_with(bytes) {
        return Client::Partial;
    }
    Client::Http1
}

/// Looks at a server's first bytes.
pub fn server(bytes: &[u8]) -> Server {
    const STATUS: &[u8] = b"HTTP/1.";
    if bytes.starts_with(STATUS) {
        Server::Http1Status
    } else {
        Server::Opaque
    }
}
