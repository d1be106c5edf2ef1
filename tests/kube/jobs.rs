//! Pods that are to end: Jobs and CronJobs complete, their init containers use the mesh, and an exit code stays the application's.
//!
//! The namespace is strict: what is answered there was called over the mesh.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_proto::names::container;
use weft_tests::{
    kube::{APPS, CLIENT, Namespace},
    objects::{App, ready_when_open},
};

use crate::{Test, tests};

tests![
    t39_a_jobs_first_packet_is_meshed_and_it_completes,
    a_cron_jobs_job_completes,
    a_failing_job_fails_with_the_applications_exit_code,
];

const STRICT: &str = "weft.dev/inject: enabled, weft.dev/mtls: strict";
const MINUTE: Duration = Duration::from_secs(120);

/// A template of a Job's pod: these init containers and the application, as YAML in flow style.
fn template(init: &str, command: &str) -> String {
    format!(
        "{{spec: {{restartPolicy: Never, initContainers: [{init}], containers: [{{name: app, image: '{CLIENT}', command: {command}}}]}}}}"
    )
}

/// A command that calls the Service `web` once, without a second try.
fn call(path: &str) -> String {
    format!("[curl, -sS, --fail, --max-time, '10', 'http://web:8080/{path}']")
}

fn web(namespace: &Namespace<'_>) -> Result<()> {
    let container = format!(
        "image: '{APPS}', args: [http, --listen, '8080'], {}",
        ready_when_open(8080)
    );
    let app = App {
        namespace: namespace.name(),
        name: "web",
        replicas: 1,
        container,
        port: 8080,
    };
    namespace.apply(&app.yaml())?;
    namespace.rolled_out(MINUTE)
}

/// The only pod of a Job.
fn pod_of(namespace: &Namespace<'_>, job: &str) -> Result<Value> {
    let selector = format!("batch.kubernetes.io/job-name={job}");
    let mut pods = namespace
        .cluster()
        .list(&["-n", namespace.name(), "pods", "-l", &selector])?;
    ensure!(pods.len() == 1, "{} pods of Job {job}", pods.len());
    Ok(pods.swap_remove(0))
}

/// How a container ended; null while it runs.
fn end_of(pod: &Value, list: &str, name: &str) -> Value {
    let statuses = pod["status"][list].as_array().into_iter().flatten();
    let found = statuses.into_iter().find(|status| status["name"] == name);
    found.map_or(Value::Null, |status| status["state"]["terminated"].clone())
}

/// The Job's pod has ended as a whole, with its proxy, and called over the mesh: these paths are in the server's log.
fn ended_well(namespace: &Namespace<'_>, job: &str, paths: &[&str]) -> Result<()> {
    namespace.wait(&format!("job/{job}"), "condition=Complete", MINUTE)?;
    let pod = pod_of(namespace, job)?;
    ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
    let proxy = end_of(&pod, "initContainerStatuses", container::PROXY);
    ensure!(proxy["exitCode"] == 0, "the proxy ended with {proxy}");
    let name = pod["metadata"]["name"].as_str().context("the pod has a name")?;
    let server = namespace.pod("web")?;
    let identity = format!("spiffe://cluster.local/ns/{}/sa/default", namespace.name());
    for path in paths {
        namespace.cluster().eventually(
            &format!("{name}'s call of /{path} in the server's log"),
            Duration::from_secs(10),
            || {
                Ok(namespace.access_log(&server)?.iter().any(|entry| {
                    entry["direction"] == "inbound"
                        && entry["security"] == "mesh"
                        && entry["client_identity"] == identity.as_str()
                        && entry["path"].as_str().is_some_and(|seen| seen.ends_with(path))
                }))
            },
        )?;
    }
    Ok(())
}

fn t39_a_jobs_first_packet_is_meshed_and_it_completes(test: &Test) -> Result<()> {
    let namespace = test.namespace(STRICT)?;
    web(&namespace)?;
    let init = format!("{{name: first, image: '{CLIENT}', command: {}}}", call("from-init"));
    namespace.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: once}}\nspec: {{backoffLimit: 0, template: {}}}\n",
        template(&init, &call("from-app"))
    ))?;
    ended_well(&namespace, "once", &["from-init", "from-app"])
}

fn a_cron_jobs_job_completes(test: &Test) -> Result<()> {
    let namespace = test.namespace(STRICT)?;
    web(&namespace)?;
    namespace.apply(&format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: nightly}}\n\
         spec: {{schedule: '0 3 * * *', jobTemplate: {{spec: {{backoffLimit: 0, template: {}}}}}}}\n",
        template("", &call("from-cron"))
    ))?;
    // As its schedule would: nobody waits until three.
    namespace
        .kubectl(&["create", "job", "tonight", "--from=cronjob/nightly"])?
        .ok()?;
    ended_well(&namespace, "tonight", &["from-cron"])
}

fn a_failing_job_fails_with_the_applications_exit_code(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled")?;
    namespace.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sad}}\nspec: {{backoffLimit: 0, template: {}}}\n",
        template("", "[bash, -c, exit 7]")
    ))?;
    namespace.wait("job/sad", "condition=Failed", MINUTE)?;
    let pod = pod_of(&namespace, "sad")?;
    let app = end_of(&pod, "containerStatuses", "app");
    ensure!(app["exitCode"] == 7, "the application ended with {app}");
    let proxy = end_of(&pod, "initContainerStatuses", container::PROXY);
    ensure!(proxy["exitCode"] == 0, "the proxy ended with {proxy}");
    Ok(())
}
