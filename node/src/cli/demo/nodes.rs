//! The demo's nodes: child processes of this very binary, their ports and directories, and the delays between them.

use std::{
    cell::RefCell,
    fs::File,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use super::origin::Origins;
use crate::cli::{
    args::{self, Global},
    client::Client,
    relay::{Link, Relay},
};

/// How long init, join and token commands may take on a slow machine.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// How long the cluster may take to come to an agreed state on a slow machine.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 30;
pub const MAX_RTT: &str = "20ms";

/// Round trips between regions, in milliseconds.
const ROUND_TRIPS: [(&str, &str, u64); 3] = [("eu", "us", 8), ("ap", "eu", 12), ("ap", "us", 10)];
const ROUND_TRIP_WITHIN_MS: u64 = 1;
const REGIONS: [&str; 3] = ["eu", "us", "ap"];
const ORIGINS: [&str; 3] = ["orders-1", "orders-2", "shop-1"];

pub struct Fleet {
    pub nodes: Vec<Node>,
    pub origins: Origins,
    pub root: PathBuf,
    global: Global,
    _relay: Relay,
}

pub struct Node {
    pub name: String,
    pub region: &'static str,
    pub dir: PathBuf,
    pub proxy: SocketAddr,
    pub telemetry: SocketAddr,
    peer: SocketAddr,
    admin: SocketAddr,
    /// The relay's address, as the other nodes know it.
    advertise: SocketAddr,
    process: RefCell<Option<Child>>,
}

impl Fleet {
    /// Ports, directories, upstreams and relays; no node runs yet.
    pub async fn plan(global: &Global, verb: &args::Demo, root: &Path) -> anyhow::Result<Self> {
        let ports: Vec<[SocketAddr; 4]> =
            (0..verb.nodes).map(|at| ports(verb.port_base, at)).collect::<Result<_, _>>()?;
        let relay = Relay::start(ports.iter().map(|it| it[1]).collect()).await?;
        let mut nodes = Vec::new();
        for (at, [proxy, peer, admin, telemetry]) in ports.into_iter().enumerate() {
            let region = REGIONS[at % REGIONS.len()];
            let name = format!("{region}-{}", at / REGIONS.len() + 1);
            let dir = root.join(&name);
            let advertise = relay.addresses[at];
            nodes.push(Node {
                name,
                region,
                dir,
                proxy,
                telemetry,
                peer,
                admin,
                advertise,
                process: RefCell::default(),
            });
        }
        for a in 0..nodes.len() {
            for b in 0..a {
                let delay = round_trip(nodes[a].region, nodes[b].region) / 2;
                relay.set_pair(a, b, Link { delay, ..Link::default() });
            }
        }
        let origins = Origins::start(&ORIGINS).await?;
        Ok(Self { nodes, origins, root: root.to_owned(), global: global.clone(), _relay: relay })
    }

    /// Voters after everybody has joined: the last of an even count stays a replica.
    pub fn voters(&self) -> u32 {
        let nodes = self.nodes.len() as u32;
        nodes - u32::from(nodes.is_multiple_of(2))
    }

    pub async fn client(&self, node: &Node) -> anyhow::Result<Client> {
        let global = Global { admin_token_file: None, ..self.global.clone() };
        Client::connect_to(&global, &node.endpoint()).await.map_err(|failure| anyhow::anyhow!("{failure}"))
    }

    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.borrow().is_some())
    }

    /// Asks again until the answer is good, at most `patience`; then says what was still missing. A node that ends by
    /// itself ends the wait.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let missing = match timeout_at(deadline, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(missing)) => missing,
                Err(_) => anyhow::anyhow!("no answer"),
            };
            for node in &self.nodes {
                node.check_alive()?;
            }
            if Instant::now() >= deadline {
                return Err(missing.context(format!("{what}: not within {} s", patience.as_secs())));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn commands_to_paste(&self) -> String {
        let exe = std::env::current_exe().map_or("quorumgate".to_owned(), |it| it.display().to_string());
        let first = &self.nodes[0];
        let mut text =
            format!("\nThe cluster stays up until Ctrl-C. To paste in another terminal:\n\n  alias quorumgate={exe}\n");
        text += &format!("  export QUORUMGATE_ENDPOINT={}\n", first.endpoint());
        for command in ["node ls", "cluster status", "history", "export", "route match GET http://shop.test/orders/1"] {
            text += &format!("  quorumgate {command}\n");
        }
        for node in &self.nodes {
            text +=
                &format!("  curl -H 'host: shop.test' http://{}/orders        # through {}\n", node.proxy, node.name);
        }
        text += &format!("  curl http://{}/metrics\n", first.telemetry);
        text += "  quorumgate admin-token create you --role admin -q        # to sign in with at\n";
        text += &format!("  https://{}/ui/        # the web page; its certificate is the demo's own\n", first.admin);
        text
    }
}

fn round_trip(a: &str, b: &str) -> Duration {
    let pair = ROUND_TRIPS.iter().find(|it| (it.0, it.1) == (a, b) || (it.1, it.0) == (a, b));
    Duration::from_millis(pair.map_or(ROUND_TRIP_WITHIN_MS, |it| it.2))
}

/// Proxy, peer, admin and telemetry.
fn ports(base: Option<u16>, at: u8) -> anyhow::Result<[SocketAddr; 4]> {
    let Some(base) = base else {
        // Held together until all are known, so that no two are the same.
        let held =
            [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let peer = UdpSocket::bind("127.0.0.1:0")?;
        return Ok([held[0].local_addr()?, peer.local_addr()?, held[1].local_addr()?, held[2].local_addr()?]);
    };
    let first =
        base.checked_add(10 * u16::from(at)).filter(|it| *it < u16::MAX - 3).context("--port-base is too high")?;
    Ok([0, 1, 2, 3].map(|offset| SocketAddr::from(([127, 0, 0, 1], first + offset))))
}

impl Node {
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.dir.join("admin.sock").display())
    }

    pub async fn init(&self) -> anyhow::Result<()> {
        let mut command = program()?;
        command.args(["init", "--max-rtt", MAX_RTT]);
        self.prepare(command).await
    }

    pub async fn join(&self, seed: &Node, token_file: &Path) -> anyhow::Result<()> {
        let mut command = program()?;
        command.arg("join").arg(seed.advertise.to_string()).arg("--token-file").arg(token_file);
        self.prepare(command).await
    }

    async fn prepare(&self, mut command: Command) -> anyhow::Result<()> {
        command.arg("--data-dir").arg(&self.dir).args(["--name", &self.name, "--region", self.region]);
        for (flag, address) in [
            ("--proxy-listen", self.proxy),
            ("--peer-listen", self.peer),
            ("--admin-listen", self.admin),
            ("--telemetry-listen", self.telemetry),
            ("--advertise", self.advertise),
        ] {
            command.arg(flag).arg(address.to_string());
        }
        output(command).await.with_context(|| format!("preparing {}", self.name)).map(drop)
    }

    pub async fn join_token(&self, uses: usize) -> anyhow::Result<String> {
        let mut command = program()?;
        command.args(["--endpoint", &self.endpoint(), "join-token", "create", "-q", "--uses", &uses.to_string()]);
        output(command).await.context("making a join token")
    }

    /// Starts the daemon; its log goes to a file beside its directory.
    pub fn start(&self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = program()?;
        // One worker a node: the demo shares its machine with the load and the upstreams.
        command.arg("run").arg("--data-dir").arg(&self.dir).args(["--proxy-workers", "1"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *self.process.borrow_mut() = Some(command.spawn().with_context(|| format!("starting {}", self.name))?);
        Ok(())
    }

    /// kill -9, as a power cut would.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { bail!("{} does not run", self.name) };
        process.kill().await.with_context(|| format!("killing {}", self.name))
    }

    fn check_alive(&self) -> anyhow::Result<()> {
        let mut process = self.process.borrow_mut();
        if let Some(running) = process.as_mut()
            && let Some(status) = running.try_wait()?
        {
            *process = None;
            bail!("{} ended by itself: {status}", self.name);
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// This binary again, in a process group of its own, so that Ctrl-C reaches the demo alone, which then ends its children.
fn program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.kill_on_drop(true).process_group(0);
    for name in ["QUORUMGATE_ENDPOINT", "QUORUMGATE_CA", "QUORUMGATE_ADMIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    Ok(command)
}

async fn output(mut command: Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null());
    let output = timeout(COMMAND_MAX, command.output()).await.context("it took too long")??;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
