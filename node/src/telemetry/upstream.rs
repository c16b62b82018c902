//! What this node knows of the servers behind it, as the admin API says it.

use quorumgate_proto::admin::v1 as admin;
use quorumgate_proxy::upstream::{BreakerState, Registry, TargetHealth};

/// None: no such upstream is served here.
pub fn shown(registry: &Registry, upstream: &str, node: &str, region: &str) -> Option<admin::NodeUpstreamHealth> {
    let state = registry.state(upstream)?;
    let breaker = match state.breaker {
        None => "",
        Some(BreakerState::Closed) => "closed",
        Some(BreakerState::Open) => "open",
        Some(BreakerState::HalfOpen) => "half_open",
    };
    Some(admin::NodeUpstreamHealth {
        node: node.to_owned(),
        region: region.to_owned(),
        targets: state.targets.into_iter().map(target).collect(),
        breaker: breaker.to_owned(),
        breaker_opened: state.breaker_opened,
        retries_running: state.retries_running,
    })
}

fn target(it: TargetHealth) -> admin::UpstreamTargetHealth {
    let ejected_for =
        prost_types::Duration { seconds: it.ejected_for.as_secs() as i64, nanos: it.ejected_for.subsec_nanos() as i32 };
    admin::UpstreamTargetHealth {
        address: it.target,
        addresses: it.addresses as u32,
        healthy: it.healthy as u32,
        ejected: it.ejected as u32,
        ejected_for: (it.ejected > 0).then_some(ejected_for),
        in_flight: it.in_flight,
        priority: it.priority,
        zone: it.zone.unwrap_or_default(),
    }
}
