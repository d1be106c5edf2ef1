//! The cluster's own objects, and weft's programs in it: real Deployments, on the node's network, run by the same kubelet.

use super::{Supervisor, lock};
use crate::{
    endpoints::is_ready,
    inject::Injector,
    object::{Key, Kind, Object, label},
};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use weft_proto::names::{self, DEFAULT_TRUST_DOMAIN, SYSTEM_NAMESPACE, gateway_api, port};

/// Deployment, Service and image of the controller.
pub const CONTROLLER: &str = "weft-controller";
/// Deployment, Service and image of the injector.
pub const INJECTOR: &str = "weft-injector";
/// Image of the proxy.
pub const PROXY: &str = "weft-proxy";
/// Image of `weft-init`.
pub const INIT: &str = "weft-init";
/// Port of the injector's Service, as an API server would call it.
const WEBHOOK_SERVICE_PORT: u16 = 443;
/// Time for weft's programs to become ready before it is said that they are not.
const PATIENCE: Duration = Duration::from_secs(60);

impl Supervisor {
    /// What every cluster has.
    pub(crate) fn base(&self) -> anyhow::Result<()> {
        let mut store = self.cluster.store();
        for namespace in ["default", "kube-system", SYSTEM_NAMESPACE] {
            let labels = json!({"kubernetes.io/metadata.name": namespace});
            store.put(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
            )?;
        }
        store.put(json!({
            "apiVersion": format!("{}/v1", gateway_api::GROUP), "kind": "GatewayClass", "metadata": {"name": gateway_api::CLASS},
            "spec": {"controllerName": gateway_api::CONTROLLER},
        }))?;
        for account in [
            names::ROUTES_SERVICE_ACCOUNT,
            names::IDENTITY_SERVICE_ACCOUNT,
            names::INJECTOR_SERVICE_ACCOUNT,
        ] {
            store.put(json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": SYSTEM_NAMESPACE},
            }))?;
        }
        drop(store);
        self.cluster.changed.notify_one();
        Ok(())
    }

    /// Starts the controller, and, when it is ready, the injector that needs its CA.
    pub(crate) async fn start_mesh(self: Arc<Self>) {
        let started = async {
            self.start_program(CONTROLLER, self.controller()?).await?;
            self.start_program(INJECTOR, self.injector()?).await?;
            let injector = self
                .cluster
                .find(Kind::Service, SYSTEM_NAMESPACE, INJECTOR)
                .context("the injector's Service is gone")?;
            let address = injector["spec"]["clusterIP"].as_str().unwrap_or_default().parse()?;
            *lock(&self.injector) = Some(Injector {
                address,
                port: WEBHOOK_SERVICE_PORT,
                server_name: format!("{INJECTOR}.{SYSTEM_NAMESPACE}.svc"),
                ca: self.cluster.paths.system().join("webhook-ca.crt"),
            });
            anyhow::Ok(())
        };
        let result = started.await.map_err(|error: anyhow::Error| format!("{error:#}"));
        if let Err(error) = &result {
            tracing::error!(error, "weft's own programs did not start");
        }
        let _ = self.system.send_replace(result);
        self.cluster.changed.notify_one();
    }

    async fn start_program(&self, name: &str, objects: [Object; 2]) -> anyhow::Result<()> {
        for object in objects {
            let key = Key::of(&object).context("weft's own objects have known kinds")?;
            self.apply_system(key, object)?;
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let pods = self
                .cluster
                .store()
                .list(Kind::Pod)
                .map(|(_, o)| o.clone())
                .collect::<Vec<_>>();
            let pod = pods.iter().find(|p| label(p, "app") == Some(name));
            if pod.is_some_and(is_ready) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                let last = pod.map(last_word).unwrap_or_default();
                anyhow::bail!(
                    "{name} is not ready after {PATIENCE:?}: {last}; see `weft sandbox logs {name}.{SYSTEM_NAMESPACE}`"
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn controller(&self) -> anyhow::Result<[Object; 2]> {
        let paths = &self.cluster.paths;
        let text = |path: std::path::PathBuf| path.display().to_string();
        let (system, objects, written) = (text(paths.system()), text(paths.objects()), text(paths.written()));
        let service_name = |port: u16| format!("{CONTROLLER}.{SYSTEM_NAMESPACE}.svc:{port}");
        let args = json!([
            "--role",
            "all",
            "--from-dir",
            objects,
            "--write-dir",
            written,
            "--session-keys",
            format!("{system}/session-keys"),
            "--proxy-image",
            PROXY,
            "--discovery-address",
            service_name(port::DISCOVERY),
            "--identity-address",
            service_name(port::IDENTITY),
            "--trust-domain",
            DEFAULT_TRUST_DOMAIN,
            "--ca-dir",
            system,
            "--create-ca",
            "--sandbox-token-key",
            format!("{system}/token.pub"),
            "--cluster-cidrs",
            self.cluster.ranges.cidrs(),
            "--discovery-listen",
            format!("[::]:{}", port::DISCOVERY),
            "--identity-listen",
            format!("[::]:{}", port::IDENTITY),
            "--admin-listen",
            "127.0.0.1:15021",
        ]);
        let ports =
            json!([{"name": "discovery", "port": port::DISCOVERY}, {"name": "identity", "port": port::IDENTITY}]);
        let deployment = self.program(
            CONTROLLER,
            names::ROUTES_SERVICE_ACCOUNT,
            args,
            15021,
            &[system, objects, written],
        );
        Ok([service(CONTROLLER, ports), deployment])
    }

    fn injector(&self) -> anyhow::Result<[Object; 2]> {
        let system = self.cluster.paths.system().display().to_string();
        let service_name = |port: u16| format!("{CONTROLLER}.{SYSTEM_NAMESPACE}.svc:{port}");
        let mut args = json!([
            "serve",
            "--listen",
            format!("[::]:{}", port::WEBHOOK),
            "--proxy-image",
            PROXY,
            "--init-image",
            INIT,
            "--trust-domain",
            DEFAULT_TRUST_DOMAIN,
            "--trust-bundle",
            format!("{system}/ca.crt"),
            "--discovery",
            service_name(port::DISCOVERY),
            "--identity",
            service_name(port::IDENTITY),
            "--cluster-cidrs",
            self.cluster.ranges.cidrs(),
            "--ca-out",
            format!("{system}/webhook-ca.crt"),
            "--admin-listen",
            "127.0.0.1:15022",
        ]);
        if let Some(args) = args.as_array_mut() {
            args.extend(self.settings.injector.iter().map(|argument| json!(argument)));
        }
        let ports = json!([{"name": "https", "port": WEBHOOK_SERVICE_PORT, "targetPort": port::WEBHOOK}]);
        let deployment = self.program(INJECTOR, names::INJECTOR_SERVICE_ACCOUNT, args, 15022, &[system]);
        Ok([service(INJECTOR, ports), deployment])
    }

    fn program(&self, name: &str, account: &str, args: Value, admin: u16, directories: &[String]) -> Object {
        let volumes: Vec<Value> = directories
            .iter()
            .enumerate()
            .map(|(i, d)| json!({"name": format!("v{i}"), "hostPath": {"path": d}}))
            .collect();
        let mounts: Vec<Value> = directories
            .iter()
            .enumerate()
            .map(|(i, d)| json!({"name": format!("v{i}"), "mountPath": d}))
            .collect();
        let probe = json!({"httpGet": {"host": "127.0.0.1", "port": admin, "path": "/ready"}, "periodSeconds": 2});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": name}}, "strategy": {"type": "Recreate"},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "hostNetwork": true, "serviceAccountName": account, "terminationGracePeriodSeconds": 5, "volumes": volumes,
                        "containers": [{
                            "name": name, "image": name, "args": args, "volumeMounts": mounts, "readinessProbe": probe,
                        }],
                    },
                },
            },
        })
    }
}

fn service(name: &str, ports: Value) -> Object {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": ports},
    })
}

/// What the first container that is not well says.
pub(crate) fn last_word(pod: &Object) -> String {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let containers = lists
        .iter()
        .flat_map(|l| pod["status"][*l].as_array().cloned().unwrap_or_default());
    let said = |c: Value| {
        let states = [
            &c["state"]["waiting"],
            &c["state"]["terminated"],
            &c["lastState"]["terminated"],
        ];
        let message = states
            .iter()
            .filter_map(|s| s["message"].as_str())
            .find(|m| !m.is_empty());
        message.map(|m| format!("{}: {m}", c["name"].as_str().unwrap_or_default()))
    };
    let own = pod["status"]["message"].as_str().map(String::from);
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let unready = || conditions.iter().find_map(|c| Some(c["message"].as_str()?.to_string()));
    own.or_else(|| containers.filter(|c| c["ready"] != true).find_map(said))
        .or_else(unready)
        .unwrap_or_default()
}
