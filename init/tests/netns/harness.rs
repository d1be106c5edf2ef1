//! A pod and its neighbour as two joined network namespaces, the listeners in them, and dials from them.
//! Everything goes when it is dropped. Where namespaces cannot be made, the tests fail and say what to do.

use socket2::{Domain, SockRef, Socket, Type};
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};
use weft_init::backend::Kind;
use weft_proto::names::{check, port};

pub const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
pub const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
pub const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2));
pub const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
/// The pod's and its neighbour's address, in both families.
pub const BOTH: [(IpAddr, IpAddr); 2] = [(POD_V4, PEER_V4), (POD_V6, PEER_V6)];

/// A network namespace.
pub struct Namespace(pub String);

impl Namespace {
    fn create(name: String) -> Self {
        must("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        must("ip", &["-n", &namespace.0, "link", "set", "lo", "up"]);
        namespace
    }

    /// Runs something in this namespace, on a thread of its own; programs that it starts are in it, too.
    pub fn run<T: Send>(&self, something: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                something()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Puts the calling thread into this namespace, for good.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("the namespace exists");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("root can enter a namespace");
    }

    /// Runs a program in this namespace, which must succeed, and gives its output.
    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        self.run(|| must(program, arguments))
    }

    /// What a program shows of the rules, without what differs between two looks at the same.
    pub fn saved(&self, program: &str) -> String {
        let saved = self.must(program, &[]);
        let lines = saved.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n")
            .collect()
    }

    /// Dials as this user, and tells what came: the text until the end, or how it failed.
    pub fn dial_as(&self, uid: u32, ip: IpAddr, port: u16) -> String {
        self.run(move || {
            nix::unistd::setfsuid(uid.into());
            dial(SocketAddr::new(ip, port))
        })
    }

    /// Dials as an ordinary user.
    pub fn dial(&self, ip: IpAddr, port: u16) -> String {
        self.dial_as(1000, ip, port)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// How a pod differs from the usual one, which has both families and a default route in both.
#[derive(Clone, Copy)]
pub struct Shape {
    pub v6: bool,
    pub default_routes: bool,
    pub backend: Kind,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            v6: true,
            default_routes: true,
            backend: Kind::Nft,
        }
    }
}

/// A pod and its neighbour.
pub struct Pod {
    pub pod: Namespace,
    pub peer: Namespace,
}

impl Pod {
    pub fn new(shape: Shape) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require();
        let name = format!(
            "weft-init-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let pod = Namespace::create(name.clone());
        let peer = Namespace::create(format!("{name}-peer"));
        let link = format!(
            "link add eth0 netns {} type veth peer name eth0 netns {}",
            pod.0, peer.0
        );
        must("ip", &link.split(' ').collect::<Vec<_>>());
        for (namespace, v4, v6) in [(&pod, POD_V4, POD_V6), (&peer, PEER_V4, PEER_V6)] {
            must("ip", &["-n", &namespace.0, "link", "set", "eth0", "up"]);
            must(
                "ip",
                &["-n", &namespace.0, "addr", "add", &format!("{v4}/24"), "dev", "eth0"],
            );
            if shape.v6 {
                must(
                    "ip",
                    &[
                        "-n",
                        &namespace.0,
                        "addr",
                        "add",
                        &format!("{v6}/64"),
                        "dev",
                        "eth0",
                        "nodad",
                    ],
                );
            }
        }
        if shape.default_routes {
            must(
                "ip",
                &["-n", &pod.0, "route", "add", "default", "via", &PEER_V4.to_string()],
            );
            if shape.v6 {
                must(
                    "ip",
                    &[
                        "-n",
                        &pod.0,
                        "-6",
                        "route",
                        "add",
                        "default",
                        "via",
                        &PEER_V6.to_string(),
                    ],
                );
            }
        }
        if shape.backend == Kind::Legacy {
            for program in ["iptables-legacy", "ip6tables-legacy"] {
                pod.must(program, &["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]);
            }
        }
        Self { pod, peer }
    }

    /// Runs weft-init in the pod.
    pub fn init(&self, arguments: &[&str]) -> Output {
        self.pod
            .run(|| init().args(arguments).output().expect("weft-init was built"))
    }

    /// Runs weft-init in the pod, which must succeed, and gives what it said.
    pub fn init_ok(&self, arguments: &[&str]) -> String {
        let output = self.init(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "weft-init {arguments:?} failed: {said}");
        said
    }

    /// Runs weft-init in the pod, which must fail with exit code 1, and gives what it said.
    pub fn init_fails(&self, arguments: &[&str]) -> String {
        let output = self.init(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "weft-init {arguments:?}: {said}");
        said
    }
}

/// The program under test.
pub fn init() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weft-init"))
}

/// Listeners that answer each connection with one line and close it; they end when this is dropped.
pub struct Listeners(Vec<(Socket, JoinHandle<()>)>);

impl Listeners {
    /// What stands for the proxy: tells the side and the original destination, or gives the check's answer.
    pub fn proxy(namespace: &Namespace) -> Self {
        Self::start(namespace, &[outbound(), inbound()].concat(), |listener, stream| {
            let side = if listener.port() == port::OUTBOUND {
                "outbound"
            } else {
                "inbound"
            };
            let original = original_destination(stream);
            let check = (original.ip() == IpAddr::V4(check::ADDRESS_V4)
                || original.ip() == IpAddr::V6(check::ADDRESS_V6))
                && original.port() == check::PORT;
            if check && side == "outbound" {
                check::ANSWER.to_vec()
            } else {
                format!("{side} {original}").into_bytes()
            }
        })
    }

    /// Listeners on these addresses that answer always the same.
    pub fn saying(namespace: &Namespace, addresses: &[SocketAddr], answer: &'static str) -> Self {
        Self::start(namespace, addresses, move |_, _| answer.as_bytes().to_vec())
    }

    fn start(
        namespace: &Namespace,
        addresses: &[SocketAddr],
        answer: impl Fn(SocketAddr, &TcpStream) -> Vec<u8> + Clone + Send + 'static,
    ) -> Self {
        let listen = |&address: &SocketAddr| {
            let socket = namespace.run(move || {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
                socket.set_reuse_address(true).unwrap();
                if address.is_ipv6() {
                    socket.set_only_v6(true).unwrap();
                }
                socket.bind(&address.into()).unwrap();
                socket.listen(64).unwrap();
                socket
            });
            let listener = TcpListener::from(socket.try_clone().unwrap());
            let answer = answer.clone();
            let serve = move || {
                // The drop shuts the socket down, which ends the wait.
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.write_all(&answer(address, &stream));
                }
            };
            (socket, thread::spawn(serve))
        };
        Self(addresses.iter().map(listen).collect())
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for (socket, thread) in self.0.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

/// The outbound listeners of a proxy.
pub fn outbound() -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::LOCALHOST, port::OUTBOUND).into(),
        (Ipv6Addr::LOCALHOST, port::OUTBOUND).into(),
    ]
}

/// The inbound listeners of a proxy.
pub fn inbound() -> Vec<SocketAddr> {
    everywhere(port::INBOUND)
}

/// A port on all addresses of both families.
pub fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ]
}

fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().unwrap();
    let original = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.ok().and_then(|address| address.as_socket()).unwrap_or(local)
}

fn dial(address: SocketAddr) -> String {
    let mut stream = match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return "refused".to_owned(),
        Err(error) => return format!("failed: {error}"),
    };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => answer,
        Err(error) => format!("failed after '{answer}': {error}"),
    }
}

fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Never skipped silently: what is missing makes the test fail, with what to do.
fn require() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root (sudo -E env PATH=\"$PATH\" cargo test -p weft-init)"
    );
    for program in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
        let works = Command::new(program)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        assert!(
            works,
            "{program} is missing: install the package iptables (Debian, Alpine: also iptables-legacy)"
        );
    }
    let works = Command::new("ip")
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success());
    assert!(works, "ip is missing: install the package iproute2");
}
