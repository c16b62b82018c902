//! One rule as a worker carries it out: header edits parsed once, counters at hand.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use quorumgate_model::{
    resource::{HeaderEdits, HostRewrite},
    ruleset::{Rule, Ruleset},
};

use crate::metrics::{NO_ROUTE, RouteMetrics, WorkerMetrics};

/// A ruleset with what this worker made of it so far.
pub(crate) struct Rules {
    pub(crate) ruleset: Arc<Ruleset>,
    /// Counts requests that no route took.
    pub(crate) unmatched: Arc<RouteMetrics>,
    /// By the address of the rule, which `ruleset` keeps alive; filled on first use.
    plans: RefCell<HashMap<usize, Rc<Plan>>>,
    metrics: Arc<WorkerMetrics>,
}

pub(crate) struct Plan {
    pub(crate) rule: Arc<Rule>,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) request: Edits,
    pub(crate) response: Edits,
    /// `rewrite.host` with a name.
    pub(crate) host: Option<HeaderValue>,
}

/// Carried out in the order remove, set, add.
#[derive(Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Rules {
    pub(crate) fn new(ruleset: Arc<Ruleset>, metrics: Arc<WorkerMetrics>) -> Self {
        metrics.keep_only(&ruleset);
        let unmatched = metrics.route(NO_ROUTE);
        Self { ruleset, unmatched, plans: RefCell::default(), metrics }
    }

    pub(crate) fn plan(&self, rule: &Arc<Rule>) -> Rc<Plan> {
        let mut plans = self.plans.borrow_mut();
        plans.entry(Arc::as_ptr(rule) as usize).or_insert_with(|| Rc::new(Plan::new(rule, &self.metrics))).clone()
    }
}

impl Plan {
    fn new(rule: &Arc<Rule>, metrics: &WorkerMetrics) -> Self {
        let rewrite = &rule.route.rewrite;
        let host = match &rewrite.host {
            HostRewrite::Name(name) => HeaderValue::try_from(name).ok(),
            HostRewrite::Preserve | HostRewrite::Target => None,
        };
        Self {
            rule: rule.clone(),
            metrics: metrics.route(&rule.route.name),
            request: Edits::new(&rewrite.headers.request),
            response: Edits::new(&rewrite.headers.response),
            host,
        }
    }
}

impl Edits {
    /// What cannot be a header was refused when the route was applied; what frames the message is never edited.
    fn new(edits: &HeaderEdits) -> Self {
        let name = |name: &str| HeaderName::try_from(name).ok().filter(|name| !frames_the_message(name));
        let pairs = |pairs: &std::collections::BTreeMap<String, String>| {
            pairs.iter().filter_map(|(key, value)| Some((name(key)?, HeaderValue::try_from(value).ok()?))).collect()
        };
        Self {
            remove: edits.remove.iter().filter_map(|it| name(it)).collect(),
            set: pairs(&edits.set),
            add: pairs(&edits.add),
        }
    }

    pub(crate) fn carry_out(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

fn frames_the_message(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE, header::TE].contains(name)
}
