//! May this peer have it? In strict mode what comes in without the mesh's identity is refused; the pod's own probes apart.

use crate::{
    app::Shared,
    fault::{Fault, Reason},
    record::Facts,
    role::Direction,
};

/// Whether the connection may go on.
pub fn connection(facts: &Facts, shared: &Shared) -> Result<(), Fault> {
    let plaintext_in = facts.direction == Direction::Inbound && !facts.mesh;
    if plaintext_in && shared.tables.workload().strict_mtls && !is_probe(facts, shared) {
        return Err(Fault::new(Reason::PlaintextRefused));
    }
    Ok(())
}

/// Whether this is one of the pod's own probes that were left as they are. `tcpSocket` probes never come here: the
/// injector sends them to weft's own port. The proxy is not told of the others, so that in strict mode none passes; this
/// is the place where they will.
fn is_probe(_facts: &Facts, _shared: &Shared) -> bool {
    false
}
