//! BackendTLSPolicy and ReferenceGrant, `gateway.networking.k8s.io/v1`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::LocalReference;

/// `spec` of a BackendTLSPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    /// The Services that it is about.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// How the servers' certificates are checked.
    pub validation: Validation,
    /// Of implementations.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What a policy is about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// `""` for a Service.
    #[serde(default)]
    pub group: String,
    /// `Service`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Of its ports the one with this name.
    pub section_name: Option<String>,
}

/// How servers' certificates are checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// ConfigMaps or Secrets with CAs.
    #[serde(default)]
    pub ca_certificate_refs: Vec<LocalReference>,
    /// `System`.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    /// SNI, and the name that the certificate must have.
    #[serde(default)]
    pub hostname: String,
    /// Names that the certificate must have instead.
    #[serde(default)]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A name in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAltName {
    /// `Hostname` or `URI`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For type Hostname.
    #[serde(default)]
    pub hostname: String,
    /// For type URI.
    #[serde(default)]
    pub uri: String,
}

/// `spec` of a ReferenceGrant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[serde(default)]
    pub from: Vec<GrantFrom>,
    /// To what.
    #[serde(default)]
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantFrom {
    /// Its API group.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// To what may be referred.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantTo {
    /// Its API group.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Absent or empty: every one.
    pub name: Option<String>,
}
