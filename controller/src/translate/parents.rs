//! What routes attach to: Services, Gateways and ListenerSets.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Problem, Reason, port_number};
use crate::{
    cluster::{read::Mistakes, types::ObjectKey},
    objects::{GATEWAY_GROUP, ParentRef},
};

/// What a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The object.
    pub target: Target,
    /// Only the Service's port or the listeners with this number.
    pub port: Option<u16>,
    /// Only the Service's port or the listener with this name.
    pub section: Option<Arc<str>>,
    /// The reference says the namespace, though it may be the route's own.
    pub says_namespace: bool,
}

/// An object that routes attach to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A Service. Of another namespace: for the clients of the route's own namespace alone (GEP-1294, consumer routes).
    Service(ObjectKey),
    /// A Gateway.
    Gateway(ObjectKey),
    /// A ListenerSet.
    ListenerSet(ObjectKey),
    /// Someone else's kind.
    Other,
}

impl Parent {
    /// The reference as it stands in the object, which is how a status names it.
    pub fn reference(&self) -> Value {
        let (group, kind, object) = match &self.target {
            Target::Service(object) => ("", "Service", object),
            Target::Gateway(object) => (GATEWAY_GROUP, "Gateway", object),
            Target::ListenerSet(object) => (GATEWAY_GROUP, "ListenerSet", object),
            Target::Other => return Value::Null,
        };
        let mut reference = Map::new();
        let mut set = |name: &str, value: Value| drop(reference.insert(name.into(), value));
        set("group", group.into());
        set("kind", kind.into());
        if self.says_namespace {
            set("namespace", (*object.namespace).into());
        }
        set("name", (*object.name).into());
        if let Some(section) = &self.section {
            set("sectionName", (**section).into());
        }
        if let Some(port) = self.port {
            set("port", port.into());
        }
        Value::Object(reference)
    }
}

/// Reads what a route of `namespace` attaches to: one for each reference, in their order.
pub(super) fn parents(
    given: &[ParentRef],
    namespace: &str,
    problems: &mut Vec<Problem>,
    mistakes: &mut Mistakes,
) -> Vec<Parent> {
    let one = |(index, parent): (usize, &ParentRef)| {
        if parent.kind == "Service" && !parent.group.is_empty() {
            problems.push(Problem {
                reason: Reason::UnsupportedValue,
                message: format!(
                    "spec.parentRefs[{index}] is of group '{}'; a Service needs group: \"\"",
                    parent.group
                ),
            });
        }
        let at = format!("spec.parentRefs[{index}]");
        let object = || ObjectKey::new(parent.namespace.as_deref().unwrap_or(namespace), &parent.name);
        let target = match (parent.group.as_str(), parent.kind.as_str()) {
            ("", "Service") => Target::Service(object()),
            (GATEWAY_GROUP, "Gateway") => Target::Gateway(object()),
            (GATEWAY_GROUP, "ListenerSet") => Target::ListenerSet(object()),
            _ => Target::Other,
        };
        Parent {
            target,
            port: parent.port.and_then(|number| port_number(number, &at, mistakes)),
            section: parent
                .section_name
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(Into::into),
            says_namespace: parent.namespace.is_some(),
        }
    };
    given.iter().enumerate().map(one).collect()
}
