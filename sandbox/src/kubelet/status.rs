//! What became of each container → the status of its pod, and the words of `get pods`. Pure.

use crate::object::{Object, is_terminating};
use serde_json::{Value, json};

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Must end well before the next begins.
    Init,
    /// Begins before the next and ends after the applications.
    Sidecar,
    /// An application.
    App,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code as a shell gives it.
    pub code: i32,
    /// `Completed`, `Error` or a more telling word.
    pub reason: String,
    /// The end of its log, or why it was ended.
    pub message: String,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not running: why, and more about it.
    Waiting(String, String),
    /// Running since.
    Running(String),
    /// Ended for good.
    Ended(Ended),
}

/// One container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// What it is for.
    pub part: Part,
    /// Where it is.
    pub stage: Stage,
    /// How it ended the last time.
    pub last: Option<Ended>,
    /// The startup probe has passed.
    pub started: bool,
    /// The readiness probe passes.
    pub ready: bool,
    /// What the last failed probe saw; nothing once one passes.
    pub probe: String,
    /// How often it was started again.
    pub restarts: u32,
    /// Its turn has come.
    pub begun: bool,
}

/// The addresses and the start of a pod.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Of the pod; the first is `podIP`.
    pub ips: Vec<String>,
    /// Of the node.
    pub host_ips: Vec<String>,
    /// When the kubelet began.
    pub started_at: String,
    /// `Failed` or `Succeeded`, when it is over.
    pub over: Option<&'static str>,
}

/// The pod's status as the API has it.
pub fn status(states: &[State], facts: &Facts) -> Value {
    let of = |part: Part| states.iter().filter(move |s| s.part == part);
    let initialized = of(Part::Init).all(|s| matches!(&s.stage, Stage::Ended(e) if e.code == 0))
        && of(Part::Sidecar).all(|s| s.started);
    let long_running = || states.iter().filter(|s| s.part != Part::Init);
    let ready = facts.over.is_none() && long_running().all(|s| s.ready);
    let begun = of(Part::App).any(|s| !matches!(&s.stage, Stage::Waiting(reason, _) if reason == "PodInitializing"));
    let phase = facts.over.unwrap_or(if begun { "Running" } else { "Pending" });
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
    let unready: Vec<String> = long_running()
        .filter(|s| !s.ready && !s.probe.is_empty())
        .map(|s| format!("{}: {}", s.name, s.probe))
        .collect();
    let mut ready_condition = condition("Ready", ready);
    if !unready.is_empty() {
        ready_condition["message"] = unready.join("; ").into();
    }
    let ips = |list: &[String]| list.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    let containers = |init: bool| {
        states
            .iter()
            .filter(|s| (s.part != Part::App) == init)
            .map(container)
            .collect::<Vec<_>>()
    };
    json!({
        "phase": phase,
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", initialized || facts.over == Some("Succeeded")),
            condition("ContainersReady", ready), ready_condition,
        ],
        "podIP": facts.ips.first(), "podIPs": ips(&facts.ips),
        "hostIP": facts.host_ips.first(), "hostIPs": ips(&facts.host_ips),
        "startTime": facts.started_at,
        "initContainerStatuses": containers(true), "containerStatuses": containers(false),
    })
}

fn container(state: &State) -> Value {
    let ended = |e: &Ended| json!({"terminated": {"exitCode": e.code, "reason": e.reason, "message": e.message, "startedAt": e.started_at, "finishedAt": e.finished_at}});
    let stage = match &state.stage {
        Stage::Waiting(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
        Stage::Running(since) => json!({"running": {"startedAt": since}}),
        Stage::Ended(end) => ended(end),
    };
    json!({
        "name": state.name, "image": state.image, "ready": state.ready, "started": state.started, "restartCount": state.restarts,
        "state": stage, "lastState": state.last.as_ref().map_or(json!({}), ended),
    })
}

/// `READY`, `STATUS` and `RESTARTS` as kubectl shows them.
pub fn columns(pod: &Object) -> (String, String, u64) {
    let list = |field: &str| pod["status"][field].as_array().cloned().unwrap_or_default();
    let (init, apps) = (list("initContainerStatuses"), list("containerStatuses"));
    let spec_init = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let is_sidecar = |name: &Value| {
        spec_init
            .iter()
            .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
    };
    let counted: Vec<&Value> = init.iter().filter(|c| is_sidecar(&c["name"])).chain(&apps).collect();
    let sidecars = spec_init.iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = sidecars + pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = counted.iter().filter(|c| c["ready"] == true).count();
    let restarts = init
        .iter()
        .chain(&apps)
        .filter_map(|c| c["restartCount"].as_u64())
        .sum();
    (
        format!("{ready}/{total}"),
        word(pod, &init, &apps, &is_sidecar),
        restarts,
    )
}

fn word(pod: &Object, init: &[Value], apps: &[Value], is_sidecar: &dyn Fn(&Value) -> bool) -> String {
    if is_terminating(pod) {
        return "Terminating".into();
    }
    if let Some(reason) = pod["status"]["reason"].as_str() {
        return reason.into();
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    for (i, c) in init.iter().enumerate() {
        let done = c["state"]["terminated"]["exitCode"] == 0 || (is_sidecar(&c["name"]) && c["started"] == true);
        if done || phase == "Succeeded" {
            continue;
        }
        let why = c["state"]["waiting"]["reason"]
            .as_str()
            .or(c["state"]["terminated"]["reason"].as_str());
        return match why.filter(|w| *w != "PodInitializing") {
            Some(why) => format!("Init:{why}"),
            None => format!("Init:{i}/{}", init.len()),
        };
    }
    let reasons = apps.iter().filter_map(|c| {
        c["state"]["waiting"]["reason"]
            .as_str()
            .or(c["state"]["terminated"]["reason"].as_str())
    });
    let worst = reasons.max_by_key(|reason| *reason != "Completed");
    match worst {
        Some("Completed") if phase == "Running" => "NotReady".into(),
        Some(reason) => reason.into(),
        None => phase.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, part: Part, stage: Stage) -> State {
        let ready = matches!(stage, Stage::Running(_));
        State {
            name: name.into(),
            image: String::new(),
            part,
            stage,
            last: None,
            started: ready,
            ready,
            restarts: 0,
            begun: true,
            probe: String::new(),
        }
    }

    fn ended(code: i32) -> Stage {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Stage::Ended(Ended {
            code,
            reason: reason.into(),
            message: String::new(),
            started_at: String::new(),
            finished_at: String::new(),
        })
    }

    fn shown(states: &[State], over: Option<&'static str>) -> (String, String) {
        let spec = json!({
            "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "init"}], "containers": [{"name": "app"}],
        });
        let facts = Facts {
            over,
            ..Facts::default()
        };
        let pod = json!({"spec": spec, "status": status(states, &facts)});
        let (ready, word, _) = columns(&pod);
        (ready, word)
    }

    #[test]
    fn the_words_are_those_of_kubectl() {
        let waiting = |reason: &str| Stage::Waiting(reason.into(), String::new());
        let running = || Stage::Running("now".into());
        let pod = |proxy: Stage, init: Stage, app: Stage| {
            [
                state("proxy", Part::Sidecar, proxy),
                state("init", Part::Init, init),
                state("app", Part::App, app),
            ]
        };
        let idle = || waiting("PodInitializing");
        let cases = [
            (pod(idle(), idle(), idle()), None, "0/2", "Init:0/2"),
            (pod(running(), idle(), idle()), None, "1/2", "Init:1/2"),
            (
                pod(running(), waiting("CrashLoopBackOff"), idle()),
                None,
                "1/2",
                "Init:CrashLoopBackOff",
            ),
            (pod(running(), ended(0), running()), None, "2/2", "Running"),
            (
                pod(running(), ended(0), waiting("CrashLoopBackOff")),
                None,
                "1/2",
                "CrashLoopBackOff",
            ),
            (pod(ended(0), ended(0), ended(0)), Some("Succeeded"), "0/2", "Completed"),
            (pod(ended(0), ended(0), ended(1)), Some("Failed"), "0/2", "Error"),
        ];
        for (states, over, ready, word) in cases {
            assert_eq!(
                shown(&states, over),
                (ready.to_string(), word.to_string()),
                "{states:#?}"
            );
        }
    }

    #[test]
    fn a_pod_is_ready_when_all_that_stay_are() {
        let mut states = [
            state("proxy", Part::Sidecar, Stage::Running("now".into())),
            state("init", Part::Init, ended(0)),
            state("app", Part::App, Stage::Running("now".into())),
        ];
        let ready =
            |states: &[State]| crate::endpoints::is_ready(&json!({"status": status(states, &Facts::default())}));
        assert!(ready(&states));
        states[0].ready = false;
        assert!(!ready(&states));
    }
}
