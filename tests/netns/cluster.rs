//! The shared cluster: the same applications in a meshed namespace and in a plain one.

use weft_tests::{
    objects::{App, namespace, ready_when_open},
    repository,
};

/// Everything that the shared sandbox runs.
pub(crate) fn objects() -> String {
    let mut text = namespace("mesh", "weft.dev/inject: enabled")
        + &namespace("plain", "")
        + &namespace("strict", "weft.dev/inject: enabled, weft.dev/mtls: strict");
    let scripts = repository().join("tests/netns/scripts");
    let script = |name: &str| scripts.join(name).display().to_string();
    for place in ["mesh", "plain"] {
        let app = |name: &str, replicas, container: String, port| {
            App {
                namespace: place,
                name,
                replicas,
                container,
                port,
            }
            .yaml()
        };
        let tool = |name: &str, replicas, arguments: &str, port: u16| {
            app(
                name,
                replicas,
                format!("image: apps, args: [{arguments}], {}", ready_when_open(port)),
                port,
            )
        };
        text += &app("client", 1, "image: tools, command: [sleep, infinity]".into(), 0);
        text += &tool(
            "grpc",
            if place == "mesh" { 3 } else { 1 },
            "grpc, --listen, '50051'",
            50051,
        );
        // For the test of the balance alone: calls that are slow on purpose would count against an endpoint.
        text += &tool(
            "balanced",
            if place == "mesh" { 3 } else { 0 },
            "grpc, --listen, '50051'",
            50051,
        );
        text += &tool("websocket", 1, "websocket, --listen, '8090'", 8090);
        text += &tool("web", 1, "http, --listen, '8080', --version, v1", 8080);
        text += &tool("upgrade", 1, "upgrade, --listen, '8070'", 8070);
        text += &tool("echo", 1, "echo, --listen, '7000'", 7000);
        // No probe: its first bytes are the test.
        text += &app(
            "greeting",
            1,
            "image: apps, args: [greeting, --listen, '2525']".into(),
            2525,
        );
        text += &app(
            "origin",
            1,
            format!(
                "image: tools, command: [python3, {}, '8060'], {}",
                script("origin.py"),
                ready_when_open(8060)
            ),
            8060,
        );
        text += &app(
            "peer",
            1,
            format!(
                "image: tools, command: [python3, {}, '7100'], {}",
                script("peer.py"),
                ready_when_open(7100)
            ),
            7100,
        );
        text += &tool(
            "secure",
            1,
            &format!(
                "tls, --listen, '8443', --tls-cert, {0}/tls.crt, --tls-key, {0}/tls.key, --alpn, 'h2,http/1.1,hotrod'",
                fixtures().display()
            ),
            8443,
        );
    }
    text += &App {
        namespace: "mesh",
        name: "mysql",
        replicas: 1,
        container: format!(
            "image: tools, command: [bash, {}], volumeMounts: [{{name: data, mountPath: /srv}}], readinessProbe: {{tcpSocket: {{port: 3306}}, periodSeconds: 1, failureThreshold: 60}}",
            script("mysql.sh")
        ),
        port: 3306,
    }
    .yaml();
    text += &App {
        namespace: "mesh",
        name: "impatient",
        replicas: 1,
        container: format!(
            "image: tools, command: [haproxy, -db, -f, {}], {}",
            script("impatient.cfg"),
            ready_when_open(8408)
        ),
        port: 8408,
    }
    .yaml();
    text += &App {
        namespace: "strict",
        name: "web",
        replicas: 1,
        // The kubelet's own request, in plaintext: what it asks for is let in, and `/` is not.
        container: "image: apps, args: [http, --listen, '8080', --version, strict], readinessProbe: {httpGet: {path: /status/200, port: 8080}, periodSeconds: 1}".into(),
        port: 8080,
    }
    .yaml();
    text
}

/// Where the key and certificate of the TLS applications lie, made on the first use.
pub(crate) fn fixtures() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("weft-test-fixtures-{}", std::process::id()));
    if !folder.join("tls.crt").exists() {
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let made = std::process::Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=secure -addext subjectAltName=DNS:secure,DNS:secure.mesh,DNS:secure.plain".split(' '))
            .args(["-keyout", &folder.join("tls.key").to_string_lossy(), "-out", &folder.join("tls.crt").to_string_lossy()])
            .output()
            .expect("openssl is installed by scripts/setup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    folder
}
