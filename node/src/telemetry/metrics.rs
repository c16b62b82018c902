//! The node's own metric families in the Prometheus text format; the proxy appends its own.

use std::fmt::Write;

use super::listener::Telemetry;
use crate::{VERSION, usage};

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
    telemetry.proxy.metrics(&mut out);
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
