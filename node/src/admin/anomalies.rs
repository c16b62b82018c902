//! The Anomalies service: who behaves unlike others, and who is near it, on all nodes together.

use std::{collections::BTreeSet, time::Duration};

use quorumgate_model::resource::{AnomalyFeature, AnomalyPolicy, Name};
use quorumgate_proto::admin::v1::{self as admin, anomalies_server::Anomalies};
use quorumgate_proxy::anomaly::Verdict;
use tonic::{Request, Response, Status};

use super::{
    config::{
        messages::{duration, timestamp_ms},
        taken,
    },
    desk::Desk,
    failure,
};
use crate::{
    anomaly::{Caller, Callers, Policies, words},
    publish::wall_ms,
};

const TOP_DEFAULT: u32 = 100;
const TOP_MAX: u32 = 10_000;

#[tonic::async_trait]
impl Anomalies for Desk {
    async fn list_anomalies(
        &self,
        request: Request<admin::ListAnomaliesRequest>,
    ) -> Result<Response<admin::ListAnomaliesResponse>, Status> {
        let (_, request) = taken(request)?;
        let top = failure::top(request.top, TOP_DEFAULT, TOP_MAX)?;
        let consensus = &self.consensus;
        // Until the proxy runs nothing is watched.
        let here = consensus.anomalies_here();
        let mut policies = here.map(|it| it.policies()).unwrap_or_default();
        if !request.policy.is_empty() {
            policies.retain(|name, _| **name == *request.policy);
            if policies.is_empty() {
                let why = format!("there is no policy {:?} of kind anomaly", request.policy);
                return Err(failure::status(tonic::Code::NotFound, "NOT_FOUND", why));
            }
        }
        let mut callers = match policies.is_empty() {
            true => Callers::default(),
            false => Callers::look(consensus, &policies).await,
        };
        let now_ms = wall_ms();
        let mut verdicts = here.map(|it| it.known(&policies)).unwrap_or_default();
        verdicts.retain(|it| it.ends_ms > now_ms);
        let known: BTreeSet<(&str, &str)> = verdicts.iter().map(|it| (&*it.policy, &*it.key)).collect();
        let mut watched: Vec<_> = callers
            .all
            .iter()
            .filter(|((policy, key), _)| !known.contains(&(&**policy, key.as_str())))
            .filter_map(|((policy, key), caller)| near(&policies, policy, key, caller))
            .collect();
        watched.sort_by_key(|(heat, _)| std::cmp::Reverse(*heat));
        let found = verdicts.iter().filter_map(|it| found(words(policies.get(&it.policy)?)?, it, now_ms));
        let mut anomalies: Vec<_> = found.chain(watched.into_iter().map(|(_, it)| it)).collect();
        let left_out = anomalies.len().saturating_sub(top) as u32;
        anomalies.truncate(top);
        callers.unanswered.sort();
        Ok(Response::new(admin::ListAnomaliesResponse {
            header: Some(self.header()),
            anomalies,
            left_out,
            unanswered: callers.unanswered,
        }))
    }
}

fn found(it: &AnomalyPolicy, verdict: &Verdict, now_ms: u64) -> Option<admin::Anomaly> {
    Some(admin::Anomaly {
        policy: verdict.policy.to_string(),
        key: verdict.key.to_string(),
        feature: verdict.finding.feature.word().to_owned(),
        value: verdict.finding.value,
        over: verdict.finding.over,
        action: it.action.word().to_owned(),
        state: verdict.outcome.word().to_owned(),
        nodes: verdict.nodes,
        since: Some(timestamp_ms(verdict.since_ms)),
        ends_in: Some(duration(Duration::from_millis(verdict.ends_ms.saturating_sub(now_ms)))),
    })
}

/// And how near it is, by what is nearest to its bound.
fn near(policies: &Policies, policy: &Name, key: &str, caller: &Caller) -> Option<(u64, admin::Anomaly)> {
    let it = words(policies.get(policy)?)?;
    let nearness = |(feature, over): (AnomalyFeature, u64)| {
        let value = caller.seen.of(feature);
        (value.saturating_mul(1_000) / over.max(1), feature, value, over)
    };
    let (heat, feature, value, over) = it.over.iter().map(nearness).max_by_key(|(heat, ..)| *heat)?;
    let near = admin::Anomaly {
        policy: policy.to_string(),
        key: key.to_owned(),
        feature: feature.word().to_owned(),
        value,
        over,
        action: it.action.word().to_owned(),
        state: "watched".to_owned(),
        nodes: caller.nodes,
        since: None,
        ends_in: None,
    };
    Some((heat, near))
}
