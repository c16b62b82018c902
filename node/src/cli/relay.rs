//! A user-space UDP relay between peers that adds delay, loss and cuts, for `demo` and for tests on machines whose kernel
//! cannot. Each node advertises its relay address; a packet's sender tells the pair.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Packets under way on one path; more are dropped, as a router does.
const PACKETS_MAX: usize = 4_096;
const PACKET_BYTES_MAX: usize = 65_536;
/// Senders that one node's relay remembers.
const PATHS_MAX: usize = 1_024;

/// What one direction of one pair does to a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// Of a thousand packets, how many are lost.
    pub lost_permille: u32,
    pub cut: bool,
}

/// Relays for a fixed set of nodes; ends when dropped.
pub struct Relay {
    /// What node `n` advertises.
    pub addresses: Vec<SocketAddr>,
    links: Arc<Links>,
    _running: JoinSet<()>,
}

struct Links {
    /// The nodes' real peer listeners.
    nodes: Vec<SocketAddr>,
    /// By sender and receiver.
    table: Mutex<HashMap<(usize, usize), Link>>,
    dice: Mutex<u64>,
}

impl Relay {
    /// One relay socket on loopback for each of the nodes' real peer listeners.
    pub async fn start(nodes: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let links = Arc::new(Links { nodes, table: Mutex::default(), dice: Mutex::new(0x9E37_79B9_7F4A_7C15) });
        let mut running = JoinSet::new();
        let mut addresses = Vec::new();
        for receiver in 0..links.nodes.len() {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.context("binding a relay")?);
            addresses.push(socket.local_addr()?);
            running.spawn(serve(socket, receiver, links.clone()));
        }
        Ok(Self { addresses, links, _running: running })
    }

    /// Both directions of a pair.
    pub fn set_pair(&self, a: usize, b: usize, link: Link) {
        self.set(a, b, link);
        self.set(b, a, link);
    }

    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.links.table.lock().expect("no panic while it is held").insert((from, to), link);
    }

    /// One direction of a pair as it is now.
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.links.table.lock().expect("no panic while it is held").get(&(from, to)).copied().unwrap_or_default()
    }

    /// Cuts or mends every path of one node.
    pub fn isolate(&self, node: usize, cut: bool) {
        let mut table = self.links.table.lock().expect("no panic while it is held");
        for other in (0..self.links.nodes.len()).filter(|other| *other != node) {
            table.entry((node, other)).or_default().cut = cut;
            table.entry((other, node)).or_default().cut = cut;
        }
    }
}

impl Links {
    /// What happens to a packet now: None when it is lost. An unknown sender (a joiner) is not delayed.
    fn fate(&self, from: Option<usize>, to: Option<usize>) -> Option<Duration> {
        let (Some(from), Some(to)) = (from, to) else { return Some(Duration::ZERO) };
        let link = self.table.lock().expect("no panic while it is held").get(&(from, to)).copied().unwrap_or_default();
        let lost = link.cut || (link.lost_permille > 0 && self.roll() < link.lost_permille);
        (!lost).then_some(link.delay)
    }

    /// 0..1000, by xorshift.
    fn roll(&self) -> u32 {
        let mut dice = self.dice.lock().expect("no panic while it is held");
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        (*dice % 1000) as u32
    }

    fn node_at(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| *node == address)
    }
}

/// Packets to one node: each sender gets a socket of its own, from which the node sees it and to which it answers.
async fn serve(socket: Arc<UdpSocket>, receiver: usize, links: Arc<Links>) {
    let mut paths: HashMap<SocketAddr, Path> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut packet).await else { continue };
        let from = links.node_at(sender);
        if !paths.contains_key(&sender) {
            if paths.len() >= PATHS_MAX {
                paths.clear();
            }
            match Path::open(socket.clone(), sender, receiver, from, links.clone(), &mut tasks).await {
                Ok(path) => paths.insert(sender, path),
                Err(_) => continue,
            };
        }
        if let (Some(delay), Some(path)) = (links.fate(from, Some(receiver)), paths.get(&sender)) {
            // A full queue loses the packet; QUIC sends it again.
            let _ = path.there.try_send((Instant::now() + delay, packet[..length].to_vec()));
        }
    }
}

type Queue = mpsc::Sender<(Instant, Vec<u8>)>;

struct Path {
    there: Queue,
}

impl Path {
    async fn open(
        relay: Arc<UdpSocket>,
        sender: SocketAddr,
        receiver: usize,
        from: Option<usize>,
        links: Arc<Links>,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let face = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let (there, there_queue) = mpsc::channel(PACKETS_MAX);
        let (back, back_queue) = mpsc::channel(PACKETS_MAX);
        tasks.spawn(deliver(there_queue, face.clone(), links.nodes[receiver]));
        tasks.spawn(deliver(back_queue, relay, sender));
        tasks.spawn(async move {
            let mut packet = vec![0; PACKET_BYTES_MAX];
            loop {
                let Ok(length) = face.recv(&mut packet).await else { continue };
                if let Some(delay) = links.fate(Some(receiver), from) {
                    let _ = back.try_send((Instant::now() + delay, packet[..length].to_vec()));
                }
            }
        });
        Ok(Self { there })
    }
}

/// In order: a packet waits for those before it.
async fn deliver(mut queue: mpsc::Receiver<(Instant, Vec<u8>)>, socket: Arc<UdpSocket>, to: SocketAddr) {
    while let Some((at, packet)) = queue.recv().await {
        sleep_until(at).await;
        // Nobody listens there at the moment: the packet is lost, as on a wire.
        let _ = socket.send_to(&packet, to).await;
    }
}
