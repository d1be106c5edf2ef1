//! Gateways: which listeners they have, which routes attach to those, and all that they refer to. Pure, like all of the way from
//! objects to answers; [`crate::plan`] makes answers of it, [`crate::status`] what is said of the objects.

pub mod addresses;
pub mod attach;
pub mod backend_tls;
pub mod certificates;
pub mod hosts;
pub mod listeners;
pub mod objects;
pub mod references;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use weft_proto::names::gateway_api::CONTROLLER;

use crate::cluster::Cluster;
use objects::Gateway;

/// The most bytes of a name of a Service, which is a label of the DNS.
const NAME: usize = 63;

/// Name of the ServiceAccount, the Deployment and the Service of a Gateway: `NAME-weft`, and of a long name its first 50 bytes with a hash.
pub fn object_name(gateway: &str) -> String {
    let plain = format!("{gateway}-weft");
    // A Gateway's name may have dots, a Service's not.
    if plain.len() <= NAME && !gateway.contains('.') {
        return plain;
    }
    let hash: String = Sha256::digest(gateway)[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let cut: String = gateway
        .chars()
        .take(49)
        .map(|c| if c == '.' { '-' } else { c })
        .collect();
    format!("{}-{hash}-weft", cut.trim_end_matches('-'))
}

/// Whether a Gateway's class is one of weft's.
pub fn is_ours(cluster: &Cluster, gateway: &Gateway) -> bool {
    cluster
        .gateway_class_named(&gateway.spec.gateway_class_name)
        .is_some_and(|class| class.spec.controller_name == CONTROLLER)
}

/// The Gateways of weft's classes, in the order of their names.
pub fn ours(cluster: &Cluster) -> impl Iterator<Item = &Arc<Gateway>> {
    cluster.gateways().filter(|gateway| is_ours(cluster, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_s_objects_have_a_name_of_their_own_that_dns_takes() {
        assert_eq!(object_name("web"), "web-weft");
        let long = "a".repeat(253);
        let names = [&long[..59], &long[..58], &long, "a.b", "a-b"].map(object_name);
        for name in &names {
            assert!(
                name.len() <= 63 && !name.contains('.') && name.ends_with("-weft"),
                "{name}"
            );
        }
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
