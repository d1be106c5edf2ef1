//! The other side of the control socket: what the commands of `weft sandbox` do. Blocking, with one thread, because `exec`
//! enters namespaces.

use crate::{
    address::INDEXES,
    cleanup, enter,
    images::{Command as Mapped, Images},
    manifest::{self, Source},
    object::{Kind, Object},
    paths::Paths,
    supervisor::{
        Settings,
        control::{Answer, MESH, Progress, Request, Target},
    },
    table,
};
use anyhow::{Context as _, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{SigSet, Signal},
    unistd::geteuid,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Programs that a sandbox runs, beside `weft` itself.
const PROGRAMS: [&str; 4] = ["weft-init", "weft-proxy", "weft-controller", "weft-injector"];
/// How often a state is looked at that cannot be waited for.
const LOOK: Duration = Duration::from_millis(100);
/// Everything must have been ready for so long: the controller and the proxies follow a moment later.
const QUIET: Duration = Duration::from_millis(600);
/// Time for the supervisor to take commands.
const SUPERVISOR_TIME: Duration = Duration::from_secs(15);
/// Time for the supervisor to answer a command.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Time for the supervisor to go down by itself.
const DOWN_TIME: Duration = Duration::from_secs(30);

/// What `up` is told.
#[derive(Debug)]
pub struct Up {
    /// Directory with manifests and perhaps `images.yaml`.
    pub directory: PathBuf,
    /// `NAME=COMMAND` arguments.
    pub images: Vec<String>,
    /// Where weft's programs are; beside this one by default.
    pub programs: Option<PathBuf>,
    /// Whether weft's programs run.
    pub mesh: bool,
    /// Further arguments of the injector.
    pub injector: Vec<String>,
    /// How long to wait for everything to be ready.
    pub wait: Duration,
}

/// One sandbox, seen from a command.
#[derive(Clone, Debug)]
pub struct Sandbox {
    paths: Paths,
}

impl Sandbox {
    /// The sandbox `name` below `root`.
    pub fn new(root: &Path, name: &str) -> anyhow::Result<Sandbox> {
        Ok(Sandbox {
            paths: Paths::new(root, name)?,
        })
    }

    /// Its files.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Starts it, and waits until everything is ready. What it says on the way goes to `say`.
    pub fn up(&self, up: &Up, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        root()?;
        let (images, sources) = self.read(up)?;
        self.start(up, images)?;
        let applied = self.ask(&Request::Apply(sources)).inspect_err(|_| drop(self.down()))?;
        for line in lines(&applied).iter().filter(|l| l.starts_with("ignored: ")) {
            say(line);
        }
        self.wait(up.wait, say)
    }

    /// Reads and checks everything, before anything starts.
    fn read(&self, up: &Up) -> anyhow::Result<(Images, Vec<Source>)> {
        let mut mistakes = Vec::new();
        let mut images = Images::default();
        let base = std::path::absolute(&up.directory)?;
        for name in ["images.yaml", "images.yml"] {
            let file = up.directory.join(name);
            if file.is_file() {
                let source = manifest::file(&file)?;
                match Images::read(&source.file, &source.text, &base) {
                    Ok(read) => images.extend(read),
                    Err(more) => mistakes.extend(more),
                }
            }
        }
        for argument in &up.images {
            mistakes.extend(images.add(argument, &env::current_dir()?).err());
        }
        let copies = self.paths.programs();
        for program in PROGRAMS {
            let command = vec![copies.join(program).display().to_string()];
            images.insert(
                program,
                Mapped {
                    command,
                    ..Mapped::default()
                },
                Path::new("/"),
            );
        }
        let sources = manifest::directory(&up.directory)
            .with_context(|| format!("reading the manifests of {}", up.directory.display()))?;
        let existing = ["default", "kube-system", weft_proto::names::SYSTEM_NAMESPACE];
        let batch = manifest::read(&sources, &images, &|n| existing.contains(&n));
        mistakes.extend(batch.mistakes.iter().map(|m| m.to_string()));
        if batch.objects.is_empty() && mistakes.is_empty() {
            mistakes.push(format!(
                "{}: no manifests (*.yaml, *.yml, *.json); name a directory that has some",
                up.directory.display()
            ));
        }
        let missing: Vec<&str> = PROGRAMS
            .into_iter()
            .filter(|p| up.mesh && !self.program(up, p).is_file())
            .collect();
        if !missing.is_empty() {
            let place = self.program(up, "").display().to_string();
            mistakes.push(format!(
                "{} not found in {place}; build them (cargo build), or name their directory with --bin-dir",
                missing.join(", ")
            ));
        }
        if mistakes.is_empty() {
            return Ok((images, sources));
        }
        bail!("nothing was started:\n  {}", mistakes.join("\n  "))
    }

    fn program(&self, up: &Up, name: &str) -> PathBuf {
        let beside = || {
            env::current_exe()
                .ok()
                .and_then(|p| p.parent().map(Path::to_path_buf))
                .unwrap_or_default()
        };
        up.programs.clone().unwrap_or_else(beside).join(name)
    }

    fn start(&self, up: &Up, images: Images) -> anyhow::Result<()> {
        let lock = self.lock()?;
        if self.paths.directory().exists() {
            if self.connect().is_ok() {
                let name = self.paths.name();
                bail!(
                    "sandbox '{name}' is up already; change it with `weft sandbox apply -f F`, end it with `weft sandbox down`, or use another --name"
                );
            }
            // Its supervisor was killed: what it left is in the way.
            cleanup::remove(&self.paths, None)?;
        }
        self.paths.create()?;
        let started = self.spawn(up, images);
        drop(lock);
        started.inspect_err(|_| drop(cleanup::remove(&self.paths, None)))
    }

    fn spawn(&self, up: &Up, images: Images) -> anyhow::Result<()> {
        copy(&env::current_exe()?, &self.paths.shim())?;
        for program in PROGRAMS.into_iter().filter(|_| up.mesh) {
            copy(&self.program(up, program), &self.paths.programs().join(program))?;
        }
        let path =
            env::var("PATH").unwrap_or_else(|_| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        Settings {
            index: self.index()?,
            images,
            mesh: up.mesh,
            injector: up.injector.clone(),
            path,
            pid: None,
        }
        .write(&self.paths)?;
        let log = fs::File::create(self.paths.log())?;
        let mut command = Command::new(self.paths.shim());
        command
            .args(["sandbox", "__supervise"])
            .arg("--state-dir")
            .arg(self.paths.root())
            .args(["--name", self.paths.name()]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/");
        let mut child = command.spawn().context("starting the supervisor")?;
        let deadline = Instant::now() + SUPERVISOR_TIME;
        while self.connect().is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("the supervisor did not start ({status}):\n{}", self.supervisor_log());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!(
                    "the supervisor takes no commands after {SUPERVISOR_TIME:?}:\n{}",
                    self.supervisor_log()
                );
            }
            sleep(LOOK / 4);
        }
        Ok(())
    }

    /// The end of what the supervisor said.
    pub fn supervisor_log(&self) -> String {
        let text = fs::read_to_string(self.paths.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn lock(&self) -> anyhow::Result<Flock<fs::File>> {
        fs::create_dir_all(self.paths.root()).with_context(|| format!("making {}", self.paths.root().display()))?;
        let file = fs::File::create(self.paths.root().join(".lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
    }

    fn index(&self) -> anyhow::Result<u8> {
        let others = Sandbox::all(self.paths.root())
            .into_iter()
            .filter_map(|s| Settings::read(&s.paths).ok());
        let used: BTreeSet<u8> = others.map(|s| s.index).collect();
        (0..INDEXES)
            .find(|i| !used.contains(i))
            .with_context(|| format!("there are {INDEXES} sandboxes already; end some"))
    }

    /// Every sandbox below `root`.
    pub fn all(root: &Path) -> Vec<Sandbox> {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let names = entries
            .filter(|e| e.path().is_dir())
            .filter_map(|e| e.file_name().into_string().ok());
        let mut all: Vec<Sandbox> = names.filter_map(|n| Sandbox::new(root, &n).ok()).collect();
        all.sort_by_key(|s| s.paths.name().to_string());
        all
    }

    /// Waits until everything is ready; says what it waits for when that changes.
    pub fn wait(&self, limit: Duration, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let (mut said, mut quiet_since) = (String::new(), Instant::now());
        loop {
            let progress: Progress = serde_json::from_value(self.ask(&Request::Progress)?)?;
            if !progress.waiting.is_empty() {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= QUIET {
                let failed: Vec<String> = progress.failed.iter().map(entry).collect();
                if !failed.is_empty() {
                    bail!("not everything is well:\n  {}", failed.join("\n  "));
                }
                return Ok(());
            }
            let line = waiting(&progress);
            if line != said && !progress.waiting.is_empty() {
                say(&line);
                said = line;
            }
            if Instant::now() > deadline {
                let all: Vec<String> = progress.waiting.iter().chain(&progress.failed).map(entry).collect();
                bail!("not ready after {limit:?}:\n  {}", all.join("\n  "));
            }
            sleep(LOOK);
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.paths.socket())
    }

    /// Sends one command.
    pub fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        self.ask_within(request, ANSWER_TIME)
    }

    /// Sends one command, and waits no longer than this for its answer.
    pub fn ask_within(&self, request: &Request, limit: Duration) -> anyhow::Result<Value> {
        root()?;
        let mut stream = self.connect().with_context(|| {
            format!(
                "sandbox '{}' is not up; start it with `weft sandbox up DIR`, or name another with --name",
                self.paths.name()
            )
        })?;
        stream.set_read_timeout(Some(limit))?;
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        stream.write_all(&text)?;
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line);
        read.with_context(|| {
            format!(
                "the supervisor did not answer within {limit:?}; see {}",
                self.paths.log().display()
            )
        })?;
        match serde_json::from_str(&line).context("the supervisor ended; see `weft check`")? {
            Answer::Ok(value) => Ok(value),
            Answer::Error(error) => Err(anyhow::anyhow!(error)),
        }
    }

    /// Objects of a kind.
    pub fn get(&self, kind: &str, namespace: Option<&str>, name: Option<&str>) -> anyhow::Result<Vec<Object>> {
        let request = Request::Get {
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.map(Into::into),
        };
        let objects: Vec<Object> = serde_json::from_value(self.ask(&request)?)?;
        if let Some(name) = name
            && objects.is_empty()
        {
            bail!(
                "no {kind} is called '{name}'{}",
                namespace.map(|n| format!(" in namespace '{n}'")).unwrap_or_default()
            );
        }
        Ok(objects)
    }

    /// The table of `get`.
    pub fn table(&self, kind: &str, namespace: Option<&str>, name: Option<&str>) -> anyhow::Result<String> {
        let objects = self.get(kind, namespace, name)?;
        let kind = Kind::from_argument(kind).context("a kind that was just answered")?;
        Ok(table::table(kind, &objects, &self.get("namespaces", None, None)?))
    }

    /// Runs a command in a container, with this process's own streams. The calling process must have one thread. Its exit code.
    pub fn exec(&self, target: Target, words: Vec<String>) -> anyhow::Result<i32> {
        let mut join: enter::Enter = serde_json::from_value(self.ask(&Request::Join(target))?)?;
        join.launch.words = words;
        join.launch.with_parent = true;
        // Ctrl-C is for the command; this process ends as the command does.
        let mut held = SigSet::empty();
        held.add(Signal::SIGINT);
        held.add(Signal::SIGQUIT);
        held.thread_block()?;
        Ok(enter::code(join.run()?))
    }

    /// Runs a command on the node, as a client without weft, with the cluster's names. Never returns when the command starts.
    pub fn exec_on_node(&self, words: &[String]) -> anyhow::Result<std::convert::Infallible> {
        root()?;
        crate::netns::Netns::open(&self.paths.node_netns())?.enter()?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        if let Ok(target) = fs::canonicalize("/etc/resolv.conf") {
            mount(Some(&self.paths.resolv_conf()), &target, none, MsFlags::MS_BIND, none)
                .context("the cluster's resolv.conf")?;
        }
        let (program, arguments) = words.split_first().context("no command; write it after --")?;
        Err(Command::new(program).args(arguments).exec()).with_context(|| format!("running '{program}'"))
    }

    /// Writes the log of a container to standard output; goes on as it grows when told to.
    pub fn logs(&self, target: Target, follow: bool) -> anyhow::Result<()> {
        let path: PathBuf = serde_json::from_value(self.ask(&Request::Log(target))?)?;
        let mut position = 0;
        loop {
            match fs::File::open(&path) {
                Ok(mut file) => {
                    if file.metadata()?.len() < position {
                        // It was full and has begun anew.
                        position = 0;
                    }
                    file.seek(SeekFrom::Start(position))?;
                    position += io::copy(&mut file, &mut io::stdout().lock())?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Not begun yet, or gone with its pod.
                    if position > 0 || !follow {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if !follow {
                return Ok(());
            }
            sleep(LOOK);
        }
    }

    /// Ends it and removes everything that it made. False when there was nothing.
    pub fn down(&self) -> anyhow::Result<bool> {
        root()?;
        let namespaces = crate::netns::Netns::list(&self.paths.netns_prefix());
        if !self.paths.directory().exists() && namespaces.is_empty() {
            return Ok(false);
        }
        let pid = Settings::read(&self.paths).ok().and_then(|s| s.pid);
        if self.ask(&Request::Down).is_ok() {
            let deadline = Instant::now() + DOWN_TIME;
            let lives = || pid.is_some_and(cleanup::lives);
            while lives() && Instant::now() < deadline {
                sleep(LOOK / 4);
            }
        }
        cleanup::remove(&self.paths, None)?;
        Ok(true)
    }
}

/// Lines of an answer.
pub fn lines(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|l| l.as_str().map(String::from))
        .collect()
}

fn entry((name, word, said): &(String, String, String)) -> String {
    if said.is_empty() {
        format!("{name}: {word}")
    } else {
        format!("{name}: {word}: {said}")
    }
}

fn waiting(progress: &Progress) -> String {
    if progress.waiting.iter().any(|(name, _, _)| name == MESH) {
        return "starting weft's controller and injector".into();
    }
    let total = progress.ready + progress.waiting.len() + progress.failed.len();
    let names: Vec<String> = progress
        .waiting
        .iter()
        .map(|(name, word, _)| format!("{name} ({word})"))
        .collect();
    let shown = names[..names.len().min(4)].join(", ");
    let more = if names.len() > 4 {
        format!(" and {} more", names.len() - 4)
    } else {
        String::new()
    };
    format!("{}/{total} ready; waiting for {shown}{more}", progress.ready)
}

fn root() -> anyhow::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "a sandbox is made of network namespaces, which only root may make: run this with sudo, or as root in a virtual machine"
    )
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
