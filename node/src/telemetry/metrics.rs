//! The node's own metric families in the Prometheus text format; the proxy appends its own.

use std::fmt::Write;

use quorumgate_model::state::State;
use quorumgate_raft_store::SYNC_BOUNDS_US;

use super::{histogram, listener::Telemetry, otlp};
use crate::{VERSION, pki, usage};

pub fn text(telemetry: &Telemetry) -> String {
    let mut out = String::with_capacity(16 << 10);
    let view = telemetry.consensus.view();
    let published = *telemetry.consensus.published().borrow();
    let state = telemetry.consensus.state();

    family(&mut out, "quorumgate_build_info", "gauge", "The running build.");
    let _ = writeln!(out, "quorumgate_build_info{{version=\"{VERSION}\"}} 1");

    family(
        &mut out,
        "quorumgate_config_revision",
        "gauge",
        "Resource revisions: applied by raft, served by the proxy.",
    );
    let _ = writeln!(out, "quorumgate_config_revision{{state=\"applied\"}} {}", state.revision);
    let _ = writeln!(out, "quorumgate_config_revision{{state=\"published\"}} {}", published.revision);

    let leads = u64::from(view.leader == Some(view.id));
    let numbers = [
        ("quorumgate_raft_term", "The current term.", view.term),
        ("quorumgate_raft_is_leader", "1 on the leader.", leads),
        ("quorumgate_raft_has_leader", "1 while this node knows a leader.", u64::from(view.leader.is_some())),
        (
            "quorumgate_raft_has_quorum",
            "1 while a majority of voters answers, as far as this node can tell.",
            u64::from(view.quorum),
        ),
        ("quorumgate_raft_stopped", "1 when consensus has stopped on this node.", u64::from(view.stopped.is_some())),
        ("quorumgate_raft_voters", "Voters in the committed membership.", view.voters.len() as u64),
        ("quorumgate_raft_learners", "Learners in the committed membership.", view.learners.len() as u64),
        ("quorumgate_raft_last_log_index", "The last entry in this node's log.", view.last_log_index),
        ("quorumgate_raft_committed_index", "The last entry known to be committed.", view.committed),
        ("quorumgate_raft_applied_index", "The last entry applied.", view.applied),
        ("quorumgate_node_ready", "1 while /readyz is 200.", u64::from(telemetry.health.is_ready())),
        (
            "quorumgate_node_fresh",
            "1 while within max_staleness of the leader.",
            u64::from(telemetry.freshness.is_fresh()),
        ),
    ];
    for (name, help, value) in numbers {
        family(&mut out, name, "gauge", help);
        let _ = writeln!(out, "{name} {value}");
    }
    usage::metrics::write(&state, view.id, &mut out);
    between_nodes(telemetry, &mut out);
    what_is_kept(telemetry, &state, &mut out);
    telemetry.proxy.metrics(&mut out);
    otlp::write_metrics(&telemetry.consensus, &mut out);
    if let Some(anomalies) = telemetry.consensus.anomalies_here() {
        anomalies.write_metrics(&mut out);
    }
    out
}

/// The connections to the peers. Labels are the nodes' names.
fn between_nodes(telemetry: &Telemetry, out: &mut String) {
    let links = telemetry.consensus.links();
    let mut peer = |name: &str, kind, help, value: fn(&quinn::ConnectionStats) -> f64| {
        family(out, name, kind, help);
        for (peer, stats) in links.iter().filter_map(|(peer, stats)| Some((peer, stats.as_ref()?))) {
            let _ = writeln!(out, "{name}{{peer=\"{peer}\"}} {}", value(stats));
        }
    };
    peer("quorumgate_quic_rtt_seconds", "gauge", "The round trip to a peer.", |it| it.path.rtt.as_secs_f64());
    peer("quorumgate_quic_sent_bytes_total", "counter", "Bytes to a peer over the connection that is open.", |it| {
        it.udp_tx.bytes as f64
    });
    peer("quorumgate_quic_received_bytes_total", "counter", "Bytes from a peer over that connection.", |it| {
        it.udp_rx.bytes as f64
    });
    peer("quorumgate_quic_lost_packets_total", "counter", "Packets to a peer that were lost.", |it| {
        it.path.lost_packets as f64
    });
    const CONNECTED: &str = "quorumgate_quic_connected";
    family(out, CONNECTED, "gauge", "1 while there is a connection to the peer.");
    for (peer, stats) in &links {
        let _ = writeln!(out, "{CONNECTED}{{peer=\"{peer}\"}} {}", u64::from(stats.is_some()));
    }
}

/// What lies on the disk, what is good until when, and who was refused.
fn what_is_kept(telemetry: &Telemetry, state: &State, out: &mut String) {
    let consensus = &telemetry.consensus;
    const FSYNC: &str = "quorumgate_raft_fsync_seconds";
    family(out, FSYNC, "histogram", "Syncs of the write-ahead log.");
    let (counts, sum_us) = consensus.syncs().counts();
    histogram::write(FSYNC, &SYNC_BOUNDS_US, &counts, sum_us, out);
    const PROPAGATION: &str = "quorumgate_revocation_propagation_seconds";
    family(
        out,
        PROPAGATION,
        "histogram",
        "From the leader's stamp of a revocation to its being looked up on every worker.",
    );
    consensus.propagation().write(PROPAGATION, out);
    const NOT_AFTER: &str = "quorumgate_tls_cert_not_after_timestamp_seconds";
    family(
        out,
        NOT_AFTER,
        "gauge",
        "When a certificate ends: the node's, the CA's, those of listeners in the settings and of the configuration.",
    );
    for (name, not_after) in consensus.certificates().into_iter().chain(pki::expiry::of(state)) {
        let _ = writeln!(out, "{NOT_AFTER}{{certificate=\"{name}\"}} {not_after}");
    }
    let numbers = [
        (
            "quorumgate_journal_degraded",
            "gauge",
            "1 while the journal cannot be relied on.",
            u64::from(consensus.journal_trouble().is_some()),
        ),
        ("quorumgate_audit_entries", "gauge", "Entries of the cluster's audit trail.", state.audit.count),
        (
            "quorumgate_admin_denied_total",
            "counter",
            "Admin calls that this node has refused.",
            consensus.denials().total(),
        ),
    ];
    let room = consensus.room().into_iter().flat_map(|(free, all)| {
        let free = ("quorumgate_disk_free_bytes", "gauge", "Free to this node where its data directory lies.", free);
        [free, ("quorumgate_disk_bytes", "gauge", "Of the file system where the data directory lies.", all)]
    });
    for (name, kind, help, value) in numbers.into_iter().chain(room) {
        family(out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
