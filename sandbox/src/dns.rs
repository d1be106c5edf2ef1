//! The cluster's DNS: A, AAAA and SRV for Services, headless Services and the named pods behind them.
//!
//! The answer is a pure function of a [`Zone`], which is rebuilt from the objects at each change and swapped whole. There is
//! no upstream: what the zone does not have does not exist (NXDOMAIN).

use crate::{
    endpoints::SERVICE_NAME,
    object::{Object, label, name, namespace},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Suffix of every name.
pub const DOMAIN: &str = "cluster.local";
/// How long an answer may be kept: pods come and go.
const TTL_SECONDS: u32 = 5;
/// Time that a TCP client has for one question.
const TCP_TIME: Duration = Duration::from_secs(10);

/// Everything that has a name. Keys are lower-case and end with a dot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Zone(BTreeMap<String, Vec<RData>>);

impl Zone {
    /// The zone of the Services and their slices.
    pub fn of(services: &[&Object], slices: &[&Object]) -> Zone {
        let mut zone = Zone::default();
        zone.0.insert(format!("{DOMAIN}."), Vec::new());
        for service in services {
            let base = format!("{}.{}.svc.{DOMAIN}.", name(service), namespace(service));
            zone.add(&base, None);
            let external = service["spec"]["externalName"]
                .as_str()
                .filter(|_| service["spec"]["type"] == "ExternalName");
            if let Some(target) = external.and_then(|t| fully_qualified(t).ok()) {
                zone.add(&base, Some(RData::CNAME(CNAME(target))));
            } else if service["spec"]["clusterIP"] == "None" {
                zone.headless(service, &base, slices);
            } else {
                zone.cluster_ip(service, &base);
            }
        }
        zone
    }

    fn cluster_ip(&mut self, service: &Object, base: &str) {
        for address in list(&service["spec"]["clusterIPs"])
            .iter()
            .filter_map(|a| a.as_str()?.parse().ok())
        {
            self.add(base, Some(address_record(address)));
        }
        for port in list(&service["spec"]["ports"]) {
            self.service_record(base, port, &port["port"], base);
        }
    }

    fn headless(&mut self, service: &Object, base: &str, slices: &[&Object]) {
        let always = service["spec"]["publishNotReadyAddresses"] == true;
        let ours = |s: &&&Object| namespace(s) == namespace(service) && label(s, SERVICE_NAME) == Some(name(service));
        for slice in slices.iter().filter(ours) {
            for endpoint in list(&slice["endpoints"]) {
                if endpoint["conditions"]["ready"] == false && !always {
                    continue;
                }
                for text in list(&endpoint["addresses"]).iter().filter_map(Value::as_str) {
                    let Ok(address) = text.parse::<IpAddr>() else { continue };
                    let record = address_record(address);
                    self.add(base, Some(record.clone()));
                    let host = endpoint["hostname"]
                        .as_str()
                        .map_or_else(|| text.replace(['.', ':'], "-"), String::from);
                    let host = format!("{host}.{base}");
                    self.add(&host, Some(record));
                    for port in list(&slice["ports"]) {
                        self.service_record(base, port, &port["port"], &host);
                    }
                }
            }
        }
    }

    fn service_record(&mut self, base: &str, port: &Value, number: &Value, target: &str) {
        let port_name = port["name"].as_str().filter(|n| !n.is_empty());
        let (Some(port_name), Some(number)) = (port_name, number.as_u64().and_then(|n| u16::try_from(n).ok())) else {
            return;
        };
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_ascii_lowercase();
        if let Ok(target) = Name::from_ascii(target) {
            self.add(
                &format!("_{port_name}._{protocol}.{base}"),
                Some(RData::SRV(SRV::new(0, 100, number, target))),
            );
        }
    }

    /// A name above an existing one exists, too, though it may have nothing (RFC 8020).
    fn add(&mut self, name: &str, record: Option<RData>) {
        let mut above = name;
        while let Some((_, rest)) = above.split_once('.').filter(|(_, rest)| rest.len() > DOMAIN.len()) {
            self.0.entry(rest.to_ascii_lowercase()).or_default();
            above = rest;
        }
        let records = self.0.entry(name.to_ascii_lowercase()).or_default();
        records.extend(record.filter(|r| !records.contains(r)));
    }

    /// The answer to a message, or nothing for what is not a question. `limit` is what the transport carries at least.
    pub fn answer(&self, question: &[u8], limit: Option<usize>) -> Option<Vec<u8>> {
        let asked = Message::from_vec(question)
            .ok()
            .filter(|m| m.metadata.message_type == MessageType::Query)?;
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        answer.queries = asked.queries.clone();
        if let Some(edns) = &asked.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(edns.max_payload().max(512));
            answer.set_edns(ours);
        }
        match asked.queries.as_slice() {
            [query] if asked.metadata.op_code == OpCode::Query => self.fill(&mut answer, &query.name, query.query_type),
            _ => answer.metadata.response_code = ResponseCode::NotImp,
        }
        let bytes = answer.to_vec().ok()?;
        let limit = limit.map(|least| asked.edns.map_or(least, |e| usize::from(e.max_payload()).max(least)));
        if limit.is_some_and(|limit| bytes.len() > limit) {
            return answer.truncate().to_vec().ok();
        }
        Some(bytes)
    }

    fn fill(&self, answer: &mut Message, name: &Name, kind: RecordType) {
        let key = name.to_lowercase().to_ascii();
        let key = if key.ends_with('.') { key } else { key + "." };
        let records = self.0.get(&key);
        let wanted =
            |r: &&RData| r.record_type() == kind || kind == RecordType::ANY || r.record_type() == RecordType::CNAME;
        for record in records.into_iter().flatten().filter(wanted) {
            answer.add_answer(Record::from_rdata(name.clone(), TTL_SECONDS, record.clone()));
        }
        if answer.answers.is_empty() {
            answer.metadata.response_code = if records.is_some() {
                ResponseCode::NoError
            } else {
                ResponseCode::NXDomain
            };
            // Without an SOA, a negative answer may not be kept at all; with this one, for as long as a positive one.
            if let (Ok(zone), Ok(server)) = (fully_qualified(DOMAIN), fully_qualified(&format!("ns.dns.{DOMAIN}"))) {
                let seconds = TTL_SECONDS as i32;
                let soa = SOA::new(server.clone(), server, 1, seconds, seconds, seconds, TTL_SECONDS);
                answer.add_authority(Record::from_rdata(zone, TTL_SECONDS, RData::SOA(soa)));
            }
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fully_qualified(name: &str) -> Result<Name, hickory_proto::ProtoError> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    Ok(name)
}

fn address_record(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// The server's handle on the zone that holds now.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Arc<Zone>>>);

impl Shared {
    /// Takes another zone.
    pub fn set(&self, zone: Zone) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    fn now(&self) -> Arc<Zone> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves UDP and TCP on port 53 of one address, in the namespace of the calling thread. Returns once it is bound.
pub async fn serve(address: IpAddr, zone: Shared) -> io::Result<()> {
    let (udp, tcp) = (
        UdpSocket::bind((address, 53)).await?,
        TcpListener::bind((address, 53)).await?,
    );
    tokio::spawn(serve_udp(udp, zone.clone()));
    tokio::spawn(async move {
        loop {
            // An error concerns the one connection that was not accepted.
            if let Ok((stream, _)) = tcp.accept().await {
                tokio::spawn(tokio::time::timeout(TCP_TIME, serve_tcp(stream, zone.clone())));
            }
        }
    });
    Ok(())
}

async fn serve_udp(socket: UdpSocket, zone: Shared) {
    let mut buffer = vec![0; 4096];
    loop {
        // An error here is an ICMP answer to an earlier packet: the asker is gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = zone.now().answer(&buffer[..length], Some(512)) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(mut stream: TcpStream, zone: Shared) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await?;
        let Some(answer) = zone.now().answer(&question, None) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

/// `resolv.conf` of a pod.
pub fn resolv_conf(namespace: &str, server: IpAddr) -> String {
    format!("search {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\nnameserver {server}\noptions ndots:5\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use serde_json::json;

    fn zone() -> Zone {
        let web = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9", "fd00::9"], "ports": [{"name": "http", "port": 80}]},
        });
        let db = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}});
        let out = json!({"metadata": {"name": "out", "namespace": "shop"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
        let endpoint = |host: &str, ip: &str, ready: bool| json!({"addresses": [ip], "hostname": host, "conditions": {"ready": ready}});
        let slice = json!({
            "metadata": {"namespace": "shop", "labels": {SERVICE_NAME: "db"}}, "ports": [{"name": "sql", "port": 5432}],
            "endpoints": [endpoint("db-0", "10.0.0.1", true), endpoint("db-1", "10.0.0.2", false), endpoint("db-2", "10.0.0.3", true)],
        });
        Zone::of(&[&web, &db, &out], &[&slice])
    }

    fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = zone().answer(&message.to_vec().unwrap(), Some(512)).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, message.metadata.id);
        (
            answer.metadata.response_code,
            answer.answers.iter().map(|r| r.data.to_string()).collect(),
        )
    }

    #[test]
    fn names_have_the_addresses_that_kubernetes_gives_them() {
        let cases: [(&str, RecordType, ResponseCode, &[&str]); 11] = [
            (
                "web.shop.svc.cluster.local.",
                RecordType::A,
                ResponseCode::NoError,
                &["10.0.0.9"],
            ),
            (
                "WEB.shop.svc.Cluster.local.",
                RecordType::AAAA,
                ResponseCode::NoError,
                &["fd00::9"],
            ),
            (
                "_http._tcp.web.shop.svc.cluster.local.",
                RecordType::SRV,
                ResponseCode::NoError,
                &["0 100 80 web.shop.svc.cluster.local."],
            ),
            (
                "db.shop.svc.cluster.local.",
                RecordType::A,
                ResponseCode::NoError,
                &["10.0.0.1", "10.0.0.3"],
            ),
            (
                "db.shop.svc.cluster.local.",
                RecordType::AAAA,
                ResponseCode::NoError,
                &[],
            ),
            (
                "db-2.db.shop.svc.cluster.local.",
                RecordType::A,
                ResponseCode::NoError,
                &["10.0.0.3"],
            ),
            (
                "db-1.db.shop.svc.cluster.local.",
                RecordType::A,
                ResponseCode::NXDomain,
                &[],
            ),
            ("shop.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &[]),
            (
                "out.shop.svc.cluster.local.",
                RecordType::A,
                ResponseCode::NoError,
                &["example.com."],
            ),
            (
                "web.shop.svc.cluster.local.shop.svc.cluster.local.",
                RecordType::A,
                ResponseCode::NXDomain,
                &[],
            ),
            ("example.com.", RecordType::A, ResponseCode::NXDomain, &[]),
        ];
        for (name, kind, code, addresses) in cases {
            assert_eq!(
                ask(name, kind),
                (code, addresses.iter().map(|a| a.to_string()).collect()),
                "{name} {kind}"
            );
        }
    }

    #[test]
    fn what_is_not_a_question_gets_no_answer_and_what_is_too_long_is_cut() {
        assert_eq!(zone().answer(b"\x00\x01garbage", Some(512)), None);
        let service = json!({"metadata": {"name": "big", "namespace": "a"}, "spec": {"clusterIP": "None"}});
        let endpoints: Vec<Value> = (0..200)
            .map(|n| json!({"addresses": [format!("10.0.1.{n}")]}))
            .collect();
        let slice = json!({"metadata": {"namespace": "a", "labels": {SERVICE_NAME: "big"}}, "endpoints": endpoints});
        let zone = Zone::of(&[&service], &[&slice]);
        let mut message = Message::query();
        message.add_query(Query::query(
            Name::from_ascii("big.a.svc.cluster.local.").unwrap(),
            RecordType::A,
        ));
        let question = message.to_vec().unwrap();
        let over_udp = Message::from_vec(&zone.answer(&question, Some(512)).unwrap()).unwrap();
        assert!(over_udp.metadata.truncation);
        let over_tcp = Message::from_vec(&zone.answer(&question, None).unwrap()).unwrap();
        assert_eq!(over_tcp.answers.len(), 200);
    }
}
