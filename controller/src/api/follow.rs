//! Follows the objects of one kind: lists them by pages, then watches, and begins anew where a watch is too old.
//!
//! Made for what goes wrong: every read is bounded, so that an API server that accepts and never answers, or a connection of
//! which the other end has vanished, costs [`limits::WATCH_SILENCE`] at most; a watch that ends goes on from where it was; pauses
//! between attempts grow up to [`limits::WATCH_PAUSE`]. An object that is read is handed on and dropped: at no time is there
//! more than one page of them.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use http_body_util::BodyExt;
use kube::{
    Client,
    api::{ListParams, WatchParams},
    client::Body,
    core::Request,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout, timeout_at};
use weft_proto::limits;

use super::{Failure, silent};

/// News of the objects.
#[derive(Debug)]
pub enum Event<T> {
    /// A list begins: what is not told until [`Event::Listed`] is no more.
    Restarted,
    /// It is there, in a list or since.
    Apply(T),
    /// The list is complete.
    Listed,
    /// It has gone.
    Delete(T),
    /// The watch goes on after a failure.
    Watching,
    /// Something went wrong; what is known stays, and the next call tries again after a pause.
    Failed(Failure),
}

/// Follows the objects of one path. Calls of [`Follow::next`] may be dropped and made anew at any time.
pub struct Follow<T> {
    client: Client,
    path: String,
    field_selector: Option<String>,
    label_selector: Option<String>,
    state: State,
    page: VecDeque<T>,
    /// End of the pause after a failure.
    wait: Option<Instant>,
    failures: u32,
}

enum State {
    /// Nothing is known.
    Start,
    /// More pages come.
    Listing(String),
    /// The page in hand is the last.
    Listed(String),
    /// A watch is to be begun after this version.
    Known(String),
    Watching(Watch),
}

struct Watch {
    version: String,
    body: Body,
    begun: Instant,
    /// When something came last.
    heard: Instant,
    /// Bytes of a line that is not complete.
    rest: Vec<u8>,
    /// Where no end of a line was found before.
    looked: usize,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// A line of a watch, as far as it is alike for all kinds.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    object: HeadObject,
}

#[derive(Deserialize)]
struct HeadObject {
    #[serde(default)]
    metadata: PageMeta,
}

#[derive(Deserialize)]
struct Line<T> {
    object: T,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: u16,
    message: String,
}

impl<T: DeserializeOwned> Follow<T> {
    /// The objects of a path such as `/api/v1/pods`.
    pub fn new(client: Client, path: impl Into<String>) -> Self {
        Self {
            client,
            path: path.into(),
            field_selector: None,
            label_selector: None,
            state: State::Start,
            page: VecDeque::new(),
            wait: None,
            failures: 0,
        }
    }

    /// The one object with this name: an account that may watch no other may watch this one so.
    pub fn named(client: Client, path: impl Into<String>, name: &str) -> Self {
        Self {
            field_selector: Some(format!("metadata.name={name}")),
            ..Self::new(client, path)
        }
    }

    /// The objects with these labels, as `app=web,tier=front`.
    pub fn labelled(client: Client, path: impl Into<String>, labels: &str) -> Self {
        Self {
            label_selector: Some(labels.to_owned()),
            ..Self::new(client, path)
        }
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Event<T> {
        loop {
            if let Some(object) = self.page.pop_front() {
                return Event::Apply(object);
            }
            if let Some(until) = self.wait {
                tokio::time::sleep_until(until).await;
                self.wait = None;
            }
            let stepped = match &mut self.state {
                State::Start => self.list(None).await.map(|()| Some(Event::Restarted)),
                State::Listing(next) => {
                    let next = next.clone();
                    self.list(Some(next)).await.map(|()| None)
                }
                State::Listed(version) => {
                    let version = std::mem::take(version);
                    self.state = State::Known(version);
                    Ok(Some(Event::Listed))
                }
                State::Known(version) => {
                    let version = version.clone();
                    self.watch(version).await
                }
                State::Watching(_) => self.read().await,
            };
            match stepped {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(failure) => return self.failed(failure),
            }
        }
    }

    fn failed(&mut self, failure: Failure) -> Event<T> {
        match (&failure, &mut self.state) {
            (Failure::Expired(_), _) => self.state = State::Start,
            (_, State::Watching(_)) => self.ended(),
            // A kind whose definition has gone has no objects.
            (Failure::Absent(_), _) | (_, State::Listing(_) | State::Listed(_)) => {
                self.page.clear();
                self.state = State::Start;
            }
            _ => {}
        }
        self.later();
        Event::Failed(failure)
    }

    fn later(&mut self) {
        self.wait = Some(Instant::now() + pause(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// The watch goes on later from where it was.
    fn ended(&mut self) {
        if let State::Watching(watch) = &mut self.state {
            if watch.begun.elapsed() > limits::WATCH_PAUSE {
                self.failures = 0;
            }
            self.state = State::Known(std::mem::take(&mut watch.version));
        }
    }

    async fn list(&mut self, next: Option<String>) -> Result<(), Failure> {
        let params = ListParams {
            field_selector: self.field_selector.clone(),
            label_selector: self.label_selector.clone(),
            limit: u32::try_from(limits::API_PAGE).ok(),
            continue_token: next,
            ..ListParams::default()
        };
        let request = Request::new(&*self.path).list(&params);
        let request = request.map_err(|error| Failure::Other(error.to_string()))?;
        let mut body = self.send(request).await?;
        let mut bytes = Vec::new();
        while more(&mut body, Instant::now() + limits::API_TIME, &mut bytes).await? {}
        let page: Page<T> = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Other(format!("the list cannot be read: {error}")))?;
        self.page = page.items.unwrap_or_default().into();
        self.state = if page.metadata.next.is_empty() {
            State::Listed(page.metadata.resource_version)
        } else {
            State::Listing(page.metadata.next)
        };
        Ok(())
    }

    async fn watch(&mut self, version: String) -> Result<Option<Event<T>>, Failure> {
        let params = WatchParams {
            field_selector: self.field_selector.clone(),
            label_selector: self.label_selector.clone(),
            timeout: u32::try_from(limits::WATCH_TIME.as_secs()).ok(),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(&*self.path).watch(&params, &version);
        let request = request.map_err(|error| Failure::Other(error.to_string()))?;
        let body = self.send(request).await?;
        let now = Instant::now();
        self.state = State::Watching(Watch {
            version,
            body,
            begun: now,
            heard: now,
            rest: Vec::new(),
            looked: 0,
        });
        Ok((self.failures > 0).then_some(Event::Watching))
    }

    async fn send(&mut self, request: http::Request<Vec<u8>>) -> Result<Body, Failure> {
        let sent = timeout(limits::API_TIME, self.client.send(request.map(Body::from))).await;
        let response = sent.map_err(|_| silent())??;
        let status = response.status();
        let mut body = response.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let mut bytes = Vec::new();
        while bytes.len() < 64 << 10 && more(&mut body, Instant::now() + limits::API_TIME, &mut bytes).await? {}
        let refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(Failure::of_status(status.as_u16(), refusal.message))
    }

    /// The next event of the watch. `None`: it has ended, as each does after a while, or there is nothing to tell.
    async fn read(&mut self) -> Result<Option<Event<T>>, Failure> {
        let State::Watching(watch) = &mut self.state else {
            return Ok(None);
        };
        let Some(end) = watch.rest[watch.looked..].iter().position(|byte| *byte == b'\n') else {
            watch.looked = watch.rest.len();
            if more(&mut watch.body, watch.heard + limits::WATCH_SILENCE, &mut watch.rest).await? {
                watch.heard = Instant::now();
            } else {
                self.ended();
                // An API server that ends every watch at once must not be asked in a circle.
                self.later();
            }
            return Ok(None);
        };
        let line: Vec<u8> = watch.rest.drain(..watch.looked + end + 1).collect();
        watch.looked = 0;
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let wrong = |error: serde_json::Error| Failure::Other(format!("an event of the watch cannot be read: {error}"));
        let head: Head = serde_json::from_slice(&line).map_err(wrong)?;
        if head.kind == "ERROR" {
            let Line {
                object: Refusal { code, message },
            } = serde_json::from_slice(&line).map_err(wrong)?;
            return Err(Failure::of_status(code, message));
        }
        watch.version = head.object.metadata.resource_version;
        self.failures = 0;
        let object = || {
            serde_json::from_slice(&line)
                .map(|line: Line<T>| line.object)
                .map_err(wrong)
        };
        Ok(match head.kind.as_str() {
            "ADDED" | "MODIFIED" => Some(Event::Apply(object()?)),
            "DELETED" => Some(Event::Delete(object()?)),
            _ => None,
        })
    }
}

/// Reads one frame more; `false` at the end.
async fn more(body: &mut Body, until: Instant, bytes: &mut Vec<u8>) -> Result<bool, Failure> {
    match timeout_at(until, body.frame()).await {
        Err(_) => Err(silent()),
        Ok(None) => Ok(false),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(Some(Ok(frame))) => {
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > limits::API_BYTES {
                    let most = limits::API_BYTES;
                    return Err(Failure::Other(format!(
                        "the API server sends more than {most} bytes in one piece"
                    )));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(true)
        }
    }
}

/// Doubles from 0.5 s, with jitter, up to [`limits::WATCH_PAUSE`].
pub(crate) fn pause(failures: u32) -> Duration {
    let most = Duration::from_millis(500 << failures.min(10)).min(limits::WATCH_PAUSE);
    let share = (RandomState::new().hash_one(0) % 500) as u32;
    most * (500 + share) / 1000
}

#[cfg(test)]
mod tests;
