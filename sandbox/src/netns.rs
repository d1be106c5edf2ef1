//! Network namespaces, the wires between them, and code and processes inside of them.
//!
//! A namespace made here goes away with its value. Entering is a property of a *thread* (setns(2)), so closures run on a
//! thread of their own and never on a runtime's worker. Links, addresses and routes are set by `ip -batch`, one process for
//! many changes. Which namespaces a sandbox consists of is `network.rs`'s business.

use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

/// Where `ip netns` keeps the handles of named namespaces.
const DIRECTORY: &str = "/run/netns";

/// Why something about a network namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tool could not be started.
    #[error("cannot run '{tool}': {source}; install it (package iproute2 or iptables) and run as root")]
    Tool {
        /// The program.
        tool: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A tool said no.
    #[error("'{command}' failed: {message}")]
    Refused {
        /// What was asked.
        command: String,
        /// What it said.
        message: String,
    },
    /// The namespace could not be opened or entered.
    #[error("network namespace '{name}': {source}; entering namespaces needs root on Linux")]
    Enter {
        /// Name of the namespace.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// One named network namespace. Removed when dropped, unless [`Netns::keep`] or opened by [`Netns::open`].
#[derive(Debug)]
pub struct Netns {
    name: String,
    owned: bool,
}

impl Netns {
    /// Makes a namespace with loopback up. IPv6 addresses are usable at once: duplicate address detection is off.
    pub fn create(name: &str) -> Result<Netns, Error> {
        ip(&["netns", "add", name])?;
        let netns = Netns {
            name: name.to_string(),
            owned: true,
        };
        for (key, value) in [
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ] {
            netns.sysctl(key, value)?;
        }
        netns.batch(&["link set lo up".to_string()])?;
        Ok(netns)
    }

    /// A namespace that exists and that somebody else removes.
    pub fn open(name: &str) -> Result<Netns, Error> {
        let netns = Netns {
            name: name.to_string(),
            owned: false,
        };
        netns.file()?;
        Ok(netns)
    }

    /// Names of the namespaces that begin with a prefix.
    pub fn list(prefix: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
            return Vec::new();
        };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|n| n.starts_with(prefix)).collect();
        names.sort();
        names
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Leaves the namespace in place when the value goes.
    pub fn keep(mut self) -> Netns {
        self.owned = false;
        self
    }

    /// Removes the namespace now. Processes inside of it keep it alive until they end, but nobody can enter any more.
    pub fn delete(mut self) -> Result<(), Error> {
        self.owned = false;
        ip(&["netns", "delete", &self.name])
    }

    /// Moves the calling thread into the namespace, for good. For a `main` that has not started threads yet.
    pub fn enter(&self) -> Result<(), Error> {
        let file = self.file()?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| self.failed(e.into()))
    }

    /// Runs a closure on a thread of its own inside the namespace and returns its result. The closure may build a runtime:
    /// threads that it starts are inside, too. Sockets keep the namespace in which they were made.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(inside())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a process inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.run(|| command.spawn())?
            .map_err(|source| Error::Tool { tool: program, source })
    }

    /// Starts a process inside the namespace that is the first one of new PID, mount, UTS and IPC namespaces, too. When it
    /// ends, the kernel ends whatever it has started.
    pub fn spawn_isolated<T: Send>(&self, start: impl FnOnce() -> io::Result<T> + Send) -> Result<T, Error> {
        let flags =
            CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
        self.run(|| unshare(flags).map_err(io::Error::from).and_then(|()| start()))?
            .map_err(|e| self.failed(e))
    }

    /// Applies lines of `ip -batch` inside the namespace.
    pub fn batch(&self, lines: &[String]) -> Result<(), Error> {
        batch(&["-n", &self.name], lines)
    }

    /// Sets a kernel parameter, as `net/ipv4/ip_forward`, inside the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = Path::new("/proc/sys").join(key);
        self.run(|| std::fs::write(&path, value))?.map_err(|e| Error::Refused {
            command: format!("sysctl {key}={value}"),
            message: e.to_string(),
        })
    }

    fn file(&self) -> Result<File, Error> {
        File::open(self.path()).map_err(|e| self.failed(e))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Enter {
            name: self.name.clone(),
            source,
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = ip(&["netns", "delete", &self.name])
        {
            tracing::warn!(namespace = %self.name, %error, "a network namespace was left behind");
        }
    }
}

/// One end of a veth pair: the namespace, and the name of the interface in it (at most 15 bytes).
pub type End<'a> = (&'a Netns, &'a str);

/// Makes a veth pair between two namespaces; both ends are up and have no addresses yet. It goes away with either namespace.
pub fn veth(one: End<'_>, other: End<'_>) -> Result<(), Error> {
    let (a, a_name) = one;
    let (b, b_name) = other;
    let add = format!(
        "link add {a_name} netns {} type veth peer name {b_name} netns {}",
        a.name, b.name
    );
    batch(&[], &[add])?;
    a.batch(&[format!("link set {a_name} up")])?;
    b.batch(&[format!("link set {b_name} up")])
}

/// Feeds lines to `ip -batch`; the first that fails ends the batch.
pub fn batch(options: &[&str], lines: &[String]) -> Result<(), Error> {
    let text = lines.join("\n") + "\n";
    let mut arguments = options.to_vec();
    arguments.extend(["-batch", "-"]);
    feed("ip", &arguments, &text).map(|_| ())
}

/// Runs a tool with a text on its standard input; its standard output, or what it complained about.
pub fn feed(tool: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let missing = |source| Error::Tool {
        tool: tool.to_string(),
        source,
    };
    let mut command = Command::new(tool);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that has already complained closes its input; its message says more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
    let shown = if input.len() < 400 {
        input.trim()
    } else {
        "(a longer input)"
    };
    Err(Error::Refused {
        command: format!("{tool} {} <<< {shown}", arguments.join(" ")),
        message,
    })
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    feed("ip", arguments, "").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    fn name(suffix: &str) -> String {
        format!("weft-unit-{}-{suffix}", std::process::id())
    }

    #[test]
    fn two_namespaces_talk_over_a_wire_in_both_families_and_leave_nothing() {
        let (one, two) = (Netns::create(&name("a")).unwrap(), Netns::create(&name("b")).unwrap());
        veth((&one, "eth0"), (&two, "eth0")).unwrap();
        for (netns, n) in [(&one, 1), (&two, 2)] {
            let lines = [
                format!("addr add 10.9.9.{n}/24 dev eth0"),
                format!("addr add fd09::{n}/64 dev eth0 nodad"),
            ];
            netns.batch(&lines).unwrap();
        }
        for address in ["10.9.9.1:80", "[fd09::1]:80"] {
            let listener = one.run(|| TcpListener::bind(address).unwrap()).unwrap();
            let mut client = two.run(|| TcpStream::connect(address).unwrap()).unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        drop((one, two));
        assert!(Netns::list(&name("a")).is_empty() && Netns::list(&name("b")).is_empty());
    }

    #[test]
    fn an_isolated_process_is_the_first_of_its_own_namespace() {
        let netns = Netns::create(&name("c")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$"]).stdout(Stdio::piped());
        let child = netns.spawn_isolated(|| command.spawn()).unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"1\n");
    }

    #[test]
    fn a_refused_change_says_what_was_asked_and_why_not() {
        let netns = Netns::create(&name("d")).unwrap();
        let error = netns
            .batch(&["addr add 10.0.0.300/32 dev lo".to_string()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("10.0.0.300"), "{error}");
    }
}
