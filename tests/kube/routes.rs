//! Routes on Services act within seconds of `kubectl apply`, and what streams meanwhile is not torn.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{
    kube::{APPS, CLIENT, Namespace},
    objects::{App, ready_when_open},
};

use crate::{Test, tests};

tests![
    an_http_route_acts_within_seconds,
    a_grpc_route_acts,
    streams_live_across_a_change_of_routes
];

const MESHED: &str = "weft.dev/inject: enabled";
/// How long the proxies may take to follow a change.
const SECONDS: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(120);

fn app(namespace: &Namespace<'_>, name: &str, arguments: &str, port: u16) -> String {
    let container = format!("image: '{APPS}', args: [{arguments}], {}", ready_when_open(port));
    App {
        namespace: namespace.name(),
        name,
        replicas: 1,
        container,
        port,
    }
    .yaml()
}

fn client(namespace: &Namespace<'_>) -> String {
    App {
        namespace: namespace.name(),
        name: "client",
        replicas: 1,
        container: format!("image: '{CLIENT}'"),
        port: 0,
    }
    .yaml()
}

fn route(kind: &str, service: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {service}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: {service}}}], rules: [{rules}]}}\n---\n"
    )
}

fn an_http_route_acts_within_seconds(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let versions = ["v1", "v2"].map(|version| {
        app(
            &namespace,
            &format!("shop-{version}"),
            &format!("http, --listen, '8080', --version, {version}"),
            8080,
        )
    });
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {selector: {app: shop-v1}, ports: [{port: 80, targetPort: 8080}]}\n---\n";
    namespace.apply(&(versions.concat() + service + &client(&namespace)))?;
    namespace.rolled_out(MINUTE)?;
    let client = namespace.pod("client")?;
    let answered = |word: &str| -> Result<bool> {
        Ok(namespace
            .shell(&client, "curl -sS --max-time 5 -i http://shop/")?
            .contains(word))
    };
    ensure!(
        answered("x-version: v1")?,
        "without a route the Service's own endpoints answer"
    );
    let second = route("HTTPRoute", "shop", "{backendRefs: [{name: shop-v2, port: 8080}]}");
    namespace.apply(&second)?;
    test.cluster()
        .eventually("the HTTPRoute to act", SECONDS, || answered("x-version: v2"))?;
    let changed = "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: rule}]}}], \
                   backendRefs: [{name: shop-v1, port: 8080}]}";
    namespace.apply(&route("HTTPRoute", "shop", changed))?;
    test.cluster().eventually("its change to act", SECONDS, || {
        Ok(answered("x-by: rule")? && answered("x-version: v1")?)
    })?;
    namespace.delete(&second)?;
    test.cluster()
        .eventually("its end to act", SECONDS, || Ok(!answered("x-by: rule")?))
}

fn a_grpc_route_acts(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let apps = ["rpc-unary", "rpc-other"].map(|name| app(&namespace, name, "grpc, --listen, '50051'", 50051));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: rpc}\nspec: {selector: {app: rpc-other}, ports: [{port: 50051}]}\n---\n";
    let rules = "{matches: [{method: {service: weft.sample.v1.Sample, method: Unary}}], backendRefs: [{name: rpc-unary, port: 50051}]}, \
                 {matches: [{method: {service: weft.sample.v1.Sample}}], backendRefs: [{name: rpc-other, port: 50051}]}";
    namespace.apply(&(apps.concat() + service + &client(&namespace)))?;
    namespace.rolled_out(MINUTE)?;
    let client = namespace.pod("client")?;
    namespace.apply(&route("GRPCRoute", "rpc", rules))?;
    test.cluster().eventually("the GRPCRoute to act", SECONDS, || {
        let told = namespace.script(&client, "grpc_who.py", &["rpc:50051"])?;
        Ok(told.contains("unary rpc-unary-") && told.contains("server_stream rpc-other-"))
    })
}

fn streams_live_across_a_change_of_routes(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let apps = [
        app(&namespace, "chat", "websocket, --listen, '8090'", 8090),
        app(&namespace, "rpc", "grpc, --listen, '50051'", 50051),
        app(&namespace, "other", "http, --listen, '8080'", 8080),
    ];
    namespace.apply(&(apps.concat() + &client(&namespace)))?;
    namespace.rolled_out(MINUTE)?;
    let client = namespace.pod("client")?;
    let script = include_str!("scripts/streams.py");
    let streams = namespace.spawn(&client, &["python3", "-c", script, "ws://chat:8090/echo", "rpc:50051"])?;
    let said = |file: &str| {
        namespace
            .exec(&client, &["cat", file])
            .map(|ran| ran.stdout.lines().count())
    };
    let go_on = |what: &str| -> Result<()> {
        let before = [said("/tmp/websocket")?, said("/tmp/grpc")?];
        test.cluster().eventually(
            &format!("both streams to go on {what}"),
            Duration::from_secs(10),
            || Ok(said("/tmp/websocket")? > before[0] + 2 && said("/tmp/grpc")? > before[1] + 2),
        )
    };
    go_on("at first")?;
    // Every new request of either Service goes elsewhere from now on.
    let change = |code: u16| {
        format!(
            "{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: elsewhere, statusCode: {code}}}}}]}}"
        )
    };
    for code in [301, 302] {
        namespace.apply(&(route("HTTPRoute", "chat", &change(code)) + &route("HTTPRoute", "rpc", &change(code))))?;
        let seen = code.to_string();
        test.cluster().eventually("the change to act on new requests", SECONDS, || {
            let ask = "for u in http://chat:8090/ http://rpc:50051/; do curl -s -o /dev/null -w '%{http_code} ' --max-time 5 $u; done";
            Ok(namespace.shell(&client, ask)?.split_whitespace().all(|got| got == seen))
        })?;
        go_on("after a change of their routes")?;
    }
    namespace.delete(&(route("HTTPRoute", "chat", &change(301)) + &route("HTTPRoute", "rpc", &change(301))))?;
    go_on("after their routes are gone")?;
    namespace.exec(&client, &["touch", "/tmp/stop"])?.ok()?;
    let ended = streams.wait_with_output()?;
    ensure!(
        ended.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}
