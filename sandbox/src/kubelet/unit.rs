//! One container: started, probed, started again as the policy says, ended when told to.
//!
//! In which order the containers of a pod live is `pod.rs`'s business.

use super::{
    pod::Pod,
    probe::{Check, Target},
    process::Process,
    status::{Ended, Part, Stage, State},
};
use crate::{
    launch::{Launch, NOT_FOUND, NOT_STARTED},
    object::now,
};
use k8s_openapi::api::core::v1 as core;
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

/// Pause before the first restart; doubled each time. Kubernetes begins with ten seconds; nobody waits for a sandbox.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST_BACK_OFF: Duration = Duration::from_secs(60);
/// A container that ran for so long begins anew with the first pause.
const STABLE: Duration = Duration::from_secs(60);
/// Pause before an object that is missing is looked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Pause between two tries of a probe that has not passed yet, or does not pass now.
const EAGER: Duration = Duration::from_millis(500);

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun, or not yet past its startup probe.
    Begin,
    /// Past its startup probe at least once.
    Started,
    /// Ended for good.
    Ended(i32),
}

/// One container of a pod.
#[derive(Debug)]
pub struct Unit {
    /// What the spec says.
    pub container: core::Container,
    /// What it is for.
    pub part: Part,
    state: Mutex<State>,
    /// How far it is; who waits for it subscribes.
    pub phase: watch::Sender<Phase>,
    /// By when it must have ended.
    pub stop: watch::Sender<Option<Instant>>,
    running: Mutex<Option<(Process, Launch)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unit {
    /// A container that waits for its turn.
    pub fn new(container: core::Container, part: Part) -> Unit {
        let state = State {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            part,
            stage: Stage::Waiting("PodInitializing".into(), String::new()),
            last: None,
            started: false,
            ready: false,
            restarts: 0,
            begun: false,
            probe: String::new(),
        };
        let (phase, stop) = (watch::Sender::new(Phase::Begin), watch::Sender::new(None));
        Unit {
            container,
            part,
            state: Mutex::new(state),
            phase,
            stop,
            running: Mutex::new(None),
        }
    }

    /// Its state now.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Its first process, and how a command joins it.
    pub fn running(&self) -> Option<(Process, Launch)> {
        lock(&self.running).clone()
    }

    /// Whether it is to end.
    pub fn stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Waits until it has ended for good; its exit code.
    pub async fn ended(&self) -> i32 {
        let mut phase = self.phase.subscribe();
        let end = phase.wait_for(|p| matches!(p, Phase::Ended(_))).await.map(|p| *p);
        if let Ok(Phase::Ended(code)) = end { code } else { 1 }
    }

    /// Changes the state.
    pub fn set(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut lock(&self.state));
    }

    async fn stopped(&self) -> Instant {
        let mut stop = self.stop.subscribe();
        let deadline = stop.wait_for(Option::is_some).await.ok().and_then(|d| *d);
        // The sender lives in self.
        deadline.unwrap_or_else(Instant::now)
    }

    /// Sleeps, unless it is to end first.
    async fn pause(&self, duration: Duration) {
        tokio::select! { () = sleep(duration) => {}, _ = self.stopped() => {} }
    }

    /// Whether it is started again after this exit code.
    fn again(&self, policy: &str, code: i32) -> bool {
        match (self.part, policy) {
            (Part::Sidecar, _) => true,
            (_, "Never") => false,
            (Part::App, "Always") => true,
            _ => code != 0,
        }
    }
}

/// Keeps a container alive as its pod's policy says, until it has ended for good.
pub async fn keep(pod: &Pod, unit: &Unit) {
    let mut back_off = FIRST_BACK_OFF;
    let code = loop {
        let begun = Instant::now();
        let end = once(pod, unit).await;
        let code = end.as_ref().map_or(0, |e| e.code);
        let again = unit.again(pod.restart_policy(), code) && !unit.stopping();
        unit.set(|state| (state.started, state.ready) = (false, false));
        match end {
            Some(end) if again => {
                if begun.elapsed() >= STABLE {
                    back_off = FIRST_BACK_OFF;
                }
                let message = how_it_ended(&end, back_off);
                unit.set(|state| {
                    state.stage = Stage::Waiting("CrashLoopBackOff".into(), message);
                    state.last = Some(end);
                });
                pod.publish();
                unit.pause(back_off).await;
                back_off = (back_off * 2).min(LAST_BACK_OFF);
                unit.set(|state| state.restarts += 1);
            }
            Some(end) => unit.set(|state| state.stage = Stage::Ended(end)),
            None => {}
        }
        if !again || unit.stopping() {
            break code;
        }
    };
    if let Stage::Waiting(..) = unit.state().stage {
        let last = unit.state().last;
        let never = || ended(code, "ContainerNotStarted", String::new(), now());
        unit.set(|state| state.stage = Stage::Ended(last.unwrap_or_else(never)));
    }
    unit.phase.send_replace(Phase::Ended(code));
    pod.publish();
}

fn ended(code: i32, reason: &str, message: String, started_at: String) -> Ended {
    Ended {
        code,
        reason: reason.into(),
        message,
        started_at,
        finished_at: now(),
    }
}

/// One life of a container. Nothing when it was told to end before it began.
async fn once(pod: &Pod, unit: &Unit) -> Option<Ended> {
    let launch = loop {
        if unit.stopping() {
            return None;
        }
        match pod.launch(unit) {
            Ok(launch) => break launch,
            Err(missing) => {
                unit.set(|state| state.stage = Stage::Waiting("CreateContainerConfigError".into(), missing));
                pod.publish();
                unit.pause(RETRY).await;
            }
        }
    };
    let since = now();
    let log = pod.cluster.log(&pod.uid, &unit.container.name);
    let started = tokio::task::block_in_place(|| Process::start(pod.netns(), &pod.cluster.paths.shim(), &launch, &log));
    let process = match started {
        Ok(process) => process,
        Err(error) => return Some(ended(NOT_STARTED, "StartError", format!("{error:#}"), since)),
    };
    *lock(&unit.running) = Some((process.clone(), Launch { root: None, ..launch }));
    let no_startup = unit.container.startup_probe.is_none();
    unit.set(|state| {
        state.stage = Stage::Running(since.clone());
        state.started = no_startup;
        state.ready = no_startup && unit.container.readiness_probe.is_none();
    });
    if no_startup {
        unit.phase.send_replace(Phase::Started);
    }
    pod.publish();
    let (code, why) = tokio::select! {
        code = process.ended() => (code, None),
        why = watch_over(pod, unit) => {
            unit.set(|state| state.ready = false);
            pod.publish();
            let deadline = Instant::now() + pod.grace();
            pre_stop(pod, unit, deadline).await;
            (process.end(deadline.saturating_duration_since(Instant::now())).await, Some(why))
        }
        deadline = unit.stopped() => (process.end(deadline.saturating_duration_since(Instant::now())).await, None),
    };
    *lock(&unit.running) = None;
    let reason = match (code, &why) {
        (_, Some(_)) => "Unhealthy",
        (0, _) => "Completed",
        (NOT_FOUND, _) => "CommandNotFound",
        _ => "Error",
    };
    let message = why.unwrap_or_else(|| if code == 0 { String::new() } else { last_line(&log) });
    Some(ended(code, reason, message, since))
}

/// Probes a container for as long as it lives. Returns why it must be ended.
async fn watch_over(pod: &Pod, unit: &Unit) -> String {
    let Some((process, launch)) = unit.running() else {
        return "it has ended".into();
    };
    let ports = unit.container.ports.as_deref().unwrap_or_default();
    let target = Target {
        address: pod.address(),
        ports,
        process: &process,
        launch: &launch,
    };
    let heard = |kind: &str, what: &str| {
        let said = if what.is_empty() {
            String::new()
        } else {
            format!("{kind} probe: {what}")
        };
        unit.set(|state| state.probe = said);
        pod.publish();
    };
    let lifecycle = unit.container.lifecycle.as_ref();
    if let Some(hook) = lifecycle
        .and_then(|l| l.post_start.as_ref())
        .and_then(|h| h.exec.as_ref())
    {
        let check = Check::Exec(hook.command.clone().unwrap_or_default());
        if let Err(what) = check.run(&target, pod.grace()).await {
            return format!("postStart hook failed: {what}");
        }
    }
    if let Some(probe) = &unit.container.startup_probe {
        if let Some(what) = until(probe, &target, Until::Passes, |_, what| heard("startup", what)).await {
            return format!("startup probe failed: {what}");
        }
        unit.set(|state| {
            state.started = true;
            state.ready = unit.container.readiness_probe.is_none();
        });
        unit.phase.send_replace(Phase::Started);
        pod.publish();
    }
    let readiness = async {
        let Some(probe) = &unit.container.readiness_probe else {
            return std::future::pending().await;
        };
        let changed = |ready: Option<bool>, what: &str| {
            unit.set(|state| state.ready = ready.unwrap_or(state.ready));
            heard("readiness", what);
        };
        until(probe, &target, Until::Never, changed).await
    };
    let liveness = async {
        let Some(probe) = &unit.container.liveness_probe else {
            return std::future::pending().await;
        };
        until(probe, &target, Until::Fails, |_, _| {}).await
    };
    tokio::select! {
        _ = readiness => "its readiness is no longer looked at".into(),
        what = liveness => format!("liveness probe failed: {}", what.unwrap_or_default()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The threshold of successes, or of failures.
    Passes,
    /// The threshold of failures.
    Fails,
    /// Goes on for ever.
    Never,
}

/// Repeats a probe. `changed` hears each change of the verdict and of what was seen; the result is the last failure, or
/// nothing for a success.
async fn until(
    probe: &core::Probe,
    target: &Target<'_>,
    until: Until,
    mut changed: impl FnMut(Option<bool>, &str),
) -> Option<String> {
    let Some(check) = Check::of(probe) else {
        return std::future::pending().await;
    };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
    };
    let count = |value: Option<i32>, default: u32| {
        value
            .and_then(|v| u32::try_from(v).ok())
            .filter(|v| *v > 0)
            .unwrap_or(default)
    };
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let (pass, fail) = (count(probe.success_threshold, 1), count(probe.failure_threshold, 3));
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let (mut passed, mut failed, mut verdict) = (0, 0, None);
    let mut counted: Option<Instant> = None;
    let mut seen = String::new();
    loop {
        let now = Instant::now();
        let result = check.run(target, limit).await;
        if result.is_ok() {
            (passed, failed, counted) = (passed + 1, 0, None);
        } else {
            passed = 0;
            if counted.is_none_or(|last| last + period <= now + EAGER / 2) {
                (failed, counted) = (failed + 1, Some(now));
            }
        }
        let before = (
            verdict,
            std::mem::replace(&mut seen, result.clone().err().unwrap_or_default()),
        );
        if passed >= pass {
            verdict = Some(true);
        } else if failed >= fail {
            verdict = Some(false);
        }
        if before != (verdict, seen.clone()) {
            changed(verdict, &seen);
        }
        match (until, verdict, result) {
            (Until::Passes, Some(true), _) => return None,
            (Until::Passes | Until::Fails, Some(false), Err(what)) => return Some(what),
            // Before the first success the period is only how failures are counted: a pod is ready when it is.
            (Until::Passes | Until::Never, None | Some(false), Err(_)) => {
                tokio::time::sleep_until(now + period.min(EAGER)).await
            }
            _ => tokio::time::sleep_until(now + period).await,
        }
    }
}

/// Runs a container's preStop hook, at most until a deadline.
pub async fn pre_stop(pod: &Pod, unit: &Unit, deadline: Instant) {
    let Some(hook) = unit.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else {
        return;
    };
    let Some((process, launch)) = unit.running() else {
        return;
    };
    if let Some(pause) = &hook.sleep {
        let pause = Duration::from_secs(u64::try_from(pause.seconds).unwrap_or_default());
        let _ = timeout_at(deadline, sleep(pause)).await;
        return;
    }
    let exec = hook
        .exec
        .as_ref()
        .map(|e| Check::Exec(e.command.clone().unwrap_or_default()));
    let Some(check) = exec.or_else(|| hook.http_get.clone().map(Check::Http)) else {
        return;
    };
    let ports = unit.container.ports.as_deref().unwrap_or_default();
    let target = Target {
        address: pod.address(),
        ports,
        process: &process,
        launch: &launch,
    };
    if let Err(what) = check
        .run(&target, deadline.saturating_duration_since(Instant::now()))
        .await
    {
        tracing::warn!(pod = %pod.key, container = %unit.container.name, %what, "a preStop hook failed");
    }
}

/// What is said of a container that waits to be started again. The exit code stands there too: a program that ends well and
/// should not have ended says nothing else.
fn how_it_ended(end: &Ended, pause: Duration) -> String {
    let said = match end.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    format!("ended with exit code {}{said}; started again in {pause:?}", end.code)
}

/// The last line of a log that says something, short enough for a table.
fn last_line(log: &Path) -> String {
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(1000)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&tail().unwrap_or_default()).into_owned();
    text.lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_ends_again_and_again_says_how_it_ended() {
        let said = |code, message: &str| {
            let end = ended(code, "", message.into(), String::new());
            how_it_ended(&end, Duration::from_secs(4))
        };
        assert_eq!(said(0, ""), "ended with exit code 0; started again in 4s");
        assert_eq!(
            said(3, "no database"),
            "ended with exit code 3: no database; started again in 4s"
        );
    }
}
