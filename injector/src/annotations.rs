//! The pod's annotations, typed. A string of the user's never goes further than this file (RELIABILITY T38): what is
//! written into arguments and environment is printed from numbers and address ranges.

use std::{collections::BTreeMap, str::FromStr};

use weft_proto::{
    names::label,
    skip::{BadEntry, Cidrs, Ports, Uids},
};

use crate::{context::Namespace, refuse::Refusals};

/// Bad entries of one list, and warnings about annotations, that are told; more are counted.
const TOLD: usize = 5;

/// What the redirects of this pod leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    /// `weft.dev/skip-inbound-ports`
    pub inbound_ports: Ports,
    /// `weft.dev/skip-outbound-ports`
    pub outbound_ports: Ports,
    /// `weft.dev/skip-outbound-cidrs`
    pub outbound_cidrs: Cidrs,
    /// `weft.dev/skip-uids`
    pub uids: Uids,
}

/// Whether the pod is strict by its own annotation, or by its namespace's label as far as that is known.
pub fn is_strict(annotations: Option<&BTreeMap<String, String>>, namespace: &Namespace) -> bool {
    let own = annotations.and_then(|annotations| annotations.get(label::MTLS));
    [own.map(String::as_str), namespace.mtls()].contains(&Some("strict"))
}

/// Reads the annotations, and gathers every mistake in them.
pub fn read(annotations: Option<&BTreeMap<String, String>>, namespace: &Namespace, refusals: &mut Refusals) -> Skips {
    let get = |key: &str| {
        annotations
            .and_then(|annotations| annotations.get(key))
            .map(String::as_str)
    };
    check_mtls(get(label::MTLS), namespace, refusals);
    let ports = "write it as 80,8000-8010";
    Skips {
        inbound_ports: list(
            label::SKIP_INBOUND_PORTS,
            get(label::SKIP_INBOUND_PORTS),
            ports,
            refusals,
        ),
        outbound_ports: list(
            label::SKIP_OUTBOUND_PORTS,
            get(label::SKIP_OUTBOUND_PORTS),
            ports,
            refusals,
        ),
        outbound_cidrs: list(
            label::SKIP_OUTBOUND_CIDRS,
            get(label::SKIP_OUTBOUND_CIDRS),
            "write it as 10.0.0.0/8,fd00::/8",
            refusals,
        ),
        uids: list(
            label::SKIP_UIDS,
            get(label::SKIP_UIDS),
            "write it as 1000,2000-2010",
            refusals,
        ),
    }
}

fn list<T>(key: &str, text: Option<&str>, fix: &str, refusals: &mut Refusals) -> T
where
    T: FromStr<Err = BadEntry> + Default,
{
    let Some(text) = text else { return T::default() };
    match text.parse() {
        Ok(list) => list,
        Err(first) => {
            // An empty entry, as in `80,`, is a mistake within a list only: then there is but the first.
            let mut bad = text.split(',').filter_map(|entry| entry.parse::<T>().err());
            let told: Vec<BadEntry> = bad.by_ref().take(TOLD).collect();
            let told = if told.is_empty() { vec![first] } else { told };
            refusals.pod(format!("annotation {key}: {}", together(&told, bad.count())), fix);
            T::default()
        }
    }
}

/// All of a list's mistakes in one sentence: they are of one kind.
fn together(told: &[BadEntry], more: usize) -> String {
    if let [one] = told {
        return one.to_string();
    }
    let expected = told.first().map(|entry| entry.expected).unwrap_or_default();
    let named: Vec<_> = told.iter().map(|bad| format!("'{}'", bad.entry)).collect();
    let more = if more > 0 {
        format!(" (and {more} more)")
    } else {
        String::new()
    };
    format!("none of {}{more} is {expected}", named.join(", "))
}

fn check_mtls(value: Option<&str>, namespace: &Namespace, refusals: &mut Refusals) {
    let key = label::MTLS;
    let known = |value: &str| value == "permissive" || value == "strict";
    if let Some(of_namespace) = namespace.mtls()
        && !known(of_namespace)
    {
        refusals.pod(
            format!(
                "label {key}={of_namespace} of namespace {} is neither permissive nor strict",
                namespace.name
            ),
            "label the namespace permissive or strict, or remove the label",
        );
    }
    match value {
        None => {}
        Some(value) if !known(value) => refusals.pod(
            format!("annotation {key}: '{value}' is neither permissive nor strict"),
            "write strict, or remove the annotation to take the namespace's mode",
        ),
        Some("permissive") if namespace.mtls() == Some("strict") => refusals.pod(
            format!(
                "annotation {key}: 'permissive' would loosen the mode of namespace {}, which is strict",
                namespace.name
            ),
            "remove the annotation; a pod may only tighten the mode",
        ),
        Some(_) => {}
    }
}

/// Annotations that are allowed, but do not do what they seem to.
pub fn warnings(annotations: Option<&BTreeMap<String, String>>, namespace: &Namespace) -> Vec<String> {
    const KNOWN: [&str; 7] = [
        label::INJECT,
        label::MTLS,
        label::SKIP_INBOUND_PORTS,
        label::SKIP_OUTBOUND_PORTS,
        label::SKIP_OUTBOUND_CIDRS,
        label::SKIP_UIDS,
        label::INJECTED,
    ];
    let mut warnings = Vec::new();
    for (key, value) in annotations.into_iter().flatten() {
        if key.starts_with("weft.dev/") && !KNOWN.contains(&key.as_str()) {
            let shown: String = key
                .chars()
                .take(64)
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect();
            warnings.push(format!(
                "annotation {shown} is not one that weft knows; it has no effect"
            ));
        }
        if key == label::MTLS && value == "permissive" && !namespace.labels_are_known() {
            warnings.push(format!(
                "annotation {key}: a pod may only tighten the namespace's mode; permissive has no effect"
            ));
        }
    }
    warnings.truncate(TOLD);
    warnings
}
