//! What pages of resources are made of, without what a worker keeps for itself: they are made on another thread.

use std::sync::Arc;

use quorumgate_model::{
    resource::{Key, Kind, LimitPart, Name, Policy, PolicyKind, PortalPolicy, Resource, Resources},
    units::Moment,
};

use super::{
    catalogue::{Catalogue, Now},
    document,
    pages::{Frame, Ways, Who},
};
use crate::recent::now_ms;

/// Limits that a page of usage shows.
const LIMITS_MAX: usize = 100;

#[derive(Clone)]
pub(super) struct Made {
    pub(super) resources: Resources,
    pub(super) policy: Arc<Policy>,
    /// The path of the portal, without a slash at its end.
    pub(super) base: String,
    pub(super) consumer: Option<Name>,
    pub(super) is_other: bool,
    pub(super) signs_in: bool,
    pub(super) sign_out: String,
}

impl Made {
    pub(super) fn frame(&self) -> Frame<'_> {
        let who = match &self.consumer {
            Some(consumer) => Who::Member(consumer),
            None if self.is_other => Who::Other,
            None => Who::Nobody,
        };
        let portal = portal(&self.policy);
        Frame {
            title: &portal.title,
            base: &self.base,
            who,
            signs_in: self.signs_in,
            sign_out: &self.sign_out,
            has_keys: portal.keys.is_some(),
        }
    }

    pub(super) fn catalogue(&self) -> Catalogue {
        Catalogue::of(&self.resources, &self.policy.owner, portal(&self.policy))
    }

    pub(super) fn version(&self, api: &str, version: &str) -> Option<String> {
        let catalogue = self.catalogue();
        let entry = catalogue.find(api, version)?;
        Some(self.frame().version(&Ways { resources: &self.resources, entry }, now()))
    }

    /// None: there is none, or none any more.
    pub(super) fn document(&self, api: &str, version: &str) -> Option<String> {
        let catalogue = self.catalogue();
        let entry = catalogue.find(api, version)?;
        if entry.contracts.is_empty() || entry.now(now()) == Now::Retired {
            return None;
        }
        document::of(entry, &Ways { resources: &self.resources, entry })
    }

    /// Limits of the routes shown that count by who calls, and the versions shown.
    pub(super) fn counted(&self) -> (Vec<Name>, Vec<Name>) {
        let catalogue = self.catalogue();
        let mut limits: Vec<Name> = Vec::new();
        for name in catalogue.entries().flat_map(|it| &it.routes).flat_map(|it| &it.limits) {
            let key = Key { kind: Kind::Limit, name: name.clone() };
            let Some(Resource::Limit(limit)) = self.resources.get(&key).map(|it| &it.resource) else { continue };
            let is_own = matches!(limit.per[..], [LimitPart::Consumer | LimitPart::Credential]);
            if is_own && limits.len() < LIMITS_MAX && !limits.contains(name) {
                limits.push(name.clone());
            }
        }
        (limits, catalogue.entries().map(|it| it.policy.name.clone()).collect())
    }
}

pub(super) fn portal(policy: &Policy) -> &PortalPolicy {
    match &policy.kind {
        PolicyKind::Portal(it) => it,
        _ => unreachable!("`policy` finds portals alone"),
    }
}

pub(super) fn now() -> Moment {
    Moment(now_ms())
}
