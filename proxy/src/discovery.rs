//! The client of the controller's discovery service: one stream, on which destinations are followed and forgotten.
//!
//! A stream that breaks is made again, with pauses that grow and differ between proxies; it begins with the versions that
//! are held, so that what still holds is not sent again. Until then the last good answers stand, for as long as it takes.

pub mod channel;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use weft_proto::{
    names,
    rpc::discovery::{self as rpc, change::Content, discovery_client::DiscoveryClient, name::Kind},
};

use self::channel::BackOff;
use crate::{
    app::Shared,
    last_word, metrics,
    tables::{Ask, Workload},
};

/// Longest pause between two attempts.
const PAUSE: Duration = Duration::from_secs(10);
/// Largest answer: a Service with tens of thousands of endpoints, a Gateway with tens of thousands of routes.
const ANSWER: usize = 64 << 20;
/// Names in one message.
const BATCH: usize = 256;

/// Keeps the stream, for ever.
pub async fn run(shared: Arc<Shared>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    let mut back_off = BackOff::new(PAUSE);
    let mut told = false;
    loop {
        shared.credentials.first().await;
        let ended = follow(&shared, &mut asks, &mut back_off, &mut told).await;
        metrics::discovery_connected(false);
        match ended {
            // New credentials, or new redirects: the old stream has done its work.
            Ok(()) => continue,
            Err(error) if !std::mem::replace(&mut told, true) => {
                let address = &shared.config.discovery_address;
                tracing::warn!(%address, %error, "discovery is not there; what is known goes on");
            }
            Err(error) => tracing::debug!(%error, "discovery is still not there"),
        }
        tokio::time::sleep(back_off.step()).await;
    }
}

/// One stream, from its making to its end. `Ok`: it is to be made again at once.
async fn follow(
    shared: &Arc<Shared>,
    asks: &mut mpsc::UnboundedReceiver<Ask>,
    back_off: &mut BackOff,
    told: &mut bool,
) -> anyhow::Result<()> {
    let mut credentials_changes = shared.credentials.changes();
    let credentials = shared
        .valid_credentials()
        .ok_or_else(|| anyhow::anyhow!("the certificate has expired"))?;
    let expected = shared.config.controller(names::ROUTES_SERVICE_ACCOUNT);
    let channel = channel::connect(
        &shared.config.discovery_address,
        credentials.discovery_client(&expected),
    )
    .await
    .map_err(chain)?;
    let mut client = DiscoveryClient::new(channel).max_decoding_message_size(ANSWER);
    let (requests, sent) = mpsc::unbounded_channel();
    // What was asked before is among what is held.
    while asks.try_recv().is_ok() {}
    for request in beginning(shared) {
        let _ = requests.send(request);
    }
    let mut answers = client.follow(UnboundedReceiverStream::new(sent)).await?.into_inner();
    metrics::discovery_connected(true);
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(ask) = ask else { std::future::pending().await };
                requests.send(batch(ask, asks))?;
            }
            answer = answers.message() => {
                let answer = answer?.ok_or_else(|| anyhow::anyhow!("the controller ended the stream"))?;
                back_off.reset();
                if std::mem::take(told) {
                    tracing::info!("discovery is back");
                }
                for change in answer.changes {
                    apply(shared, change);
                }
            }
            _ = credentials_changes.changed() => return Ok(()),
            () = shared.redirects_set.notified() => return Ok(()),
        }
    }
}

/// An error of tonic's says little without those below it.
fn chain(error: tonic::transport::Error) -> anyhow::Error {
    anyhow::anyhow!("{:#}", anyhow::Error::from(error))
}

fn address(address: SocketAddr) -> rpc::Address {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    rpc::Address {
        ip,
        port: address.port().into(),
    }
}

fn destination(of: SocketAddr) -> rpc::Name {
    rpc::Name {
        kind: Some(Kind::Destination(address(of))),
    }
}

/// The pod itself, and every destination that is held, with its version; of a gateway its content alone.
fn beginning(shared: &Shared) -> Vec<rpc::FollowRequest> {
    if let Some(front) = &shared.front {
        let wanted = rpc::Wanted {
            name: Some(rpc::Name {
                kind: Some(Kind::Gateway(front.gateway().clone())),
            }),
            version: front.version(),
        };
        return vec![rpc::FollowRequest {
            follow: vec![wanted],
            forget: Vec::new(),
        }];
    }
    let own = shared.config.pod_ips.first().map(|ip| rpc::Wanted {
        name: Some(rpc::Name {
            kind: Some(Kind::Workload(address((*ip, 0).into()))),
        }),
        version: String::new(),
    });
    let held = shared.tables.held().into_iter().map(|(of, version)| rpc::Wanted {
        name: Some(destination(of)),
        version,
    });
    let wanted: Vec<_> = own.into_iter().chain(held).collect();
    wanted
        .chunks(BATCH)
        .map(|chunk| rpc::FollowRequest {
            follow: chunk.to_vec(),
            forget: Vec::new(),
        })
        .collect()
}

/// This ask and those that wait behind it, in one message. Per name their order decides, so a name is in it once.
fn batch(first: Ask, asks: &mut mpsc::UnboundedReceiver<Ask>) -> rpc::FollowRequest {
    let mut latest = indexed(first);
    while latest.len() < BATCH
        && let Ok(ask) = asks.try_recv()
    {
        let (Ask::Follow(of) | Ask::Forget(of)) = ask;
        latest.retain(|(known, _)| *known != of);
        latest.push((of, ask));
    }
    let mut request = rpc::FollowRequest::default();
    for (of, ask) in latest {
        match ask {
            Ask::Follow(_) => request.follow.push(rpc::Wanted {
                name: Some(destination(of)),
                version: String::new(),
            }),
            Ask::Forget(_) => request.forget.push(destination(of)),
        }
    }
    request
}

fn indexed(ask: Ask) -> Vec<(SocketAddr, Ask)> {
    let (Ask::Follow(of) | Ask::Forget(of)) = ask;
    vec![(of, ask)]
}

fn apply(shared: &Shared, change: rpc::Change) {
    let Some(kind) = change.name.and_then(|name| name.kind) else {
        return;
    };
    match (kind, change.content) {
        (Kind::Destination(of), Some(Content::Destination(content))) => match of.socket_addr() {
            Ok(of) => shared.tables.answer(of, &change.version, content),
            Err(wrong) => tracing::warn!(%wrong, "the controller names a destination that is none"),
        },
        (Kind::Workload(_), Some(Content::Workload(workload))) => apply_workload(shared, workload),
        (Kind::Gateway(of), Some(Content::Gateway(content))) => match &shared.front {
            Some(front) if *front.gateway() == of => front.arrive(change.version, content),
            _ => tracing::warn!("the controller tells of a Gateway that is another's"),
        },
        // It still holds, or it is of a kind that a later controller knows.
        (_, Some(Content::Unchanged(_)) | None) => {}
        (_, Some(_)) => tracing::warn!("the controller's answer is of another kind than its name"),
    }
}

fn apply_workload(shared: &Shared, workload: rpc::Workload) {
    let protocols = workload
        .protocols
        .iter()
        .filter_map(|of| Some((u16::try_from(of.port).ok()?, of.protocol())));
    let known = Workload {
        strict_mtls: workload.strict_mtls,
        protocols: protocols.collect(),
    };
    last_word::keep(&shared.config, known.strict_mtls);
    shared.tables.set_workload(known);
    if workload.terminating {
        shared.inbound_drain.drain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_follows_itself_and_what_it_is_told_is_served() {
        let of = |name: &str| rpc::ObjectName {
            namespace: "shop".into(),
            name: name.into(),
        };
        let shared = crate::app::tests::gateway("shop/edge");
        let front = shared.front.clone().unwrap();
        tokio::spawn(crate::front::run(shared.clone()));
        let wanted = |shared: &Shared| beginning(shared).remove(0).follow.remove(0);
        assert_eq!(wanted(&shared).name.unwrap().kind, Some(Kind::Gateway(of("edge"))));
        let told = |gateway, version: &str| rpc::Change {
            name: Some(rpc::Name {
                kind: Some(Kind::Gateway(gateway)),
            }),
            version: version.into(),
            content: Some(Content::Gateway(rpc::Gateway {
                listeners: vec![rpc::Listener {
                    name: version.into(),
                    port: 80,
                    ..Default::default()
                }],
                ..Default::default()
            })),
        };
        let mut opens = front.opens();
        apply(&shared, told(of("other"), "of another"));
        apply(&shared, told(of("edge"), "v1"));
        apply(&shared, told(of("edge"), "v2"));
        while front.version() != "v2" {
            tokio::select! {
                changed = opens.changed() => changed.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(wanted(&shared).version, "v2");
        assert_eq!(&*front.current().unwrap().listeners[0].name, "v2");
    }

    #[test]
    fn asks_that_wait_go_together_and_the_latest_of_a_name_counts() {
        let (send, mut asks) = mpsc::unbounded_channel();
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        for ask in [
            Ask::Follow(at(2)),
            Ask::Forget(at(1)),
            Ask::Forget(at(2)),
            Ask::Follow(at(1)),
        ] {
            send.send(ask).unwrap();
        }
        let request = batch(Ask::Follow(at(3)), &mut asks);
        let followed: Vec<_> = request.follow.into_iter().map(|wanted| wanted.name.unwrap()).collect();
        assert_eq!(followed, [destination(at(3)), destination(at(1))]);
        assert_eq!(request.forget, [destination(at(2))]);
    }
}
