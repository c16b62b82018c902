//! What is wrong with the nodes, and what to do about it. `judge` decides by what the nodes say of themselves; it asks
//! nobody.

use std::{collections::BTreeMap, time::Duration};

use quorumgate_model::{NodeId, timing::Timing};
use quorumgate_proto::{
    admin::v1 as admin,
    peer::v1::{ReportResponse, report_response::AuditExport},
};

use crate::{
    admin::{authority::sealing_word, desk::Desk},
    consensus::{NodeHash, Reported, SealingProgress, View},
    pki::expiry,
    publish::wall_ms,
};

/// For the reports of the other nodes, and for the hashes of all.
const REPORTS_WITHIN: Duration = Duration::from_secs(3);
const HASHES_WITHIN: Duration = Duration::from_secs(3);

const CLOCK_WARN_MS: u64 = 500;
const CLOCK_CRITICAL_MS: u64 = 10_000;
const FSYNC_WARN: Duration = Duration::from_millis(20);
/// As the system counts them, which is twice what may be in them on Linux.
const UDP_BYTES_MIN: u64 = 2 << 20;
const NODE_CERTIFICATE_WARN: Duration = Duration::from_secs(24 * 3_600);
const CERTIFICATE_WARN: Duration = Duration::from_secs(21 * 86_400);
const CERTIFICATE_CRITICAL: Duration = Duration::from_secs(2 * 86_400);
const NODE_CERTIFICATE_CRITICAL: Duration = Duration::from_secs(3_600);
const DISK_WARN_BYTES: u64 = 2 << 30;
const DISK_CRITICAL_BYTES: u64 = 256 << 20;
const FILES_MIN: u64 = 16_384;
const BEHIND_WARN: u64 = 1_000;
const AUDIT_STUCK_WARN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    Unknown,
    Warning,
    Critical,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Unknown => "unknown",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// What one look at the cluster has brought together.
struct Seen {
    reports: Vec<Reported>,
    view: View,
    leader: Option<String>,
    timing: Timing,
    hashes: Vec<NodeHash>,
    /// While the sealing key is being replaced: the stage, and how far the nodes are.
    sealing: Option<(&'static str, Vec<SealingProgress>)>,
    /// Of resources: what they are, and when they end.
    certificates: Vec<(String, i64)>,
    /// The asked node, and what its trail of accesses takes on its disk.
    trail: (NodeId, u64),
    now_ms: u64,
}

struct Findings(Vec<(Level, admin::Finding)>);

pub async fn examine(desk: &Desk, left: Duration) -> admin::DoctorResponse {
    let consensus = &desk.consensus;
    let (reports, hashes, progress) = tokio::join!(
        consensus.reports(REPORTS_WITHIN.min(left)),
        consensus.state_hashes(HASHES_WITHIN.min(left)),
        consensus.sealing_progress(REPORTS_WITHIN.min(left)),
    );
    let (view, state) = (consensus.view(), consensus.state());
    let access = consensus.access().clone();
    let trail_bytes = tokio::task::spawn_blocking(move || access.bytes()).await.unwrap_or_default();
    let trail = (view.id, trail_bytes);
    let leader =
        view.leader.map(|id| state.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.to_string()));
    let seen = Seen {
        reports,
        view,
        leader,
        timing: state.timing(),
        hashes,
        sealing: state.sealing.rotation.is_some().then(|| (sealing_word(&state), progress)),
        certificates: expiry::of(&state),
        trail,
        now_ms: wall_ms(),
    };
    let mut findings = judge(&seen).0;
    findings.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let verdict = findings.iter().map(|(level, _)| *level).max().unwrap_or(Level::Ok);
    let findings = findings.into_iter().map(|(_, finding)| finding).collect();
    admin::DoctorResponse { header: Some(desk.header()), verdict: verdict.word().into(), findings }
}

fn judge(seen: &Seen) -> Findings {
    let mut findings = Findings(Vec::new());
    findings.quorum(seen);
    findings.state_hash(seen);
    findings.versions(seen);
    findings.resource_certificates(seen);
    findings.sealing(seen);
    let names: BTreeMap<NodeId, &str> = seen.reports.iter().map(|it| (it.id, it.name.as_str())).collect();
    let newest = seen.reports.iter().filter_map(|it| Some(it.report.as_ref()?.applied_index)).max().unwrap_or_default();
    for reported in &seen.reports {
        let node = reported.name.as_str();
        let Some(report) = &reported.report else {
            let fix = "start it, or let UDP through between the nodes; if it is gone for good: quorumgate node rm NAME";
            findings.bad(Level::Critical, "reachable", node, "no answer".into(), "an answer within 3 s", fix);
            continue;
        };
        findings.good("reachable", node, "it answers".into());
        findings.consensus(node, report, newest);
        findings.clock(node, reported.ahead_ms);
        findings.round_trips(node, report, &names, seen.timing);
        let (asked, bytes) = seen.trail;
        findings.disk(node, report, seen.timing, if asked == reported.id { bytes } else { 0 });
        findings.certificates(node, report, seen.now_ms);
        findings.system(node, report);
    }
    findings
}

impl Findings {
    fn good(&mut self, check: &str, node: &str, found: String) {
        let (check, node) = (check.to_owned(), node.to_owned());
        let finding = admin::Finding { check, node, level: "ok".into(), found, ..Default::default() };
        self.0.push((Level::Ok, finding));
    }

    fn bad(&mut self, level: Level, check: &str, node: &str, found: String, allowed: &str, fix: &str) {
        let finding = admin::Finding {
            check: check.to_owned(),
            node: node.to_owned(),
            level: level.word().into(),
            found,
            allowed: allowed.to_owned(),
            fix: fix.to_owned(),
        };
        self.0.push((level, finding));
    }

    /// Good unless a level is given.
    fn judged(&mut self, level: Option<Level>, check: &str, node: &str, found: String, allowed: &str, fix: &str) {
        match level {
            None => self.good(check, node, found),
            Some(level) => self.bad(level, check, node, found, allowed, fix),
        }
    }

    fn quorum(&mut self, seen: &Seen) {
        let voters = seen.view.voters.len();
        let answering =
            seen.reports.iter().filter(|it| it.report.is_some() && seen.view.voters.contains(&it.id)).count();
        let spare = answering.saturating_sub(voters / 2 + 1);
        let found = format!("{answering} of {voters} voters answer, {spare} more may fail");
        let fix = "bring back a majority of the voters: traffic goes on, writes wait. If they are gone for good: \
                   quorumgate cluster recover --force-new-cluster";
        match &seen.leader {
            None => self.bad(Level::Critical, "quorum", "", format!("no leader is known; {found}"), "a leader", fix),
            Some(_) if !seen.view.quorum => {
                self.bad(Level::Critical, "quorum", "", format!("no majority answers; {found}"), "a majority", fix);
            }
            Some(_) if voters > 1 && spare == 0 => {
                let fix = "bring back the voters that do not answer, or join another: quorumgate join-token create";
                self.bad(Level::Warning, "quorum", "", found, "one voter to spare", fix);
            }
            Some(leader) => self.good("quorum", "", format!("leader {leader}; {found}")),
        }
    }

    fn state_hash(&mut self, seen: &Seen) {
        let known: Vec<_> = seen.hashes.iter().filter_map(|it| it.at).collect();
        let index = known.iter().map(|(index, _)| *index).max().unwrap_or_default();
        let at_index: Vec<_> = seen.hashes.iter().filter(|it| it.at.is_some_and(|(at, _)| at == index)).collect();
        let first = at_index.first().and_then(|it| it.at).map(|(_, hash)| hash);
        let differs = at_index.iter().find(|it| it.at.map(|(_, hash)| hash) != first);
        match differs {
            Some(node) => {
                let found = format!("{} holds another state than {} at index {index}", node.node, at_index[0].node);
                let fix = "take the node that stands alone out (quorumgate node rm NAME), empty its directory, join it anew; \
                           keep a copy of the directory for a report";
                self.bad(Level::Critical, "state_hash", &node.node, found, "one state on all nodes", fix);
            }
            None if at_index.len() == seen.hashes.len() => {
                self.good("state_hash", "", format!("equal on {} nodes at index {index}", at_index.len()));
            }
            None => {
                let found = format!("{} of {} nodes at index {index}", at_index.len(), seen.hashes.len());
                let fix = "ask again when all nodes are in reach: quorumgate cluster verify";
                self.bad(Level::Unknown, "state_hash", "", found, "all nodes at one index", fix);
            }
        }
    }

    fn versions(&mut self, seen: &Seen) {
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, report) in seen.reports.iter().filter_map(|it| Some((&it.name, it.report.as_ref()?))) {
            versions.entry(&report.version).or_default().push(name);
        }
        let said: Vec<_> =
            versions.iter().map(|(version, nodes)| format!("{version} on {}", nodes.join(", "))).collect();
        let level = (versions.len() > 1).then_some(Level::Warning);
        let fix = "end the upgrade: the nodes that stay behind keep what is new from being used";
        self.judged(level, "version", "", said.join("; "), "one version", fix);
    }

    fn consensus(&mut self, node: &str, report: &ReportResponse, newest: u64) {
        let stopped = [&report.stopped, &report.store_trouble].into_iter().find(|it| !it.is_empty());
        if let Some(why) = stopped {
            let fix = "read its log (quorumgate logs); make room on the disk, or run a build that knows what the others write";
            self.bad(Level::Critical, "consensus", node, format!("stopped: {why}"), "it takes part", fix);
        } else {
            let behind = newest.saturating_sub(report.published_index);
            let level = (behind > BEHIND_WARN).then_some(Level::Warning);
            let found = format!("serves index {}, {behind} behind the newest", report.published_index);
            let allowed = format!("at most {BEHIND_WARN} behind");
            self.judged(level, "consensus", node, found, &allowed, "it is catching up, or starved of CPU or disk");
        }
        let broken = report.broken_routes.join(", ");
        let level = (!broken.is_empty()).then_some(Level::Warning);
        let found = if broken.is_empty() { "all routes can be carried out".into() } else { broken };
        let fix =
            "its log names the reason; they answer 500 broken_rule on this node alone: bring it to the others' version";
        self.judged(level, "routes", node, found, "none broken", fix);
        let trouble = (!report.journal_trouble.is_empty()).then_some(Level::Warning);
        let found = if trouble.is_some() { report.journal_trouble.clone() } else { "it is kept".into() };
        let fix = "make room and restart the node; what it lacks of the audit trail and of old revisions it asks of the others";
        self.judged(trouble, "journal", node, found, "a journal that can be read and written", fix);
    }

    fn clock(&mut self, node: &str, ahead_ms: i64) {
        let off = ahead_ms.unsigned_abs();
        let level = match off {
            CLOCK_CRITICAL_MS.. => Some(Level::Critical),
            CLOCK_WARN_MS.. => Some(Level::Warning),
            _ => None,
        };
        let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
        let found = format!("{} {side} the asked node", millis(off));
        let fix = "set the clock by NTP (chronyc makestep; timedatectl set-ntp true): tokens expire by it";
        self.judged(level, "clock", node, found, &format!("at most {}", millis(CLOCK_WARN_MS)), fix);
    }

    /// Against what every timer of consensus follows from.
    fn round_trips(&mut self, node: &str, report: &ReportResponse, names: &BTreeMap<NodeId, &str>, timing: Timing) {
        let Some(longest) = report.round_trips.iter().max_by_key(|it| it.micros) else { return };
        let took = Duration::from_micros(longest.micros);
        let level = match took {
            took if took > timing.election_min / 2 => Some(Level::Critical),
            took if took > timing.max_rtt => Some(Level::Warning),
            _ => None,
        };
        let to = names.get(&longest.node_id).copied().unwrap_or("another");
        let found = format!("{} to {to} (elections begin after {})", span(took), span(timing.election_min));
        let allowed = format!("max_rtt {}", span(timing.max_rtt));
        let fix = format!(
            "quorumgate cluster set max-rtt {}ms, then restart the nodes one by one",
            took.as_millis() * 3 / 2 + 1
        );
        self.judged(level, "rtt", node, found, &allowed, &fix);
    }

    fn disk(&mut self, node: &str, report: &ReportResponse, timing: Timing, trail_bytes: u64) {
        match report.fsync_us.map(Duration::from_micros) {
            None => {
                let fix = "look at the data directory's disk and rights";
                self.bad(
                    Level::Critical,
                    "fsync",
                    node,
                    "no file can be synced".into(),
                    "a disk that can be written",
                    fix,
                );
            }
            Some(took) => {
                let level = match took {
                    took if took > timing.heartbeat => Some(Level::Critical),
                    took if took > FSYNC_WARN => Some(Level::Warning),
                    _ => None,
                };
                let allowed = format!("at most {} (a heartbeat is {})", span(FSYNC_WARN), span(timing.heartbeat));
                let fix = "every write waits for it: put the data directory on an SSD that nobody else writes to";
                self.judged(level, "fsync", node, format!("{} for a synced write", span(took)), &allowed, fix);
            }
        }
        let (Some(free), Some(all)) = (report.disk_free_bytes, report.disk_bytes) else { return };
        let level = match free {
            free if free < DISK_CRITICAL_BYTES => Some(Level::Critical),
            free if free < DISK_WARN_BYTES || free < all / 20 => Some(Level::Warning),
            _ => None,
        };
        let found = format!("{} of {} free", mebibytes(free), mebibytes(all));
        let fix = "make room where the data directory lies: without it nothing is acknowledged";
        self.judged(level, "disk", node, found, "2 GiB and 5 % free", fix);
        // Without it there would be twice the room.
        if level.is_some() && trail_bytes > 0 && trail_bytes >= free {
            let found = format!("its trail of accesses takes {}", mebibytes(trail_bytes));
            let fix = "shorten retention of [audit] in its settings, or move its data directory to a larger disk; restart it: files that are over go by themselves";
            self.bad(Level::Warning, "trail", node, found, "less than what is free of a disk that is almost full", fix);
        }
    }

    fn certificates(&mut self, node: &str, report: &ReportResponse, now_ms: u64) {
        for certificate in &report.certificates {
            let left = Duration::from_millis((certificate.not_after.max(0) as u64 * 1_000).saturating_sub(now_ms));
            let renews = certificate.name == "node";
            let (warn, critical) = match renews {
                true => (NODE_CERTIFICATE_WARN.min(crate::pki::lifetime() / 3), NODE_CERTIFICATE_CRITICAL),
                false => (CERTIFICATE_WARN, CERTIFICATE_CRITICAL),
            };
            let level = match left {
                left if left < critical.min(warn) => Some(Level::Critical),
                left if left < warn => Some(Level::Warning),
                _ => None,
            };
            let found = format!("{}: good for {} h", certificate.name, left.as_secs() / 3_600);
            let fix = match certificate.name.as_str() {
                "node" => {
                    "it renews itself while a leader is in reach; is one? An ended one is good for the renewal alone"
                }
                "ca" => "quorumgate cluster rotate-ca",
                _ => "put a new certificate and key in the listener's files and restart the node",
            };
            let allowed = format!("{} h or more", warn.as_secs() / 3_600);
            self.judged(level, "certificate", node, found, &allowed, fix);
        }
    }

    /// The same on every node: said once.
    fn resource_certificates(&mut self, seen: &Seen) {
        for (name, not_after) in &seen.certificates {
            let left = Duration::from_millis(((*not_after).max(0) as u64 * 1_000).saturating_sub(seen.now_ms));
            let level = match left {
                left if left < CERTIFICATE_CRITICAL => Some(Level::Critical),
                left if left < CERTIFICATE_WARN => Some(Level::Warning),
                _ => None,
            };
            let found = format!("{name}: good for {} h", left.as_secs() / 3_600);
            let allowed = format!("{} h or more", CERTIFICATE_WARN.as_secs() / 3_600);
            let fix = "write its new chain and key (or CA file) into the configuration: quorumgate apply -f F";
            self.judged(level, "certificate", "", found, &allowed, fix);
        }
    }

    /// None of its steps takes long where every node is there.
    fn sealing(&mut self, seen: &Seen) {
        let Some((stage, nodes)) = &seen.sealing else { return };
        let without: Vec<_> = nodes.iter().filter(|it| !it.holds).map(|it| it.node.as_str()).collect();
        let found = match without.is_empty() {
            true => format!("it is being replaced ({stage})"),
            false => format!("it is being replaced ({stage}); not held by {}", without.join(", ")),
        };
        let fix = "bring the nodes back that do not hold the new one, or quorumgate node rm them; how far it is: quorumgate cluster \
                   rotate-sealing-key --status";
        self.bad(Level::Warning, "sealing_key", "", found, "one key, held by every node", fix);
    }

    fn system(&mut self, node: &str, report: &ReportResponse) {
        if let (Some(receive), Some(send)) = (report.udp_receive_bytes, report.udp_send_bytes) {
            let level = (receive.min(send) < UDP_BYTES_MIN).then_some(Level::Warning);
            let found = format!("{} KiB to receive, {} KiB to send", receive >> 10, send >> 10);
            let fix = "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304, then restart the node: small ones drop \
                       packets between nodes under load";
            self.judged(level, "udp_buffers", node, found, "2048 KiB or more each", fix);
        }
        if let (Some(open), Some(max)) = (report.files_open, report.files_max) {
            let level = match max {
                max if open >= max / 10 * 9 => Some(Level::Critical),
                max if max < FILES_MIN => Some(Level::Warning),
                _ => None,
            };
            let fix = "LimitNOFILE=1048576 in the unit, or ulimit -n before the start: each connection takes one";
            let allowed = format!("a limit of {FILES_MIN} or more, at most 90 % in use");
            self.judged(level, "file_descriptors", node, format!("{open} open of {max}"), &allowed, fix);
        }
        let lost = report.access_log_dropped;
        let level = (lost > 0).then_some(Level::Warning);
        let fix = "the disk of the access log is too slow or full, or its reader stands still";
        self.judged(level, "access_log", node, format!("{lost} lines lost since the start"), "none", fix);
        if let Some(export) = &report.audit_export {
            self.audit_export(node, export);
        }
        self.anomalies(node, report);
    }

    fn anomalies(&mut self, node: &str, report: &ReportResponse) {
        let (left_out, lost) = (report.anomaly_rows_left_out, report.anomaly_messages_lost);
        let level = (left_out > 0).then_some(Level::Warning);
        let found = format!("{left_out} callers near a bound were left out at once in the last 10 minutes");
        let fix = "raise the bounds in `over` of anomaly policies (quorumgate anomaly ls shows who is near them), or watch fewer routes: \
                   whoever is left out may be found late";
        self.judged(level, "anomaly_rows", node, found, "none", fix);
        let level = (lost > 0).then_some(Level::Warning);
        let found = format!("{lost} messages to webhooks were not taken since the start");
        let fix = "anomaly.webhook.url must lead to who answers 2xx within 5 s; the node's log says why it did not, anomaly ls who was found";
        self.judged(level, "anomaly_webhooks", node, found, "none", fix);
    }

    fn audit_export(&mut self, node: &str, export: &AuditExport) {
        let stuck = Duration::from_millis(export.stuck_ms);
        let level = (stuck > AUDIT_STUCK_WARN || export.lost > 0).then_some(Level::Warning);
        let mut found = format!("{} entries wait", export.waiting);
        if stuck > AUDIT_STUCK_WARN {
            found += &format!(", none was taken for {}", span(stuck));
        }
        if export.lost > 0 {
            found += &format!(", {} were lost since the start", export.lost);
        }
        if !export.trouble.is_empty() {
            found += &format!(": {}", export.trouble);
        }
        let fix = "telemetry.otlp_endpoint must lead to a collector with a pipeline for logs; what waits is sent once it is there";
        let allowed = format!("one taken within {}, none lost", span(AUDIT_STUCK_WARN));
        self.judged(level, "audit_export", node, found, &allowed, fix);
    }
}

fn millis(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

fn span(it: Duration) -> String {
    match it.as_micros() {
        micros @ 0..10_000 => format!("{micros} µs"),
        10_000..10_000_000 => format!("{} ms", it.as_millis()),
        _ => format!("{} s", it.as_secs()),
    }
}

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        mebibytes @ 0..10_240 => format!("{mebibytes} MiB"),
        mebibytes => format!("{} GiB", mebibytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::{digest::Digest, timing::MAX_RTT_DEFAULT};
    use quorumgate_proto::peer::v1::report_response::{Certificate, RoundTrip};

    use super::*;

    const DAY_S: i64 = 86_400;

    fn report() -> ReportResponse {
        let certificate = |name: &str, days| Certificate { name: name.into(), not_after: days * DAY_S };
        ReportResponse {
            version: "1.0.0".into(),
            udp_receive_bytes: Some(8 << 20),
            udp_send_bytes: Some(8 << 20),
            fsync_us: Some(900),
            disk_free_bytes: Some(50 << 30),
            disk_bytes: Some(100 << 30),
            files_open: Some(60),
            files_max: Some(1 << 20),
            certificates: vec![certificate("node", 103), certificate("ca", 3_000), certificate("0.0.0.0:443", 190)],
            applied_index: 500,
            published_index: 500,
            round_trips: vec![RoundTrip { node_id: 2, micros: 800 }],
            ..Default::default()
        }
    }

    fn seen() -> Seen {
        let node = |id: NodeId| Reported { id, name: format!("n{id}"), report: Some(report()), ahead_ms: 3 };
        let hash = |id: u64| NodeHash { node: format!("n{id}"), at: Some((500, Digest::of(b"state"))) };
        Seen {
            reports: vec![node(1), node(2), node(3)],
            view: View { voters: [1, 2, 3].into(), leader: Some(1), quorum: true, ..View::default() },
            leader: Some("n1".into()),
            timing: Timing::from_max_rtt(MAX_RTT_DEFAULT),
            hashes: vec![hash(1), hash(2), hash(3)],
            sealing: None,
            certificates: vec![("certificate/shop".into(), 190 * DAY_S)],
            trail: (1, 0),
            now_ms: 100 * DAY_S as u64 * 1_000,
        }
    }

    /// Exactly these findings that are not good: check, node, level.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Seen), expected: &[(&str, &str, &str)]) {
        let mut seen = seen();
        change(&mut seen);
        let findings = judge(&seen).0;
        let bad = findings.iter().filter(|(level, _)| *level != Level::Ok);
        let told: Vec<_> =
            bad.clone().map(|(_, it)| (it.check.as_str(), it.node.as_str(), it.level.as_str())).collect();
        assert_eq!(told, expected);
        for (_, finding) in bad {
            assert!(!finding.fix.is_empty() && !finding.allowed.is_empty() && !finding.found.is_empty(), "{finding:?}");
        }
    }

    fn of(seen: &mut Seen, node: usize) -> &mut ReportResponse {
        seen.reports[node].report.as_mut().unwrap()
    }

    #[test]
    fn a_good_cluster_has_nothing_to_find() {
        check(|_| (), &[]);
    }

    #[test]
    fn each_trouble_is_found_where_it_is_and_has_a_fix() {
        check(|it| it.reports[1].report = None, &[("quorum", "", "warning"), ("reachable", "n2", "critical")]);
        check(|it| it.leader = None, &[("quorum", "", "critical")]);
        check(|it| it.view.quorum = false, &[("quorum", "", "critical")]);
        check(|it| it.hashes[2].at = Some((500, Digest::default())), &[("state_hash", "n3", "critical")]);
        check(|it| it.hashes[2].at = None, &[("state_hash", "", "unknown")]);
        check(|it| of(it, 1).version = "1.1.0".into(), &[("version", "", "warning")]);
        check(|it| of(it, 1).stopped = "removed".into(), &[("consensus", "n2", "critical")]);
        check(|it| of(it, 1).store_trouble = "full".into(), &[("consensus", "n2", "critical")]);
        check(|it| it.reports[2].ahead_ms = -700, &[("clock", "n3", "warning")]);
        check(|it| it.reports[2].ahead_ms = 12_000, &[("clock", "n3", "critical")]);
        check(|it| of(it, 0).round_trips[0].micros = 20_000, &[("rtt", "n1", "warning")]);
        check(|it| of(it, 0).round_trips[0].micros = 900_000, &[("rtt", "n1", "critical")]);
        check(|it| of(it, 0).fsync_us = Some(30_000), &[("fsync", "n1", "warning")]);
        check(|it| of(it, 0).fsync_us = None, &[("fsync", "n1", "critical")]);
        check(|it| of(it, 0).disk_free_bytes = Some(1 << 30), &[("disk", "n1", "warning")]);
        check(|it| of(it, 0).disk_free_bytes = Some(1 << 20), &[("disk", "n1", "critical")]);
        let trail = |node: NodeId, bytes| {
            move |it: &mut Seen| {
                of(it, 0).disk_free_bytes = Some(1 << 30);
                it.trail = (node, bytes);
            }
        };
        check(trail(1, 2 << 30), &[("disk", "n1", "warning"), ("trail", "n1", "warning")]);
        check(trail(1, 1 << 20), &[("disk", "n1", "warning")]);
        check(trail(2, 2 << 30), &[("disk", "n1", "warning")]);
        check(|it| it.trail = (1, 2 << 30), &[]);
        check(|it| of(it, 0).certificates[2].not_after = 110 * DAY_S, &[("certificate", "n1", "warning")]);
        check(|it| of(it, 0).certificates[0].not_after = 90 * DAY_S, &[("certificate", "n1", "critical")]);
        check(|it| it.certificates[0].1 = 110 * DAY_S, &[("certificate", "", "warning")]);
        check(|it| it.certificates[0].1 = 90 * DAY_S, &[("certificate", "", "critical")]);
        check(|it| of(it, 0).journal_trouble = "damaged".into(), &[("journal", "n1", "warning")]);
        check(|it| of(it, 0).broken_routes = vec!["orders".into()], &[("routes", "n1", "warning")]);
        check(|it| of(it, 0).udp_receive_bytes = Some(425_984), &[("udp_buffers", "n1", "warning")]);
        check(|it| of(it, 0).files_max = Some(1_024), &[("file_descriptors", "n1", "warning")]);
        check(|it| of(it, 0).files_open = Some(1 << 20), &[("file_descriptors", "n1", "critical")]);
        check(|it| of(it, 0).access_log_dropped = 4, &[("access_log", "n1", "warning")]);
        check(|it| of(it, 1).anomaly_rows_left_out = 9, &[("anomaly_rows", "n2", "warning")]);
        check(|it| of(it, 1).anomaly_messages_lost = 1, &[("anomaly_webhooks", "n2", "warning")]);
        let export = |waiting, stuck_ms, lost| Some(AuditExport { waiting, stuck_ms, lost, trouble: "away".into() });
        check(|it| of(it, 0).audit_export = export(9, 59_000, 0), &[]);
        check(|it| of(it, 0).audit_export = export(9, 61_000, 0), &[("audit_export", "n1", "warning")]);
        check(|it| of(it, 0).audit_export = export(0, 0, 1), &[("audit_export", "n1", "warning")]);
        let progress = |node: &str, holds| SealingProgress { node: node.into(), answers: true, holds, alone: false };
        let sealing = Some(("introduced", vec![progress("n1", true), progress("n2", false)]));
        check(|it| it.sealing = sealing, &[("sealing_key", "", "warning")]);
    }
}
