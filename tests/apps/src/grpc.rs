//! The gRPC service of `proto/sample.proto`: answers as it is asked to, and says which pod it is.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use tonic::{Code, Request, Response, Status, Streaming, codegen::Service as _, metadata::MetadataMap};

use crate::{
    listen::{Listen, Tls},
    sample::{
        self,
        sample_server::{Sample, SampleServer},
    },
    web,
};

/// Largest message, both ways.
pub const MESSAGE: usize = 64 << 20;
/// Largest reply, and most replies, that a client may wish for.
const SIZE: u32 = 32 << 20;
const REPLIES: u32 = 1_000_000;

pub async fn serve(listen: Listen) -> Result<()> {
    let me = Me {
        pod: crate::pod().into(),
    };
    let service = SampleServer::new(me)
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE);
    let handle = move |connection| {
        let service = service.clone();
        web::serve(connection, move |request| {
            let mut service = service.clone();
            async move {
                let request = request.map(tonic::body::Body::new);
                match service.call(request).await {
                    Ok(response) => with_trailers(response),
                    Err(never) => match never {},
                }
            }
        })
    };
    listen.serve("grpc", Tls::IfGiven, &["h2"], handle).await
}

/// Trailers of a call that ends well. tonic has no place for them, so that they ride in the response's extensions.
#[derive(Clone)]
struct Extra(HeaderMap);

fn with_trailers(mut response: http::Response<tonic::body::Body>) -> http::Response<web::AnyBody> {
    let Some(Extra(extra)) = response.extensions_mut().remove::<Extra>() else {
        return response.map(web::boxed);
    };
    response.map(|body| {
        web::boxed(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.extend(extra.clone());
                hyper::body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

#[derive(Clone)]
struct Me {
    pod: Arc<str>,
}

/// What one request asks for.
#[derive(Clone)]
struct Wishes {
    status: Option<Status>,
    trailers: HeaderMap,
    delay: Duration,
    response_size: u32,
    messages: u32,
}

impl Wishes {
    fn of(request: &sample::Request) -> Result<Self, Status> {
        let trailers = fields(&request.trailers)?;
        let status = (request.status_code != 0).then(|| {
            let code = Code::from(i32::try_from(request.status_code).unwrap_or(i32::MAX));
            Status::with_metadata(
                code,
                request.status_message.clone(),
                MetadataMap::from_headers(trailers.clone()),
            )
        });
        if request.response_size > SIZE || request.messages > REPLIES {
            return Err(Status::invalid_argument(format!(
                "at most {REPLIES} replies of {SIZE} bytes"
            )));
        }
        Ok(Self {
            status,
            trailers,
            delay: Duration::from_millis(request.delay_ms.into()),
            response_size: request.response_size,
            messages: request.messages.max(1),
        })
    }
}

fn fields(pairs: &BTreeMap<String, String>) -> Result<HeaderMap, Status> {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs {
        let bad = |_| Status::invalid_argument(format!("'{name}' with its value is no field"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
        fields.append(name, HeaderValue::from_str(value).map_err(|_| bad(()))?);
    }
    Ok(fields)
}

impl Me {
    fn reply(&self, request: &sample::Request, wishes: &Wishes, so_far: &SoFar) -> sample::Reply {
        let payload = match wishes.response_size {
            0 => request.payload.clone(),
            size => Bytes::from(vec![b'.'; size as usize]),
        };
        sample::Reply {
            text: request.text.clone(),
            payload,
            pod: self.pod.to_string(),
            sequence: so_far.sent,
            received: so_far.received,
            received_bytes: so_far.bytes,
        }
    }

    /// The replies to one request, each after its delay, and the status at their end.
    fn replies(&self, request: sample::Request, wishes: Wishes, mut so_far: SoFar) -> (Replies, SoFar) {
        let before = so_far.clone();
        so_far.sent += wishes.messages;
        let end = wishes.status.clone().map(Err);
        let me = self.clone();
        let replies = stream::iter(1..=wishes.messages).then(move |number| {
            let so_far = SoFar {
                sent: before.sent + number,
                ..before.clone()
            };
            let reply = me.reply(&request, &wishes, &so_far);
            let delay = wishes.delay;
            async move {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                Ok(reply)
            }
        });
        (Box::pin(replies.chain(stream::iter(end))), so_far)
    }
}

/// What has crossed on one call until now.
#[derive(Clone, Default)]
struct SoFar {
    sent: u32,
    received: u32,
    bytes: u64,
}

impl SoFar {
    fn receive(&mut self, request: &sample::Request) {
        self.received += 1;
        self.bytes += request.payload.len() as u64;
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<sample::Reply, Status>> + Send>>;

fn answered<T>(reply: T, trailers: HeaderMap) -> Response<T> {
    let mut response = Response::new(reply);
    if !trailers.is_empty() {
        response.extensions_mut().insert(Extra(trailers));
    }
    response
}

#[tonic::async_trait]
impl Sample for Me {
    async fn unary(&self, request: Request<sample::Request>) -> Result<Response<sample::Reply>, Status> {
        let request = request.into_inner();
        let wishes = Wishes::of(&request)?;
        let mut so_far = SoFar {
            sent: 1,
            ..SoFar::default()
        };
        so_far.receive(&request);
        tokio::time::sleep(wishes.delay).await;
        match wishes.status.clone() {
            Some(status) => Err(status),
            None => Ok(answered(self.reply(&request, &wishes, &so_far), wishes.trailers)),
        }
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, request: Request<sample::Request>) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let wishes = Wishes::of(&request)?;
        let mut so_far = SoFar::default();
        so_far.receive(&request);
        let trailers = wishes.trailers.clone();
        let (replies, _) = self.replies(request, wishes, so_far);
        Ok(answered(replies, trailers))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<sample::Request>>,
    ) -> Result<Response<sample::Reply>, Status> {
        let mut requests = request.into_inner();
        let mut so_far = SoFar {
            sent: 1,
            ..SoFar::default()
        };
        let mut last = sample::Request::default();
        while let Some(request) = requests.message().await? {
            so_far.receive(&request);
            last = request;
        }
        let wishes = Wishes::of(&last)?;
        tokio::time::sleep(wishes.delay).await;
        match wishes.status.clone() {
            Some(status) => Err(status),
            None => Ok(answered(self.reply(&last, &wishes, &so_far), wishes.trailers)),
        }
    }

    type BidirectionalStream = Replies;

    async fn bidirectional(&self, request: Request<Streaming<sample::Request>>) -> Result<Response<Replies>, Status> {
        let me = self.clone();
        let calls = stream::unfold(
            (request.into_inner(), SoFar::default(), false),
            move |(mut requests, mut so_far, over)| {
                let me = me.clone();
                async move {
                    if over {
                        return None;
                    }
                    let (replies, so_far, over): (Replies, _, _) = match requests.message().await {
                        Ok(None) => return None,
                        Err(status) => (Box::pin(stream::iter([Err(status)])), so_far, true),
                        Ok(Some(request)) => {
                            so_far.receive(&request);
                            match Wishes::of(&request) {
                                Err(status) => (Box::pin(stream::iter([Err(status)])), so_far, true),
                                Ok(wishes) => {
                                    let over = wishes.status.is_some();
                                    let (replies, so_far) = me.replies(request, wishes, so_far);
                                    (replies, so_far, over)
                                }
                            }
                        }
                    };
                    Some((replies, (requests, so_far, over)))
                }
            },
        );
        Ok(Response::new(Box::pin(calls.flatten())))
    }
}
