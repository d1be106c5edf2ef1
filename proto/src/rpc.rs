//! Messages, clients and servers of discovery and identity, generated from `proto/*.proto` and checked in, so that a
//! build needs no `protoc`. Never edited by hand: `tests/generated.rs` compares, and says how to regenerate.

/// How a proxy learns what it needs: `weft.discovery.v1`.
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod discovery;
/// How a proxy gets its certificate: `weft.identity.v1`.
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod identity;

impl std::fmt::Debug for discovery::Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for discovery::SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
