//! What is asked of a table: one request or one connection, seen without copying it.

use http::header::HOST;

/// What a decision is wanted for.
#[derive(Clone, Copy)]
pub enum Ask<'a> {
    /// A request.
    Http(&'a dyn HttpView),
    /// A connection whose TLS is not weft's to end.
    Tls {
        /// Server name in its ClientHello.
        sni: Option<&'a str>,
    },
    /// A connection of bytes that nobody parses.
    Tcp,
}

/// A request's head, as much of it as rules may look at.
pub trait HttpView {
    /// The method, as the client means it: of an extended CONNECT (RFC 8441), the one of the Upgrade that it stands for.
    fn method(&self) -> &str;

    /// Path and query as sent, `/path?query`; `*` for `OPTIONS *`; empty for a client's own CONNECT.
    fn target(&self) -> &[u8];

    /// `:authority`, or the `Host` field, or the authority of an absolute-form target: the one that weft holds for
    /// true (RFC 9112 3.2.2), with its port as sent.
    fn host(&self) -> Option<&[u8]>;

    /// Calls `visit` with the value of each field of this lower-case name, in their order. `host` is never asked for:
    /// [`HttpView::host`] answers that.
    fn each_header<'v>(&'v self, name: &str, visit: &mut dyn FnMut(&'v [u8]));
}

impl<B> HttpView for http::Request<B> {
    fn method(&self) -> &str {
        http::Request::method(self).as_str()
    }

    fn target(&self) -> &[u8] {
        target_of(self.uri())
    }

    fn host(&self) -> Option<&[u8]> {
        host_of(self.uri(), self.headers())
    }

    fn each_header<'v>(&'v self, name: &str, visit: &mut dyn FnMut(&'v [u8])) {
        self.headers()
            .get_all(name)
            .iter()
            .for_each(|value| visit(value.as_bytes()));
    }
}

impl HttpView for http::request::Parts {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn target(&self) -> &[u8] {
        target_of(&self.uri)
    }

    fn host(&self) -> Option<&[u8]> {
        host_of(&self.uri, &self.headers)
    }

    fn each_header<'v>(&'v self, name: &str, visit: &mut dyn FnMut(&'v [u8])) {
        self.headers
            .get_all(name)
            .iter()
            .for_each(|value| visit(value.as_bytes()));
    }
}

fn target_of(uri: &http::Uri) -> &[u8] {
    uri.path_and_query().map_or(b"", |both| both.as_str().as_bytes())
}

fn host_of<'a>(uri: &'a http::Uri, fields: &'a http::HeaderMap) -> Option<&'a [u8]> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => fields.get(HOST).map(|value| value.as_bytes()),
    }
}
