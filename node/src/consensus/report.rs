//! How this node finds itself, how the others find themselves, and what any of them remembers of an exchange: what
//! `doctor` and `explain request` ask. Nothing here needs a quorum.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use quorumgate_model::NodeId;
use quorumgate_proto::{
    admin::v1::Exchange,
    peer::v1::{
        self as pb, ReportResponse,
        report_response::{self, Certificate},
        request::Call,
        response::Answer,
    },
};
use quorumgate_proxy::Proxy;
use quorumgate_raft_store::{StoreHealth, Syncs, journal::Checked};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Consensus, member::Member};
use crate::{
    access::Access,
    anomaly::Anomalies,
    denials::Denials,
    peer::Target,
    pki,
    publish::wall_ms,
    telemetry::{
        exchange,
        histogram::Histogram,
        lately::Lately,
        otlp::{Delivered, Progress},
        upstream,
    },
};

/// Synced writes of which the median is reported.
const FSYNCS: usize = 5;
const FSYNC_BYTES: usize = 4 << 10;
/// Callers that a node tells of, the last first.
const CALLERS_MAX: usize = 50_000;
/// Rows that a node tells of what models were asked.
const AI_ROWS_MAX: usize = 50_000;
/// Names of broken routes in a report.
const BROKEN_MAX: usize = 20;

/// A node, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Reported {
    pub id: NodeId,
    pub name: String,
    /// None: it gave none in time.
    pub report: Option<ReportResponse>,
    /// Its wall clock minus this node's, milliseconds, as well as half a round trip can tell.
    pub ahead_ms: i64,
}

impl Consensus {
    /// Once it runs: what answers for this node's own exchanges.
    pub fn attach_proxy(&self, proxy: Arc<Proxy>) {
        // A second one is not started in a process.
        let _ = self.member.proxy.set(proxy);
    }

    pub fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.member.proxy.get()
    }

    /// Once the proxy runs: what answers for the callers that this node has seen.
    pub fn attach_anomalies(&self, anomalies: Arc<Anomalies>) {
        // A second one is not started in a process.
        let _ = self.member.anomalies.set(anomalies);
    }

    pub fn anomalies_here(&self) -> Option<&Arc<Anomalies>> {
        self.member.anomalies.get()
    }

    /// Once there is something to count.
    pub fn attach_lately(&self, lately: Arc<Lately>) {
        // A second one is not started in a process.
        let _ = self.member.lately.set(lately);
    }

    /// Once trails are sent to a collector.
    pub fn attach_audit_export(&self, progress: Arc<Progress>) {
        // A second one is not started in a process.
        let _ = self.member.audit_export.set(progress);
    }

    /// None where they are not sent.
    pub fn audit_export(&self) -> Option<Delivered> {
        self.member.audit_export()
    }

    pub fn region(&self) -> &str {
        &self.member.settings.node.region
    }

    /// Every node of the state, this one first.
    pub async fn reports(&self, deadline: Duration) -> Vec<Reported> {
        let state = self.state();
        let me = self.member.me.node;
        let asked = state.nodes.values().map(|node| async move {
            let (id, name) = (node.id, node.name.to_string());
            if id == me {
                return Reported { id, name, report: Some(self.member.report().await), ahead_ms: 0 };
            }
            let target = Target { id, address: node.peer_address.clone() };
            let answer = self.member.peers.call(&target, Call::Report(pb::ReportRequest {}), deadline).await;
            let now_ms = wall_ms();
            let report = match answer {
                Ok(Answer::Report(report)) => Some(report),
                _ => None,
            };
            let half = self.member.peers.rtt(id).unwrap_or_default() / 2;
            let theirs = report.as_ref().map_or(now_ms, |it| it.wall_ms + half.as_millis() as u64);
            Reported { id, name, report, ahead_ms: theirs as i64 - now_ms as i64 }
        });
        let mut reports = join_all(asked).await;
        reports.sort_by_key(|it| it.id != me);
        reports
    }

    /// Where the data directory lies: bytes that are free to this process, and all.
    pub(crate) fn room(&self) -> Option<(u64, u64)> {
        room(&self.member.dir)
    }

    /// Admin calls that this node has refused.
    pub(crate) fn denials(&self) -> &Arc<Denials> {
        &self.member.denials
    }

    /// Admin calls that this node has let in.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.member.access
    }

    /// What this node's syncs of its log took.
    pub fn syncs(&self) -> &Syncs {
        &self.member.syncs
    }

    /// From the leader's stamp of a revocation to its being looked up here.
    pub fn propagation(&self) -> &Histogram {
        &self.member.propagation
    }

    /// Why the journal cannot be relied on.
    pub fn journal_trouble(&self) -> Option<String> {
        self.member.journal.degraded()
    }

    /// The other nodes by name, each with its control connection, while there is one.
    pub fn links(&self) -> Vec<(String, Option<quinn::ConnectionStats>)> {
        let state = self.state();
        let others = state.nodes.values().filter(|node| node.id != self.member.me.node);
        others.map(|node| (node.name.to_string(), self.member.peers.stats(node.id))).collect()
    }

    /// Until when certificates are good: seconds since 1970. Reads the listeners' files.
    pub fn certificates(&self) -> Vec<(String, i64)> {
        self.member.certificates()
    }

    /// This node's audit trail, against the head that the cluster agrees on. Blocks on the disk.
    pub fn check_audit(&self) -> Checked {
        self.member.journal.check_audit(self.state().audit)
    }

    /// From whichever node remembers it; the first answer counts.
    pub async fn exchange(&self, id: Uuid, deadline: Duration) -> Option<Exchange> {
        if let Some(found) = self.member.own_exchange(id).await {
            return Some(found);
        }
        let request = pb::ExchangeRequest { request_id: id.into_bytes().to_vec() };
        let others = self.member.others();
        let mut asked: FuturesUnordered<_> = others
            .iter()
            .map(|target| self.member.peers.call(target, Call::Exchange(request.clone()), deadline))
            .collect();
        while let Some(answer) = asked.next().await {
            if let Ok(Answer::Exchange(pb::ExchangeResponse { exchange: Some(found) })) = answer {
                return Some(found);
            }
        }
        None
    }
}

impl Member {
    fn certificates(&self) -> Vec<(String, i64)> {
        let ca = self.held.cas().first().and_then(not_after).unwrap_or_default();
        let mut all = vec![("node".to_owned(), self.held.not_after()), ("ca".to_owned(), ca)];
        let listeners = self.settings.proxy.listeners.iter();
        all.extend(listeners.filter_map(|it| {
            let leaf = first_certificate(it.certificate_file.as_deref()?)?;
            Some((it.address.to_string(), not_after(&leaf)?))
        }));
        all
    }

    pub(super) async fn own_exchange(&self, id: Uuid) -> Option<Exchange> {
        let found = self.proxy.get()?.exchange(id).await?;
        Some(exchange::shown(&found, &self.name(), &self.settings.node.region))
    }

    pub(super) async fn answer_exchange(&self, request: &pb::ExchangeRequest) -> Answer {
        let exchange = match Uuid::from_slice(&request.request_id) {
            Ok(id) => self.own_exchange(id).await,
            Err(_) => None,
        };
        Answer::Exchange(pb::ExchangeResponse { exchange })
    }

    pub(super) fn answer_upstream_health(&self, request: &pb::UpstreamHealthRequest) -> Answer {
        let known = |proxy: &Arc<Proxy>| {
            upstream::shown(&proxy.upstreams(), &request.name, &self.name(), &self.settings.node.region)
        };
        Answer::UpstreamHealth(pb::UpstreamHealthResponse { health: self.proxy.get().and_then(known) })
    }

    pub(super) fn callers(&self) -> pb::CallersResponse {
        let called = |it: quorumgate_proxy::versions::Called| pb::Called {
            policy: it.policy.to_string(),
            route: it.route,
            method: it.method.to_owned(),
            consumer: it.consumer,
            count: it.count,
            last_ms: it.last_ms,
        };
        let known = self.proxy.get().map(|proxy| proxy.callers()).unwrap_or_default();
        pb::CallersResponse { callers: known.into_iter().take(CALLERS_MAX).map(called).collect() }
    }

    /// The last days first, where there are more rows than are told.
    pub(super) fn ai_usage(&self, request: &pb::AiUsageRequest) -> pb::AiUsageResponse {
        let is = |asked: &str, found: &str| asked.is_empty() || asked == found;
        let wanted = |it: &quorumgate_proxy::ai::Used| {
            is(&request.consumer, &it.consumer)
                && is(&request.model, &it.model)
                && request.day.is_none_or(|day| day == it.day)
        };
        let used = |it: quorumgate_proxy::ai::Used| pb::AiUsed {
            day: it.day,
            consumer: it.consumer,
            model: it.model,
            target: it.target,
            requests: it.requests,
            estimated: it.estimated,
            input_tokens: it.input_tokens,
            output_tokens: it.output_tokens,
            cost_micros: it.cost_micros,
        };
        let mut known = self.proxy.get().map(|proxy| proxy.ai_usage()).unwrap_or_default();
        known.retain(wanted);
        let left_out = known.len().saturating_sub(AI_ROWS_MAX) as u32;
        pb::AiUsageResponse { used: known.into_iter().rev().take(AI_ROWS_MAX).map(used).collect(), left_out }
    }

    pub(super) fn answer_traffic(&self, request: &pb::TrafficRequest) -> Answer {
        let told = |lately: &Arc<Lately>| lately.told(request, &self.name(), &self.settings.node.region);
        Answer::Traffic(pb::TrafficResponse { traffic: self.lately.get().map(told) })
    }

    /// To the other nodes, over the connections that are open.
    pub(super) fn round_trips(&self) -> Vec<report_response::RoundTrip> {
        let known = |target: &Target| {
            let micros = self.peers.rtt(target.id)?.as_micros() as u64;
            Some(report_response::RoundTrip { node_id: target.id, micros })
        };
        self.others().iter().filter_map(known).collect()
    }

    fn audit_export(&self) -> Option<Delivered> {
        let progress = self.audit_export.get()?;
        Some(progress.against(self.state().audit.count, *self.denials.written().borrow()))
    }

    pub(super) async fn report(&self) -> ReportResponse {
        let dir = self.dir.clone();
        let looked = tokio::task::spawn_blocking(move || OnDisk {
            fsync_us: fsync_us(&dir),
            room: room(&dir),
            files: files_open(),
        });
        let certificates = self.certificates();
        let on_disk = looked.await.unwrap_or_default();
        let glance = self.glance();
        let (receive, send) = self.peers.buffer_bytes();
        let rules = self.proxy.get().map(|proxy| proxy.ruleset());
        let broken = rules.iter().flat_map(|rules| rules.rules.iter()).filter(|(_, rule)| rule.broken.is_some());
        ReportResponse {
            version: crate::VERSION.into(),
            udp_receive_bytes: receive,
            udp_send_bytes: send,
            fsync_us: on_disk.fsync_us,
            disk_free_bytes: on_disk.room.map(|(free, _)| free),
            disk_bytes: on_disk.room.map(|(_, all)| all),
            files_open: on_disk.files.map(|(open, _)| open),
            files_max: on_disk.files.map(|(_, max)| max),
            certificates: certificates.into_iter().map(|(name, not_after)| Certificate { name, not_after }).collect(),
            journal_trouble: self.journal.degraded().unwrap_or_default(),
            stopped: self.stopped().unwrap_or_default(),
            store_trouble: store_trouble(&self.health.borrow()),
            broken_routes: broken.take(BROKEN_MAX).map(|(name, _)| name.to_string()).collect(),
            applied_index: glance.applied,
            published_index: self.published.borrow().index,
            round_trips: self.round_trips(),
            certificate_issuer: self.held.issuer_sha256().to_vec(),
            trusted_cas: self.held.cas().iter().map(|ca| pki::sha256(ca).to_vec()).collect(),
            access_log_dropped: self.proxy.get().map_or(0, |proxy| proxy.access_log_dropped()),
            audit_export: self.audit_export().map(|it| report_response::AuditExport {
                waiting: it.waiting,
                stuck_ms: it.stuck.as_millis() as u64,
                lost: it.lost,
                trouble: it.trouble,
            }),
            anomaly_rows_left_out: self.anomalies.get().map_or(0, |it| it.left_out()),
            anomaly_messages_lost: self.anomalies.get().map_or(0, |it| it.messages_lost()),
            // Last: what came before took its time.
            wall_ms: wall_ms(),
        }
    }
}

#[derive(Default)]
struct OnDisk {
    fsync_us: Option<u64>,
    room: Option<(u64, u64)>,
    files: Option<(u64, u64)>,
}

/// Seconds since 1970.
fn not_after(der: &CertificateDer<'_>) -> Option<i64> {
    Some(X509Certificate::from_der(der).ok()?.1.validity().not_after.timestamp())
}

fn first_certificate(file: &Path) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_file(file).ok()
}

fn store_trouble(health: &StoreHealth) -> String {
    match health {
        StoreHealth::Good => String::new(),
        StoreHealth::DiskFull => "the disk is full".into(),
        StoreHealth::FsyncFailed(why) | StoreHealth::ApplyStopped(why) => why.clone(),
    }
}

/// Of a file beside the log, as the log's own writes are synced.
fn fsync_us(dir: &Path) -> Option<u64> {
    let path = dir.join(format!("doctor-{}.tmp", Uuid::new_v4()));
    let measured = measure(&path);
    // It has no content that anybody needs.
    let _ = std::fs::remove_file(&path);
    measured.ok()
}

fn measure(path: &Path) -> std::io::Result<u64> {
    let mut file = File::create_new(path)?;
    let mut took = [0; FSYNCS];
    for slot in &mut took {
        let started = Instant::now();
        file.write_all(&[0; FSYNC_BYTES])?;
        file.sync_data()?;
        *slot = started.elapsed().as_micros() as u64;
    }
    took.sort_unstable();
    Ok(took[FSYNCS / 2])
}

/// Bytes that are free to this process, and all.
fn room(dir: &Path) -> Option<(u64, u64)> {
    let found = nix::sys::statvfs::statvfs(dir).ok()?;
    Some((found.blocks_available() * found.fragment_size(), found.blocks() * found.fragment_size()))
}

/// Open file descriptors, and how many there may be.
fn files_open() -> Option<(u64, u64)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
    Some((open, soft))
}
