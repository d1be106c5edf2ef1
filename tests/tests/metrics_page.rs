//! `docs/metrics.md` says what every program tells: it is written from their code, and compared here.

use std::fmt::Write;

use weft_proxy::{fault::Reason, metrics};
use weft_tests::repository;

const INTRODUCTION: &str = "\
# Metrics and access log
Written from the code: `make bless` writes it anew. [grafana.md](grafana.md) shows them, [runbook.md](runbook.md) has the alerts.

## Proxies

Each proxy serves its metrics in the Prometheus text format on port 15020, path `/metrics`:

    weft sandbox exec client.sample -- curl -s http://127.0.0.1:15020/metrics

Labels come from configuration and closed lists, never from a request, so that a client cannot grow them. `direction` is `outbound` at the client's pod,
`inbound` at the server's and `gateway` at a gateway, where `listener` names the listener; `route` and `rule` are the route object and its rule (`none` where no rule acted; the rule `probe` is one of the pod's own probes); `backend` is `namespace/service:port`; `peer` is the
other side's verified SPIFFE id; `protocol` is what the client spoke; `hop` is how weft spoke to the endpoint: `mesh` (HTTP/2 over mutual TLS),
`plain`, `h2c`, `tls`, `tls_h2` (TLS of the application's own server, with HTTP/1 or bytes and with HTTP/2) or `itself` (the pod dialled itself); `security` is `mesh`, `tls` (a gateway ended it) or `plaintext`, so that the share of plaintext is
`sum(rate(weft_connections_total{direction=\"inbound\",security=\"plaintext\"}[5m])) / sum(rate(weft_connections_total{direction=\"inbound\"}[5m]))`.

";

const LOG: &str = "
## The access log
One JSON object on a line, on the proxy's standard output (`WEFT_ACCESS_LOG` names a file, or `off`): one for each HTTP request, each tunnel when it ends, and each
connection that failed. It is written from the same record as the metrics. `kind` is `request`, `tunnel` or `connection`; the other fields have the names of the
labels above, with `client`, `destination`, `endpoint`, `client_identity` or `server_identity`, `method`, `host`, `path` (without the query), `status`, `grpc_status`,
`received_bytes`, `sent_bytes`, `duration_ms`; a failure has `stage`, `blame`, `reason` and `error`. Header fields, and so cookies and credentials, are never logged.
";

/// What the other programs tell, and where.
const SYSTEM: &str = "
## Controller
Port 15021 of the pods of weft-routes and weft-identity (`--admin-listen`), path `/metrics`. A figure of a role that a pod does not have, or that nobody knows yet, is
left out. Its series about a namespace have that namespace as a label: Prometheus needs `honor_labels` for them.

";

const INJECTOR: &str = "
## Injector
Port 15021 of the pods of weft-injector (`--admin-listen`), path `/metrics`.

";

const EVERY: &str = "
## Every program
";

fn table<'a>(text: &mut String, families: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) {
    text.push_str("| metric | type | what it says |\n|---|---|---|\n");
    for (name, sort, help) in families {
        writeln!(text, "| `{name}` | {sort} | {help} |").expect("a String takes everything");
    }
}

#[test]
fn the_page_says_what_the_code_does() {
    let mut text = INTRODUCTION.to_owned();
    table(&mut text, metrics::families());
    text += SYSTEM;
    table(&mut text, weft_controller::metrics::FAMILIES.iter().copied());
    text += INJECTOR;
    table(&mut text, weft_injector::metrics::FAMILIES.iter().copied());
    text += EVERY;
    table(&mut text, weft_service::process::FAMILIES.iter().copied());
    text += "\n## Reasons\nThe label `reason`, the field `weft-error` of an answer that weft itself gave, and what the client gets:\n\n| reason | `weft-error` | HTTP | gRPC | stage |\n|---|---|---|---|---|\n";
    for reason in Reason::ALL {
        let grpc = reason.grpc() as u8;
        writeln!(
            text,
            "| `{}` | {} | {} | {grpc} | {} |",
            reason.label(),
            reason.text(),
            reason.status(),
            reason.stage().name()
        )
        .expect("a String takes everything");
    }
    text += LOG;
    let page = repository().join("docs/metrics.md");
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&page, &text).expect("the page is writable");
    }
    let stands = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        stands == text,
        "docs/metrics.md is not what the code says: `make bless`"
    );
}
