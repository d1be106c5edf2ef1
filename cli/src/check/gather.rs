//! Asks a cluster for all that is judged. What cannot be asked is said in place of the answer, and the rest goes on.

use super::rights::{self, Right};
use crate::{cluster, install};
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    apps::v1::Deployment,
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::{ConfigMap, Event, Namespace, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::SystemTime,
};
use weft_proto::{
    limits,
    names::{SYSTEM_NAMESPACE, gateway_api, kubernetes},
};

/// An answer, or why there is none.
pub type Asked<T> = Result<T, String>;

/// What the webhook made of a pod that nobody wants, in a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It came back with the proxy.
    Meshed,
    /// It came back as it was.
    Left,
    /// Somebody refused it.
    Refused(String),
    /// We may not create pods there.
    Forbidden,
}

impl Tried {
    /// Whether it was refused because the webhook could not be called.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Refused(why) if why.contains("failed calling webhook"))
    }
}

/// What a cluster answered.
pub struct Seen {
    /// Definitions of the Gateway API: name → version and channel.
    pub definitions: Asked<BTreeMap<String, String>>,
    /// Plural names of the kinds that the Gateway API's version v1 has here.
    pub served: Asked<BTreeSet<String>>,
    /// Of weft's namespace.
    pub deployments: Asked<Vec<Deployment>>,
    /// Pods of weft's namespace.
    pub system_pods: Asked<Vec<Pod>>,
    /// weft's, if it is there.
    pub webhook: Asked<Option<MutatingWebhookConfiguration>>,
    /// The roots that weft's programs trust at start, PEM, if they are there.
    pub roots: Asked<Option<String>>,
    /// When all this was asked.
    pub now: SystemTime,
    /// What weft's ServiceAccounts need, and whether they have it.
    pub rights: Vec<(Right, Asked<bool>)>,
    /// All, or the one that was asked about.
    pub namespaces: Asked<Vec<Namespace>>,
    /// For labelled namespaces: what became of a pod.
    pub tried: BTreeMap<String, Tried>,
    /// All, or those of the namespace that was asked about.
    pub pods: Asked<Vec<Pod>>,
    /// That somebody could not make a pod.
    pub refusals: Asked<Vec<Event>>,
}

/// Asks for everything; `namespace` limits what is asked about other people's pods.
pub async fn gather(client: &Client, namespace: Option<&str>) -> Seen {
    let system = Some(SYSTEM_NAMESPACE);
    let webhooks = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let namespaces = match namespace {
        None => all(client, None, "").await,
        Some(name) => {
            let api = Api::<Namespace>::all(client.clone());
            api.get(name)
                .await
                .map(|one| vec![one])
                .map_err(|error| cluster::reason(&error))
        }
    };
    let labelled = |namespace: &&Namespace| {
        super::workloads::is_labelled(namespace) && super::workloads::forbids(namespace).is_none()
    };
    let to_try: Vec<String> = namespaces
        .iter()
        .flatten()
        .filter(labelled)
        .map(|one| one.name_any())
        .collect();
    let tried = stream::iter(to_try.into_iter().take(limits::CHECK_DRY_RUNS))
        .map(|name| async move {
            let mut tried = dry_run(client, &name).await;
            for _ in 1..limits::CHECK_TRIES {
                if !tried.is_unanswered() {
                    break;
                }
                tokio::time::sleep(limits::CHECK_PAUSE).await;
                tried = dry_run(client, &name).await;
            }
            (name, tried)
        })
        .buffered(limits::CHECK_CALLS)
        .collect()
        .await;
    Seen {
        definitions: install::definitions(client)
            .await
            .map_err(|error| cluster::reason(&error)),
        served: served(client).await,
        deployments: all(client, system, "").await,
        system_pods: all(client, system, "").await,
        webhook: webhooks
            .get_opt(kubernetes::WEBHOOK)
            .await
            .map_err(|error| cluster::reason(&error)),
        roots: roots(client).await,
        now: SystemTime::now(),
        rights: ask_rights(client).await,
        namespaces,
        tried,
        pods: all(client, namespace, "").await,
        refusals: all(client, namespace, "reason=FailedCreate").await,
    }
}

async fn roots(client: &Client) -> Asked<Option<String>> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let there = api.get_opt(kubernetes::TRUST_CONFIG_MAP).await;
    let there = there.map_err(|error| cluster::reason(&error))?;
    Ok(there
        .and_then(|map| map.data)
        .and_then(|mut data| data.remove(kubernetes::CA_BUNDLE)))
}

/// Every object of a kind, page by page.
async fn all<K>(client: &Client, namespace: Option<&str>, fields: &str) -> Asked<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Listed,
{
    let api = K::api(client.clone(), namespace);
    let mut parameters = ListParams::default().limit(limits::CHECK_PAGE as u32).fields(fields);
    let mut found = Vec::new();
    loop {
        let page = api.list(&parameters).await.map_err(|error| cluster::reason(&error))?;
        found.extend(page.items.into_iter().map(|mut object| {
            object.meta_mut().managed_fields = None;
            object
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// How a kind is listed: in one namespace, or everywhere.
pub trait Listed: Sized {
    /// Where it is listed.
    fn api(client: Client, namespace: Option<&str>) -> Api<Self>;
}

macro_rules! namespaced {
    ($($kind:ty),+) => { $(impl Listed for $kind {
        fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
            namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name))
        }
    })+ };
}
namespaced!(Deployment, Pod, Event);

impl Listed for Namespace {
    fn api(client: Client, _: Option<&str>) -> Api<Self> {
        Api::all(client)
    }
}

async fn served(client: &Client) -> Asked<BTreeSet<String>> {
    match client
        .list_api_group_resources(&format!("{}/v1", gateway_api::GROUP))
        .await
    {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(BTreeSet::new()),
        Err(error) => Err(cluster::reason(&error)),
    }
}

/// Creates a pod, but for the last step: it is admitted like every other, and then not stored.
async fn dry_run(client: &Client, namespace: &str) -> Tried {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "weft-check-", "namespace": namespace},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "check", "image": "weft.dev/check:1",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
            }],
        },
    });
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let created = match serde_json::from_value::<Pod>(pod) {
        Ok(pod) => {
            Api::<Pod>::namespaced(client.clone(), namespace)
                .create(&parameters, &pod)
                .await
        }
        Err(error) => Err(kube::Error::SerdeError(error)),
    };
    match created {
        Ok(pod) if weft_injector::pod::is_meshed(&pod) => Tried::Meshed,
        Ok(_) => Tried::Left,
        // The authorizer's own words; a webhook that refuses says "admission webhook ... denied".
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("cannot create resource") => {
            Tried::Forbidden
        }
        Err(error) => Tried::Refused(cluster::reason(&error)),
    }
}

async fn ask_rights(client: &Client) -> Vec<(Right, Asked<bool>)> {
    let api = Api::<SubjectAccessReview>::all(client.clone());
    stream::iter(rights::all())
        .map(|right| {
            let api = api.clone();
            async move {
                let review = review(&right);
                let answer = api.create(&PostParams::default(), &review).await;
                let answer = answer.map(|review| review.status.is_some_and(|status| status.allowed));
                (right, answer.map_err(|error| cluster::reason(&error)))
            }
        })
        .buffered(limits::CHECK_CALLS)
        .collect()
        .await
}

fn review(right: &Right) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(right.group.clone()),
        resource: Some(right.resource.clone()),
        verb: Some(right.verb.clone()),
        name: right.name.clone(),
        namespace: right.namespace.clone(),
        ..ResourceAttributes::default()
    };
    let accounts = "system:serviceaccounts";
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{}", right.account)),
            groups: Some(vec![
                accounts.into(),
                format!("{accounts}:{SYSTEM_NAMESPACE}"),
                "system:authenticated".into(),
            ]),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
