//! gRPC calls: `/package.Service/Method`.

use super::{Refusal, Seen, text::TextTest};
use crate::{ask::HttpView, rule::GrpcMatch};

/// A compiled [`GrpcMatch`].
#[derive(Debug)]
pub(crate) struct GrpcTest {
    pub(crate) service: Option<TextTest>,
    pub(crate) method: Option<TextTest>,
}

impl GrpcTest {
    pub(crate) fn new(grpc: Option<&GrpcMatch>) -> Result<Self, String> {
        let test = |text| TextTest::new(text);
        Ok(GrpcTest {
            service: grpc.and_then(|grpc| grpc.service.as_ref()).map(test).transpose()?,
            method: grpc.and_then(|grpc| grpc.method.as_ref()).map(test).transpose()?,
        })
    }

    pub(crate) fn refusal(&self, seen: &Seen<'_>) -> Option<Refusal> {
        if !seen.is_grpc {
            return Some(Refusal::NotGrpc);
        }
        let Some((service, method)) = call(seen.path) else {
            let wants = self.service.is_some() || self.method.is_some();
            return wants.then_some(Refusal::GrpcService);
        };
        if self.service.as_ref().is_some_and(|test| !test.holds(service)) {
            return Some(Refusal::GrpcService);
        }
        self.method
            .as_ref()
            .is_some_and(|test| !test.holds(method))
            .then_some(Refusal::GrpcMethod)
    }
}

/// Service and method of a call's path. The method is the last segment, so that a service may have slashes in it.
pub(crate) fn call(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_prefix(b"/")?;
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// "If 'Content-Type' does not begin with 'application/grpc', gRPC servers SHOULD respond with HTTP status of 415":
/// what begins so is a call (gRPC over HTTP/2, Requests).
pub(crate) fn is_grpc(view: &dyn HttpView) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let mut found = false;
    view.each_header("content-type", &mut |value| {
        found |= value
            .get(..TYPE.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(TYPE));
    });
    found
}
