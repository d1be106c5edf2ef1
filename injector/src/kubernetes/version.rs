//! The cluster's version. weft's proxy is a native sidecar, an init container that goes on running: below Kubernetes 1.29
//! such a pod would wait for ever for its first init container to end. So there nothing is injected, and it is said why.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::sync::watch;

use super::{BackOff, What, jitter};
use crate::health::Health;

/// The first version whose native sidecars are on by default.
pub const FLOOR: Version = Version(1, 29);

/// How often the version is looked at: a control plane is upgraded while this program runs.
const LOOK: Duration = Duration::from_secs(300);

/// Subject of the problems that are told here.
const SUBJECT: &str = "Kubernetes version";

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// What `/version` says. Vendors write `28+` as the minor version and `v1.34.4+k3s1` as the whole one; an API server
    /// that was built without a stamp says nothing that means anything, and that is `None`.
    pub fn of(info: &Info) -> Option<Self> {
        let digits = |text: &str| -> Option<u32> {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().ok()
        };
        let whole = || {
            let mut parts = info.git_version.trim_start_matches('v').split('.');
            Some(Self(digits(parts.next()?)?, digits(parts.next()?)?))
        };
        let said = || Some(Self(digits(&info.major)?, digits(&info.minor)?));
        [said(), whole()].into_iter().flatten().find(|version| version.0 > 0)
    }
}

/// What a version means: why nothing is injected, or `None`.
pub fn refusal(info: &Info) -> Option<String> {
    let version = Version::of(info)?;
    (version < FLOOR).then(|| {
        format!(
            "this cluster runs Kubernetes {}.{} and weft needs {}.{} or later, for native sidecars (init containers with \
             restartPolicy Always); upgrade the cluster, or take the label weft.dev/inject off the namespace",
            version.0, version.1, FLOOR.0, FLOOR.1
        )
    })
}

/// Looks at the version again and again; never returns. What was seen last holds while the API server is away.
pub async fn keep(client: Client, unsupported: watch::Sender<Option<Arc<str>>>, health: Arc<Health>) {
    let what = What {
        verb: "get",
        resource: "the path",
        name: "/version",
        namespace: None,
    };
    let mut back_off = BackOff::new();
    loop {
        let pause = match what.call(client.apiserver_version()).await {
            Ok(info) => {
                told(&info, &unsupported, &health);
                back_off = BackOff::new();
                jitter(LOOK)
            }
            Err(failure) => {
                health.problem(SUBJECT, failure.to_string());
                back_off.step()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn told(info: &Info, unsupported: &watch::Sender<Option<Arc<str>>>, health: &Health) {
    let refusal = refusal(info);
    match &refusal {
        Some(text) => health.problem(SUBJECT, format!("no pod is let in that would be meshed: {text}")),
        None if Version::of(info).is_none() => health.problem(
            SUBJECT,
            format!(
                "the API server's version cannot be read from major '{}', minor '{}' and gitVersion '{}'; it is taken for new enough",
                info.major, info.minor, info.git_version
            ),
        ),
        None => health.solved(SUBJECT),
    }
    unsupported.send_if_modified(|before| {
        let after = refusal.map(Arc::from);
        let changed = *before != after;
        *before = after;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(major: &str, minor: &str, git_version: &str) -> Info {
        Info {
            major: major.into(),
            minor: minor.into(),
            git_version: git_version.into(),
            ..Info::default()
        }
    }

    #[test]
    fn versions_are_read_as_vendors_write_them() {
        for (major, minor, whole, expected) in [
            ("1", "34", "v1.34.4", Some(Version(1, 34))),
            ("1", "28+", "v1.28.11-eks-db838b0", Some(Version(1, 28))),
            ("1", "34+", "v1.34.4+k3s1", Some(Version(1, 34))),
            ("", "", "v1.31.2-gke.1384000", Some(Version(1, 31))),
            ("", "", "1.30", Some(Version(1, 30))),
            ("2", "0", "v2.0.0", Some(Version(2, 0))),
            ("", "", "v0.0.0-master+$Format:%H$", None),
            ("", "", "", None),
            ("one", "x", "v", None),
            ("99999999999", "1", "vé.1", None),
        ] {
            assert_eq!(
                Version::of(&info(major, minor, whole)),
                expected,
                "{major}.{minor} {whole}"
            );
        }
    }

    #[test]
    fn below_the_floor_it_is_said_why_and_what_to_do() {
        let text = refusal(&info("1", "28+", "v1.28.11")).unwrap();
        for word in ["Kubernetes 1.28", "1.29 or later", "native sidecars", "upgrade"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(refusal(&info("1", "29", "v1.29.0")), None);
        assert_eq!(refusal(&info("", "", "")), None, "what is not known refuses nobody");
    }

    #[test]
    fn an_upgrade_ends_it() {
        let (unsupported, seen) = watch::channel(None);
        let health = Health::default();
        health.ready();
        told(&info("1", "28", "v1.28.0"), &unsupported, &health);
        assert!(seen.borrow().is_some());
        assert!(
            health
                .answer()
                .unwrap()
                .contains("Kubernetes version: no pod is let in")
        );
        told(&info("1", "29", "v1.29.0"), &unsupported, &health);
        assert!(seen.borrow().is_none());
        assert_eq!(health.answer().unwrap(), "ready");
    }
}
