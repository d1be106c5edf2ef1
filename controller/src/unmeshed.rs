//! Says of each pod that should be in the mesh and is not, once, in an Event of its own namespace.
//!
//! The Event's name is made of the pod's UID: a leader that comes after another cannot say it a second time while the first is
//! there.

use std::collections::HashSet;

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::sync::Arc;
use tokio::{sync::watch, time::sleep};
use weft_proto::{
    limits,
    names::{ROUTES_SERVICE_ACCOUNT, kubernetes::NOT_MESHED, label},
};

use crate::{
    answers::Answers,
    api::{Complaint, Failure, bounded, config_map::labels},
    cluster::ObjectKey,
};

/// Tells of them while `leading`. `instance`: who says it.
pub async fn tell(client: Client, answers: Arc<Answers>, mut leading: watch::Receiver<bool>, instance: String) {
    let mut told: HashSet<Arc<str>> = HashSet::new();
    let mut batches = answers.batches();
    let mut complaint = Complaint::new("writing Events about pods that are not meshed");
    loop {
        // Neither can fail: their senders live as long as the program.
        let _ = leading.wait_for(|leading| *leading).await;
        answers.synced().await;
        batches.mark_unchanged();
        let unmeshed = answers.unmeshed_pods();
        told.retain(|uid| unmeshed.iter().any(|(_, own)| own == uid));
        let mut failures = 0;
        for (pod, uid) in unmeshed {
            if told.contains(&uid) || !*leading.borrow() {
                continue;
            }
            match bounded(create(&client, &pod, &uid, &instance)).await {
                // Said by a leader before this one.
                Ok(()) | Err(Failure::Conflict(_)) => {
                    complaint.works();
                    told.insert(uid);
                }
                // Its namespace goes, and the pod with it.
                Err(Failure::Absent(_)) => drop(told.insert(uid)),
                Err(failure) => {
                    complaint.failed(&failure);
                    failures += 1;
                    break;
                }
            }
            sleep(limits::EVENT_PAUSE).await;
        }
        if failures > 0 {
            sleep(limits::WATCH_PAUSE).await;
        } else {
            // Together what changes together.
            sleep(limits::EVENT_PAUSE).await;
            let _ = batches.changed().await;
        }
    }
}

/// What is wrong, why it may be so, and what to do.
fn note(namespace: &str) -> String {
    format!(
        "The namespace {namespace} is labelled {inject}=enabled, and this pod runs without weft: it is older than the label, or was \
         made while the webhook let it pass. Its traffic is neither encrypted nor counted. Restart its workload: kubectl -n \
         {namespace} rollout restart deployment,statefulset,daemonset. To leave it out for good, annotate the pod template \
         {inject}=disabled.",
        inject = label::INJECT
    )
}

async fn create(client: &Client, pod: &ObjectKey, uid: &str, instance: &str) -> Result<(), kube::Error> {
    let events: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
    // Names are 253 characters at most, of which pods may use all.
    let short: String = pod.name.chars().take(200).collect();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{short}.{uid}")),
            namespace: Some(pod.namespace.to_string()),
            labels: Some(labels(ROUTES_SERVICE_ACCOUNT)),
            ..ObjectMeta::default()
        },
        action: Some("Inject".into()),
        event_time: Some(MicroTime(Timestamp::now())),
        note: Some(note(&pod.namespace)),
        reason: Some(NOT_MESHED.into()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some("weft.dev/routes".into()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        type_: Some("Warning".into()),
        ..Event::default()
    };
    events.create(&PostParams::default(), &event).await.map(drop)
}

#[cfg(test)]
mod tests;
