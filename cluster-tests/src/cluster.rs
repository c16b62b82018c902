//! A cluster of child processes of the real binary, each with its own data directory and ports.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quorumgate_node::cli::relay::{Link, Relay};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Admin, disk::Disk};

/// How long a single step of a test cluster may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What to build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The nodes' regions; one node each.
    pub regions: Vec<String>,
    pub max_rtt: &'static str,
    /// A relay on the peers' path: the round trip between two nodes, by their places in `regions`.
    pub round_trip: Option<fn(usize, usize) -> Duration>,
    /// The library by which the nodes' wall clocks can be set (libfaketime).
    pub clocks: Option<PathBuf>,
    /// What the nodes run: another build than the one beside this program, perhaps.
    pub binary: Option<PathBuf>,
    /// A file system of its own for each node's data, of so many MiB (`disk::Disk`).
    pub disk_mib: Option<u32>,
}

impl Plan {
    pub fn of(nodes: usize) -> Self {
        Self {
            regions: (1..=nodes).map(|n| format!("r{n}")).collect(),
            max_rtt: "5ms",
            round_trip: None,
            clocks: None,
            binary: None,
            disk_mib: None,
        }
    }
}

pub struct Cluster {
    pub members: Vec<Member>,
    /// Those that were removed, or have left.
    pub former: Vec<Member>,
    pub relay: Option<Relay>,
    pub dir: TempDir,
    plan: Plan,
    /// How many members there have ever been.
    planned: usize,
    _turn: SemaphorePermit<'static>,
}

/// One cluster at a time in a test process: elections must not be lost to a neighbour's load.
static TURNS: Semaphore = Semaphore::const_new(1);

/// One node: a directory, four listeners and perhaps a process.
pub struct Member {
    pub name: String,
    pub region: String,
    pub dir: PathBuf,
    pub proxy: SocketAddr,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
    pub telemetry: SocketAddr,
    pub advertise: Option<String>,
    /// Among those of the relay.
    pub place: usize,
    /// What the process's wall clock is read through.
    clocks: Option<PathBuf>,
    /// The build that it runs from the next start on; None: the one beside this program.
    pub binary: Option<PathBuf>,
    /// What its data directory lies on, if it is its own.
    pub disk: Option<Disk>,
    process: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
    }
}

impl Cluster {
    /// Founds, joins and starts every node, and waits until as many vote as may.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let turn = TURNS.acquire().await?;
        let dir = TempDir::new()?;
        let mut planned = Vec::new();
        for (at, region) in plan.regions.iter().enumerate() {
            planned.push(Member::new(at, region, dir.path())?.with(&plan)?);
        }
        let relay = match plan.round_trip {
            None => None,
            Some(round_trip) => Some(relay(&mut planned, round_trip).await?),
        };
        let regions = plan.regions.len();
        let former = Vec::new();
        let mut cluster = Self { members: Vec::new(), former, relay, dir, plan, planned: regions, _turn: turn };
        for member in planned {
            cluster.admit(member, &[]).await?;
        }
        cluster.wait_voters(voters_of(regions)).await?;
        Ok(cluster)
    }

    /// One more node, with more words for its `join`.
    pub async fn grow(&mut self, region: &str, extra: &[&str]) -> anyhow::Result<()> {
        let member = self.planned(region).await?;
        self.admit(member, extra).await
    }

    /// One more, which is nobody yet.
    async fn planned(&mut self, region: &str) -> anyhow::Result<Member> {
        let mut member = Member::new(self.planned, region, self.dir.path())?.with(&self.plan)?;
        self.planned += 1;
        if let Some(relay) = &mut self.relay {
            member.advertise = Some(relay.add(member.peer).await?.to_string());
            member.place = relay.addresses.len() - 1;
        }
        Ok(member)
    }

    /// A new member on its way in through another, as a command line does it.
    pub async fn joining(&mut self, through: &str) -> anyhow::Result<Joining> {
        let member = self.planned("r1").await?;
        let through = self.members.iter().find(|it| it.name == through).context("a member to join through")?;
        Joining::new(member, through, &self.dir, &[])
    }

    /// The directory of logs outlives the cluster; where it is.
    pub fn keep_logs(&mut self) -> anyhow::Result<PathBuf> {
        Ok(std::mem::replace(&mut self.dir, TempDir::new()?).keep())
    }

    pub fn has_clocks(&self) -> bool {
        self.plan.clocks.is_some()
    }

    /// A new cluster of one from a backup, with more words for its `restore`; the old nodes must be stopped. It becomes the
    /// last member.
    pub async fn restore(&mut self, file: &str, extra: &[&str]) -> anyhow::Result<()> {
        let mut member = self.planned("r1").await?;
        member.prepare(&[&["cluster", "restore", file, "--yes"], extra].concat())?;
        member.run()?;
        member.wait_ready().await?;
        self.members.push(member);
        Ok(())
    }

    /// `init` for the first, `join` for the rest, then `run`; waits until it is ready.
    async fn admit(&mut self, mut member: Member, extra: &[&str]) -> anyhow::Result<()> {
        match self.members.iter().find(|member| member.is_running()) {
            None => {
                let mut args = vec!["init", "--max-rtt", self.plan.max_rtt];
                args.extend(extra);
                member.prepare(&args)?;
            }
            Some(seed) => member = Joining::new(member, seed, &self.dir, extra)?.run()?,
        }
        member.run()?;
        member.wait_ready().await?;
        self.members.push(member);
        Ok(())
    }

    pub async fn wait_voters(&self, voters: usize) -> anyhow::Result<()> {
        until(&format!("{voters} voters"), async || {
            for member in self.running() {
                let status = member.client().await?.status().await?;
                ensure!(status.voters as usize == voters, "{} sees {} voters", member.name, status.voters);
                ensure!(!status.leader.is_empty(), "{} knows no leader", member.name);
            }
            Ok(())
        })
        .await
    }

    pub fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_running())
    }

    /// The index of the member that a majority of the running ones call leader.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let mut found = None;
        until("a leader", async || {
            for member in self.running() {
                let status = member.client().await?.status().await?;
                let leader = self.members.iter().position(|member| member.name == status.leader && member.is_running());
                if let Some(leader) = leader {
                    found = Some(leader);
                    return Ok(());
                }
            }
            bail!("nobody knows a running leader")
        })
        .await?;
        found.context("a leader was found")
    }

    pub fn follower(&self, leader: usize) -> &Member {
        let follower = self.members.iter().enumerate().find(|(at, member)| *at != leader && member.is_running());
        follower.expect("a cluster of two or more").1
    }

    /// Every running node has the same state hash at the same index.
    pub async fn check_same_state(&self) -> anyhow::Result<()> {
        let mut target = 0;
        for member in self.running() {
            target = target.max(member.client().await?.state_hash(0).await?.index);
        }
        until("equal state hashes", async || {
            let mut hashes = Vec::new();
            for member in self.running() {
                let answer = member.client().await?.state_hash(target).await?;
                hashes.push((answer.index, answer.hash, member.name.clone()));
            }
            let same_index = hashes.iter().all(|(index, ..)| *index == hashes[0].0);
            ensure!(same_index, "still applying: {hashes:?}");
            // At one index the hashes must be equal; waiting would not mend it.
            assert!(hashes.iter().all(|(_, hash, _)| *hash == hashes[0].1), "states differ: {hashes:?}");
            Ok(())
        })
        .await
    }
}

/// An odd number, at most seven.
pub fn voters_of(nodes: usize) -> usize {
    (nodes - usize::from(nodes.is_multiple_of(2))).min(7)
}

/// Puts every pair of nodes as far apart as `round_trip` says.
async fn relay(members: &mut [Member], round_trip: fn(usize, usize) -> Duration) -> anyhow::Result<Relay> {
    let relay = Relay::start(members.iter().map(|member| member.peer).collect()).await?;
    for (member, address) in members.iter_mut().zip(&relay.addresses) {
        member.advertise = Some(address.to_string());
    }
    for a in 0..members.len() {
        for b in 0..a {
            relay.set_pair(a, b, Link { delay: round_trip(a, b) / 2, ..Link::default() });
        }
    }
    Ok(relay)
}

impl Member {
    fn new(place: usize, region: &str, root: &Path) -> anyhow::Result<Self> {
        let name = format!("n{}", place + 1);
        let dir = root.join(&name);
        Ok(Self {
            name,
            region: region.to_owned(),
            dir,
            proxy: free_port()?,
            peer: free_port()?,
            admin: free_port()?,
            telemetry: free_port()?,
            advertise: None,
            place,
            clocks: None,
            binary: None,
            disk: None,
            process: None,
        })
    }

    fn with(mut self, plan: &Plan) -> anyhow::Result<Self> {
        self.clocks = plan.clocks.clone();
        self.binary = plan.binary.clone();
        self.disk = plan.disk_mib.map(|mib| Disk::mount(&self.dir, mib)).transpose()?;
        Ok(self)
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        self.binary.clone().map_or_else(binary, Ok)
    }

    /// `init` or `join` with this node's directory and addresses; the rest comes in `verb`.
    fn prepare(&self, verb: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.program()?);
        command.args(verb).arg("--data-dir").arg(&self.dir).args(["--name", &self.name, "--region", &self.region]);
        for (flag, address) in [
            ("--proxy-listen", self.proxy),
            ("--peer-listen", self.peer),
            ("--admin-listen", self.admin),
            ("--telemetry-listen", self.telemetry),
        ] {
            command.arg(flag).arg(address.to_string());
        }
        if let Some(advertise) = &self.advertise {
            command.args(["--advertise", advertise]);
        }
        checked(command.output()?).with_context(|| format!("preparing {}", self.name))?;
        Ok(())
    }

    /// Starts the daemon; its log goes to `<data-dir>.log`.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(self.program()?);
        if let Some(library) = &self.clocks {
            self.set_clock(0)?;
            // Its other clocks never step: nor do those of a machine.
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock_file());
            command.envs([("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_CACHE_DURATION", "1")]);
        }
        let child = command
            .arg("run")
            .arg("--data-dir")
            .arg(&self.dir)
            .args(["--proxy-workers", "1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        Ok(())
    }

    /// Sets the wall clock of the process so many seconds ahead, or behind; it is noticed within a second or so.
    pub fn set_clock(&self, ahead_s: i64) -> anyhow::Result<()> {
        let aside = self.clock_file().with_extension("new");
        std::fs::write(&aside, format!("{ahead_s:+}\n"))?;
        Ok(std::fs::rename(aside, self.clock_file())?)
    }

    fn clock_file(&self) -> PathBuf {
        self.dir.with_extension("clock")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// Of its memory, what is not on disk.
    pub fn memory_kib(&self) -> anyhow::Result<u64> {
        let process = self.process.as_ref().context("the node runs")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("the node runs")?;
        kill(Pid::from_raw(process.id() as i32), signal)?;
        Ok(())
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(match &mut self.process {
            Some(process) => process.try_wait()?.is_some(),
            None => false,
        })
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A process that has ended already cannot be killed; it is waited for all the same.
            let _ = process.kill();
            let _ = process.wait();
            if self.clocks.is_some() {
                // What the library leaves behind of a process that was killed.
                for name in ["faketime_shm_", "sem.faketime_sem_"] {
                    let _ = std::fs::remove_file(format!("/dev/shm/{name}{}", process.id()));
                }
            }
        }
    }

    /// SIGTERM, then the exit code.
    pub async fn terminate(&mut self) -> anyhow::Result<i32> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit().await
    }

    pub async fn wait_exit(&mut self) -> anyhow::Result<i32> {
        let mut process = self.process.take().context("the node runs")?;
        let status = tokio::task::spawn_blocking(move || process.wait()).await??;
        status.code().context("ended by a signal")
    }

    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        until(&format!("{} ready", self.name), async || {
            let answer = crate::load::get(self.telemetry, "/readyz").await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
            Ok(())
        })
        .await
        .with_context(|| self.log_tail())
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines.len().saturating_sub(15);
        format!("the last lines of {}'s log:\n{}", self.name, lines[tail..].join("\n"))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    pub async fn client(&self) -> anyhow::Result<Admin> {
        Admin::connect(&self.socket()).await
    }

    /// The CLI against this node; stdout on success.
    pub fn cli(&self, args: &[&str]) -> anyhow::Result<String> {
        checked(self.cli_output(args)?)
    }

    pub fn cli_output(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.terminal()?.cli_output(args)
    }

    fn terminal(&self) -> anyhow::Result<Terminal> {
        Ok(Terminal { program: self.program()?, endpoint: format!("unix:{}", self.socket().display()) })
    }
}

/// A command line at one node.
struct Terminal {
    program: PathBuf,
    endpoint: String,
}

impl Terminal {
    fn cli_output(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.env("QUORUMGATE_ENDPOINT", &self.endpoint).args(args).stdin(Stdio::null());
        command.output().with_context(|| format!("quorumgate {}", args.join(" ")))
    }
}

/// A node on its way in: a token, and its own `join`.
pub struct Joining {
    member: Member,
    seed: Terminal,
    address: String,
    token_file: PathBuf,
    extra: Vec<String>,
}

impl Joining {
    fn new(member: Member, seed: &Member, dir: &TempDir, extra: &[&str]) -> anyhow::Result<Self> {
        let token_file = dir.path().join(format!("{}.token", member.name));
        let address = seed.advertise.clone().unwrap_or_else(|| seed.peer.to_string());
        let extra = extra.iter().map(|it| (*it).to_owned()).collect();
        Ok(Self { member, seed: seed.terminal()?, address, token_file, extra })
    }

    pub fn name(&self) -> &str {
        &self.member.name
    }

    /// Blocks until it is a member, with nothing running yet.
    pub fn run(self) -> anyhow::Result<Member> {
        let token = checked(self.seed.cli_output(&["join-token", "create", "-q"])?)?;
        std::fs::write(&self.token_file, token)?;
        let token_file = self.token_file.to_str().context("a path in UTF-8")?;
        let mut args = vec!["join", &self.address, "--token-file", token_file];
        args.extend(self.extra.iter().map(String::as_str));
        self.member.prepare(&args)?;
        Ok(self.member)
    }
}

fn checked(output: Output) -> anyhow::Result<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The binary beside this test: target/<profile>/quorumgate.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUORUMGATE_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join("quorumgate")).find(|path| path.is_file());
    found.context("build the binary first: cargo build --bin quorumgate")
}

/// Where Debian's package libfaketime puts the library, unless QUORUMGATE_FAKETIME says another place.
pub fn libfaketime() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("QUORUMGATE_FAKETIME") {
        return Some(path.into());
    }
    let machines = std::fs::read_dir("/usr/lib").ok()?;
    let libraries = machines.flatten().map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|path| path.is_file())
}

/// Below those that the system gives to clients: a connection that comes and goes cannot take one before its node does.
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// A port that was free a moment ago, for TCP and UDP; no two calls of a process get the same.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes beside this one begin elsewhere.
    let start = std::process::id().wrapping_mul(769) % count;
    for _ in 0..count {
        let port = PORTS.start + (start + TAKEN.fetch_add(1, Ordering::Relaxed)) % count;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port in {PORTS:?}")
}

/// Polls until it holds; the last reason why not is the error.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match tokio::time::timeout(PATIENCE, holds()).await.unwrap_or_else(|_| bail!("no answer")) {
            Ok(()) => return Ok(()),
            Err(reason) if start.elapsed() > PATIENCE => return Err(reason.context(format!("waiting for {what}"))),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
