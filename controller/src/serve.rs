//! The Discovery service: streams of answers to proxies.
//!
//! A name is answered once, and again only when its content has changed; a proxy that comes back with the versions that it
//! holds is told `unchanged` where they still hold. A stream ends when its caller's certificate does, so that nobody stays
//! longer than he is trusted.

use std::{
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use weft_proto::{
    convert::Wrong,
    limits,
    rpc::discovery::{
        self as wire, Change, FollowRequest, FollowResponse, Unchanged,
        change::Content,
        discovery_server::{Discovery, DiscoveryServer},
        name,
    },
};
use weft_service::{
    drain,
    tls::{Credentials, Holder},
};

use crate::{
    answers::{Answers, Follower, News},
    cluster::ObjectKey,
    listen::{Listener, Peer},
    plan::Name,
};

/// Serves discovery until the drain begins.
pub async fn serve(
    listener: Listener,
    holder: Arc<Holder>,
    answers: Arc<Answers>,
    drain: drain::Signal,
) -> Result<(), tonic::transport::Error> {
    let service = Service {
        answers,
        holder: holder.clone(),
        drain: drain.clone(),
        places: Arc::new(Semaphore::new(limits::DISCOVERY_STREAMS)),
    };
    builder()
        .add_service(DiscoveryServer::new(service))
        .serve_with_incoming_shutdown(listener.incoming(holder, Credentials::discovery_server), async move {
            drain.draining().await;
        })
        .await
}

/// How every gRPC server of the controller bounds its connections.
pub(crate) fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(limits::H2_PING))
        .http2_keepalive_timeout(Some(limits::H2_PING_ANSWER))
        .max_concurrent_streams(Some(16))
        .http2_max_header_list_size(Some(16 << 10))
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(4 << 20))
}

struct Service {
    answers: Arc<Answers>,
    holder: Arc<Holder>,
    drain: drain::Signal,
    places: Arc<Semaphore>,
}

type Responses = Pin<Box<ReceiverStream<Result<FollowResponse, Status>>>>;

#[tonic::async_trait]
impl Discovery for Service {
    type FollowStream = Responses;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Responses>, Status> {
        // The handshake demands a certificate, so that there always is one.
        let peer = request.extensions().get::<Option<Peer>>().cloned().flatten();
        let peer = peer.ok_or_else(|| Status::unauthenticated("discovery needs a client certificate of the mesh"))?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{} streams are open; try another replica",
                limits::DISCOVERY_STREAMS
            ))
        })?;
        let (sender, receiver) = mpsc::channel(4);
        let stream = Stream {
            requests: request.into_inner(),
            responses: sender,
            follower: self.answers.follower(peer.id.clone()),
            answers: self.answers.clone(),
            holder: self.holder.clone(),
            drain: self.drain.clone(),
            peer,
            _place: place,
        };
        weft_service::task::spawn("follow", stream.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Stream {
    requests: Streaming<FollowRequest>,
    responses: mpsc::Sender<Result<FollowResponse, Status>>,
    follower: Follower,
    answers: Arc<Answers>,
    holder: Arc<Holder>,
    drain: drain::Signal,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// The stream is over; a status where the caller is to be told why.
struct Over(Option<Status>);

impl Stream {
    async fn run(mut self) {
        tracing::debug!(caller = %self.peer.id, "follows");
        let Over(status) = self.talk().await;
        tracing::debug!(caller = %self.peer.id, ?status, "follows no longer");
        if let Some(status) = status {
            let _ = self.responses.send(Err(status)).await;
        }
    }

    async fn talk(&mut self) -> Over {
        let mut trust = self.holder.changes();
        let end = tokio::time::sleep(self.life());
        let mut end = std::pin::pin!(end);
        let (answers, drain, responses) = (self.answers.clone(), self.drain.clone(), self.responses.clone());
        tokio::select! {
            () = answers.synced() => {}
            () = drain.draining() => return Over(Some(ending())),
            () = responses.closed() => return Over(None),
        }
        loop {
            tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => {
                        if let Err(status) = self.take(request) {
                            return Over(Some(status));
                        }
                    }
                    // The caller is done, or gone.
                    Ok(None) | Err(_) => return Over(None),
                },
                () = self.follower.news() => {
                    while let Some(response) = self.response() {
                        if self.responses.send(Ok(response)).await.is_err() {
                            return Over(None);
                        }
                    }
                }
                Ok(()) = trust.changed() => {
                    let judged = self.holder.current().map(|now| now.accepts(&self.peer.chain, SystemTime::now()));
                    if let Some(Err(error)) = judged {
                        tracing::info!(caller = %self.peer.id, %error, "no longer trusted");
                        return Over(Some(Status::unauthenticated(format!("your certificate is trusted no longer: {error}"))));
                    }
                }
                () = &mut end => {
                    let why = "the stream has reached its age, or your certificate its end; connect again";
                    return Over(Some(Status::unavailable(why)));
                }
                () = drain.draining() => return Over(Some(ending())),
                () = responses.closed() => return Over(None),
            }
        }
    }

    /// Until the caller's certificate ends, and no longer than the age, of which the last quarter is left to chance.
    fn life(&self) -> Duration {
        let certificate = self
            .peer
            .not_after
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let chance = (RandomState::new().hash_one(0) % 250) as u32;
        certificate.min(limits::DISCOVERY_AGE * (1000 - chance) / 1000)
    }

    fn take(&mut self, request: FollowRequest) -> Result<(), Status> {
        for name in &request.forget {
            self.follower.forget(read(Some(name))?);
        }
        for wanted in request.follow {
            let name = read(wanted.name.as_ref())?;
            // Longer than any version of ours: whatever it is, it does not hold.
            let version = if wanted.version.len() > 64 {
                String::new()
            } else {
                wanted.version
            };
            self.follower
                .follow(name, version)
                .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        }
        Ok(())
    }

    /// The next response, as large as is good.
    fn response(&mut self) -> Option<FollowResponse> {
        let mut response = FollowResponse::default();
        let mut size = 0;
        while size < limits::DISCOVERY_RESPONSE {
            let Some((name, news)) = self.follower.take() else {
                break;
            };
            let (version, content) = match news {
                News::Unchanged(version) => (version, Content::Unchanged(Unchanged {})),
                News::Answer(answer) => (answer.version, answer.content),
            };
            let change = Change {
                name: Some(write(name)),
                version,
                content: Some(content),
            };
            size += change.encoded_len();
            response.changes.push(change);
        }
        (!response.changes.is_empty()).then_some(response)
    }
}

fn ending() -> Status {
    Status::unavailable("this controller is ending; connect again")
}

fn read(name: Option<&wire::Name>) -> Result<Name, Status> {
    let wrong = |wrong: Wrong| Status::invalid_argument(format!("a name cannot be read: {wrong}"));
    match name.and_then(|name| name.kind.as_ref()) {
        Some(name::Kind::Destination(address)) => Ok(Name::Destination(address.socket_addr().map_err(wrong)?)),
        Some(name::Kind::Workload(address)) => Ok(Name::Workload(address.ip_addr().map_err(wrong)?)),
        Some(name::Kind::Gateway(name)) => Ok(Name::Gateway(ObjectKey::new(&name.namespace, &name.name))),
        None => Err(Status::invalid_argument(
            "a name is neither a destination nor a workload nor a gateway",
        )),
    }
}

fn write(name: Name) -> wire::Name {
    wire::Name {
        kind: Some(match name {
            Name::Destination(address) => name::Kind::Destination(address.into()),
            Name::Workload(address) => name::Kind::Workload(address.into()),
            Name::Gateway(key) => name::Kind::Gateway(wire::ObjectName {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            }),
        }),
    }
}
