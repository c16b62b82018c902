//! A user-space UDP relay between peers that adds delay, loss, disorder and cuts, for `demo` and for tests on machines whose
//! kernel cannot. Each node advertises its relay address; a packet's sender tells the pair.

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
    time::{Instant, sleep_until, timeout},
};

/// Packets under way on one path; more are dropped, as a router does.
const PACKETS_MAX: usize = 4_096;
const PACKET_BYTES_MAX: usize = 65_536;
/// Senders that one node's relay remembers.
const PATHS_MAX: usize = 1_024;
/// A packet that loses its place lets so many others go before it, or waits for so long.
const OVERTAKEN_MAX: u32 = 8;
const OVERTAKEN_WITHIN: Duration = Duration::from_millis(20);
/// How many packets of a path may have lost their places.
const HELD_MAX: usize = 16;

/// What one direction of one pair does to a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// Of a thousand packets, how many are lost.
    pub lost_permille: u32,
    /// How many come behind some of those that were sent after them.
    pub reordered_permille: u32,
    /// How many come twice.
    pub doubled_permille: u32,
    pub cut: bool,
}

/// What becomes of a packet that is not lost.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    delay: Duration,
    /// So many others go before it.
    overtaken: u32,
    twice: bool,
}

/// Relays for a set of nodes, which may grow; ends when dropped.
pub struct Relay {
    /// What node `n` advertises.
    pub addresses: Vec<SocketAddr>,
    links: Arc<Links>,
    running: JoinSet<()>,
}

struct Links {
    /// The nodes' real peer listeners.
    nodes: Mutex<Vec<SocketAddr>>,
    /// By sender and receiver.
    table: Mutex<HashMap<(usize, usize), Link>>,
    dice: Mutex<u64>,
}

impl Relay {
    /// One relay socket on loopback for each of the nodes' real peer listeners.
    pub async fn start(nodes: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let dice = Mutex::new(0x9E37_79B9_7F4A_7C15);
        let links = Arc::new(Links { nodes: Mutex::default(), table: Mutex::default(), dice });
        let mut relay = Self { addresses: Vec::new(), links, running: JoinSet::new() };
        for node in nodes {
            relay.add(node).await?;
        }
        Ok(relay)
    }

    /// One more node; what it advertises.
    pub async fn add(&mut self, node: SocketAddr) -> anyhow::Result<SocketAddr> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.context("binding a relay")?);
        let address = socket.local_addr()?;
        let receiver = {
            let mut nodes = self.links.nodes.lock().expect("no panic while it is held");
            nodes.push(node);
            nodes.len() - 1
        };
        self.addresses.push(address);
        self.running.spawn(serve(socket, receiver, self.links.clone()));
        Ok(address)
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
        for other in (0..self.addresses.len()).filter(|other| *other != node) {
            table.entry((node, other)).or_default().cut = cut;
            table.entry((other, node)).or_default().cut = cut;
        }
    }
}

impl Links {
    /// What happens to a packet now: None when it is lost. An unknown sender (a joiner) is not delayed.
    fn fate(&self, from: Option<usize>, to: Option<usize>) -> Option<Fate> {
        let (Some(from), Some(to)) = (from, to) else { return Some(Fate::default()) };
        let link = self.table.lock().expect("no panic while it is held").get(&(from, to)).copied().unwrap_or_default();
        let falls = |permille: u32| permille > 0 && self.roll() < permille;
        let lost = link.cut || falls(link.lost_permille);
        let overtaken = if falls(link.reordered_permille) { 1 + self.roll() % OVERTAKEN_MAX } else { 0 };
        (!lost).then(|| Fate { delay: link.delay, overtaken, twice: falls(link.doubled_permille) })
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
        self.nodes.lock().expect("no panic while it is held").iter().position(|node| *node == address)
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
        if let (Some(fate), Some(path)) = (links.fate(from, Some(receiver)), paths.get(&sender)) {
            queue(&path.there, fate, &packet[..length]);
        }
    }
}

struct Packet {
    due: Instant,
    overtaken: u32,
    bytes: Vec<u8>,
}

type Queue = mpsc::Sender<Packet>;

/// A full queue loses the packet; QUIC sends it again.
fn queue(path: &Queue, fate: Fate, bytes: &[u8]) {
    for _ in 0..1 + u32::from(fate.twice) {
        let _ = path.try_send(Packet {
            due: Instant::now() + fate.delay,
            overtaken: fate.overtaken,
            bytes: bytes.to_vec(),
        });
    }
}

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
        let node = links.nodes.lock().expect("no panic while it is held")[receiver];
        tasks.spawn(deliver(there_queue, face.clone(), node));
        tasks.spawn(deliver(back_queue, relay, sender));
        tasks.spawn(async move {
            let mut packet = vec![0; PACKET_BYTES_MAX];
            loop {
                let Ok(length) = face.recv(&mut packet).await else { continue };
                if let Some(fate) = links.fate(Some(receiver), from) {
                    queue(&back, fate, &packet[..length]);
                }
            }
        });
        Ok(Self { there })
    }
}

/// In order, a packet waits for those before it, but for those that lose their places.
async fn deliver(mut queue: mpsc::Receiver<Packet>, socket: Arc<UdpSocket>, to: SocketAddr) {
    let mut held: Vec<Packet> = Vec::new();
    loop {
        let patience = if held.is_empty() { Duration::MAX } else { OVERTAKEN_WITHIN };
        match timeout(patience, queue.recv()).await {
            Ok(Some(packet)) if packet.overtaken > 0 && held.len() < HELD_MAX => held.push(packet),
            Ok(Some(packet)) => {
                sleep_until(packet.due).await;
                // Nobody listens there at the moment: the packet is lost, as on a wire.
                let _ = socket.send_to(&packet.bytes, to).await;
                held.iter_mut().for_each(|it| it.overtaken -= 1);
            }
            Ok(None) => return,
            Err(_) => held.iter_mut().for_each(|it| it.overtaken = 0),
        }
        for packet in held.extract_if(.., |it| it.overtaken == 0) {
            sleep_until(packet.due).await;
            let _ = socket.send_to(&packet.bytes, to).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a hundred packets over a link, in its order, once so many have come.
    async fn over(link: Link, expected: usize) -> Vec<u8> {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let (node, peer, stranger) = (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
        let relay = Relay::start(vec![peer.local_addr().unwrap(), node.local_addr().unwrap()]).await.unwrap();
        relay.set(0, 1, link);
        for n in 0..100 {
            peer.send_to(&[n], relay.addresses[1]).await.unwrap();
        }
        // Nothing happens to it, and when it has come the relay has seen the others.
        stranger.send_to(&[100], relay.addresses[1]).await.unwrap();
        let mut came = Vec::new();
        while came.len() < expected + 1 {
            let mut packet = [0];
            node.recv(&mut packet).await.unwrap();
            came.push(packet[0]);
        }
        came.retain(|it| *it != 100);
        came
    }

    #[tokio::test]
    async fn packets_come_in_order_late_or_twice_as_the_link_says() {
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(over(Link::default(), 100).await, all);
        assert!(over(Link { cut: true, ..Link::default() }, 0).await.is_empty());
        let mut reordered = over(Link { reordered_permille: 300, ..Link::default() }, 100).await;
        assert_ne!(reordered, all);
        reordered.sort_unstable();
        assert_eq!(reordered, all);
        let mut doubled = over(Link { doubled_permille: 1_000, ..Link::default() }, 200).await;
        assert_eq!(doubled.len(), 200);
        doubled.dedup();
        assert_eq!(doubled, all);
    }
}
