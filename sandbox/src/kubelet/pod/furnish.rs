//! What a pod's containers get: volumes, files, environment, users. Everything is read anew at each start.

use super::{Pod, lock};
use crate::{
    dns,
    kubelet::{
        env,
        token::Token,
        unit::Unit,
        volumes::{self, Content},
    },
    launch::{Launch, Root, capabilities},
    object::{Kind, Object},
    root::Mount,
};
use k8s_openapi::api::core::v1 as core;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::SystemTime,
};
use weft_proto::limits;

/// User of a container that must not be root and names no user: an image would have one.
const NON_ROOT: i64 = 65_532;

impl Pod {
    fn object(&self) -> Result<Object, String> {
        let object = self.cluster.store().get(&self.key).cloned();
        object.ok_or_else(|| "the pod's object is gone".to_string())
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Object> {
        self.cluster.find(kind, &self.key.namespace, name)
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.cluster.pod_directory(&self.uid).join("volumes").join(name)
    }

    fn token(&self, pod: &Object, audience: &str, life: u64) -> Result<Token, String> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let mut tokens = lock(&self.tokens);
        if let Some(token) = tokens.get(&(audience.to_string(), life)).filter(|t| t.renew_at > now) {
            return Ok(token.clone());
        }
        let account = self.account()?;
        let token = self
            .cluster
            .signer
            .sign(pod, &account, audience, life)
            .map_err(|e| format!("{e:#}"))?;
        tokens.insert((audience.to_string(), life), token.clone());
        Ok(token)
    }

    fn account(&self) -> Result<Object, String> {
        let name = self.spec.service_account_name.as_deref().unwrap_or("default");
        self.find(Kind::ServiceAccount, name)
            .ok_or_else(|| format!("serviceaccount '{name}' not found"))
    }

    pub(super) fn volumes(&self) -> Result<(), String> {
        self.account()?;
        let object = self.object()?;
        let group = self.fs_group();
        for volume in self.spec.volumes.iter().flatten() {
            let find = |kind: Kind, name: &str| self.find(kind, name);
            let content = volumes::content(volume, &object, &find, &|a, l| self.token(&object, a, l))?;
            let directory = self.volume(&volume.name);
            let shown = |e: std::io::Error| format!("volume '{}': {e}", volume.name);
            match content {
                Content::Files(files) => {
                    let mut written = lock(&self.written);
                    volumes::write(&directory, &files, written.get(&volume.name), group).map_err(shown)?;
                    written.insert(volume.name.clone(), files);
                }
                Content::Empty => open_directory(&directory, group).map_err(shown)?,
                Content::Claim(claim) => open_directory(&self.claim(&claim), group).map_err(shown)?,
                Content::Host(path, true) => fs::create_dir_all(path).map_err(shown)?,
                Content::Host(path, false) if !path.exists() => {
                    return Err(format!(
                        "hostPath '{}' of volume '{}' does not exist on this machine",
                        path.display(),
                        volume.name
                    ));
                }
                Content::Host(..) => {}
            }
        }
        Ok(())
    }

    fn fs_group(&self) -> Option<u32> {
        self.spec
            .security_context
            .as_ref()?
            .fs_group
            .and_then(|g| u32::try_from(g).ok())
    }

    fn claim(&self, claim: &str) -> PathBuf {
        self.cluster
            .paths
            .claims()
            .join(format!("{}_{claim}", self.key.namespace))
    }

    /// Everything that a container's program gets. An error names what is missing.
    pub fn launch(&self, unit: &Unit) -> Result<Launch, String> {
        let container = &unit.container;
        let image = container.image.as_deref().unwrap_or_default();
        let (command, args) = (
            container.command.as_deref().unwrap_or_default(),
            container.args.as_deref().unwrap_or_default(),
        );
        let resolved = self.cluster.images.resolve(image, command, args);
        let resolved = resolved.ok_or_else(|| format!("image '{image}': neither a command nor a mapping"))?;
        let security = container.security_context.as_ref();
        let pod_security = self.spec.security_context.as_ref();
        let non_root = security
            .and_then(|s| s.run_as_non_root)
            .or_else(|| pod_security.and_then(|s| s.run_as_non_root));
        let fallback = if non_root == Some(true) { NON_ROOT } else { 0 };
        let id = |own: Option<i64>, pods: Option<i64>| {
            u32::try_from(own.or(pods).unwrap_or(fallback))
                .map_err(|_| "runAsUser and runAsGroup are numbers from 0".to_string())
        };
        let uid = id(
            security.and_then(|s| s.run_as_user),
            pod_security.and_then(|s| s.run_as_user),
        )?;
        let gid = id(
            security.and_then(|s| s.run_as_group),
            pod_security.and_then(|s| s.run_as_group),
        )?;
        if uid == 0 && non_root == Some(true) {
            return Err("runAsNonRoot, but runAsUser is 0; correct one".into());
        }
        let object = self.object()?;
        let mut base = BTreeMap::from([
            ("PATH".to_string(), self.cluster.path.clone()),
            ("HOME".to_string(), if uid == 0 { "/root" } else { "/" }.to_string()),
            ("HOSTNAME".to_string(), self.hostname()),
        ]);
        base.extend(resolved.env);
        let env = env::environment(container, &object, base, &|kind, name| self.find(kind, name))?;
        let words = resolved
            .command
            .iter()
            .chain(&resolved.args)
            .map(|w| env::expand(w, &env))
            .collect();
        let caps = security.and_then(|s| s.capabilities.clone()).unwrap_or_default();
        let (add, drop) = (caps.add.unwrap_or_default(), caps.drop.unwrap_or_default());
        let files = resolved.files.into_iter().map(|(target, source)| Mount {
            source,
            target,
            read_only: true,
        });
        let root = Root {
            scratch: self.scratch()?,
            hostname: self.hostname(),
            files: self.files(),
            mounts: files.chain(self.mounts(container)?).collect(),
            read_only: security.and_then(|s| s.read_only_root_filesystem) == Some(true),
        };
        Ok(Launch {
            root: Some(root),
            words,
            env,
            working_dir: container
                .working_dir
                .clone()
                .map(PathBuf::from)
                .or(resolved.working_dir)
                .unwrap_or_default(),
            uid,
            gid,
            groups: self.fs_group().into_iter().collect(),
            capabilities: capabilities(&add, &drop, security.and_then(|s| s.privileged) == Some(true)),
            no_new_privileges: security.and_then(|s| s.allow_privilege_escalation) == Some(false),
            with_parent: false,
        })
    }

    fn scratch(&self) -> Result<PathBuf, String> {
        let path = self.cluster.pod_directory(&self.uid).join("root");
        fs::create_dir_all(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
        Ok(path)
    }

    fn hostname(&self) -> String {
        let name = if self.number.is_some() {
            self.spec.hostname.clone().unwrap_or(self.key.name.clone())
        } else {
            self.cluster.node_name()
        };
        name.chars().take(63).collect()
    }

    fn files(&self) -> BTreeMap<PathBuf, String> {
        let (hostname, ips) = (self.hostname(), lock(&self.facts).ips.clone());
        let subdomain = self
            .spec
            .subdomain
            .as_deref()
            .map(|s| format!("{hostname}.{s}.{}.svc.{}\t", self.key.namespace, dns::DOMAIN));
        let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for ip in ips {
            hosts.push_str(&format!(
                "{ip}\t{}{hostname}\n",
                subdomain.as_deref().unwrap_or_default()
            ));
        }
        for alias in self.spec.host_aliases.iter().flatten() {
            hosts.push_str(&format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.clone().unwrap_or_default().join(" ")
            ));
        }
        let resolver = dns::resolv_conf(&self.key.namespace, self.cluster.ranges.dns().v4.into());
        // The machine's may ask a local resolver that knows nothing of the cluster.
        let switch = "passwd: files\ngroup: files\nhosts: files dns\n".to_string();
        [
            ("hosts", hosts),
            ("resolv.conf", resolver),
            ("hostname", hostname + "\n"),
            ("nsswitch.conf", switch),
        ]
        .into_iter()
        .map(|(name, text)| (PathBuf::from("/etc").join(name), text))
        .collect()
    }

    fn mounts(&self, container: &core::Container) -> Result<Vec<Mount>, String> {
        let mount = |m: &core::VolumeMount| {
            let volume = self.spec.volumes.iter().flatten().find(|v| v.name == m.name);
            let volume = volume.ok_or_else(|| format!("no volume '{}'", m.name))?;
            let mut source = match (&volume.host_path, &volume.persistent_volume_claim) {
                (Some(host), _) => PathBuf::from(&host.path),
                (_, Some(claim)) => self.claim(&claim.claim_name),
                _ => self.volume(&m.name),
            };
            let files =
                volume.empty_dir.is_none() && volume.host_path.is_none() && volume.persistent_volume_claim.is_none();
            if let Some(below) = m.sub_path.as_deref().filter(|p| !p.is_empty()) {
                source.push(below);
                if !source.exists() && !files {
                    open_directory(&source, self.fs_group()).map_err(|e| format!("subPath '{below}': {e}"))?;
                }
            }
            let source =
                fs::canonicalize(&source).map_err(|e| format!("volume '{}': {}: {e}", m.name, source.display()))?;
            Ok(Mount {
                source,
                target: m.mount_path.clone().into(),
                read_only: files || m.read_only == Some(true),
            })
        };
        container.volume_mounts.iter().flatten().map(mount).collect()
    }
}

/// A directory that every user of the pod may write to.
fn open_directory(path: &Path, group: Option<u32>) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

/// A log that is full begins anew. Its writers append, so they go on at its new end.
pub(super) fn bound(log: &Path) {
    let full = fs::metadata(log).is_ok_and(|m| m.len() > limits::SANDBOX_LOG as u64);
    if full {
        let _ = fs::OpenOptions::new()
            .write(true)
            .open(log)
            .and_then(|file| file.set_len(0));
    }
}
