//! TLSRoute and TCPRoute → rules. A UDPRoute is read, so that its status can say that it does nothing.

use weft_route::rule::{self, Kind};

use super::{Given, Problem, Reason, Route, Rule, backends};
use crate::{
    cluster::{read::Mistakes, types::Kind as ObjectKind},
    objects::{L4RouteSpec, L4Rule, core::Meta},
};

/// Translates a TLSRoute, a TCPRoute or a UDPRoute. With it comes everything for which an API server would refuse it.
pub fn translate(kind: ObjectKind, metadata: &Meta, spec: &L4RouteSpec) -> Result<(Route, Mistakes), Mistakes> {
    let of_rules = match kind {
        ObjectKind::TlsRoute => Kind::TlsRoute,
        // What is made of a UDPRoute reaches nobody.
        _ => Kind::TcpRoute,
    };
    let hostnames = if kind == ObjectKind::TlsRoute {
        &spec.hostnames[..]
    } else {
        &[]
    };
    let given = Given {
        kind,
        metadata,
        parents: &spec.parent_refs,
        hostnames,
        default_gateways: spec.use_default_gateways.as_deref(),
    };
    let one = |given: &L4Rule, mut rule: Rule, at: &str, mistakes: &mut Mistakes| {
        backends::backends(of_rules, &given.backend_refs, at, &mut rule, mistakes);
        rule
    };
    let (mut route, mistakes) = super::route(given, of_rules, &spec.rules, |rule| &rule.name, one)?;
    if kind == ObjectKind::UdpRoute {
        route.refused = Some(Problem {
            reason: Reason::UnsupportedValue,
            message: "weft carries no UDP, at gateways and in pods: this route has no effect".into(),
        });
        // The references are still looked at.
        route
            .rules
            .iter_mut()
            .for_each(|rule| rule.rule = rule::Rule::new(rule.rule.origin.clone()));
    }
    Ok((route, mistakes))
}
