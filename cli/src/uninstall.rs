//! `weft uninstall`: takes weft out of a cluster, the webhook first, waits until it is gone, and says which pods still carry a proxy.
//!
//! Other people's pods go on as they are; what makes them anew without a proxy is theirs to run, and is printed.

use crate::{
    cluster::{self, Which},
    install::{self, CRDS},
    owner::{Groups, pods},
};
use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Event, Namespace, Pod},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Preconditions, PropagationPolicy},
    core::{ApiResource, GroupVersionKind, ObjectList},
};
use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    io::{BufRead as _, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};
use weft_proto::{
    limits,
    names::{GATEWAY_COMPONENT, SYSTEM_NAMESPACE, gateway_api, kubernetes, label},
};

/// How often it is looked whether things are gone.
const LOOK: Duration = Duration::from_secs(1);

/// The arguments.
#[derive(Args, Debug)]
pub struct Uninstall {
    #[command(flatten)]
    which: Which,
    /// Without asking.
    #[arg(short, long)]
    yes: bool,
    /// The Gateway API's definitions too, and with them every Gateway and route of the cluster.
    #[arg(long)]
    crds: bool,
    /// How long to wait until everything is gone, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    wait: u64,
}

impl Uninstall {
    /// Does it. The exit code.
    pub fn run(self) -> anyhow::Result<i32> {
        cluster::block_on(self.uninstall())
    }

    async fn uninstall(self) -> anyhow::Result<i32> {
        let client = self.which.client().await?;
        let version = cluster::version(&client).await?;
        let found = Found::look(&client, self.crds).await?;
        if found.is_empty() {
            println!("nothing of weft is in this cluster ({})", version.git_version);
        } else {
            println!("From this cluster ({}) will be deleted:", version.git_version);
            found.lines().iter().for_each(|line| println!("  {line}"));
            if !self.crds {
                println!("The Gateway API's definitions stay, with every route; --crds deletes them too.");
            }
            if !(self.yes || confirmed()?) {
                println!("nothing is deleted");
                return Ok(1);
            }
            found.delete(&client).await?;
            found.gone(&client, Duration::from_secs(self.wait)).await?;
            println!("weft is gone");
        }
        leftovers(&client).await?;
        Ok(0)
    }
}

/// Asks the person at the terminal.
fn confirmed() -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        bail!("nobody is there to be asked, and nothing is deleted; give --yes to delete without asking");
    }
    print!("Delete it? Pods that are meshed go on, but get no new certificates. [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What of weft is in a cluster.
struct Found {
    webhooks: Vec<MutatingWebhookConfiguration>,
    bindings: Vec<ClusterRoleBinding>,
    roles: Vec<ClusterRole>,
    namespace: Option<Namespace>,
    events: Vec<Event>,
    classes: Vec<DynamicObject>,
    /// What runs for Gateways.
    gateways: Vec<(ApiResource, DynamicObject)>,
    definitions: Vec<String>,
    /// How many objects go with the definitions.
    routes: usize,
}

impl Found {
    async fn look(client: &Client, crds: bool) -> anyhow::Result<Self> {
        let namespaces = Api::<Namespace>::all(client.clone());
        let (mut definitions, mut routes) = (Vec::new(), 0);
        if crds {
            let there = install::definitions(client).await.map_err(said("definitions"))?;
            definitions = there
                .into_keys()
                .filter(|name| CRDS.iter().any(|crd| crd.name == *name))
                .collect();
            for name in &definitions {
                routes += objects_of(client, name).await?;
            }
        }
        let labelled = ours();
        let class = Api::<DynamicObject>::all_with(client.clone(), &gateway_class());
        Ok(Self {
            classes: there(class.list(&labelled).await).map_err(said("GatewayClasses"))?,
            gateways: of_gateways(client).await?,
            webhooks: list(client, &labelled).await?,
            bindings: list(client, &labelled).await?,
            roles: list(client, &labelled).await?,
            namespace: namespaces.get_opt(SYSTEM_NAMESPACE).await.map_err(said("namespaces"))?,
            events: own_events(client).await?,
            definitions,
            routes,
        })
    }

    fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// What there is, for people, in the order of deletion.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(names("MutatingWebhookConfiguration", &self.webhooks));
        lines.extend(names("ClusterRoleBinding", &self.bindings));
        lines.extend(names("ClusterRole", &self.roles));
        lines.extend(self.namespace.iter().map(|_| {
            format!("Namespace {SYSTEM_NAMESPACE} with all that is in it, the mesh's CA among it: a new installation makes a new one")
        }));
        lines.extend(names("GatewayClass", &self.classes));
        let doors = self
            .gateways
            .iter()
            .filter(|(resource, _)| resource.kind == "Deployment");
        let doors: Vec<String> = doors
            .map(|(_, object)| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()))
            .collect();
        if !self.gateways.is_empty() {
            lines.push(format!(
                "What runs for Gateways, {} objects; nobody answers at these front doors from then on: {}",
                self.gateways.len(),
                doors.join(", ")
            ));
        }
        if !self.events.is_empty() {
            lines.push(format!("{} Events of weft in other namespaces", self.events.len()));
        }
        if !self.definitions.is_empty() {
            lines.push(format!(
                "{} definitions of the Gateway API, and with them {} Gateways, routes and other objects",
                self.definitions.len(),
                self.routes
            ));
        }
        lines
    }

    async fn delete(&self, client: &Client) -> anyhow::Result<()> {
        // First, so that from now on pods start without weft.
        delete_all(client, &self.webhooks).await?;
        // The controller goes before what it may do, or it would complain, and before its Events, or it would tell new ones.
        delete_all(client, self.namespace.as_slice()).await?;
        delete_all(client, &self.bindings).await?;
        delete_all(client, &self.roles).await?;
        let classes = Api::<DynamicObject>::all_with(client.clone(), &gateway_class());
        for class in &self.classes {
            delete(&classes, &class.name_any(), &DeleteParams::background()).await?;
            println!("deleted GatewayClass {}", class.name_any());
        }
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        for name in &self.definitions {
            delete(&definitions, name, &DeleteParams::foreground()).await?;
            println!("deleted CustomResourceDefinition {name}");
        }
        Ok(())
    }

    /// Waits until the namespace and the definitions are gone, and takes the Events away that were told meanwhile.
    async fn gone(&self, client: &Client, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        let namespaces = Api::<Namespace>::all(client.clone());
        let mut told = String::new();
        loop {
            let Some(namespace) = namespaces.get_opt(SYSTEM_NAMESPACE).await.map_err(said("namespaces"))? else {
                break;
            };
            let state = namespace_state(client, &namespace).await;
            if state != told {
                println!("waiting: {state}");
                told = state;
            }
            if Instant::now() > until {
                bail!(
                    "namespace {SYSTEM_NAMESPACE} is not gone after {} s ({told}); look at: kubectl get namespace {SYSTEM_NAMESPACE} -o yaml; \
                     then run weft uninstall again",
                    wait.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        // Only now: the controller would have made them again.
        for (resource, object) in of_gateways(client).await? {
            let namespace = object.namespace().unwrap_or_default();
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
            delete(&api, &object.name_any(), &DeleteParams::background()).await?;
            println!("deleted {} {namespace}/{}", resource.kind, object.name_any());
        }
        while let left @ 1.. = self.definitions_left(client).await? {
            if Instant::now() > until {
                bail!(
                    "{left} definitions of the Gateway API are not gone after {} s; look at their objects' finalizers",
                    wait.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        for event in own_events(client).await? {
            let api = Api::<Event>::namespaced(client.clone(), &event.namespace().unwrap_or_default());
            delete(&api, &event.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }

    async fn definitions_left(&self, client: &Client) -> anyhow::Result<usize> {
        if self.definitions.is_empty() {
            return Ok(0);
        }
        let there = install::definitions(client).await.map_err(said("definitions"))?;
        Ok(self.definitions.iter().filter(|name| there.contains_key(*name)).count())
    }
}

fn said(what: &'static str) -> impl Fn(kube::Error) -> anyhow::Error {
    move |error| anyhow::anyhow!("{what}: {}", cluster::reason(&error))
}

fn names<K: ResourceExt>(kind: &str, objects: &[K]) -> Vec<String> {
    objects
        .iter()
        .map(|object| format!("{kind} {}", object.name_any()))
        .collect()
}

async fn list<K>(client: &Client, parameters: &ListParams) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let listed = Api::<K>::all(client.clone()).list(parameters).await;
    Ok(listed
        .map_err(|error| anyhow::anyhow!("{}: {}", K::kind(&()), cluster::reason(&error)))?
        .items)
}

/// Deletes cluster-scoped objects, each only if it is still the one that was looked at.
async fn delete_all<K>(client: &Client, objects: &[K]) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    for object in objects {
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let name = object.name_any();
        delete(&Api::<K>::all(client.clone()), &name, &parameters).await?;
        println!("deleted {} {name}", K::kind(&()));
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str, parameters: &DeleteParams) -> anyhow::Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    match api.delete(name, parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            Err(anyhow::anyhow!(cluster::reason(&error))).with_context(|| format!("{name} cannot be deleted"))
        }
    }
}

/// Events that the controller told about pods of other namespaces.
async fn own_events(client: &Client) -> anyhow::Result<Vec<Event>> {
    let events: Vec<Event> = list(client, &ours()).await?;
    let elsewhere = |event: &Event| event.metadata.namespace.as_deref() != Some(SYSTEM_NAMESPACE);
    Ok(events.into_iter().filter(elsewhere).collect())
}

/// The kinds of what runs for Gateways: group, kind, plural.
const OF_GATEWAYS: [(&str, &str, &str); 4] = [
    ("apps", "Deployment", "deployments"),
    ("", "Service", "services"),
    ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("", "ServiceAccount", "serviceaccounts"),
];

/// What runs for Gateways, in all namespaces.
async fn of_gateways(client: &Client) -> anyhow::Result<Vec<(ApiResource, DynamicObject)>> {
    let component = format!(
        "{}={},{}={GATEWAY_COMPONENT}",
        kubernetes::PART_OF,
        kubernetes::PART_OF_WEFT,
        kubernetes::NAME
    );
    let mut found = Vec::new();
    for (group, kind, plural) in OF_GATEWAYS {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let listed = api.list(&ListParams::default().labels(&component)).await;
        let objects = listed.map_err(said("what runs for Gateways"))?.items;
        found.extend(objects.into_iter().map(|object| (resource.clone(), object)));
    }
    Ok(found)
}

fn gateway_class() -> ApiResource {
    let kind = GroupVersionKind::gvk(gateway_api::GROUP, "v1", "GatewayClass");
    ApiResource::from_gvk_with_plural(&kind, "gatewayclasses")
}

/// A list; empty where the kind is not defined.
fn there(listed: Result<ObjectList<DynamicObject>, kube::Error>) -> Result<Vec<DynamicObject>, kube::Error> {
    match listed {
        Ok(listed) => Ok(listed.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Selects what is weft's.
fn ours() -> ListParams {
    ListParams::default().labels(&format!("{}={}", kubernetes::PART_OF, kubernetes::PART_OF_WEFT))
}

/// How many objects of a definition of the Gateway API there are.
async fn objects_of(client: &Client, definition: &str) -> anyhow::Result<usize> {
    let definition = Api::<CustomResourceDefinition>::all(client.clone())
        .get(definition)
        .await
        .map_err(said("definitions"))?;
    let spec = definition.spec;
    let Some(version) = spec.versions.iter().find(|version| version.served) else {
        return Ok(0);
    };
    let kind = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &spec.names.plural);
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let listed = api.list_metadata(&ListParams::default()).await;
    Ok(listed.map_err(said("the Gateway API's objects"))?.items.len())
}

/// How far the namespace's end is.
async fn namespace_state(client: &Client, namespace: &Namespace) -> String {
    let left = Api::<Pod>::namespaced(client.clone(), SYSTEM_NAMESPACE)
        .list_metadata(&ListParams::default())
        .await;
    let left = left.map_or(0, |list| list.items.len());
    let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
    // Such as NamespaceFinalizersRemaining; said while something remains.
    let why = conditions
        .into_iter()
        .flatten()
        .filter(|condition| condition.status == "True");
    let why: Vec<&str> = why.filter_map(|condition| condition.message.as_deref()).collect();
    match (left, why.as_slice()) {
        (0, []) => format!("namespace {SYSTEM_NAMESPACE} ends"),
        (0, why) => format!("namespace {SYSTEM_NAMESPACE}: {}", why.join("; ")),
        (left, _) => format!("namespace {SYSTEM_NAMESPACE}: {} to end", pods(left)),
    }
}

/// Says what is still meshed, and how to end that.
async fn leftovers(client: &Client) -> anyhow::Result<()> {
    let all = Api::<Pod>::all(client.clone());
    let mut meshed = Groups::default();
    let mut page = ListParams::default().limit(limits::CHECK_PAGE as u32);
    loop {
        let found = all.list(&page).await.map_err(said("pods"))?;
        found
            .items
            .iter()
            .filter(|pod| weft_injector::pod::is_meshed(pod) && !weft_injector::audit::is_over(pod))
            .for_each(|pod| meshed.add(pod, ""));
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    let labelled = ListParams::default().labels(label::INJECT);
    let namespaces: Vec<Namespace> = list(client, &labelled).await?;
    print!("{}", leftover_lines(&meshed, &namespaces));
    Ok(())
}

fn leftover_lines(meshed: &Groups, namespaces: &[Namespace]) -> String {
    let mut text = String::new();
    if !namespaces.is_empty() {
        text.push_str("\nNamespaces keep their label; take it away with:\n");
        for namespace in namespaces {
            text.push_str(&format!(
                "  kubectl label namespace {} {}-\n",
                namespace.name_any(),
                label::INJECT
            ));
        }
    }
    if meshed.is_empty() {
        text.push_str("\nNo pod carries a proxy.\n");
    } else {
        text.push_str(&format!(
            "\n{} still {} a proxy, and what the proxies know goes on until their certificates end; take them out with:\n",
            pods(meshed.pods()),
            if meshed.pods() == 1 { "has" } else { "have" }
        ));
        for (owner, _, _) in meshed.iter() {
            text.push_str(&format!("  {}\n", owner.restart()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stays_meshed_is_told_with_the_commands_that_end_it() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"namespace": "shop", "name": "db-0", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]}}),
        )
        .unwrap();
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
        let mut meshed = Groups::default();
        assert_eq!(leftover_lines(&meshed, &[]), "\nNo pod carries a proxy.\n");
        meshed.add(&pod, "");
        let text = leftover_lines(&meshed, &[namespace]);
        for line in [
            "  kubectl label namespace shop weft.dev/inject-\n",
            "1 pod still has a proxy",
            "  kubectl -n shop rollout restart statefulset/db\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_deleted_unasked() {
        if !std::io::stdin().is_terminal() {
            assert!(confirmed().unwrap_err().to_string().contains("--yes"));
        }
    }
}
