//! The Apis service: which versions there are, and who still calls those that are on their way out, on all nodes.

use std::{collections::BTreeMap, sync::Arc};

use quorumgate_model::{
    convert,
    resource::{Key, Kind, Name, PathPattern, Policy, PolicyKind, Resource, VersionPolicy, VersionState},
    state::State,
    units::Moment,
};
use quorumgate_proto::admin::v1::{self as admin, apis_server::Apis};
use tonic::{Request, Response, Status};

use super::{
    config::taken,
    desk::{Desk, ROWS_WITHIN, heard},
    failure,
};
use crate::publish::wall_ms;

const TOP_DEFAULT: u32 = 1_000;
const TOP_MAX: u32 = 10_000;

#[tonic::async_trait]
impl Apis for Desk {
    async fn list_apis(
        &self,
        request: Request<admin::ListApisRequest>,
    ) -> Result<Response<admin::ListApisResponse>, Status> {
        let (_, request) = taken(request)?;
        let state = self.consensus.state();
        let now = Moment(wall_ms());
        let shown = |(policy, version): (&Arc<Policy>, &VersionPolicy)| {
            let routes = routes_of(&state, &policy.name).map(|it| it.to_string()).collect();
            let words = match convert::resource_to(&Resource::Policy(policy.clone())).kind {
                Some(admin::resource::Kind::Policy(it)) => match it.kind {
                    Some(admin::policy::Kind::Version(it)) => Some(it),
                    _ => None,
                },
                _ => None,
            };
            let now = now_of(version, now).to_owned();
            admin::ApiVersion { policy: policy.name.to_string(), version: words, routes, now }
        };
        let mut versions: Vec<_> = versions_of(&state).filter(|(_, it)| is(&request.api, &it.api)).map(shown).collect();
        let place = |it: &admin::ApiVersion| it.version.as_ref().map(|it| (it.api.clone(), it.version.clone()));
        versions.sort_by_key(place);
        if versions.is_empty() && !request.api.is_empty() {
            let known: std::collections::BTreeSet<_> = versions_of(&state).map(|(_, it)| it.api.to_string()).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            let why = format!("there is no API {:?}; there are: {known}", request.api);
            return Err(failure::status(tonic::Code::NotFound, "NOT_FOUND", why));
        }
        Ok(Response::new(admin::ListApisResponse { header: Some(self.header()), versions }))
    }

    async fn list_callers(
        &self,
        request: Request<admin::ListCallersRequest>,
    ) -> Result<Response<admin::ListCallersResponse>, Status> {
        let (_, request) = taken(request)?;
        let top = failure::top(request.top, TOP_DEFAULT, TOP_MAX)?;
        let consensus = &self.consensus;
        let state = consensus.state();
        let versions: BTreeMap<&str, &VersionPolicy> =
            versions_of(&state).map(|(policy, it)| (&*policy.name, it)).collect();
        let mut sums: BTreeMap<(String, String, String, String), (u64, u64)> = BTreeMap::new();
        let mut unanswered = Vec::new();
        let answers = consensus.callers(ROWS_WITHIN + 2 * state.timing().max_rtt).await;
        for it in heard(&state, answers, &mut unanswered).into_iter().flat_map(|it| it.callers) {
            let sum = sums.entry((it.policy, it.route, it.method, it.consumer)).or_default();
            *sum = (sum.0 + it.count, sum.1.max(it.last_ms));
        }
        let mut callers = Vec::new();
        for ((policy, route, method, consumer), (count, last_ms)) in sums {
            let Some(it) = versions.get(&*policy) else { continue };
            let asked = is(&request.api, &it.api) && is(&request.version, &it.version);
            if asked && is(&request.consumer, &consumer) {
                let (api, version, path) = (it.api.to_string(), it.version.clone(), path_of(&state, &route));
                let last_call = Some(prost_types::Timestamp {
                    seconds: (last_ms / 1_000) as i64,
                    nanos: (last_ms % 1_000 * 1_000_000) as i32,
                });
                callers.push(admin::ApiCaller { api, version, route, method, path, consumer, count, last_call });
            }
        }
        let last = |it: &admin::ApiCaller| it.last_call.map(|at| (at.seconds, at.nanos));
        callers.sort_by_key(|it| std::cmp::Reverse(last(it)));
        let left_out = callers.len().saturating_sub(top) as u32;
        callers.truncate(top);
        Ok(Response::new(admin::ListCallersResponse { header: Some(self.header()), callers, left_out, unanswered }))
    }
}

/// Empty asks for all.
fn is(asked: &str, found: &str) -> bool {
    asked.is_empty() || asked == found
}

fn of_kind(state: &State, kind: Kind) -> impl Iterator<Item = &Resource> {
    let first: Name = "0".parse().expect("the first of all names");
    let all = state.resources.range(Key { kind, name: first }..);
    all.take_while(move |(key, _)| key.kind == kind).map(|(_, stored)| &stored.resource)
}

fn versions_of(state: &State) -> impl Iterator<Item = (&Arc<Policy>, &VersionPolicy)> {
    of_kind(state, Kind::Policy).filter_map(|it| match it {
        Resource::Policy(policy) => match &policy.kind {
            PolicyKind::Version(version) => Some((policy, &**version)),
            _ => None,
        },
        _ => None,
    })
}

fn routes_of<'a>(state: &'a State, policy: &'a Name) -> impl Iterator<Item = &'a Name> {
    of_kind(state, Kind::Route).filter_map(move |it| match it {
        Resource::Route(route) if route.policies.contains(policy) => Some(&route.name),
        _ => None,
    })
}

fn path_of(state: &State, route: &str) -> String {
    let Ok(name) = route.parse() else { return String::new() };
    match state.resources.get(&Key { kind: Kind::Route, name }).map(|it| &it.resource) {
        Some(Resource::Route(route)) => match &route.matches.path {
            PathPattern::Any => "/".to_owned(),
            PathPattern::Prefix(path) => path.clone(),
            PathPattern::Exact(path) => path.clone(),
            PathPattern::Template(path) => path.clone(),
            PathPattern::Regex(path) => path.clone(),
        },
        _ => String::new(),
    }
}

/// In a word, what it answers at that moment.
pub fn now_of(it: &VersionPolicy, now: Moment) -> &'static str {
    match it.state {
        VersionState::Draft => "draft",
        VersionState::Retired => "retired",
        _ if it.sunset.is_some_and(|sunset| sunset <= now) => "retired",
        VersionState::Deprecated if it.brownouts.iter().any(|it| it.start <= now && now < it.end) => "brownout",
        state => state.word(),
    }
}
