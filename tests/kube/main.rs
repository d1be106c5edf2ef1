//! The suite on a real Kubernetes: `make e2e`. A module for each promise; what they have in common is in `weft_tests::kube`.
//!
//! **Writing a test.** A test is `fn name(test: &Test) -> Result<()>`, named once in its module's `tests![...]`, and the module once in
//! [`main`]. It works in namespaces of its own, `test.namespace("weft.dev/inject: enabled")`, applies objects there, and asks with
//! [`Namespace`]'s methods; nothing has to be taken away. Tests run side by side, three at once. One that disturbs others (restarts
//! weft, the API server, the node) is named in `alone![...]` instead, and runs when nothing else does. Wait for what happens with
//! `rolled_out`, `wait` and `eventually`; never sleep for it.
//!
//! **Running one quickly**, against a node that runs already with weft in it:
//!
//! ```text
//! tests/kube-node/up        # prints the export of KUBECONFIG and PATH
//! export WEFT_E2E_CLUSTER=existing WEFT_E2E_LOAD=tests/kube-node/load
//! make e2e ARGS=websocket                          # builds, loads, installs, runs what has the word in its name, uninstalls
//! WEFT_KEEP=1 make e2e ARGS=websocket              # leaves namespaces and weft for a look
//! WEFT_E2E_INSTALL=keep make e2e ARGS=websocket    # does not touch the weft that is installed: seconds
//! ```
//!
//! `WEFT_E2E_CLUSTER` is `node`, `kind` or `existing`; unset, it is kind where a Docker daemon answers, and else the node. What a
//! failed test's namespaces had to say (logs, events, descriptions), and weft's own logs, are kept in target/e2e/TEST.

mod admission;
mod hands;
mod faults;
mod jobs;
mod kinds;
mod probes;
mod reach;
mod routes;
mod table;
mod unmeshed;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use weft_tests::kube::{Cluster, Namespace, SYSTEM, keep, kept};

/// What a test does.
pub(crate) type Check = fn(&Test) -> Result<()>;

/// How a test gets along with others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// Runs beside others.
    Beside,
    /// Runs when nothing else does.
    Alone,
}

/// The tests of a module: `tests![first, second]` names each function once.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        /// The tests of this module that run beside others.
        pub(crate) fn tests() -> Vec<crate::Named> {
            vec![$((stringify!($name), $name as crate::Check, crate::Company::Beside)),+]
        }
    };
}
pub(crate) use tests;

/// The tests of a module that disturb others: `alone![first, second]`.
#[allow(unused_macros)]
macro_rules! alone {
    ($($name:ident),+ $(,)?) => {
        /// The tests of this module that run when nothing else does.
        pub(crate) fn alone() -> Vec<crate::Named> {
            vec![$((stringify!($name), $name as crate::Check, crate::Company::Alone)),+]
        }
    };
}
#[allow(unused_imports)]
pub(crate) use alone;

/// A test with its name.
pub(crate) type Named = (&'static str, Check, Company);

fn suites() -> Vec<(&'static str, Vec<Named>)> {
    vec![
        ("table", table::tests()),
        ("jobs", jobs::tests()),
        ("probes", probes::tests()),
        ("routes", routes::tests()),
        ("admission", admission::tests()),
        ("hands", hands::tests()),
        ("reach", reach::tests()),
        ("kinds", kinds::tests()),
        ("unmeshed", unmeshed::tests()),
        ("faults", faults::all()),
    ]
}

/// A running test: the cluster, and the namespaces that it works in.
pub(crate) struct Test {
    cluster: &'static Cluster,
    name: String,
    own: Mutex<Vec<String>>,
    used: Mutex<Vec<String>>,
}

impl Test {
    /// The cluster.
    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// A namespace of this test's own, with these labels (YAML's flow style, as `weft.dev/inject: enabled`).
    pub(crate) fn namespace(&self, labels: &str) -> Result<Namespace<'static>> {
        let word: String = self
            .name
            .rsplit("::")
            .next()
            .unwrap_or("test")
            .chars()
            .take(30)
            .collect();
        let namespace = self
            .cluster
            .namespace(word.replace('_', "-").trim_matches('-'), labels)?;
        lock(&self.own).push(namespace.name().to_owned());
        Ok(namespace)
    }

    /// Says that this test uses a namespace that it shares with others: kept too when the test fails.
    pub(crate) fn uses(&self, namespace: &Namespace<'_>) {
        lock(&self.used).push(namespace.name().to_owned());
    }

    fn run(&self, check: Check) -> Result<(), Failed> {
        // What another run has kept would be taken for this one's.
        let _ = std::fs::remove_dir_all(kept(&self.name));
        let start = Instant::now();
        // A panic is a failure like others: its namespaces are kept and deleted too.
        let result = catch_unwind(AssertUnwindSafe(|| check(self))).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow::anyhow!("panicked: {}", said.unwrap_or("without a word")))
        });
        let own = lock(&self.own).clone();
        let failed = result.map_err(|error| {
            let mut text = format!("{error:#}\n(after {:.1} s)", start.elapsed().as_secs_f64());
            // Told at once too: a run that is ended from outside tells nothing at its end.
            eprintln!("{}: {text}", self.name);
            let used = lock(&self.used).clone();
            for namespace in own.iter().chain(&used).map(String::as_str).chain([SYSTEM]) {
                if let Err(error) = self.cluster.keep_namespace(&self.name, namespace) {
                    text += &format!("\nof {namespace} not everything is kept: {error:#}");
                }
            }
            text += &format!("\nlogs and events are kept in {}", kept(&self.name).display());
            if keep() {
                text += &format!("\nleft running: {}", own.join(", "));
            }
            Failed::from(text)
        });
        self.cluster.drop_namespaces(&own);
        failed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores: more at once only makes the tests wait for each other.
    arguments.test_threads = arguments.test_threads.or(Some(3));
    let company = Arc::new(RwLock::new(()));
    let cluster: Arc<Mutex<Option<&'static Cluster>>> = Arc::default();
    let trial = |suite: &str, (name, check, needs): Named| {
        let (company, cluster) = (company.clone(), cluster.clone());
        let name = format!("{suite}::{name}");
        Trial::test(name.clone(), move || {
            let Some(cluster) = *lock(&cluster) else {
                return Err("the cluster did not come up".into());
            };
            let test = Test {
                cluster,
                name,
                own: Mutex::default(),
                used: Mutex::default(),
            };
            if needs == Company::Alone {
                let _alone = company.write().unwrap_or_else(PoisonError::into_inner);
                test.run(check)
            } else {
                let _beside = company.read().unwrap_or_else(PoisonError::into_inner);
                test.run(check)
            }
        })
    };
    let mut named: Vec<_> = suites()
        .into_iter()
        .flat_map(|(suite, tests)| tests.into_iter().map(move |test| (suite, test)))
        .collect();
    // Those that run alone come last, so that nobody waits for them.
    named.sort_by_key(|(_, (_, _, company))| *company == Company::Alone);
    let trials: Vec<_> = named.into_iter().map(|(suite, test)| trial(suite, test)).collect();
    let any = trials.iter().any(|trial| chosen(&arguments, trial.name()));
    if any && !arguments.list {
        match Cluster::up() {
            // It lives as long as this program, and ends below: tests on other threads hold it.
            Ok(up) => *lock(&cluster) = Some(Box::leak(Box::new(up))),
            Err(error) => {
                eprintln!("e2e: {error:#}");
                std::process::exit(101);
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(cluster) = lock(&cluster).take() {
        cluster.end();
    }
    conclusion.exit();
}

/// Whether a test is asked for: a run that has none needs no cluster.
fn chosen(arguments: &Arguments, name: &str) -> bool {
    let fits = |word: &String| {
        if arguments.exact {
            name == word
        } else {
            name.contains(word.as_str())
        }
    };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}
