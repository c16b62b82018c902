//! A rolling restart of all nodes amid changes of configuration and certificates, under load of several kinds.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::Method;
use quorumgate_proto::admin::v1::{Certificate, ConfigSet, Listener, Secret};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::{config, route, upstream};
use crate::{
    Admin, Cluster,
    cluster::{Member, PATIENCE, free_port, until},
    lanes::{Ask, Lanes, Way},
    load::Tally,
    origin::Origin,
};

pub const HOST: &str = "load.test";
/// Of each kind of load, a node.
const LANES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);
const BODY_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub struct Rolled {
    pub changes: usize,
    pub certificates: usize,
    pub restarts: Vec<Duration>,
    /// By kind of load: good answers, connections refused.
    pub answers: Vec<(&'static str, u64, u64)>,
}

impl fmt::Display for Rolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} configuration changes, {} certificate changes, {} nodes restarted one after another ({:.1?}): 0 requests failed",
            self.changes,
            self.certificates,
            self.restarts.len(),
            self.restarts
        )?;
        for (kind, good, refused) in &self.answers {
            writeln!(f, "  {kind}: {good} answers, {refused} times refused and come again")?;
        }
        Ok(())
    }
}

/// `changes` configuration changes, `certificates` certificate changes among them, and every node restarted on the way.
pub async fn roll(cluster: &mut Cluster, changes: usize, certificates: usize) -> anyhow::Result<Rolled> {
    let origins = [Origin::start("one").await?, Origin::start("two").await?];
    let authority = Authority::new()?;
    let https = free_port()?;
    let leader = cluster.leader().await?;
    let mut first = config(2, origins[0].address);
    first.certificates.push(authority.certificate()?);
    first.listeners.push(Listener {
        name: "https".into(),
        address: https.to_string(),
        certificates: vec!["load".into()],
        ..Default::default()
    });
    cluster.follower(leader).client().await?.apply(first).await?;
    // On one machine one node has it at a time; whoever restarts hands it to another.
    let tls = Arc::new(authority.client()?);
    until("HTTPS", async || authority.shown(https, &tls).await.map(drop)).await?;

    let mut lanes = Lanes::default();
    let mut tallies: Vec<(&str, Arc<Tally>)> = Vec::new();
    let ask = |method: Method, bytes: usize, per_connection| Ask {
        method,
        host: HOST,
        body: Bytes::from(vec![b'x'; bytes]),
        per_connection,
        pause: PAUSE,
    };
    for member in &cluster.members {
        tallies.push(("HTTP/1.1", lanes.add(LANES, member.proxy, &Way::Http1, &ask(Method::GET, 0, u32::MAX))));
        tallies.push(("HTTP/1.1, short", lanes.add(LANES, member.proxy, &Way::Http1, &ask(Method::GET, 0, 5))));
        let uploads = ask(Method::POST, BODY_BYTES, u32::MAX);
        tallies.push(("HTTP/1.1, uploads", lanes.add(LANES, member.proxy, &Way::Http1, &uploads)));
        tallies.push(("HTTP/2", lanes.add(LANES, member.proxy, &Way::Http2, &ask(Method::GET, 0, u32::MAX))));
    }
    let way = Way::Tls(tls.clone());
    tallies.push(("HTTPS", lanes.add(LANES, https, &way, &ask(Method::GET, 0, u32::MAX))));
    tallies.push(("HTTPS, short", lanes.add(LANES, https, &way, &ask(Method::GET, 0, 5))));
    let all_answer = || tallies.iter().all(|(_, tally)| tally.good.load(Ordering::Relaxed) >= 20);
    until("load of every kind", async || {
        ensure!(all_answer(), "some kind was answered hardly ever");
        Ok(())
    })
    .await?;

    let (told, done) = watch::channel(0);
    let sockets: Vec<_> = cluster.members.iter().map(Member::socket).collect();
    let nodes = cluster.members.len();
    let changing = async {
        for n in 0..changes {
            // The upstream that the load goes to moves between two servers, beside a route of its own.
            let mut changed = ConfigSet {
                upstreams: vec![upstream(origins[(n + 1) % 2].address)],
                routes: vec![route("probe", "probe.test", &format!("/{n}"))],
                ..Default::default()
            };
            let replaces = (n + 1) * certificates / changes > n * certificates / changes;
            if replaces {
                changed.certificates.push(authority.certificate()?);
            }
            apply(&sockets, &changed).await.with_context(|| format!("change {n}"))?;
            if let Some(certificate) = changed.certificates.first() {
                until("the new certificate", async || {
                    let shown = authority.shown(https, &tls).await?;
                    ensure!(certificate.chain.contains(&shown), "an older one is shown");
                    Ok(())
                })
                .await?;
            }
            told.send_replace(n + 1);
        }
        anyhow::Ok(())
    };
    let restarting = async {
        let mut took = Vec::new();
        for (at, member) in cluster.members.iter_mut().enumerate() {
            let due = changes * (at + 1) / (nodes + 1);
            done.clone().wait_for(|done| *done >= due).await?;
            let start = Instant::now();
            let code = member.terminate().await?;
            ensure!(code == 0, "{} ended with {code}: {}", member.name, member.log_tail());
            member.run()?;
            member.wait_ready().await?;
            took.push(start.elapsed());
        }
        anyhow::Ok(took)
    };
    let (changed, restarts) = tokio::join!(changing, restarting);
    let restarts = restarts?;
    changed?;
    // Every node answers by now, the restarted too.
    let before: Vec<u64> = tallies.iter().map(|(_, tally)| tally.good.load(Ordering::Relaxed)).collect();
    until("answers after the last restart", async || {
        let moved = tallies.iter().zip(&before).all(|((_, it), before)| it.good.load(Ordering::Relaxed) > *before + 5);
        ensure!(moved, "some load gets no answer");
        Ok(())
    })
    .await?;
    lanes.stop().await;
    check(&tallies)?;
    let mut answers: Vec<(&'static str, u64, u64)> = Vec::new();
    for (kind, tally) in &tallies {
        let (good, refused) = (tally.good.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
        match answers.iter_mut().find(|(known, ..)| known == kind) {
            Some((_, all_good, all_refused)) => (*all_good, *all_refused) = (*all_good + good, *all_refused + refused),
            None => answers.push((kind, good, refused)),
        }
    }
    cluster.check_same_state().await?;
    Ok(Rolled { changes, certificates, restarts, answers })
}

fn check(tallies: &[(&str, Arc<Tally>)]) -> anyhow::Result<()> {
    let mut words = Vec::new();
    for (kind, tally) in tallies.iter().filter(|(_, tally)| tally.failed.load(Ordering::Relaxed) > 0) {
        let failures = tally.failures.lock().expect("no panic while it is held");
        words.push(format!("{kind}: {} failed: {failures:?}", tally.failed.load(Ordering::Relaxed)));
    }
    ensure!(words.is_empty(), "{}", words.join("\n"));
    Ok(())
}

/// Through any node that takes it: one is always about to leave or not there yet.
async fn apply(sockets: &[std::path::PathBuf], changed: &ConfigSet) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PATIENCE {
        for socket in sockets {
            let Ok(admin) = Admin::connect(socket).await else { continue };
            // A change whose outcome is unknown is repeated: it says what is to be, not what to do.
            match admin.apply(changed.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == tonic::Code::InvalidArgument => bail!("{status}"),
                Err(status) => last = Some(status),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("no node takes it: {last:?}")
}

/// Signs the listener's certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// A new one each time.
    pub fn certificate(&self) -> anyhow::Result<Certificate> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &self.0)?;
        Ok(Certificate {
            name: "load".into(),
            chain: leaf.pem(),
            key: Some(Secret { plain: key.serialize_pem(), ..Default::default() }),
            ..Default::default()
        })
    }

    pub fn client(&self) -> anyhow::Result<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // Each handshake is by the certificate of its moment.
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The body of the certificate that a new connection is shown, as PEM has it.
    pub async fn shown(&self, address: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> anyhow::Result<String> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let connected = TlsConnector::from(tls.clone()).connect(HOST.try_into()?, stream).await?;
        let leaf =
            connected.get_ref().1.peer_certificates().and_then(|chain| chain.first()).context("a certificate")?;
        let text = data_encoding::BASE64.encode(leaf);
        // A line of it is enough to tell it from any other: that of the key's bytes.
        Ok(text.as_bytes().chunks(64).nth(2).map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default())
    }
}
