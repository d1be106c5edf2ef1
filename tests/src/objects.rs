//! The objects of the tests' clusters, as YAML text.

use std::fmt::Write;

/// A namespace; `labels` as `key: value` pairs in YAML's flow style.
pub fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n")
}

/// What runs in a pod.
pub struct App<'a> {
    /// Namespace of the objects.
    pub namespace: &'a str,
    /// Name of the Deployment, of the Service and of the `app` label.
    pub name: &'a str,
    /// How many pods.
    pub replicas: u32,
    /// The container's fields, in YAML's flow style, as `image: apps, args: [echo]`.
    pub container: String,
    /// The Service's port, which is the container's too; 0 for no Service.
    pub port: u16,
}

impl App<'_> {
    /// The Deployment and its dual-stack Service. Every app has a ServiceAccount of its own.
    pub fn yaml(&self) -> String {
        let Self {
            namespace,
            name,
            replicas,
            container,
            port,
        } = self;
        let mut text = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
             spec:\n      serviceAccountName: {name}\n      terminationGracePeriodSeconds: 5\n      volumes: [{{name: data, emptyDir: {{}}}}]\n      \
             containers:\n      - {{name: app, {container}}}\n---\n"
        );
        if *port != 0 {
            let _ = write!(
                text,
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{selector: {{app: {name}}}, ipFamilyPolicy: PreferDualStack, ports: [{{name: main, port: {port}, targetPort: {port}}}]}}\n---\n"
            );
        }
        text
    }
}

/// A readiness probe that is true when the port accepts.
pub fn ready_when_open(port: u16) -> String {
    format!("readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}")
}
