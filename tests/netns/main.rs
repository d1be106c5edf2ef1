//! Whole programs on real sockets: pods are network namespaces, rules, webhook, controller and proxies are the real ones.
//!
//! One sandbox serves all tests that only look; those that break something have one of their own. A module for each promise.
//! `WEFT_KEEP=1` leaves the sandbox running for a look.

mod boundary;
mod cluster;
mod faults;
mod gateway;
mod grpc;
mod http1;
mod lifecycle;
mod opaque;
mod routes;
mod server_first;
mod tls;
mod tracing;
mod upgrade;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use weft_tests::Mesh;

/// A test that looks at the shared sandbox.
pub(crate) type Look = fn(&Mesh) -> anyhow::Result<()>;

/// From where to where a test's traffic goes: the client's pod, and the namespace of the server.
pub(crate) const PATHS: [(&str, &str, &str); 3] = [
    ("meshed_to_meshed", "client.mesh", "mesh"),
    ("unmeshed_to_meshed", "client.plain", "mesh"),
    ("meshed_to_unmeshed", "client.mesh", "plain"),
];

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores: more at once only makes the tests wait for each other.
    arguments.test_threads = arguments.test_threads.or(Some(3));
    let suites: Vec<(&str, Vec<(String, Look)>)> = vec![
        ("http1", http1::tests()),
        ("grpc", grpc::tests()),
        ("upgrade", upgrade::tests()),
        ("tls", tls::tests()),
        ("server_first", server_first::tests()),
        ("opaque", opaque::tests()),
        ("routes", routes::tests()),
        ("lifecycle", lifecycle::tests()),
        ("boundary", boundary::tests()),
        ("faults", faults::tests()),
        ("tracing", tracing::tests()),
        ("gateway", gateway::tests()),
    ];
    let mesh = if arguments.list {
        None
    } else {
        match Mesh::up("tests", &cluster::objects()) {
            Ok(mesh) => Some(Arc::new(mesh)),
            Err(error) => {
                eprintln!("{error:#}");
                std::process::exit(101);
            }
        }
    };
    let mut trials = Vec::new();
    for (suite, tests) in suites {
        for (name, look) in tests {
            let mesh = mesh.clone();
            trials.push(Trial::test(format!("{suite}::{name}"), move || {
                let Some(mesh) = mesh else {
                    return Err("listed only".into());
                };
                look(&mesh).map_err(|error| format!("{error:#}").into())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(mesh);
    conclusion.exit();
}

/// The tests of a suite: `tests![first, second]` names each function once.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        /// The tests of this module.
        pub(crate) fn tests() -> Vec<(String, crate::Look)> {
            vec![$((stringify!($name).to_owned(), $name as crate::Look)),+]
        }
    };
}
pub(crate) use tests;

/// Runs a check on every path; the error says on which it failed.
pub(crate) fn on_every_path(check: impl Fn(&str, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for (path, client, namespace) in PATHS {
        check(client, namespace).map_err(|error| error.context(path))?;
    }
    Ok(())
}
