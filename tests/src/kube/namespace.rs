//! A namespace of the cluster: everything that a test does to its pods and asks of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_proto::names::{container, port};

use super::Cluster;
use crate::{Ran, metrics::Metrics, repository};

/// A namespace. It is deleted by whoever made it, not when this is dropped.
#[derive(Clone, Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    /// An existing namespace.
    pub fn new(cluster: &'a Cluster, name: String) -> Self {
        Self { cluster, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Runs `kubectl` in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Ran> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        self.cluster.kubectl(&all)
    }

    /// Applies objects; those that name no namespace come into this one.
    pub fn apply(&self, objects: &str) -> Result<()> {
        let arguments = ["-n", &self.name, "apply", "-f", "-"];
        self.cluster.kubectl_with(&arguments, objects.as_bytes())?.ok()?;
        Ok(())
    }

    /// Deletes objects, and waits until they are gone.
    pub fn delete(&self, objects: &str) -> Result<()> {
        let arguments = ["-n", &self.name, "delete", "--ignore-not-found", "-f", "-"];
        self.cluster.kubectl_with(&arguments, objects.as_bytes())?.ok()?;
        Ok(())
    }

    /// Has the API server try a pod without keeping it; its standard output is what became of the pod, as JSON.
    pub fn try_pod(&self, pod: &serde_json::Value) -> Result<Ran> {
        let arguments = ["-n", &self.name, "create", "--dry-run=server", "-o", "json", "-f", "-"];
        self.cluster.kubectl_with(&arguments, pod.to_string().as_bytes())
    }

    /// Applies these files of manifests/sample, or all of them when none is named, in this namespace; returns when their pods are ready.
    pub fn sample(&self, files: &[&str]) -> Result<()> {
        let folder = repository().join("manifests/sample");
        let mut all: Vec<_> = std::fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        all.sort();
        // weft sandbox's, kubectl's, and the namespace that this one stands for.
        let others = ["images.yaml", "kustomization.yaml", "namespace.yaml"];
        all.retain(|path| !others.iter().any(|other| path.ends_with(other)));
        all.retain(|path| files.is_empty() || files.iter().any(|file| path.ends_with(file)));
        let mut objects = String::new();
        for file in all {
            let text = std::fs::read_to_string(&file)?;
            objects += &text.replace("namespace: sample", &format!("namespace: {}", self.name));
            objects += "\n---\n";
        }
        self.apply(&objects)?;
        self.rolled_out(Duration::from_secs(180))
    }

    /// Waits until every Deployment, StatefulSet and DaemonSet here is rolled out; the error has the warnings among the events.
    pub fn rolled_out(&self, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let kinds = "deployments,statefulsets,daemonsets";
        let names = self.kubectl(&["get", kinds, "-o", "name"])?.ok()?;
        for name in names.lines() {
            let done = self.kubectl(&["rollout", "status", name, &timeout])?;
            if !done.success {
                let warnings = self.warnings().unwrap_or_default().join("\n");
                let name = format!("{name} in {} is not rolled out; warnings there:\n{warnings}", self.name);
                done.ok().context(name)?;
            }
        }
        Ok(())
    }

    /// What the warnings among the events say, each once.
    fn warnings(&self) -> Result<Vec<String>> {
        let said = |event: &Value| {
            let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
            let object = text(&event["involvedObject"]["name"]);
            (event["type"] == "Warning")
                .then(|| format!("{object}: {}: {}", text(&event["reason"]), text(&event["message"])))
        };
        let mut all: Vec<_> = self.events()?.iter().filter_map(said).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Waits for a condition of objects: `wait("job/backup", "condition=Complete", ...)`; `delete` and `jsonpath=...` too, as
    /// `kubectl wait --for` knows them.
    pub fn wait(&self, object: &str, condition: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&["wait", object, &format!("--for={condition}"), &timeout])?
            .ok()
            .with_context(|| format!("{object} in {}: {condition}", self.name))?;
        Ok(())
    }

    /// One object as JSON: `get("pod/web-0")`.
    pub fn get(&self, object: &str) -> Result<Value> {
        let mut found = self.cluster.list(&["-n", &self.name, object])?;
        ensure!(found.len() == 1, "{object}: {} objects", found.len());
        Ok(found.swap_remove(0))
    }

    /// Objects of a kind as JSON.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        self.cluster.list(&["-n", &self.name, kind])
    }

    /// Names of the running pods with this value of the label `app`, those that are being deleted left out.
    pub fn pods(&self, app: &str) -> Result<Vec<String>> {
        let selector = format!("app={app}");
        let running =
            |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running";
        let name = |pod: Value| pod["metadata"]["name"].as_str().map(str::to_owned);
        let pods = self.cluster.list(&["-n", &self.name, "pods", "-l", &selector])?;
        Ok(pods.into_iter().filter(running).filter_map(name).collect())
    }

    /// The name of the first of these pods.
    pub fn pod(&self, app: &str) -> Result<String> {
        let mut pods = self.pods(app)?;
        pods.sort();
        pods.into_iter()
            .next()
            .with_context(|| format!("no running pod of {app} in {}", self.name))
    }

    /// Runs a command in a pod's application container.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<Ran> {
        let mut arguments = vec!["exec", pod, "--"];
        arguments.extend(command);
        self.kubectl(&arguments)
    }

    /// `exec` of a shell script that has to succeed: its output.
    pub fn shell(&self, pod: &str, script: &str) -> Result<String> {
        self.exec(pod, &["bash", "-c", script])?
            .ok()
            .with_context(|| format!("{script} in {pod}.{}", self.name))
    }

    /// Starts a command in a pod and leaves it running; the caller waits for it or ends it.
    pub fn spawn(&self, pod: &str, command: &[&str]) -> Result<std::process::Child> {
        let mut arguments = vec!["-n", &self.name, "exec", pod, "--"];
        arguments.extend(command);
        self.cluster.kubectl_spawn(&arguments)
    }

    /// Runs a Python script in a pod of the client image: one of tests/kube/scripts, tests/netns/scripts or tests/apps/python as it
    /// is now in the repository, with the libraries of the test clients.
    pub fn script(&self, pod: &str, script: &str, arguments: &[&str]) -> Result<String> {
        let folders = ["tests/kube/scripts", "tests/netns/scripts", "tests/apps/python"];
        let found = folders
            .iter()
            .map(|folder| repository().join(folder).join(script))
            .find(|path| path.is_file());
        let text = std::fs::read(found.with_context(|| format!("no script {script}"))?)?;
        let mut all = vec!["-n", &self.name, "exec", "-i", pod, "--", "python3", "-"];
        all.extend(arguments);
        self.cluster
            .kubectl_with(&all, &text)?
            .ok()
            .with_context(|| format!("{script} {} in {pod}.{}", arguments.join(" "), self.name))
    }

    /// The log of a pod's container.
    pub fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.kubectl(&["logs", pod, "-c", container])?.ok()
    }

    /// The lines of the access log of a pod's proxy.
    pub fn access_log(&self, pod: &str) -> Result<Vec<Value>> {
        let log = self.logs(pod, container::PROXY)?;
        let entry = |line: &str| serde_json::from_str::<Value>(line).ok();
        Ok(log
            .lines()
            .filter_map(entry)
            .filter(|entry| entry["direction"].is_string())
            .collect())
    }

    /// The metrics of a pod's proxy, through the API server, which needs no tool in the pod.
    pub fn metrics(&self, pod: &str) -> Result<Metrics> {
        self.cluster.metrics_of(&self.name, pod, port::METRICS)
    }

    /// The events of this namespace, as JSON.
    pub fn events(&self) -> Result<Vec<Value>> {
        self.list("events")
    }

    /// Waits for an event with this reason, and returns its message.
    pub fn event(&self, reason: &str, limit: Duration) -> Result<String> {
        let mut message = None;
        self.cluster
            .eventually(&format!("an event {reason} in {}", self.name), limit, || {
                let found = self.events()?.into_iter().find(|event| event["reason"] == reason);
                message = found.and_then(|event| event["message"].as_str().map(str::to_owned));
                Ok(message.is_some())
            })?;
        message.context("the event was seen")
    }
}
