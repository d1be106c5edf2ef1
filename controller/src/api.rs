//! The way to an API server: one client for all, and a follower of objects.
//!
//! kube's own client dials without keepalive, so that a connection whose other end has vanished stays silent for ever; the one
//! made here finds out. Every call is bounded by [`limits::API_TIME`] through [`bounded`].

pub mod follow;
#[cfg(test)]
pub(crate) mod scripted;
pub mod config_map;

use std::{fmt, future::Future};

use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use weft_proto::limits;

/// A client with the configuration of the pod, or of the user's kubeconfig.
pub async fn client() -> anyhow::Result<Client> {
    let config = Config::infer().await?;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(limits::CONNECT_TIME));
    connector.set_keepalive(Some(limits::API_KEEPALIVE));
    connector.set_keepalive_interval(Some(limits::API_KEEPALIVE / 2));
    connector.set_keepalive_retries(Some(3));
    connector.set_tcp_user_timeout(Some(limits::USER_TIMEOUT));
    let https = config.rustls_https_connector_with_connector(connector)?;
    let http: Http<_, Body> = Http::builder(TokioExecutor::new()).build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(http.map_err(BoxError::from));
    Ok(Client::new(service, config.default_namespace))
}

/// Why a call has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 403. The text is the API server's: it names the account, the verb and the resource.
    Forbidden(String),
    /// 404.
    Absent(String),
    /// 409: there is one already, or a newer one.
    Conflict(String),
    /// 410: what was asked for is too old.
    Expired(String),
    /// The API server said something else, nothing at all, or could not be reached.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Forbidden(text) => write!(
                f,
                "the API server forbids it: {text}; apply weft's manifests again (`weft install`), which hold the Roles that it needs"
            ),
            Failure::Absent(text) | Failure::Conflict(text) | Failure::Expired(text) | Failure::Other(text) => {
                f.write_str(text)
            }
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Failure::of_status(status.code, status.message),
            // What a body that cannot be read holds may be secret.
            kube::Error::SerdeError(error) => Failure::Other(format!("its answer cannot be read: {error}")),
            other => Failure::Other(chain(&other)),
        }
    }
}

impl Failure {
    fn of_status(code: u16, message: String) -> Self {
        match code {
            403 => Failure::Forbidden(message),
            404 => Failure::Absent(message),
            409 => Failure::Conflict(message),
            410 => Failure::Expired(message),
            _ => Failure::Other(format!("the API server answered {code}: {message}")),
        }
    }
}

/// An error with its causes, each said once: `hyper` says only at the bottom what was wrong.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// A call that must be answered in [`limits::API_TIME`].
pub async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(limits::API_TIME, call).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Failure {
    Failure::Other("the API server does not answer".into())
}

/// Says a failure once, and again only when it is another or a long time has passed: what is retried for hours must not fill
/// a log.
#[derive(Debug)]
pub struct Complaint {
    what: String,
    said: Option<(String, tokio::time::Instant)>,
}

impl Complaint {
    /// About this.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            said: None,
        }
    }

    /// It failed.
    pub fn failed(&mut self, why: &impl fmt::Display) {
        let (why, now) = (why.to_string(), tokio::time::Instant::now());
        let again = std::time::Duration::from_secs(300);
        if self
            .said
            .as_ref()
            .is_none_or(|(said, at)| *said != why || now - *at > again)
        {
            tracing::warn!("{} failed, and is tried again: {why}", self.what);
            self.said = Some((why, now));
        }
    }

    /// It works.
    pub fn works(&mut self) {
        if self.said.take().is_some() {
            tracing::info!("{} works again", self.what);
        }
    }
}
