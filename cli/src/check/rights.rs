//! What weft's ServiceAccounts need, read from the roles that `weft install` prints, and what they must not have.

use crate::install;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use std::fmt;

/// One thing that a ServiceAccount of weft does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The ServiceAccount's name.
    pub account: String,
    /// As `list`.
    pub verb: String,
    /// API group.
    pub group: String,
    /// As `pods`.
    pub resource: String,
    /// Of one object only.
    pub name: Option<String>,
    /// In one namespace only.
    pub namespace: Option<String>,
    /// Whether it is needed; otherwise it must not be there.
    pub needed: bool,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb, group, resource, ..
        } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))?;
        self.namespace
            .as_ref()
            .map_or(Ok(()), |namespace| write!(f, " in {namespace}"))
    }
}

/// All of them. Roles and ServiceAccounts have the same names.
pub fn all() -> Vec<Right> {
    let mut rights = Vec::new();
    for object in install::system().unwrap_or_default() {
        let (name, namespace, rules) = match object["kind"].as_str() {
            Some("ClusterRole") => match serde_json::from_value::<ClusterRole>(object) {
                Ok(role) => (role.metadata.name, None, role.rules),
                Err(_) => continue,
            },
            Some("Role") => match serde_json::from_value::<Role>(object) {
                Ok(role) => (role.metadata.name, role.metadata.namespace, role.rules),
                Err(_) => continue,
            },
            _ => continue,
        };
        let account = name.unwrap_or_default();
        if namespace.is_none() {
            rights.push(Right {
                account: account.clone(),
                verb: "list".into(),
                group: String::new(),
                resource: "secrets".into(),
                name: None,
                namespace: None,
                needed: false,
            });
        }
        rules
            .iter()
            .flatten()
            .for_each(|rule| expand(rule, &account, namespace.as_deref(), &mut rights));
    }
    rights
}

fn expand(rule: &PolicyRule, account: &str, namespace: Option<&str>, rights: &mut Vec<Right>) {
    let names: Vec<Option<String>> = match &rule.resource_names {
        Some(names) => names.iter().cloned().map(Some).collect(),
        None => vec![None],
    };
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for name in &names {
                rights.extend(rule.verbs.iter().map(|verb| Right {
                    account: account.into(),
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    namespace: namespace.map(Into::into),
                    needed: true,
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_roles_and_no_account_may_list_secrets() {
        let all = all();
        let words = |account: &str| -> Vec<String> {
            all.iter()
                .filter(|right| right.account == account && right.needed)
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            words("weft-identity"),
            [
                "create tokenreviews.authentication.k8s.io",
                "get secrets/weft-ca in weft-system",
                "list secrets/weft-ca in weft-system",
                "watch secrets/weft-ca in weft-system",
                "update secrets/weft-ca in weft-system",
                "get configmaps/weft-trust in weft-system",
                "list configmaps/weft-trust in weft-system",
                "watch configmaps/weft-trust in weft-system",
                "update configmaps/weft-trust in weft-system",
                "create secrets in weft-system",
                "create configmaps in weft-system",
            ]
        );
        assert!(words("weft-routes").contains(&"watch endpointslices.discovery.k8s.io".to_owned()));
        let of_secrets: Vec<_> = words("weft-routes")
            .into_iter()
            .filter(|right| right.contains("secrets"))
            .collect();
        assert_eq!(
            of_secrets,
            [
                "get secrets",
                "get secrets/weft-session-keys in weft-system",
                "list secrets/weft-session-keys in weft-system",
                "watch secrets/weft-session-keys in weft-system",
                "update secrets/weft-session-keys in weft-system",
                "create secrets in weft-system",
            ]
        );
        let forbidden: Vec<_> = all
            .iter()
            .filter(|right| !right.needed)
            .map(|right| right.account.as_str())
            .collect();
        assert_eq!(forbidden, ["weft-routes", "weft-identity", "weft-injector"]);
    }
}
