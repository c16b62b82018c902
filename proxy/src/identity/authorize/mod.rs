//! Authorization: a route's rules, compiled once, asked about every request. The first allow or deny that holds decides;
//! where a route has rules and none holds, the answer is no.

mod cel;
mod condition;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::HeaderMap;
use quorumgate_model::{
    invalid::Invalid,
    resource::{Consumer, Effect, Route},
};

use self::condition::{Condition, Outcome};
use super::{Caller, Claims};

pub use self::cel::{COST_MAX, NODES_MAX, Statement};

/// The rules of one route.
#[derive(Debug)]
pub struct Authorization {
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    /// Its name, or `authorize[3]`.
    label: Box<str>,
    effect: Effect,
    condition: Condition,
}

/// One request as rules see it.
pub struct Asked<'a> {
    pub method: &'a str,
    /// Lower case, without a port.
    pub host: &'a str,
    /// Canonical.
    pub path: &'a str,
    /// Without the `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub client_ip: IpAddr,
}

/// Everyone that the request has shown itself to be; nobody on a route without auth.
#[derive(Clone, Copy, Default)]
pub struct Callers<'a> {
    pub first: Option<&'a Caller>,
    /// Where a route asks for all of several auths.
    pub also: &'a [Caller],
}

/// What the rules say, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<'r> {
    pub verdict: Verdict,
    /// The rule that decided, or the first that lacks a scope alone; None: none held.
    pub rule: Option<&'r str>,
    /// Rules with the effect log that held.
    pub logged: Vec<&'r str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// 403 access_denied.
    Deny,
    /// 403 insufficient_scope: some rule would have let it in but for a scope that the caller lacks.
    LacksScope,
    /// An expression came to no answer: 403 access_denied, and a word in the log.
    Failed,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::LacksScope => "lacks_scope",
            Self::Failed => "failed",
        }
    }
}

/// Whether this build takes the route's rules: expressions are compiled. Field paths are relative to the route.
pub fn check(route: &Route) -> Result<(), Invalid> {
    Authorization::compile(route).map(drop)
}

impl Authorization {
    /// None: the route has no rules, and everyone who has come this far may go on.
    pub fn compile(route: &Route) -> Result<Option<Self>, Invalid> {
        let rule = |(place, rule): (usize, &quorumgate_model::resource::AuthorizeRule)| {
            let field = format!("authorize[{place}]");
            let condition = Condition::compile(rule, &route.matches.path)
                .map_err(|invalid| invalid.under(rule.effect.word()).under(&field))?;
            let label = rule.name.as_ref().map_or(field, |name| name.to_string());
            Ok(Rule { label: label.into(), effect: rule.effect, condition })
        };
        let rules = route.authorize.iter().enumerate().map(rule).collect::<Result<Box<[Rule]>, Invalid>>()?;
        Ok((!rules.is_empty()).then_some(Self { rules }))
    }

    pub fn decide(&self, asked: &Asked<'_>, callers: Callers<'_>) -> Decision<'_> {
        let mut logged = Vec::new();
        let mut lacks_scope = None;
        for rule in &self.rules {
            let label = &*rule.label;
            let verdict = match (rule.effect, rule.condition.holds(asked, callers)) {
                (Effect::Allow, Outcome::Holds) => Verdict::Allow,
                (Effect::Allow, Outcome::LacksScope) => {
                    lacks_scope = lacks_scope.or(Some(label));
                    continue;
                }
                // A side of a comparison is missing: nobody is let in by it, and nobody slips past it.
                (Effect::Deny, Outcome::Holds | Outcome::Unknown) => Verdict::Deny,
                (Effect::Allow | Effect::Deny, Outcome::Failed) => Verdict::Failed,
                (Effect::Log, Outcome::Holds) => {
                    logged.push(label);
                    continue;
                }
                _ => continue,
            };
            return Decision { verdict, rule: Some(label), logged };
        }
        let verdict = if lacks_scope.is_some() { Verdict::LacksScope } else { Verdict::Deny };
        Decision { verdict, rule: lacks_scope, logged }
    }
}

impl<'a> Callers<'a> {
    fn all(self) -> impl Iterator<Item = &'a Caller> {
        self.first.into_iter().chain(self.also)
    }

    fn consumer(self) -> Option<&'a Consumer> {
        self.all().find_map(|caller| caller.consumer.as_deref())
    }

    fn groups(self) -> impl Iterator<Item = &'a str> {
        self.all().flat_map(Caller::groups)
    }

    /// Of the first token: two that disagree must not be mixed.
    fn claims(self) -> Option<&'a Claims> {
        self.all().find_map(|caller| caller.claims.as_deref())
    }

    fn has_scope(self, scope: &str) -> bool {
        self.all().any(|caller| caller.scopes.has(scope))
    }

    fn scopes(self) -> impl Iterator<Item = &'a str> {
        self.all().flat_map(|caller| caller.scopes.iter())
    }
}
