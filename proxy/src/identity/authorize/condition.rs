//! One condition: everything that is given must hold. What is cheap is asked first, the expression last.

use std::borrow::Cow;

use quorumgate_model::{
    canonical::{self, Slashes},
    invalid::Invalid,
    resource::{self, AuthorizeRule, Effect, Name, ParamSource, PathPattern},
};
use serde_json::Value;

use super::{Asked, Callers, cel::Expression};
use crate::identity::{Claims, claims::claim};

#[derive(Debug)]
pub(super) struct Condition {
    effect: Effect,
    words: resource::Condition,
    /// The route's template, where parameters are asked for.
    template: Template,
    expression: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds,
    Not,
    /// It would hold but for a scope.
    LacksScope,
    /// A path parameter or what it should equal is missing.
    Unknown,
    /// The expression came to no answer.
    Failed,
}

/// `/users/{user_id}/orders`: None stands for a literal segment.
#[derive(Debug, Default)]
pub(super) struct Template(Box<[Option<Box<str>>]>);

impl Condition {
    pub(super) fn compile(rule: &AuthorizeRule, path: &PathPattern) -> Result<Self, Invalid> {
        let words = &rule.condition;
        let expression = words.cel.as_deref().map(Expression::compile).transpose();
        let expression = expression.map_err(|invalid| invalid.under("cel"))?;
        let template = match path {
            PathPattern::Template(text) => Template::parse(text),
            _ => Template::default(),
        };
        Ok(Self { effect: rule.effect, words: words.clone(), template, expression })
    }

    pub(super) fn holds(&self, asked: &Asked<'_>, callers: Callers<'_>) -> Outcome {
        let it = &self.words;
        if !it.methods.is_empty() && !takes_method(&it.methods, asked.method) {
            return Outcome::Not;
        }
        if !it.paths.is_empty() && !self.takes_path(asked.path) {
            return Outcome::Not;
        }
        if !it.cidrs.is_empty() && !it.cidrs.iter().any(|net| net.contains(&asked.client_ip)) {
            return Outcome::Not;
        }
        if !self.takes_consumer(callers) || !takes_claims(it, callers.claims()) {
            return Outcome::Not;
        }
        let params = self.params_equal(asked.path, callers);
        if params != Outcome::Holds {
            return params;
        }
        if let Some(expression) = &self.expression {
            match expression.is_true(asked, &self.template, callers) {
                Ok(true) => {}
                Ok(false) => return Outcome::Not,
                Err(()) => return Outcome::Failed,
            }
        }
        let all = it.scopes_all.iter().all(|scope| callers.has_scope(scope));
        let any = it.scopes_any.is_empty() || it.scopes_any.iter().any(|scope| callers.has_scope(scope));
        if all && any { Outcome::Holds } else { Outcome::LacksScope }
    }

    /// An encoded slash is none to an allow. To a deny it may be one, on a route that preserves it: the upstream decides,
    /// and what it may take for the forbidden path is forbidden.
    fn takes_path(&self, path: &str) -> bool {
        let below = |path: &str| self.words.paths.iter().any(|prefix| is_below(path, prefix));
        if below(path) {
            return true;
        }
        self.effect == Effect::Deny
            && canonical::has_encoded_slash(path)
            && canonical::path(&with_slashes(path), Slashes::Merge).map_or(true, |read| below(&read))
    }

    fn takes_consumer(&self, callers: Callers<'_>) -> bool {
        let (names, groups) = (&self.words.consumers, &self.words.groups);
        let named = || callers.consumer().is_some_and(|consumer| names.contains(&consumer.name));
        let grouped = || callers.groups().any(|has| groups.iter().any(|group| group == has));
        (names.is_empty() || named()) && (groups.is_empty() || grouped())
    }

    /// The guard against reading what is another's: each named parameter equals its source.
    fn params_equal(&self, path: &str, callers: Callers<'_>) -> Outcome {
        for (param, source) in &self.words.params_equal {
            let (Some(found), Some(wanted)) = (self.template.param(path, param), sourced(source, callers)) else {
                return Outcome::Unknown;
            };
            if found != wanted {
                return Outcome::Not;
            }
        }
        Outcome::Holds
    }
}

fn takes_method(methods: &[String], method: &str) -> bool {
    let named = |method: &str| methods.iter().any(|it| it == method);
    named(method) || (method == "HEAD" && named("GET"))
}

/// As a server reads it that decodes everything before it looks for segments. A canonical path has its escapes in capitals.
fn with_slashes(path: &str) -> String {
    path.replace("%2F", "/").replace("%5C", "/")
}

/// By whole segments, as routes match prefixes.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn takes_claims(it: &resource::Condition, claims: Option<&Claims>) -> bool {
    let holds = |(name, values): (&String, &Vec<String>)| {
        let found = claims.and_then(|claims| claim(claims, name));
        match found {
            Some(Value::Array(list)) => list.iter().any(|item| is_one_of(item, values)),
            Some(found) => is_one_of(found, values),
            None => false,
        }
    };
    it.claims.iter().all(holds)
}

fn is_one_of(found: &Value, values: &[String]) -> bool {
    text(found).is_some_and(|found| values.iter().any(|value| *value == found))
}

/// A claim as text; None for lists, maps and null.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(flag) => Some(if *flag { "true" } else { "false" }.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// None too where it is empty: an empty text is nobody's name.
fn sourced<'a>(source: &ParamSource, callers: Callers<'a>) -> Option<Cow<'a, str>> {
    let found = match source {
        ParamSource::Claim(name) => text(claim(callers.claims()?, name)?),
        ParamSource::ConsumerName => callers.consumer().map(|consumer| name_of(&consumer.name)),
    };
    found.filter(|found| !found.is_empty())
}

fn name_of(name: &Name) -> Cow<'_, str> {
    Cow::Borrowed(name)
}

impl Template {
    fn parse(text: &str) -> Self {
        let segment = |part: &str| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).map(Box::<str>::from);
        Self(text.trim_start_matches('/').split('/').map(segment).collect())
    }

    /// What stands in the path, percent-decoded: as the upstream will read it. None where it is not UTF-8.
    pub(super) fn param<'p>(&self, path: &'p str, name: &str) -> Option<Cow<'p, str>> {
        let place = self.0.iter().position(|it| it.as_deref() == Some(name))?;
        decoded(path.strip_prefix('/')?.split('/').nth(place)?)
    }

    pub(super) fn params<'t, 'p>(&'t self, path: &'p str) -> impl Iterator<Item = (&'t str, Option<Cow<'p, str>>)> {
        let named = self.0.iter().filter_map(|it| it.as_deref());
        named.map(move |name| (name, self.param(path, name)))
    }
}

/// A canonical path has no broken escapes.
pub(super) fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| byte == b'%');
        match escape.and_then(|digits| data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()) {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
