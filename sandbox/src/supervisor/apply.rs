//! What the API server does with `apply`, `delete` and `scale`.

use super::{
    Supervisor, lock,
    reconcile::{elements, mark_terminating},
};
use crate::{
    manifest::{self, Batch, Source},
    object::{Key, Kind, Object, name, namespace},
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Families of a Service, unless it says so: both.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

impl Supervisor {
    /// Applies files. Nothing is applied when anything in them is wrong.
    pub(crate) fn apply(&self, sources: &[Source]) -> anyhow::Result<Vec<String>> {
        let batch = self.read(sources)?;
        let mut said = Vec::new();
        for (place, object) in batch.objects {
            let key = Key::of(&object).context("a kind that was just read")?;
            let verb = self.apply_one(key.clone(), object).with_context(|| place)?;
            said.push(format!("{key} {verb}"));
        }
        said.extend(batch.ignored.into_iter().map(|what| format!("ignored: {what}")));
        self.cluster.changed.notify_one();
        Ok(said)
    }

    /// Deletes what files name; with each workload its pods.
    pub(crate) fn delete(&self, sources: &[Source]) -> anyhow::Result<Vec<String>> {
        // What is to go need not be right, only named.
        let batch = manifest::read(sources, &self.cluster.images, &|_| true);
        let mut said = Vec::new();
        for (_, object) in batch.objects.into_iter().rev() {
            let Some(key) = Key::of(&object) else { continue };
            said.push(format!(
                "{key} {}",
                if self.delete_one(&key)? { "deleted" } else { "not found" }
            ));
        }
        let kept = batch.mistakes.iter().filter(|m| m.what.starts_with("not YAML"));
        said.extend(kept.map(|m| m.to_string()));
        self.cluster.changed.notify_one();
        Ok(said)
    }

    /// Deletes one object.
    pub(crate) fn delete_one(&self, key: &Key) -> anyhow::Result<bool> {
        lock(&self.applied).remove(key);
        lock(&self.running).replacing.remove(key);
        let mut store = self.cluster.store();
        let found = match key.kind {
            Kind::Pod => store.change(key, mark_terminating)?,
            _ => store.remove(key)?.is_some(),
        };
        drop(store);
        self.cluster.changed.notify_one();
        Ok(found)
    }

    /// Sets the number of a workload's pods.
    pub(crate) fn scale(&self, key: &Key, replicas: u32) -> anyhow::Result<()> {
        if !matches!(key.kind, Kind::Deployment | Kind::StatefulSet) {
            bail!(
                "a {} has no number of replicas; name a deployment or a statefulset",
                key.kind
            );
        }
        let mut store = self.cluster.store();
        if store.get(key).is_none() {
            bail!("{key} not found; see `weft sandbox get {}`", key.kind.plural());
        }
        store.change(key, |o| o["spec"]["replicas"] = replicas.into())?;
        drop(store);
        // The manifest says another number: applying it again is a change.
        lock(&self.applied).remove(key);
        self.cluster.changed.notify_one();
        Ok(())
    }

    fn read(&self, sources: &[Source]) -> anyhow::Result<Batch> {
        let exists = |namespace: &str| self.cluster.find(Kind::Namespace, "", namespace).is_some();
        let batch = manifest::read(sources, &self.cluster.images, &exists);
        if batch.mistakes.is_empty() {
            return Ok(batch);
        }
        let lines: Vec<String> = batch.mistakes.iter().map(|m| format!("  {m}")).collect();
        bail!("nothing was applied:\n{}", lines.join("\n"))
    }

    fn apply_one(&self, key: Key, object: Object) -> anyhow::Result<&'static str> {
        let before = lock(&self.applied).get(&key).cloned();
        let exists = self.cluster.store().get(&key).is_some();
        if exists && before.as_ref() == Some(&object) {
            return Ok("unchanged");
        }
        lock(&self.applied).insert(key.clone(), object.clone());
        let complete = match key.kind {
            Kind::Pod => self.with_pod_defaults(object),
            Kind::Service => self.with_addresses(object)?,
            _ => object,
        };
        if exists && key.kind == Kind::Pod {
            // A pod's spec does not change: another pod takes its place.
            lock(&self.running).replacing.insert(key.clone(), complete);
            self.cluster.store().change(&key, mark_terminating)?;
            return Ok("replaced");
        }
        let mut store = self.cluster.store();
        if exists && key.kind == Kind::Job {
            // Nor does a job's; its pods go with the one that owned them.
            store.remove(&key)?;
            store.put(complete)?;
            return Ok("replaced");
        }
        store.put(complete)?;
        Ok(if exists { "configured" } else { "created" })
    }

    /// A Service as the API server would complete it: with its addresses.
    fn with_addresses(&self, mut service: Object) -> anyhow::Result<Object> {
        for port in elements(&mut service["spec"], "ports") {
            if port["protocol"].is_null() {
                port["protocol"] = "TCP".into();
            }
            if port["targetPort"].is_null() {
                port["targetPort"] = port["port"].clone();
            }
        }
        let spec = &mut service["spec"];
        if spec["type"].is_null() {
            spec["type"] = "ClusterIP".into();
        }
        if spec["type"] == "ExternalName" {
            return Ok(service);
        }
        if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
            let single = spec["ipFamilyPolicy"] == "SingleStack";
            spec["ipFamilies"] = if single { json!(["IPv4"]) } else { json!(FAMILIES) };
        }
        if spec["clusterIP"] == "None" {
            spec["clusterIPs"] = json!(["None"]);
            return Ok(service);
        }
        let asked = spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()).map(String::from);
        let old = self.cluster.find(Kind::Service, namespace(&service), name(&service));
        let old = old.and_then(|o| {
            o["spec"]["clusterIPs"]
                .as_array()?
                .first()?
                .as_str()?
                .parse::<IpAddr>()
                .ok()
        });
        let ranges = self.cluster.ranges;
        let number = match asked {
            Some(text) => {
                let address: IpAddr = text
                    .parse()
                    .with_context(|| format!("spec.clusterIP '{text}' is not an address"))?;
                let number = ranges.service_number(address).with_context(|| {
                    let (v4, v6) = ranges.services();
                    format!("spec.clusterIP {address} is not in this sandbox's ranges {v4} and {v6}; leave it out")
                })?;
                if old != Some(address) && self.is_service_address(number) {
                    bail!("spec.clusterIP {address} is another Service's; leave it out");
                }
                number
            }
            None => match old.and_then(|a| ranges.service_number(a)) {
                Some(number) => number,
                None => self.free_service_number()?,
            },
        };
        let pair = ranges.service(number);
        let families = service["spec"]["ipFamilies"].clone();
        let of = |family: &Value| {
            if family == "IPv6" {
                pair.v6.to_string()
            } else {
                pair.v4.to_string()
            }
        };
        let addresses: Vec<String> = families.as_array().into_iter().flatten().map(of).collect();
        service["spec"]["clusterIP"] = addresses.first().cloned().into();
        service["spec"]["clusterIPs"] = addresses.into();
        Ok(service)
    }
}

impl Supervisor {
    /// Applies an object of the sandbox's own.
    pub(crate) fn apply_system(&self, key: Key, object: Object) -> anyhow::Result<()> {
        self.apply_one(key, object)?;
        self.cluster.changed.notify_one();
        Ok(())
    }

    /// Whether a Service, or the cluster's own DNS, has the address with this number.
    fn is_service_address(&self, number: u16) -> bool {
        let pair = self.cluster.ranges.service(number);
        let ours = |o: &Object| {
            let addresses = o["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
            addresses.iter().any(|a| {
                pair.addresses()
                    .iter()
                    .any(|ours| a.as_str() == Some(&ours.to_string()))
            })
        };
        pair == self.cluster.ranges.dns() || self.cluster.store().list(Kind::Service).any(|(_, o)| ours(o))
    }

    fn free_service_number(&self) -> anyhow::Result<u16> {
        for _ in 0..u16::MAX {
            let number = {
                let numbers = &mut lock(&self.running).service_numbers;
                let number = numbers.take().context("no address is left for the Service")?;
                // The Services themselves say which numbers are taken; this one only goes round.
                numbers.free(number);
                number
            };
            if !self.is_service_address(number) {
                return Ok(number);
            }
        }
        bail!("no address is left for the Service; remove some")
    }
}
