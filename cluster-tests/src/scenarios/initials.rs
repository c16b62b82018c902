//! A flood of first packets of QUIC from addresses that nobody has proven: each is answered by a Retry or not at all, and
//! the node keeps nothing of them.

use std::{
    collections::HashSet,
    fmt,
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use quinn::crypto::rustls::QuicClientConfig;
use quorumgate_proto::admin::v1::Listener;

use super::{
    config,
    rolling::{Authority, HOST},
};
use crate::{Cluster, cluster::until, origin::Origin};

/// Sockets that they come from.
const SOURCES: usize = 64;
/// Different ones, each of a connection of its own: what has the id of another is taken for the rest of that.
const INITIALS: usize = 2_048;
/// Sent between two looks at the clock.
const BURST: u32 = 50;
/// RFC 9000 section 14.1.
const INITIAL_BYTES_MIN: usize = 1_200;
const GROWTH_MAX_KIB: u64 = 32 << 10;

#[derive(Debug)]
pub struct Flood {
    pub sent: u64,
    pub per_second: f64,
    pub retries: u64,
    /// Bytes that came back for each that was sent.
    pub amplification: f64,
    pub grown_kib: u64,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, per_second, retries, amplification, grown_kib } = self;
        let share = *retries as f64 * 100.0 / *sent as f64;
        write!(
            f,
            "{sent} Initials at {per_second:.0} a second: {retries} Retries ({share:.1} %) and nothing else, {amplification:.2} bytes back for each byte, the node grew by {grown_kib} KiB"
        )
    }
}

/// `rate` a second, for so long.
pub async fn flood(cluster: &Cluster, rate: u32, lasts: Duration) -> anyhow::Result<Flood> {
    let origin = Origin::start("origin").await?;
    let authority = Authority::new()?;
    let node = &cluster.members[0];
    let https = crate::cluster::free_port()?;
    let mut words = config(1, origin.address);
    words.certificates.push(authority.certificate()?);
    words.listeners.push(Listener {
        name: "https".into(),
        address: https.to_string(),
        certificates: vec!["load".into()],
        http3: true,
        ..Default::default()
    });
    node.client().await?.apply(words).await?;
    let tls = Arc::new(authority.client()?);
    until("HTTPS", async || authority.shown(https, &tls).await.map(drop)).await?;

    let initials = Arc::new(initials(&authority).await?);
    let sources = (0..SOURCES).map(|_| source(https)).collect::<anyhow::Result<Vec<_>>>()?;
    // What the first of them cost for good is not theirs.
    let warm = send(&sources, &initials, rate, Duration::from_millis(200));
    ensure!(warm.retries > 0, "no Retry came");
    let before = node.memory_kib()?;
    let (sources, packets) = (Arc::new(sources), initials.clone());
    let sent = tokio::task::spawn_blocking(move || send(&sources, &packets, rate, lasts)).await?;
    let grown_kib = node.memory_kib()?.saturating_sub(before);
    ensure!(sent.others == 0, "{} answers were no Retry", sent.others);
    let amplification = sent.bytes_back as f64 / sent.bytes as f64;
    ensure!(amplification <= 3.0, "{amplification} bytes came back for each");
    ensure!(grown_kib <= GROWTH_MAX_KIB, "the node grew by {grown_kib} KiB");
    let answer = crate::load::get_host(node.proxy, "load.test", "/").await?;
    ensure!(answer.status == 200, "it answers {} behind the flood", answer.status);
    let Sent { sent, retries, took, .. } = sent;
    Ok(Flood { sent, per_second: sent as f64 / took.as_secs_f64(), retries, amplification, grown_kib })
}

/// What clients send first, caught before any server saw it.
async fn initials(authority: &Authority) -> anyhow::Result<Vec<Vec<u8>>> {
    let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    let mut tls = authority.client()?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    let (mut seen, mut initials) = (HashSet::new(), Vec::with_capacity(INITIALS));
    while initials.len() < INITIALS {
        let _connecting = endpoint.connect_with(config.clone(), trap.local_addr()?, HOST)?;
        loop {
            let mut packet = vec![0; 2_048];
            let (bytes, _) = trap.recv_from(&mut packet).await?;
            packet.truncate(bytes);
            // RFC 9000 section 17.2: flags, version, the length of the id, the id.
            let id = packet[6..][..usize::from(packet[5])].to_vec();
            if bytes >= INITIAL_BYTES_MIN && seen.insert(id) {
                initials.push(packet);
                break;
            }
        }
    }
    Ok(initials)
}

fn source(to: std::net::SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to).context("connecting a UDP socket")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[derive(Default)]
struct Sent {
    sent: u64,
    retries: u64,
    others: u64,
    bytes: u64,
    bytes_back: u64,
    took: Duration,
}

impl Sent {
    fn hear(&mut self, source: &UdpSocket) {
        let mut answer = [0; 2_048];
        while let Ok(bytes) = source.recv(&mut answer) {
            self.bytes_back += bytes as u64;
            // A long header of type 3 (RFC 9000 section 17.2.5).
            match answer[0] & 0xb0 == 0xb0 {
                true => self.retries += 1,
                false => self.others += 1,
            }
        }
    }
}

fn send(sources: &[UdpSocket], packets: &[Vec<u8>], rate: u32, lasts: Duration) -> Sent {
    let mut sent = Sent::default();
    let begun = Instant::now();
    let (mut due, mut next) = (begun, 0);
    while begun.elapsed() < lasts {
        for _ in 0..BURST {
            let (source, packet) = (&sources[next % sources.len()], &packets[next % packets.len()]);
            next += 1;
            // A full queue loses it, as a network would.
            if source.send(packet).is_ok() {
                sent.sent += 1;
                sent.bytes += packet.len() as u64;
            }
            sent.hear(source);
        }
        due += Duration::from_secs(1) * BURST / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sent.took = begun.elapsed();
    std::thread::sleep(Duration::from_millis(100));
    sources.iter().for_each(|source| sent.hear(source));
    sent
}
