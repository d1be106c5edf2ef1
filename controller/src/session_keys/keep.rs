//! Where the secrets are kept: in a Secret, which the leader makes and turns over and every replica reads, or in a file.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use weft_proto::names::{
    ROUTES_SERVICE_ACCOUNT,
    kubernetes::{SESSION_KEYS, SESSION_SECRET},
};

use super::{LENGTH, Masters};
use crate::{
    answers::Answers,
    api::{
        Complaint, Failure, bounded,
        config_map::labels,
        follow::{Event, Follow, pause},
    },
};

/// Random bytes for a secret.
fn random() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system gives random bytes, or TLS would not work either");
    bytes
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The secrets of a file, which is made where it is missing. It is readable for its owner only.
pub fn file(path: &Path) -> anyhow::Result<Masters> {
    let place = || path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Masters::read(&text).with_context(place),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let masters = Masters::first(random(), now());
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(place)?;
            file.write_all(masters.text().as_bytes()).with_context(place)?;
            Ok(masters)
        }
        Err(error) => Err(error).with_context(place),
    }
}

/// Secrets that are forgotten when the process ends.
pub fn fleeting() -> Masters {
    Masters::first(random(), now())
}

/// Follows the Secret, makes it where it is missing and turns it over while `leading`, and tells `answers` of it, for ever.
pub async fn keep(client: Client, namespace: String, answers: Arc<Answers>, mut leading: watch::Receiver<bool>) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let mut events = Follow::<Secret>::named(client.clone(), path, SESSION_SECRET);
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let mut watching = Complaint::new(format!("following the Secret {namespace}/{SESSION_SECRET}"));
    let mut writing = Complaint::new(format!("writing the Secret {namespace}/{SESSION_SECRET}"));
    let (mut known, mut found, mut listing): (Option<Secret>, _, _) = (None, None, true);
    let (mut good, mut failures) = (Masters::default(), 0);
    let mut not_before = Instant::now();
    loop {
        let leads = *leading.borrow_and_update();
        let write = async {
            if !leads || listing {
                return std::future::pending().await;
            }
            let due = match &known {
                Some(_) => Instant::now() + good.due(now()),
                None => Instant::now(),
            };
            sleep_until(due.max(not_before)).await;
        };
        tokio::select! {
            event = events.next() => {
                match event {
                    Event::Restarted => (found, listing) = (None, true),
                    Event::Apply(secret) if listing => found = Some(secret),
                    Event::Apply(secret) => known = Some(secret),
                    Event::Delete(_) => known = None,
                    Event::Listed => {
                        (known, listing) = (found.take(), false);
                        watching.works();
                    }
                    Event::Watching => watching.works(),
                    Event::Failed(Failure::Expired(_)) => {}
                    Event::Failed(failure) => watching.failed(&failure),
                }
                if !listing && let Some(secret) = &known {
                    take(secret, &mut good, &answers);
                }
            }
            Ok(()) = leading.changed() => {}
            () = write => {
                not_before = Instant::now() + pause(failures + 1);
                // A Secret that was deleted comes back as it was: sessions would break without need.
                let gone = known.is_none() && !good.is_empty();
                let next = if gone { Some(good.clone()) } else { good.next(now(), random) };
                let Some(next) = next else { continue };
                match self::write(&api, known.as_ref(), &next).await {
                    Ok(secret) => {
                        writing.works();
                        failures = 0;
                        take(&secret, &mut good, &answers);
                        known = Some(secret);
                    }
                    // Another was faster: the watch tells what there is now.
                    Err(Failure::Conflict(_)) => failures += 1,
                    Err(failure) => {
                        failures += 1;
                        writing.failed(&failure);
                    }
                }
            }
        }
    }
}

/// What cannot be read changes nothing.
fn take(secret: &Secret, good: &mut Masters, answers: &Answers) {
    let data = secret.data.as_ref().and_then(|data| data.get(SESSION_KEYS));
    let text = data.map(|text| String::from_utf8_lossy(&text.0)).unwrap_or_default();
    match Masters::read(&text) {
        Ok(masters) if masters == *good => {}
        Ok(masters) if masters.is_empty() => {
            tracing::error!("the Secret {SESSION_SECRET} holds no key; delete it, and it is made anew");
        }
        Ok(masters) => {
            tracing::info!(?masters, "have the keys of sessions");
            *good = masters;
            answers.set_sessions(good.clone());
        }
        Err(error) => {
            tracing::error!(%error, "the Secret {SESSION_SECRET} cannot be used; delete it, and it is made anew");
        }
    }
}

async fn write(api: &Api<Secret>, known: Option<&Secret>, masters: &Masters) -> Result<Secret, Failure> {
    let mut secret = known.cloned().unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(SESSION_SECRET.to_owned()),
            labels: Some(labels(ROUTES_SERVICE_ACCOUNT)),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        ..Secret::default()
    });
    secret.metadata.managed_fields = None;
    let data = secret.data.get_or_insert_default();
    data.insert(SESSION_KEYS.to_owned(), ByteString(masters.text().into_bytes()));
    match known {
        // With the version that is known, so that it fails where there is a newer one.
        Some(_) => bounded(api.replace(SESSION_SECRET, &PostParams::default(), &secret)).await,
        None => bounded(api.create(&PostParams::default(), &secret)).await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::api::scripted::Server;

    const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-session-keys";

    fn start(server: &Server, leads: bool) -> (Arc<Answers>, watch::Sender<bool>) {
        weft_service::tls::install_provider();
        let answers = Answers::new(crate::plan::Settings::new("cluster.local"));
        let (sender, leading) = watch::channel(leads);
        let kept = keep(server.client(), "weft-system".into(), answers.clone(), leading);
        tokio::spawn(kept);
        (answers, sender)
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_makes_the_secret_and_every_replica_reads_it() {
        let server = Server::default();
        let (follower, _other) = start(&server, false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(follower.sessions().is_empty(), "who does not lead makes nothing");
        let (leader, _leading) = start(&server, true);
        let before = server.until(SECRET, |secret| !secret.is_null()).await["data"].clone();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!leader.sessions().is_empty());
        assert_eq!(leader.sessions(), follower.sessions());
        server.delete(SECRET);
        let after = server.until(SECRET, |secret| !secret.is_null()).await["data"].clone();
        assert_eq!(before, after, "it comes back as it was");
        server.put(SECRET, json!({"data": {SESSION_KEYS: "eHh4"}}));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(leader.sessions(), follower.sessions(), "the last good ones stay");
    }

    #[test]
    fn a_file_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session-keys");
        let made = file(&path).unwrap();
        assert_eq!(file(&path).unwrap(), made);
        fs::write(&path, "x").unwrap();
        assert!(format!("{:#}", file(&path).unwrap_err()).contains("line 1"));
    }
}
