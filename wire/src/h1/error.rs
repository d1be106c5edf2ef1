//! Why a message is refused, and what a request's sender is told.

/// A message that is not forwarded. The texts hold nothing that the peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The first line of a request.
    #[error("the request line is not: method, one blank, target, one blank, HTTP/1.0 or HTTP/1.1")]
    RequestLine,
    /// The first line of a response.
    #[error("the status line is not: HTTP/1.0 or HTTP/1.1, one blank, three digits from 100 on, reason")]
    StatusLine,
    /// `HTTP/2.0` and others as text.
    #[error("this HTTP version is not spoken here; 1.0 and 1.1 are, and 2 by its own preface")]
    Version,
    /// LF without CR, or CR without LF.
    #[error("a line of the head does not end in CR LF")]
    Newline,
    /// obs-fold (RFC 9112 5.2).
    #[error("a field is folded over two lines")]
    Fold,
    /// Empty name, blank before the colon, no colon, or a byte that no name may have.
    #[error("a field's name is empty or has a byte that names cannot have (a blank before the colon?)")]
    FieldName,
    /// NUL or another control byte.
    #[error("a field's value has a control byte")]
    FieldValue,
    /// More than `limits::FIELDS`.
    #[error("the head has too many fields")]
    TooManyFields,
    /// More than `limits::HEAD`.
    #[error("the head is too long")]
    HeadTooLong,
    /// The request line alone is longer than `limits::HEAD`.
    #[error("the target is too long")]
    TargetTooLong,
    /// A target in none of the four forms of RFC 9112 3.2, or in one that this method does not have.
    #[error("the target is not a path from /, an absolute URI, * for OPTIONS, or host:port for CONNECT")]
    Target,
    /// HTTP/1.1 without `Host` (RFC 9112 3.2), or HTTP/2 without any authority.
    #[error("an HTTP/1.1 request has no Host field")]
    NoHost,
    /// More than one `Host`.
    #[error("a request has more than one Host field")]
    TwoHosts,
    /// A host with userinfo, blanks, a wrong port, or bytes that no host has.
    #[error("the host is not a name or an address with an optional port")]
    Host,
    /// The target's authority and `Host` name different hosts (RFC 9112 3.2.2).
    #[error("the target's host and the Host field differ")]
    HostsDiffer,
    /// Anything but one plain decimal number.
    #[error("Content-Length is not one plain decimal number")]
    Length,
    /// Two `Content-Length` fields, equal or not.
    #[error("a message has more than one Content-Length field")]
    TwoLengths,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("a message has both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// Anything but `chunked`, once.
    #[error("Transfer-Encoding is not exactly chunked, once")]
    Encoding,
    /// `gzip, chunked` and the like: well formed, never used, not spoken.
    #[error("this transfer coding is not spoken here; only chunked is")]
    EncodingUnknown,
    /// `Transfer-Encoding` in HTTP/1.0.
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    EncodingInHttp10,
    /// An `Upgrade` that is no token, or a longer one than `limits::UPGRADE_TOKEN`.
    #[error("the Upgrade field is not a list of protocol names")]
    Upgrade,
    /// A connection-specific field in HTTP/2 (RFC 9113 8.2.2).
    #[error("an HTTP/2 request has a field that only HTTP/1 connections have")]
    ConnectionField,
    /// A chunk's line.
    #[error("a chunk does not begin with its size in hexadecimal digits and CR LF")]
    ChunkSize,
    /// A chunk's size that no 64-bit number holds.
    #[error("a chunk's size is too big")]
    ChunkTooBig,
    /// More than `limits::CHUNK_EXTENSIONS` in one message, or a control byte in one.
    #[error("a chunk's extension is too long or has a control byte")]
    ChunkExtension,
    /// No CR LF after a chunk's data.
    #[error("a chunk's data does not end in CR LF")]
    ChunkEnd,
    /// More than `limits::TRAILERS`.
    #[error("the trailers are too long")]
    TrailersTooLong,
    /// `Content-Length` or `Transfer-Encoding` after the body.
    #[error("the trailers have a field for framing")]
    TrailerFraming,
}

impl Refused {
    /// The status to answer a request with, before its connection is closed. For a response: answer 502.
    pub fn status(self) -> u16 {
        match self {
            Refused::TargetTooLong => 414,
            Refused::HeadTooLong | Refused::TooManyFields | Refused::TrailersTooLong => 431,
            Refused::EncodingUnknown => 501,
            Refused::Version => 505,
            _ => 400,
        }
    }

    /// A stable word for metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Refused::RequestLine => "request_line",
            Refused::StatusLine => "status_line",
            Refused::Version => "version",
            Refused::Newline => "newline",
            Refused::Fold => "fold",
            Refused::FieldName => "field_name",
            Refused::FieldValue => "field_value",
            Refused::TooManyFields => "too_many_fields",
            Refused::HeadTooLong => "head_too_long",
            Refused::TargetTooLong => "target_too_long",
            Refused::Target => "target",
            Refused::NoHost => "no_host",
            Refused::TwoHosts => "two_hosts",
            Refused::Host => "host",
            Refused::HostsDiffer => "hosts_differ",
            Refused::Length => "content_length",
            Refused::TwoLengths => "two_content_lengths",
            Refused::LengthAndEncoding => "length_and_encoding",
            Refused::Encoding => "transfer_encoding",
            Refused::EncodingUnknown => "transfer_encoding_unknown",
            Refused::EncodingInHttp10 => "transfer_encoding_in_http10",
            Refused::Upgrade => "upgrade",
            Refused::ConnectionField => "connection_field",
            Refused::ChunkSize => "chunk_size",
            Refused::ChunkTooBig => "chunk_too_big",
            Refused::ChunkExtension => "chunk_extension",
            Refused::ChunkEnd => "chunk_end",
            Refused::TrailersTooLong => "trailers_too_long",
            Refused::TrailerFraming => "trailer_framing",
        }
    }
}
