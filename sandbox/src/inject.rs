//! The API server's side of admission: a real AdmissionReview to the real injector over HTTPS, and its patch applied.

use crate::object::{Object, name, namespace, new_uid};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use weft_proto::limits;
use weft_service::tls;

/// The paths of the webhook, for pods of strict namespaces and of others, with the query that an API server adds.
const STRICT_PATH: &str = "/inject/strict?timeout=10s";
const PATH: &str = "/inject?timeout=10s";
/// How long the webhook may take, as its configuration would say.
const LIMIT: Duration = Duration::from_secs(10);

/// Where the injector is, and how it is known.
#[derive(Clone, Debug)]
pub struct Injector {
    /// ClusterIP of its Service.
    pub address: IpAddr,
    /// Port of its Service.
    pub port: u16,
    /// The name that its certificate must have.
    pub server_name: String,
    /// `caBundle`: a PEM file.
    pub ca: PathBuf,
}

/// What the injector made of a pod.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The pod as it shall be.
    Admitted(Box<Object>),
    /// Why it shall not be.
    Refused(String),
}

impl Injector {
    /// Asks about a pod that is about to come into being, in a namespace that is labelled `weft.dev/mtls=strict` or is not. An
    /// error means that there was no verdict: ask again.
    pub async fn admit(&self, pod: &Object, strict: bool) -> anyhow::Result<Verdict> {
        let (review, uid) = review(pod);
        let path = if strict { STRICT_PATH } else { PATH };
        let answer = timeout(LIMIT, self.post(path, &review))
            .await
            .context("the injector did not answer in time")??;
        verdict(pod, &uid, &answer)
    }

    async fn post(&self, path: &str, review: &Value) -> anyhow::Result<Value> {
        let pem =
            std::fs::read(&self.ca).with_context(|| format!("reading the injector's CA {}", self.ca.display()))?;
        let roots = tls::Bundle::from_pem(&pem).context("the injector's CA")?;
        let connector = TlsConnector::from(tls::webhook_client(&roots));
        let stream = TcpStream::connect((self.address, self.port))
            .await
            .context("connecting to the injector")?;
        let server = ServerName::try_from(self.server_name.clone())?;
        let stream = connector
            .connect(server, stream)
            .await
            .context("TLS with the injector")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post(path)
            .header(header::HOST, &self.server_name)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(review)?)))?;
        let response = sender.send_request(request).await.context("calling the injector")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limits::ADMISSION).collect().await;
        connection.abort();
        let body = body
            .map_err(|e| anyhow::anyhow!("reading the injector's answer: {e}"))?
            .to_bytes();
        if status != StatusCode::OK {
            bail!(
                "the injector answered {status}: {}",
                String::from_utf8_lossy(&body).chars().take(200).collect::<String>()
            );
        }
        serde_json::from_slice(&body).context("the injector's answer is not JSON")
    }
}

fn review(pod: &Object) -> (Value, String) {
    let uid = new_uid();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "operation": "CREATE", "dryRun": false,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": name(pod), "namespace": namespace(pod),
            "userInfo": {"username": "weft-sandbox", "groups": ["system:masters"]},
            "object": pod, "oldObject": null, "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    });
    (review, uid)
}

fn verdict(pod: &Object, uid: &str, answer: &Value) -> anyhow::Result<Verdict> {
    let response = &answer["response"];
    if response["uid"] != uid {
        bail!("the injector answered another review");
    }
    if response["allowed"] != true {
        let message = response["status"]["message"]
            .as_str()
            .unwrap_or("the injector gave no reason");
        return Ok(Verdict::Refused(message.to_string()));
    }
    let mut pod = pod.clone();
    if let Some(patch) = response.get("patch").filter(|p| !p.is_null()) {
        if response["patchType"] != "JSONPatch" {
            bail!("the injector's patch is not a JSONPatch");
        }
        let ByteString(bytes) = serde_json::from_value(patch.clone()).context("the injector's patch is not base64")?;
        let patch: json_patch::Patch =
            serde_json::from_slice(&bytes).context("the injector's patch is not a JSONPatch")?;
        json_patch::patch(&mut pod, &patch).context("the injector's patch does not fit the pod")?;
    }
    Ok(Verdict::Admitted(Box::new(pod)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> anyhow::Result<Verdict> {
        let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": []}});
        verdict(&pod, "u", &json!({ "response": response }))
    }

    #[test]
    fn a_patch_is_applied_and_a_refusal_keeps_its_words() {
        let patch = r#"[{"op": "add", "path": "/spec/initContainers", "value": [{"name": "weft-proxy"}]}]"#;
        let encoded = serde_json::to_value(ByteString(patch.into())).unwrap();
        let admitted =
            answer(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": encoded})).unwrap();
        let Verdict::Admitted(pod) = admitted else {
            panic!("{admitted:?}")
        };
        assert_eq!(pod["spec"]["initContainers"][0]["name"], "weft-proxy");
        let refused =
            answer(json!({"uid": "u", "allowed": false, "status": {"message": "uid 2717 is the proxy's"}})).unwrap();
        assert_eq!(refused, Verdict::Refused("uid 2717 is the proxy's".into()));
        assert!(answer(json!({"uid": "other", "allowed": true})).is_err());
    }
}
