//! Makes the cluster have what its Gateways want: writes what is missing or other than it should be, and takes away what no Gateway wants.
//! Only the leader does.
//!
//! Everything is level-triggered: what is wanted is compared with what is there, as a watch of weft's own objects tells it. An object of the
//! same name that is not weft's is never touched. What goes with its Gateway is left to the cluster's own garbage collection.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use weft_proto::{
    limits,
    names::{
        GATEWAY_COMPONENT,
        gateway_api::{CONTROLLER, GROUP},
        kubernetes::{NAME, PART_OF, PART_OF_WEFT},
    },
};

use super::{Settings, Want, objects};
use crate::{
    answers::Answers,
    api::{
        Complaint, Failure, bounded,
        follow::{Event, Follow, pause},
    },
    cluster::ObjectKey,
};

/// The kinds of what runs for a Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    ServiceAccount,
    Deployment,
    Service,
    PodDisruptionBudget,
}

impl Kind {
    const ALL: [Kind; 4] = [
        Kind::ServiceAccount,
        Kind::Deployment,
        Kind::Service,
        Kind::PodDisruptionBudget,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Deployment => "Deployment",
            Kind::Service => "Service",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn resource(self) -> ApiResource {
        let (group, plural) = match self {
            Kind::ServiceAccount => ("", "serviceaccounts"),
            Kind::Deployment => ("apps", "deployments"),
            Kind::Service => ("", "services"),
            Kind::PodDisruptionBudget => ("policy", "poddisruptionbudgets"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", self.name()), plural)
    }

    fn path(self) -> String {
        <DynamicObject as kube::Resource>::url_path(&self.resource(), None)
    }
}

type Id = (Kind, ObjectKey);

/// Where an object is at.
fn id(object: &Value) -> Option<Id> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    let key = ObjectKey::new(&text(&metadata["namespace"])?, &text(&metadata["name"])?);
    Some((Kind::named(object["kind"].as_str()?)?, key))
}

/// What was written last, and what the API server made of it.
struct Written {
    wanted: Value,
    made: Value,
}

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
enum Action {
    /// Make it so. The UID of what is there; `None`: nothing is known to be.
    Write(Id, Value, Option<String>),
    /// Take away what has this UID.
    Delete(Id, String),
}

impl Action {
    fn id(&self) -> &Id {
        match self {
            Action::Write(id, ..) | Action::Delete(id, _) => id,
        }
    }
}

/// What of `value` stands in the places that `shape` has. What the API server adds to an object is in none of them.
fn project(value: &Value, shape: &Value) -> Value {
    match (value, shape) {
        (Value::Object(value), Value::Object(shape)) => {
            let fields = shape.iter().map(|(name, shape)| {
                let own = value.get(name).unwrap_or(&Value::Null);
                (name.clone(), project(own, shape))
            });
            Value::Object(fields.collect())
        }
        (Value::Array(value), Value::Array(shape)) if value.len() == shape.len() => value
            .iter()
            .zip(shape)
            .map(|(value, shape)| project(value, shape))
            .collect(),
        (value, _) => value.clone(),
    }
}

/// The name and the UID of the Gateway that an object belongs to; `None`: it is not weft's to touch.
fn owner(object: &Value) -> Option<(ObjectKey, &str)> {
    let metadata = &object["metadata"];
    let is_gateway = |owner: &&Value| {
        let group = owner["apiVersion"]
            .as_str()
            .and_then(|version| version.split('/').next());
        owner["kind"] == "Gateway" && group == Some(GROUP)
    };
    let owner = metadata["ownerReferences"].as_array()?.iter().find(is_gateway)?;
    let key = ObjectKey::new(metadata["namespace"].as_str()?, owner["name"].as_str()?);
    Some((key, owner["uid"].as_str()?))
}

/// What is there, and what was done about it.
#[derive(Default)]
struct Kept {
    known: HashMap<Id, Value>,
    written: HashMap<Id, Written>,
    /// What failed: how often, and when it is tried again.
    failed: HashMap<Id, (u32, Instant)>,
}

impl Kept {
    /// What is to be done, in the order in which objects need each other.
    fn actions(&self, wants: &BTreeMap<ObjectKey, Want>, settings: &Settings) -> Vec<Action> {
        let mut wanted: BTreeMap<Id, Value> = BTreeMap::new();
        for want in wants.values() {
            if let Want::Front(front, parameters) = want {
                let objects = objects(front, parameters, settings).into_iter();
                wanted.extend(objects.filter_map(|object| Some((id(&object)?, object))));
            }
        }
        let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let gone = self.known.iter().filter_map(|(id, object)| {
            let (gateway, _) = owner(object)?;
            let kept = match wants.get(&gateway) {
                // With its Gateway it goes by itself.
                None | Some(Want::AsItIs) => true,
                Some(Want::Nothing) => false,
                Some(Want::Front(..)) => wanted.contains_key(id),
            };
            (!kept).then(|| Action::Delete(id.clone(), uid(object)))
        });
        let mut actions: Vec<Action> = gone.collect();
        for (id, object) in wanted {
            let known = self.known.get(&id);
            let same = known.zip(self.written.get(&id)).is_some_and(|(known, written)| {
                written.wanted == object && project(known, &object) == project(&written.made, &object)
            });
            if !same {
                let known = known.map(uid);
                actions.push(Action::Write(id, object, known));
            }
        }
        actions
    }

    /// When the first of what failed is tried again.
    fn next(&self) -> Option<Instant> {
        self.failed.values().map(|(_, at)| *at).min()
    }
}

/// Does so for ever, while `leading`; from when the cluster and the settings are known.
pub async fn keep(
    client: Client,
    answers: Arc<Answers>,
    mut settings: watch::Receiver<Option<Settings>>,
    mut leading: watch::Receiver<bool>,
) {
    // None of them can fail: their senders live as long as the program.
    let _ = leading.wait_for(|leading| *leading).await;
    let _ = settings.wait_for(Option::is_some).await;
    answers.synced().await;
    let selector = format!("{PART_OF}={PART_OF_WEFT},{NAME}={GATEWAY_COMPONENT}");
    let mut follows: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| Followed {
            kind,
            events: Follow::<Value>::labelled(client.clone(), kind.path(), &selector),
            complaint: Complaint::new(format!("watching the {}s of Gateways", kind.name())),
            found: Some(HashMap::new()),
        })
        .collect();
    let mut batches = answers.batches();
    let mut kept = Kept::default();
    let mut complaints: HashMap<Id, Complaint> = HashMap::new();
    loop {
        let active = *leading.borrow_and_update() && follows.iter().all(|one| one.found.is_none());
        if active {
            batches.mark_unchanged();
            let current = settings.borrow_and_update().clone().unwrap_or_default();
            let mut actions = kept.actions(&answers.wants(), &current);
            let now = Instant::now();
            // What is well now is not tried again.
            let wrong: HashSet<&Id> = actions.iter().map(Action::id).collect();
            kept.failed.retain(|id, _| wrong.contains(id));
            actions.retain(|action| kept.failed.get(action.id()).is_none_or(|(_, at)| *at <= now));
            let client = &client;
            let done = stream::iter(actions).map(|action| async move {
                let done = act(client, &action).await;
                (action, done)
            });
            let mut done = std::pin::pin!(done.buffered(limits::GATEWAY_WRITES));
            while let Some((action, result)) = done.next().await {
                settle(&mut kept, &mut complaints, action, result);
            }
        }
        let again = kept.next().filter(|_| active);
        let retry = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            let _ = batches.changed().await;
            // Together what changes together.
            sleep(limits::GATEWAY_SETTLES).await;
        };
        tokio::select! {
            () = next_event(&mut follows, &mut kept) => {}
            () = changed, if active => {}
            Ok(()) = settings.changed(), if active => {}
            Ok(()) = leading.changed() => {}
            () = retry => {}
        }
    }
}

/// Takes in what came of an action.
fn settle(
    kept: &mut Kept,
    complaints: &mut HashMap<Id, Complaint>,
    action: Action,
    result: Result<Option<Value>, Failure>,
) {
    let id = action.id().clone();
    if result.is_ok() {
        kept.failed.remove(&id);
    }
    match (action, result) {
        (Action::Write(_, wanted, _), Ok(made)) => {
            if let Some(made) = made {
                kept.known.insert(id.clone(), made.clone());
                kept.written.insert(id.clone(), Written { wanted, made });
            }
            if let Some(mut complaint) = complaints.remove(&id) {
                complaint.works();
            }
            tracing::info!(kind = id.0.name(), object = %id.1, "written for a Gateway");
        }
        (Action::Delete(..), Ok(_)) => {
            kept.known.remove(&id);
            kept.written.remove(&id);
            complaints.remove(&id);
            tracing::info!(kind = id.0.name(), object = %id.1, "deleted: no Gateway wants it");
        }
        // What is known is old: the watch tells more. Not at once, or the two would race.
        (_, Err(Failure::Conflict(_))) => {
            kept.failed.insert(id, (0, Instant::now() + Duration::from_secs(1)));
        }
        (_, Err(failure)) => {
            let failures = kept.failed.get(&id).map_or(0, |(failures, _)| failures + 1);
            kept.failed
                .insert(id.clone(), (failures, Instant::now() + pause(failures + 1)));
            let what = format!("writing the {} {} of a Gateway", id.0.name(), id.1);
            complaints
                .entry(id)
                .or_insert_with(|| Complaint::new(what))
                .failed(&failure);
        }
    }
}

/// One kind's watch.
struct Followed {
    kind: Kind,
    events: Follow<Value>,
    complaint: Complaint,
    /// What the list that is being read holds; `None`: it is complete.
    found: Option<HashMap<Id, Value>>,
}

/// Takes the next event of any kind in. Dropping it loses nothing.
async fn next_event(follows: &mut [Followed], kept: &mut Kept) {
    let each = follows.iter_mut().map(|one| {
        Box::pin(async move {
            let event = one.events.next().await;
            (event, one)
        })
    });
    let ((event, one), ..) = futures_util::future::select_all(each).await;
    let kind = one.kind;
    // The items of a list do not say their kind.
    let named = |mut object: Value| {
        object["kind"] = kind.name().into();
        // Who set which field is no matter here, and most of the object.
        object["metadata"]["managedFields"].take();
        Some((id(&object)?, object))
    };
    match event {
        Event::Restarted => one.found = Some(HashMap::new()),
        Event::Apply(object) => {
            if let Some((id, object)) = named(object) {
                match &mut one.found {
                    Some(found) => drop(found.insert(id, object)),
                    None => drop(kept.known.insert(id, object)),
                }
            }
        }
        Event::Delete(object) => {
            if let Some((id, _)) = named(object) {
                kept.known.remove(&id);
                kept.written.remove(&id);
            }
        }
        Event::Listed => {
            one.complaint.works();
            if let Some(found) = one.found.take() {
                kept.known.retain(|id, _| id.0 != kind);
                kept.known.extend(found);
            }
        }
        Event::Watching => one.complaint.works(),
        Event::Failed(Failure::Expired(_)) => {}
        Event::Failed(failure) => one.complaint.failed(&failure),
    }
}

/// Does it. What a write made of the object.
async fn act(client: &Client, action: &Action) -> Result<Option<Value>, Failure> {
    let api =
        |id: &Id| -> Api<DynamicObject> { Api::namespaced_with(client.clone(), &id.1.namespace, &id.0.resource()) };
    match action {
        Action::Delete(id, uid) => {
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                preconditions: Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match bounded(api(id).delete(&id.1.name, &parameters)).await {
                Ok(_) | Err(Failure::Absent(_)) => Ok(None),
                Err(failure) => Err(failure),
            }
        }
        Action::Write(id, object, uid) => {
            let api = api(id);
            if uid.is_none()
                && let Some(there) = bounded(api.get_opt(&id.1.name)).await?
            {
                let there = serde_json::to_value(&there).unwrap_or_default();
                let (ours, wanted) = (owner(&there), owner(object));
                if ours.map(|(gateway, _)| gateway) != wanted.map(|(gateway, _)| gateway) {
                    return Err(Failure::Other(format!(
                        "there is a {} of this name that weft did not make, and it is left alone; rename it or the Gateway",
                        id.0.name()
                    )));
                }
            }
            let mut object = object.clone();
            if let Some(uid) = uid {
                // Never another one that has come meanwhile.
                object["metadata"]["uid"] = uid.as_str().into();
            }
            let parameters = PatchParams::apply(CONTROLLER).force();
            let made = bounded(api.patch(&id.1.name, &parameters, &Patch::Apply(&object))).await?;
            Ok(serde_json::to_value(&made).ok())
        }
    }
}

#[cfg(test)]
mod tests;
