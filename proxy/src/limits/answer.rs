//! What clients are told of limits: the fields of draft-ietf-httpapi-ratelimit-headers-10 or the older ones, and why a
//! request was refused.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{Every, Limit, LimitKind, Name},
};
use serde::Serialize;

use super::{
    Admitted, Limits,
    admit::{Grant, now_us},
    count::Handle,
    plan::Plan,
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const SECOND_US: u64 = 1_000_000;

/// Which fields answers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    #[default]
    Draft10,
    XRateLimit,
    Off,
}

/// A request that a limit refused, as its answer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    /// The limit's name.
    pub(crate) policy: String,
    pub(crate) retry_after_s: u64,
    terms: HeaderValue,
    standing: Standing,
}

/// Where a client stands with one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    limit: u64,
    remaining: u64,
    reset_s: u64,
}

/// `"free-tier";q=100;w=60`
pub(super) fn policy(limit: &Limit, slots: u64, window_us: u64) -> HeaderValue {
    let words = match limit.kind {
        LimitKind::Concurrency { .. } => format!("\"{}\";q={slots};qu=\"concurrent-requests\"", limit.name),
        // Months differ: how long this one lasts, `t` says.
        LimitKind::Calendar { every: Every::Month, .. } => format!("\"{}\";q={slots}", limit.name),
        _ => format!("\"{}\";q={slots};w={}", limit.name, window_us.div_ceil(SECOND_US)),
    };
    HeaderValue::try_from(words).expect("a name and numbers")
}

fn code(kind: &LimitKind) -> &'static str {
    match kind {
        LimitKind::Sliding { .. } | LimitKind::Bucket { .. } => "rate_limited",
        LimitKind::Calendar { .. } => "quota_exceeded",
        LimitKind::Concurrency { .. } => "concurrency_limited",
    }
}

impl Standing {
    /// As `Words` says it.
    fn bytes(&self, name: &str) -> usize {
        let digits = |number: u64| number.checked_ilog10().map_or(1, |it| it as usize + 1);
        "\"\";r=;t=".len() + name.len() + digits(self.remaining) + digits(self.reset_s)
    }

    /// What is left is what this node knows of: the others are taken to have used as much as this one, and what is free
    /// here is certain. None: nothing is known yet, as of a soft limit that did not wait.
    fn of(plan: &Plan, handle: &Handle, limits: &Limits, now_us: u64) -> Option<Self> {
        let counts = handle.counts(now_us);
        let told = |beside: Option<u64>| match beside {
            None if counts.free == 0 && !mutants::is(Mutant::UnknownToldAsUsedUp) => None,
            beside => Some(counts.free.saturating_add(beside.unwrap_or(0))),
        };
        if let Some((ends_us, beside)) = handle.of_period() {
            let remaining = told(beside)?.min(plan.slots);
            let reset_us = ends_us.saturating_sub(now_us).min(plan.window_us.saturating_mul(2));
            return Some(Self { limit: plan.slots, remaining, reset_s: reset_us.div_ceil(SECOND_US) });
        }
        if plan.is_on_demand(limits.divisor()) {
            return Some(Self::on_demand(plan, told(handle.of_pool())?));
        }
        let nodes = match plan.id {
            Some(_) if !matches!(plan.limit.kind, LimitKind::Concurrency { .. }) => limits.divisor().max(1),
            _ => 1,
        };
        let remaining = plan.slots.saturating_sub(counts.used.saturating_mul(nodes)).max(counts.free).min(plan.slots);
        let reset_us = counts.whole_us.map_or(0, |at| at.saturating_sub(now_us)).min(plan.window_us);
        let reset_s = match plan.limit.kind {
            LimitKind::Concurrency { .. } => 1,
            _ => reset_us.div_ceil(SECOND_US),
        };
        Some(Self { limit: plan.slots, remaining, reset_s })
    }
}

impl Standing {
    /// Slots that are lent one by one are elsewhere once they are used: what is left is what the ledger had left when it
    /// lent the last one, and all of it is back a window after that.
    fn on_demand(plan: &Plan, left: u64) -> Self {
        let remaining = left.min(plan.slots);
        let reset_us = if remaining < plan.slots { plan.window_us } else { 0 };
        let reset_s = match plan.limit.kind {
            LimitKind::Concurrency { .. } => 1,
            _ => reset_us.div_ceil(SECOND_US),
        };
        Self { limit: plan.slots, remaining, reset_s }
    }
}

impl OverLimit {
    pub(super) fn new(plan: &Plan, handle: Option<&Handle>, limits: &Limits, at_us: Option<u64>, now_us: u64) -> Self {
        let known = handle.and_then(|handle| Standing::of(plan, handle, limits, now_us));
        let wait_us = match plan.limit.kind {
            LimitKind::Concurrency { .. } => SECOND_US,
            // None of this node's slots is in use: the others' come back within a window.
            _ => at_us.map_or(plan.window_us, |at| at.saturating_sub(now_us)),
        };
        let retry_after_s = wait_us.div_ceil(SECOND_US).max(1);
        Self {
            status: StatusCode::from_u16(plan.limit.exceeded_status).unwrap_or(StatusCode::TOO_MANY_REQUESTS),
            code: code(&plan.limit.kind),
            policy: plan.limit.name.to_string(),
            retry_after_s,
            terms: plan.policy.clone(),
            // Never told to wait longer for the one than for the other.
            standing: Standing { limit: known.map_or(plan.slots, |it| it.limit), remaining: 0, reset_s: retry_after_s },
        }
    }

    /// For `explain` and the access log.
    pub(crate) fn numbers(&self) -> Vec<(&'static str, u64)> {
        let Standing { limit, remaining, reset_s } = self.standing;
        let retry_after = ("retry_after_s", self.retry_after_s);
        vec![("limit", limit), ("remaining", remaining), ("reset_s", reset_s), retry_after]
    }

    pub(crate) fn fields(&self, style: Style, headers: &mut HeaderMap) {
        let mut words = Words::default();
        words.add(&self.policy, &self.terms, self.standing);
        words.write(style, headers);
    }
}

impl Admitted {
    pub(crate) fn fields(&self, limits: &Limits, style: Style, headers: &mut HeaderMap) {
        if style == Style::Off || self.grants.is_empty() {
            return;
        }
        let now_us = now_us();
        let mut words = Words::default();
        for grant in &self.grants {
            if let Some(standing) = Standing::of(&grant.plan, &grant.handle, limits, now_us) {
                words.add(&grant.plan.limit.name, &grant.plan.policy, standing);
            }
        }
        words.write(style, headers);
    }
}

/// Where the client stood with one limit, for the access log.
#[derive(Debug, Serialize)]
pub(crate) struct Stood {
    name: Name,
    limit: u64,
    remaining: u64,
}

impl Admitted {
    pub(crate) fn stood(&self, limits: &Limits) -> Vec<Stood> {
        let now_us = now_us();
        let stood = |grant: &Grant| {
            let Standing { limit, remaining, .. } = Standing::of(&grant.plan, &grant.handle, limits, now_us)?;
            Some(Stood { name: grant.plan.limit.name.clone(), limit, remaining })
        };
        self.grants.iter().filter_map(stood).collect()
    }
}

/// Structured fields: lists of the policies and of how the client stands with each (RFC 9651).
#[derive(Default)]
struct Words {
    policies: Option<HeaderValue>,
    standings: String,
    /// The older fields know one limit: the one with the least left.
    least: Option<Standing>,
}

impl Words {
    fn add(&mut self, name: &str, policy: &HeaderValue, standing: Standing) {
        match &self.policies {
            None => {
                self.policies = Some(policy.clone());
                // To the byte: a field takes memory that is full as its own, and allocates once more for any other.
                self.standings.reserve_exact(standing.bytes(name));
            }
            Some(before) => {
                let all = [before.as_bytes(), policy.as_bytes()].join(&b", "[..]);
                self.policies = HeaderValue::from_bytes(&all).ok();
                self.standings.push_str(", ");
            }
        }
        // A String takes whatever is written.
        let _ = write!(self.standings, "\"{name}\";r={};t={}", standing.remaining, standing.reset_s);
        if self.least.is_none_or(|least| standing.remaining < least.remaining) {
            self.least = Some(standing);
        }
    }

    fn write(self, style: Style, headers: &mut HeaderMap) {
        match (style, self.least) {
            (Style::Off, _) | (_, None) => {}
            (Style::Draft10, Some(_)) => {
                if let (Some(policies), Ok(standings)) = (self.policies, HeaderValue::try_from(self.standings)) {
                    headers.insert(POLICY, policies);
                    headers.insert(STANDING, standings);
                }
            }
            (Style::XRateLimit, Some(least)) => {
                headers.insert(X_LIMIT, HeaderValue::from(least.limit));
                headers.insert(X_REMAINING, HeaderValue::from(least.remaining));
                headers.insert(X_RESET, HeaderValue::from(least.reset_s));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standing_with_one_limit_fills_its_memory() {
        for (remaining, reset_s) in [(0, 0), (1, 9), (10, 99), (100, 60), (u64::MAX, 999_999)] {
            let standing = Standing { limit: u64::MAX, remaining, reset_s };
            let mut words = Words::default();
            words.add("free-tier", &HeaderValue::from_static("\"free-tier\";q=1;w=1"), standing);
            let expected = format!("\"free-tier\";r={remaining};t={reset_s}");
            assert_eq!((&*words.standings, words.standings.capacity()), (&*expected, expected.len()));
        }
    }
}
