//! One call of the API server: the bytes of an AdmissionReview in, the bytes of its answer out. Without state, without
//! side effects (so a dry run needs no case of its own), and without trust in what it reads (RELIABILITY T43).
//!
//! The object is kept as it was sent; see [`crate::patch`]. The namespace's labels are not in a review: which
//! webhook was called says that the namespace is enabled, and whether it is strict, see [`Namespace::selected`].

use k8s_openapi::{ByteString, api::core::v1::Pod};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_proto::{limits, names::label};

use crate::{
    context::{Context, Namespace, Settings},
    decide::Why,
    patch,
    pod::{self, Outcome},
    pod_security,
    refuse::{self, Refusal},
};

/// The only version of the interface that is answered.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Bytes that are not an AdmissionReview, so that there is nobody to answer. The API server takes it for a failed call.
#[derive(Debug, thiserror::Error)]
#[error("not an AdmissionReview that can be answered: {0}")]
pub struct Malformed(String);

/// The answer to one review.
#[derive(Debug)]
pub struct Answer {
    /// Body of the response.
    pub body: Vec<u8>,
    /// What was decided, for the log and the counter.
    pub verdict: Verdict,
    /// `namespace/name` of what it was about, for the log.
    pub about: String,
}

/// What was decided about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Patched.
    Injected,
    /// Let through as it is, with the reason.
    Unchanged(String),
    /// Kept out, with what the user reads.
    Refused(String),
}

/// Which of the webhooks is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Pods are injected.
    Inject,
    /// Pods are injected, in a namespace that is labelled `weft.dev/mtls=strict`.
    InjectStrict,
    /// Pods of a namespace whose Pod Security forbids that: see [`pod_security`].
    PodSecurity,
}

/// What a review is answered with, besides what it says itself.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// What is written into pods.
    pub settings: &'a Settings,
    /// Which webhook is asked.
    pub endpoint: Endpoint,
    /// Why no pod of this cluster can be meshed, where none can: such a pod is refused.
    pub unsupported: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    kind: Kind,
    sub_resource: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    operation: String,
    object: Option<Value>,
}

#[derive(Default, Deserialize, PartialEq, Eq)]
struct Kind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

/// Answers one review.
pub fn review(body: &[u8], terms: &Terms) -> Result<Answer, Malformed> {
    let review: Review = serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))?;
    if review.api_version != API_VERSION || review.kind != KIND {
        return Err(Malformed(format!("apiVersion and kind must be {API_VERSION} {KIND}")));
    }
    let request = review.request.ok_or_else(|| Malformed("it has no request".into()))?;
    if request.uid.is_empty() {
        return Err(Malformed("request.uid is empty".into()));
    }
    let (response, verdict) = decide(&request, terms)?;
    let body = json!({"apiVersion": API_VERSION, "kind": KIND, "response": response});
    let body = serde_json::to_vec(&body).map_err(|error| Malformed(error.to_string()))?;
    Ok(Answer {
        body,
        verdict,
        about: about(&request),
    })
}

fn about(request: &Request) -> String {
    let metadata = request.object.as_ref().and_then(|object| object.get("metadata"));
    let text = |key| {
        metadata
            .and_then(|metadata| metadata.get(key))
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    };
    let name = text("name").or(text("generateName")).unwrap_or_default();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{name}")
        .chars()
        .take(512)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn decide(request: &Request, terms: &Terms) -> Result<(Value, Verdict), Malformed> {
    let is_pod = request.kind.group.is_empty() && request.kind.version == "v1" && request.kind.kind == "Pod";
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    if !is_pod {
        return Ok(unchanged(request, "not a pod".into()));
    }
    match (request.operation.as_str(), sub_resource) {
        ("CREATE", "") => create(request, terms),
        ("UPDATE", "ephemeralcontainers") => debug(request),
        (operation, sub_resource) => Ok(unchanged(
            request,
            format!("nothing to do for {operation} {sub_resource}"),
        )),
    }
}

fn create(request: &Request, terms: &Terms) -> Result<(Value, Verdict), Malformed> {
    let (sent, pod) = match object(request)? {
        Ok(read) => read,
        Err(refused) => return Ok(refused),
    };
    let name = request
        .namespace
        .clone()
        .or_else(|| pod.metadata.namespace.clone())
        .unwrap_or_default();
    let namespace = match terms.endpoint {
        Endpoint::InjectStrict => Namespace::selected_strict(name),
        Endpoint::Inject | Endpoint::PodSecurity => Namespace::selected(name),
    };
    let context = Context {
        settings: terms.settings,
        namespace: &namespace,
    };
    if terms.endpoint == Endpoint::PodSecurity {
        return Ok(match pod_security::check(&pod, &namespace) {
            Ok(why) => skipped(request, &pod, &why),
            Err(refusals) => refused(request, &refusals),
        });
    }
    let outcome = pod::inject(&pod, &context);
    if let (Some(why), Ok(Outcome::Injected(_) | Outcome::AlreadyInjected)) = (terms.unsupported, &outcome) {
        let name = refuse::pod_name(&pod, &namespace.name);
        return Ok(deny(request, format!("pod {name} cannot be meshed: {why}")));
    }
    match outcome {
        Ok(Outcome::Injected(meshed)) => {
            let malformed = |error: serde_json::Error| Malformed(error.to_string());
            let patch = patch::patch(sent, &pod, &meshed).map_err(malformed)?;
            let bytes = serde_json::to_vec(&patch).map_err(malformed)?;
            let mut response = allowed(request, pod::warnings(&pod, &context));
            response["patchType"] = "JSONPatch".into();
            response["patch"] = serde_json::to_value(ByteString(bytes)).map_err(malformed)?;
            Ok((response, Verdict::Injected))
        }
        // The webhook that changed the pod in between may have added what deserves a word.
        Ok(Outcome::AlreadyInjected) => Ok((
            allowed(request, pod::warnings(&pod, &context)),
            Verdict::Unchanged("injected before".into()),
        )),
        Ok(Outcome::Skipped(why)) => Ok(skipped(request, &pod, &why)),
        Err(refusals) => Ok(refused(request, &refusals)),
    }
}

/// Lets a pod through that is not meshed. Who asked for injection by name wants to hear that it does not happen.
fn skipped(request: &Request, pod: &Pod, why: &Why) -> (Value, Verdict) {
    let asked = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(label::INJECT))
        .is_some_and(|value| value == "enabled");
    let warnings = if asked {
        vec![format!("not meshed: {why}")]
    } else {
        Vec::new()
    };
    (allowed(request, warnings), Verdict::Unchanged(why.to_string()))
}

fn debug(request: &Request) -> Result<(Value, Verdict), Malformed> {
    let (_, pod) = match object(request)? {
        Ok(read) => read,
        Err(refused) => return Ok(refused),
    };
    match pod::check_ephemeral(&pod, request.namespace.as_deref().unwrap_or_default()) {
        Ok(()) => Ok(unchanged(request, "its ephemeral containers may join".into())),
        Err(refusals) => Ok(refused(request, &refusals)),
    }
}

/// The pod as it was sent and as it is read. One that cannot be read is kept out: it would not be meshed.
#[expect(
    clippy::type_complexity,
    reason = "three ways to end: nobody to answer, an answer, a pod"
)]
fn object(request: &Request) -> Result<Result<(&Value, Pod), (Value, Verdict)>, Malformed> {
    let sent = request
        .object
        .as_ref()
        .ok_or_else(|| Malformed("request.object is absent".into()))?;
    if items(sent) > limits::ADMISSION_ITEMS {
        let most = limits::ADMISSION_ITEMS;
        return Ok(Err(deny(
            request,
            format!("the pod's lists have more than {most} items in all; make it smaller"),
        )));
    }
    Ok(Pod::deserialize(sent).map(|pod| (sent, pod)).map_err(|error| {
        deny(
            request,
            format!("the pod cannot be read: {error}; correct the field, or disable injection for the pod"),
        )
    }))
}

/// Items of all lists, at any depth; the parser has bounded the depth.
fn items(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.len() + list.iter().map(items).sum::<usize>(),
        Value::Object(map) => map.values().map(items).sum(),
        _ => 0,
    }
}

fn allowed(request: &Request, warnings: Vec<String>) -> Value {
    let mut response = json!({"uid": request.uid, "allowed": true});
    if !warnings.is_empty() {
        let prefixed: Vec<_> = warnings.into_iter().map(|warning| format!("weft: {warning}")).collect();
        response["warnings"] = prefixed.into();
    }
    response
}

fn unchanged(request: &Request, why: String) -> (Value, Verdict) {
    (allowed(request, Vec::new()), Verdict::Unchanged(why))
}

fn refused(request: &Request, refusals: &[Refusal]) -> (Value, Verdict) {
    deny(request, refuse::summary(refusals))
}

fn deny(request: &Request, message: String) -> (Value, Verdict) {
    let status = json!({"status": "Failure", "code": 400, "reason": "BadRequest", "message": message});
    (
        json!({"uid": request.uid, "allowed": false, "status": status}),
        Verdict::Refused(message),
    )
}
