//! One rule as a worker carries it out: header edits parsed once, counters at hand.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use quorumgate_model::{
    invalid::Invalid,
    resource::{HeaderEdits, HostRewrite},
    ruleset::{Rule, Ruleset},
    template::{Template, Variable},
};

use crate::{
    identity::authorize::Authorization,
    metrics::{RouteMetrics, WorkerMetrics},
    traffic::Traffic,
};

/// What this worker made of rules so far. Each plan keeps its rule, so that no other can take its address.
pub(crate) struct Plans {
    by_address: RefCell<HashMap<usize, Rc<Plan>, BuildHasherDefault<AddressHasher>>>,
    metrics: Arc<WorkerMetrics>,
}

/// Plans of rules that are gone may outnumber the rules by this many.
const STALE_MAX: usize = 256;

pub(crate) struct Plan {
    pub(crate) rule: Arc<Rule>,
    /// Of the route, for what outlives the rule.
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) request: Edits,
    pub(crate) response: Edits,
    /// Err: the rules cannot be carried out here, which lets nobody in. None inside: there are none.
    pub(crate) authorization: Result<Option<Authorization>, Invalid>,
    /// `rewrite.host` with a name.
    pub(crate) host: Option<HeaderValue>,
    /// None: the route asks for nothing of that kind.
    pub(crate) traffic: Option<Box<Traffic>>,
}

/// Carried out in the order remove, set, add.
#[derive(Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Text)>,
    add: Vec<(HeaderName, Text)>,
    /// Strict-Transport-Security is among them.
    pub(crate) says_hsts: bool,
}

enum Text {
    Plain(HeaderValue),
    /// With values of the request in it.
    Filled(Template),
}

impl Text {
    /// None: what comes of the request's values is no field's value.
    fn value<'v>(&self, value: impl Fn(&Variable) -> Cow<'v, str>) -> Option<HeaderValue> {
        match self {
            Self::Plain(it) => Some(it.clone()),
            Self::Filled(template) => HeaderValue::try_from(template.fill(value, |out, text| out.push_str(text))).ok(),
        }
    }
}

impl Plans {
    pub(crate) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self { by_address: RefCell::default(), metrics }
    }

    pub(crate) fn of(&self, rule: &Arc<Rule>) -> Rc<Plan> {
        let mut plans = self.by_address.borrow_mut();
        plans.entry(Arc::as_ptr(rule) as usize).or_insert_with(|| Rc::new(Plan::new(rule, &self.metrics))).clone()
    }

    /// Lets go of rules that are gone, once they are many.
    pub(crate) fn prune(&self, ruleset: &Ruleset) {
        let mut plans = self.by_address.borrow_mut();
        if plans.len() > ruleset.rules.len() + STALE_MAX {
            let is_current = |rule: &Arc<Rule>| {
                ruleset.rules.get(&rule.route.name).is_some_and(|current| Arc::ptr_eq(current, rule))
            };
            plans.retain(|_, plan| is_current(&plan.rule));
        }
    }
}

/// Spreads addresses, which nobody outside chooses, over the table.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.write_usize(number as usize);
    }

    fn write_usize(&mut self, address: usize) {
        // The golden ratio: carries the changing low bits into the high ones that the table looks at first.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
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
            name: Arc::from(&rule.route.name),
            metrics: metrics.route(&rule.route.name),
            request: Edits::new(&rewrite.headers.request, rule),
            response: Edits::new(&rewrite.headers.response, rule),
            authorization: Authorization::compile(&rule.route),
            host,
            traffic: Traffic::new(&rule.route),
        }
    }
}

impl Edits {
    /// What cannot be a header was refused when the route was applied; what frames the message is never edited.
    fn new(edits: &HeaderEdits, rule: &Rule) -> Self {
        let name = |name: &str| HeaderName::try_from(name).ok().filter(|name| !frames_the_message(name));
        let text = |text: &String| match Template::is_one(text) {
            false => HeaderValue::try_from(text).ok().map(Text::Plain),
            true => Template::parse("", text, &rule.param_names()).ok().map(Text::Filled),
        };
        let pairs = |pairs: &std::collections::BTreeMap<String, String>| -> Vec<_> {
            pairs.iter().filter_map(|(key, value)| Some((name(key)?, text(value)?))).collect()
        };
        let (set, add) = (pairs(&edits.set), pairs(&edits.add));
        let says_hsts = set.iter().chain(&add).any(|(name, _)| name == header::STRICT_TRANSPORT_SECURITY);
        Self { remove: edits.remove.iter().filter_map(|it| name(it)).collect(), set, add, says_hsts }
    }

    /// What nobody is to see.
    pub(crate) fn take_out(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    pub(crate) fn carry_out<'v>(&self, headers: &mut HeaderMap, value: impl Fn(&Variable) -> Cow<'v, str> + Copy) {
        self.take_out(headers);
        for (name, text) in &self.set {
            match text.value(value) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        for (name, text) in &self.add {
            if let Some(value) = text.value(value) {
                headers.append(name, value);
            }
        }
    }
}

fn frames_the_message(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE, header::TE].contains(name)
}
