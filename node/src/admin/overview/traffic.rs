//! What all nodes have counted lately, asked for once and given to all who ask within a moment.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use quorumgate_proto::{admin::v1 as admin, peer::v1 as pb};
use quorumgate_proxy::DURATION_BOUNDS_US;
use tokio::sync::Mutex;

use crate::admin::desk::Desk;

/// For the answers of the other nodes, on top of a round trip of the cluster.
const ANSWERS_WITHIN: Duration = Duration::from_millis(600);
/// So long an answer with a line for each route is good for the next who asks.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// The lines of all routes, as they were asked for last.
#[derive(Default)]
pub struct Lines(Mutex<Option<(Instant, Arc<admin::GetTrafficResponse>)>>);

impl Lines {
    /// With a line for each route; one question at a time. How long the nodes have for it is no caller's to say: what one in
    /// a hurry was told would be kept for the others.
    pub async fn of(&self, desk: &Desk) -> Arc<admin::GetTrafficResponse> {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return answer.clone();
        }
        // Frames are asked for apart.
        let request = admin::GetTrafficRequest { route: String::new(), since_ms: u64::MAX, routes: true };
        let answer = Arc::new(ask(desk, &request, Duration::MAX).await);
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

pub async fn ask(desk: &Desk, request: &admin::GetTrafficRequest, within: Duration) -> admin::GetTrafficResponse {
    let consensus = &desk.consensus;
    let state = consensus.state();
    let asked = pb::TrafficRequest { route: request.route.clone(), since_ms: request.since_ms, routes: request.routes };
    let within = within.min(ANSWERS_WITHIN + 2 * state.timing().max_rtt);
    let mut nodes = Vec::new();
    let mut unanswered = Vec::new();
    let mut routes = BTreeMap::new();
    for (id, answer) in consensus.traffic(&asked, within).await {
        // One that was removed meanwhile is missed by nobody.
        let Some(node) = state.nodes.get(&id) else { continue };
        match answer {
            Some(mut traffic) => {
                std::mem::take(&mut traffic.routes).into_iter().for_each(|it| add(&mut routes, it));
                nodes.push(traffic);
            }
            None => unanswered.push(node.name.to_string()),
        }
    }
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    unanswered.sort();
    let routes = routes.into_values().collect();
    let bounds_us = DURATION_BOUNDS_US.to_vec();
    admin::GetTrafficResponse { header: Some(desk.header()), nodes, unanswered, routes, bounds_us }
}

fn add(routes: &mut BTreeMap<String, admin::RouteTraffic>, it: admin::RouteTraffic) {
    let sum = match routes.entry(it.route.clone()) {
        Entry::Vacant(free) => {
            free.insert(it);
            return;
        }
        Entry::Occupied(sum) => sum.into_mut(),
    };
    sum.requests += it.requests;
    sum.client_errors += it.client_errors;
    sum.server_errors += it.server_errors;
    sum.last_hit_ms = sum.last_hit_ms.max(it.last_hit_ms);
    sum.durations.resize(sum.durations.len().max(it.durations.len()), 0);
    sum.durations.iter_mut().zip(&it.durations).for_each(|(sum, count)| *sum += count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_sum_of_what_the_nodes_counted() {
        let line = |requests, last_hit_ms, durations: &[u64]| admin::RouteTraffic {
            route: "a".into(),
            requests,
            server_errors: 1,
            last_hit_ms,
            durations: durations.to_vec(),
            ..Default::default()
        };
        let mut routes = BTreeMap::new();
        add(&mut routes, line(3, 70, &[3]));
        add(&mut routes, line(4, 50, &[1, 3]));
        let expected = admin::RouteTraffic { server_errors: 2, ..line(7, 70, &[4, 3]) };
        assert_eq!(routes.into_values().collect::<Vec<_>>(), [expected]);
    }
}
