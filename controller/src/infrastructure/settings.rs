//! What gateways' pods are told, with the roots that they trust at start: told anew when those change, since the next pod must know them.

use std::{path::PathBuf, sync::Arc};

use tokio::{sync::watch, time::sleep};
use weft_proto::limits;

use super::Settings;
use crate::{api::Complaint, issue::ca::Authority};

/// With the roots of a CA of this process, for ever.
pub async fn of_authority(given: Settings, ca: Arc<Authority>, settings: watch::Sender<Option<Settings>>) {
    let mut changes = ca.changes();
    loop {
        if let Some(current) = ca.current() {
            tell(&given, current.bundle_pem(), &settings);
        }
        // Cannot fail: `ca` holds the sender.
        let _ = changes.changed().await;
    }
}

/// With the roots of a file that somebody keeps, for ever.
pub async fn of_file(given: Settings, file: PathBuf, settings: watch::Sender<Option<Settings>>) {
    let mut complaint = Complaint::new(format!("reading {}", file.display()));
    loop {
        match tokio::fs::read_to_string(&file).await {
            Ok(text) if weft_service::tls::certificates(text.as_bytes()).is_ok_and(|roots| !roots.is_empty()) => {
                complaint.works();
                tell(&given, text, &settings);
            }
            Ok(_) => complaint.failed(&"it holds no certificate"),
            Err(error) => complaint.failed(&error),
        }
        sleep(limits::TRUST_LOOK).await;
    }
}

fn tell(given: &Settings, trust_bundle: String, settings: &watch::Sender<Option<Settings>>) {
    let new = Settings {
        trust_bundle,
        ..given.clone()
    };
    settings.send_if_modified(|old| {
        let changed = old.as_ref() != Some(&new);
        *old = Some(new);
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_is_told_and_one_that_is_spoilt_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca-bundle.crt");
        let pem = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new(vec!["a".into()])
                .unwrap()
                .self_signed(&key)
                .unwrap()
                .pem()
        };
        let (sender, mut settings) = watch::channel(None);
        tokio::spawn(of_file(Settings::default(), file.clone(), sender));
        for text in [pem(), pem()] {
            std::fs::write(&file, &text).unwrap();
            let told = settings
                .wait_for(|now| now.as_ref().is_some_and(|now| now.trust_bundle == text))
                .await;
            assert!(told.is_ok());
        }
        std::fs::write(&file, "x").unwrap();
        tokio::time::sleep(limits::TRUST_LOOK * 3).await;
        assert!(!settings.has_changed().unwrap());
    }
}
