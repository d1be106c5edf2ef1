//! The table of protocols on a real cluster, with the sample applications: each from a meshed client to a meshed server, from an
//! unmeshed client to a meshed server, and from a meshed client to an unmeshed server. Access logs prove what crossed the mesh.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weft_tests::kube::{APPS, Namespace};

use crate::{Test, tests};

tests![
    http1_with_weighted_routes,
    grpc_of_every_kind,
    a_grpc_connection_is_balanced_over_three_pods,
    websocket,
    another_upgrade_token,
    the_applications_own_tls,
    a_server_that_speaks_first,
    both_families,
    pods_of_a_stateful_set_by_name,
];

const SOON: Duration = Duration::from_secs(20);

/// The sample applications twice: in a labelled namespace and in one that is not.
struct Stage {
    mesh: Namespace<'static>,
    plain: Namespace<'static>,
}

/// From where to where, and what the proxies have to say of it.
struct Way {
    name: &'static str,
    from: Namespace<'static>,
    to: Namespace<'static>,
    /// Pod of the client.
    client: String,
    /// How the client's proxy spoke to the endpoint; none without a proxy.
    hops: &'static [&'static str],
    /// How the server's proxy was spoken to; none without a proxy.
    security: Option<&'static str>,
}

/// The stage, set up by the first test that needs it.
fn stage(test: &Test) -> Result<&'static Stage> {
    static STAGE: OnceLock<Result<Stage, String>> = OnceLock::new();
    let set_up = || -> Result<Stage> {
        let cluster = test.cluster();
        let stage = Stage {
            mesh: cluster.namespace("table-mesh", "weft.dev/inject: enabled")?,
            plain: cluster.namespace("table-plain", "")?,
        };
        for namespace in [&stage.mesh, &stage.plain] {
            cluster.share(namespace);
            test.uses(namespace);
        }
        std::thread::scope(|threads| {
            let plain = threads.spawn(|| stage.plain.sample(&[]));
            stage.mesh.sample(&[])?;
            plain
                .join()
                .unwrap_or_else(|_| bail!("setting up the plain namespace panicked"))
        })?;
        Ok(stage)
    };
    let stage = STAGE
        .get_or_init(|| set_up().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("the sample applications: {error}"))?;
    for namespace in [&stage.mesh, &stage.plain] {
        test.uses(namespace);
    }
    Ok(stage)
}

/// Runs a check on every way; the error says on which it failed.
fn on_every_way(test: &Test, check: impl Fn(&Way) -> Result<()>) -> Result<()> {
    let Stage { mesh, plain } = stage(test)?;
    let (meshed, unmeshed) = (mesh.pod("client")?, plain.pod("client")?);
    let way = |name, from: &Namespace<'static>, to: &Namespace<'static>, client: &String, hops, security| Way {
        name,
        from: from.clone(),
        to: to.clone(),
        client: client.clone(),
        hops,
        security,
    };
    for way in [
        way("meshed to meshed", mesh, mesh, &meshed, &["mesh"], Some("mesh")),
        way("unmeshed to meshed", plain, mesh, &unmeshed, &[], Some("plaintext")),
        way("meshed to unmeshed", mesh, plain, &meshed, &["plain", "h2c"], None),
    ] {
        check(&way).context(way.name)?;
    }
    Ok(())
}

impl Way {
    fn url(&self, scheme: &str, app: &str, port: u16) -> String {
        format!("{scheme}://{}", self.host(app, port))
    }

    fn host(&self, app: &str, port: u16) -> String {
        format!("{app}.{}:{port}", self.to.name())
    }

    fn script(&self, script: &str, arguments: &[&str]) -> Result<String> {
        self.from.script(&self.client, script, arguments)
    }

    fn shell(&self, script: &str) -> Result<String> {
        self.from.shell(&self.client, script)
    }

    /// Waits until the proxies on this way have logged what `app` was sent as one of these protocols, and that it crossed as it should.
    fn proven(&self, app: &str, protocols: &[&str]) -> Result<()> {
        let servers = self.to.pods(app)?;
        let spoken = |entry: &Value| protocols.iter().any(|protocol| entry["protocol"] == *protocol);
        if !self.hops.is_empty() {
            let addresses = addresses(&self.to, app)?;
            let to_app = |entry: &Value| {
                entry["direction"] == "outbound" && spoken(entry) && addresses.contains(&endpoint(entry))
            };
            self.logged(
                &format!("the client's proxy to log its calls of {app} over {:?}", self.hops),
                || {
                    let log = self.from.access_log(&self.client)?;
                    let found: Vec<_> = log.iter().filter(|entry| to_app(entry)).collect();
                    let stray = found
                        .iter()
                        .find(|entry| !self.hops.iter().any(|hop| entry["hop"] == *hop));
                    ensure!(stray.is_none(), "another hop: {stray:?}");
                    Ok(!found.is_empty())
                },
            )?;
        }
        if let Some(security) = self.security {
            let identity = format!("spiffe://cluster.local/ns/{}/sa/client", self.from.name());
            let expected = |entry: &Value| {
                let known = if security == "mesh" {
                    entry["client_identity"] == identity.as_str()
                } else {
                    entry["client_identity"].is_null()
                };
                entry["direction"] == "inbound" && spoken(entry) && entry["security"] == security && known
            };
            self.logged(&format!("a proxy of {app} to log {security} calls"), || {
                servers.iter().try_fold(false, |found, pod| {
                    Ok(found || self.to.access_log(pod)?.iter().any(expected))
                })
            })?;
        }
        Ok(())
    }

    fn logged(&self, what: &str, look: impl FnMut() -> Result<bool>) -> Result<()> {
        self.to.cluster().eventually(what, SOON, look)
    }
}

/// The addresses of an app's pods.
fn addresses(namespace: &Namespace<'_>, app: &str) -> Result<Vec<String>> {
    let pods = namespace
        .cluster()
        .list(&["-n", namespace.name(), "pods", "-l", &format!("app={app}")])?;
    let of_pod = |pod: &Value| -> Vec<String> {
        let all = pod["status"]["podIPs"].as_array().into_iter().flatten();
        all.filter_map(|address| address["ip"].as_str().map(str::to_owned))
            .collect()
    };
    Ok(pods.iter().flat_map(of_pod).collect())
}

/// The address of the endpoint that an entry tells of, without its port.
fn endpoint(entry: &Value) -> String {
    let text = entry["endpoint"].as_str().unwrap_or_default();
    let address = text.parse::<std::net::SocketAddr>();
    address.map(|address| address.ip().to_string()).unwrap_or_default()
}

/// How many lines have a word.
fn count(lines: &str, word: &str) -> usize {
    lines.lines().filter(|line| line.contains(word)).count()
}

fn http1_with_weighted_routes(test: &Test) -> Result<()> {
    on_every_way(test, |way| {
        let url = way.url("http", "web", 8080);
        let all = way.shell(&format!("curl -sS --fail --max-time 60 -w '\\n' '{url}/?call=[1-300]'"))?;
        let (first, second) = (count(&all, "\"version\":\"v1\""), count(&all, "\"version\":\"v2\""));
        ensure!(first + second == 300, "{first} + {second} answers of 300");
        // The route is followed by the client's proxy: without one, the Service's own three pods answer.
        if way.hops.is_empty() {
            ensure!(second > 0 || first > 0, "{all:.300}");
        } else {
            // 20 % of 300 is 60, with a standard deviation of 7: five of them on each side.
            ensure!((25..=95).contains(&second), "{second} of 300 went to the 20 % side");
            let new = way.shell(&format!("curl -sS --fail --max-time 10 {url}/new/page"))?;
            ensure!(new.contains("\"v2\"") && new.contains("[\"x-route\",\"new\"]"), "{new}");
            let old = way.shell(&format!(
                "curl -sS --max-time 10 -o /dev/null -w '%{{http_code}} %{{redirect_url}}' {url}/old/page"
            ))?;
            ensure!(old == format!("302 {url}/new/page"), "{old}");
        }
        way.proven("web", &["http1"])
    })
}

fn grpc_of_every_kind(test: &Test) -> Result<()> {
    on_every_way(test, |way| {
        let told = way.script("grpc_client.py", &[&way.host("grpc", 50051), "--calls", "30"])?;
        for check in [
            "unary:",
            "server_stream:",
            "client_stream:",
            "bidirectional:",
            "trailers:",
            "deadline:",
            "cancel:",
            "big:",
        ] {
            ensure!(told.lines().any(|line| line.starts_with(check)), "no {check} in {told}");
        }
        way.proven("grpc", &["grpc"])
    })
}

/// In a namespace of its own: calls that are slow on purpose would count against an endpoint.
fn a_grpc_connection_is_balanced_over_three_pods(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled")?;
    namespace.sample(&["grpc.yaml", "client.yaml"])?;
    let client = namespace.pod("client")?;
    let told = namespace.script(
        &client,
        "grpc_calls.py",
        &[&format!("grpc.{}:50051", namespace.name()), "300"],
    )?;
    let counts: Vec<u32> = told
        .lines()
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    ensure!(counts.iter().sum::<u32>() == 300, "{told}");
    // Not equally: a pod that answers later than the others, as on a busy machine, is asked less.
    ensure!(
        counts.len() == 3 && counts.iter().all(|count| *count >= 20),
        "not balanced: {told}"
    );
    Ok(())
}

fn websocket(test: &Test) -> Result<()> {
    on_every_way(test, |way| {
        let told = way.script(
            "websocket_client.py",
            &[&format!("{}/echo", way.url("ws", "websocket", 8090)), "--silence", "5"],
        )?;
        ensure!(told.contains("close_by_client"), "{told}");
        way.proven("websocket", &["websocket"])
    })
}

fn another_upgrade_token(test: &Test) -> Result<()> {
    on_every_way(test, |way| {
        way.script("hotrod.py", &[&format!("upgrade.{}", way.to.name()), "8070"])?;
        way.proven("upgrade", &["upgrade"])
    })
}

fn the_applications_own_tls(test: &Test) -> Result<()> {
    on_every_way(test, |way| {
        let host = way.host("tls", 8443);
        let hello = format!("openssl s_client -connect {host} -servername tls -alpn hotrod </dev/null 2>&1");
        let seen = way.shell(&format!("{hello} || true"))?;
        ensure!(seen.contains("ALPN protocol: hotrod"), "{seen}");
        // The server makes its certificate at its start. What it really is a pod without a proxy tells of a server without one;
        // of the meshed server both clients have to see the same, and never one of weft's.
        let certificate = format!("{hello} | openssl x509 -noout -fingerprint -sha256 -subject -ext subjectAltName");
        let seen = way.shell(&certificate)?;
        let Stage { plain, .. } = stage(test)?;
        let reference = plain.shell(&plain.pod("client")?, &certificate)?;
        ensure!(
            seen == reference && !seen.contains("spiffe"),
            "{seen}\ninstead of\n{reference}"
        );
        // Over the mesh hop it is a stream of bytes to the server's proxy.
        way.proven("tls", &["tls", "opaque"])
    })
}

fn a_server_that_speaks_first(test: &Test) -> Result<()> {
    let Stage { plain, .. } = stage(test)?;
    let direct = plain.script(
        &plain.pod("client")?,
        "greeting.py",
        &[&format!("greeting.{}", plain.name()), "2525"],
    )?;
    let direct: f64 = direct.trim().parse()?;
    on_every_way(test, |way| {
        let host = format!("greeting.{}", way.to.name());
        let mail = format!(
            "python3 -c \"import smtplib; s = smtplib.SMTP('{host}', 2525, timeout=10); print(s.noop()[0]); s.quit()\""
        );
        let answer = way.shell(&mail)?;
        ensure!(answer.trim() == "250", "{answer}");
        let through: f64 = way.script("greeting.py", &[&host, "2525"])?.trim().parse()?;
        // Nobody waits for a client that is silent; the least of 20 connections, on a machine that is busy.
        ensure!(
            through - direct < 50.0,
            "{through:.1} ms through weft, {direct:.1} ms without"
        );
        way.proven("greeting", &["opaque"])
    })
}

fn both_families(test: &Test) -> Result<()> {
    on_every_way(test, |way| {
        let url = way.url("http", "web", 8080);
        for family in ["-4", "-6"] {
            let told = way.shell(&format!(
                "curl {family} -sS --fail --max-time 10 -w ' %{{remote_ip}}' {url}/"
            ))?;
            ensure!(told.contains("\"pod\":\"web-"), "{told}");
            let sixth = told.rsplit(' ').next().is_some_and(|address| address.contains(':'));
            ensure!(sixth == (family == "-6"), "curl {family} dialled {told}");
        }
        if way.hops.is_empty() {
            return Ok(());
        }
        let host = way.host("web", 8080);
        way.logged("calls of both families in the log of the client's proxy", || {
            let log = way.from.access_log(&way.client)?;
            let over = |six: bool| {
                log.iter().any(|entry| {
                    let destination = entry["destination"].as_str().unwrap_or_default();
                    entry["host"] == host.as_str()
                        && destination.starts_with('[') == six
                        && way.hops.iter().any(|hop| entry["hop"] == *hop)
                })
            };
            Ok(over(false) && over(true))
        })
    })
}

fn pods_of_a_stateful_set_by_name(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled")?;
    namespace.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\n\
         spec: {{clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {{app: db}}, ports: [{{name: main, port: 8080}}]}}\n---\n\
         apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\n\
         spec:\n  serviceName: db\n  replicas: 2\n  podManagementPolicy: Parallel\n  selector: {{matchLabels: {{app: db}}}}\n  template:\n    \
         metadata: {{labels: {{app: db}}}}\n    spec:\n      terminationGracePeriodSeconds: 5\n      containers:\n      \
         - {{name: app, image: '{APPS}', args: [http, --listen, '8080'], ports: [{{containerPort: 8080}}], \
         readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}}}\n"
    ))?;
    namespace.sample(&["client.yaml"])?;
    let client = namespace.pod("client")?;
    for pod in ["db-0", "db-1"] {
        for name in [
            format!("{pod}.db"),
            format!("{pod}.db.{}.svc.cluster.local", namespace.name()),
        ] {
            for family in ["-4", "-6"] {
                let told = namespace.shell(
                    &client,
                    &format!("curl {family} -sS --fail --max-time 10 http://{name}:8080/"),
                )?;
                ensure!(
                    told.contains(&format!("\"pod\":\"{pod}\"")),
                    "{name} was answered by {told}"
                );
            }
        }
        let addresses = namespace.get(&format!("pod/{pod}"))?["status"]["podIPs"].clone();
        let addresses = addresses.to_string();
        test.cluster()
            .eventually(&format!("calls of {pod} over the mesh in the log"), SOON, || {
                let log = namespace.access_log(&client)?;
                let own = |entry: &&Value| {
                    entry["direction"] == "outbound" && addresses.contains(&format!("\"{}\"", endpoint(entry)))
                };
                let own: Vec<_> = log.iter().filter(own).collect();
                Ok(!own.is_empty() && own.iter().all(|entry| entry["hop"] == "mesh"))
            })?;
    }
    let all = namespace.shell(
        &client,
        "for i in $(seq 20); do curl -sS --fail --max-time 10 http://db:8080/; echo; done",
    )?;
    ensure!(count(&all, "\"pod\":\"db-") == 20, "{all}");
    Ok(())
}
