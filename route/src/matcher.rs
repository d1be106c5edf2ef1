//! The conditions of one match, compiled: each file compares one part of a request.

pub(crate) mod header;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod grpc;
pub(crate) mod text;

use std::{fmt, sync::Arc};

use crate::{Host, ask::HttpView};

/// A request as rules see it: read once, compared many times.
pub(crate) struct Seen<'a> {
    pub(crate) view: &'a dyn HttpView,
    /// In canonical form.
    pub(crate) path: &'a [u8],
    pub(crate) query: &'a [u8],
    /// Set where rules look at it.
    pub(crate) host: Option<&'a Host<'a>>,
    /// Its content is gRPC's.
    pub(crate) is_grpc: bool,
}

/// All of these must hold.
#[derive(Debug)]
pub(crate) struct Conditions {
    pub(crate) path: path::PathTest,
    pub(crate) method: Option<Arc<str>>,
    pub(crate) headers: Box<[header::HeaderTest]>,
    pub(crate) query: Box<[query::QueryTest]>,
    /// Set for every match of a GRPCRoute, which takes gRPC calls only.
    pub(crate) grpc: Option<grpc::GrpcTest>,
}

/// The first condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The host is another one.
    Host,
    /// The server name of the ClientHello is another one, or there is none.
    ServerName,
    /// The path is another one.
    Path,
    /// The method is another one.
    Method,
    /// This header field is absent or has another value.
    Header(Arc<str>),
    /// This query parameter is absent or has another value.
    Query(Arc<str>),
    /// It is not a gRPC call.
    NotGrpc,
    /// The gRPC service is another one.
    GrpcService,
    /// The gRPC method is another one.
    GrpcMethod,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Host => f.write_str("host"),
            Refusal::ServerName => f.write_str("server name"),
            Refusal::Path => f.write_str("path"),
            Refusal::Method => f.write_str("method"),
            Refusal::Header(name) => write!(f, "header {name}"),
            Refusal::Query(name) => write!(f, "query {name}"),
            Refusal::NotGrpc => f.write_str("not gRPC"),
            Refusal::GrpcService => f.write_str("gRPC service"),
            Refusal::GrpcMethod => f.write_str("gRPC method"),
        }
    }
}

impl Conditions {
    /// `None`: all hold. The path is compared apart, since the table's index knows it.
    pub(crate) fn refusal(&self, seen: &Seen<'_>) -> Option<Refusal> {
        if let Some(grpc) = &self.grpc
            && let Some(refusal) = grpc.refusal(seen)
        {
            return Some(refusal);
        }
        // Methods are case-sensitive (RFC 9110 9.1).
        if self
            .method
            .as_deref()
            .is_some_and(|method| method != seen.view.method())
        {
            return Some(Refusal::Method);
        }
        if let Some(header) = self.headers.iter().find(|header| !header.holds(seen.view)) {
            return Some(Refusal::Header(header.name.clone()));
        }
        let query = self.query.iter().find(|query| !query.holds(seen.query));
        query.map(|query| Refusal::Query(query.name.clone()))
    }
}
