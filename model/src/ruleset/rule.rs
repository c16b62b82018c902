//! One compiled route: where its path stands and the conditions beside it, with nothing left to parse per request.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::{
    condition::{Condition, Field, Test},
    json_text::Bodies,
    rank::MethodRank,
    request::Request,
    split::{Arms, SplitSeed},
    transform::Transform,
};
use crate::{
    invalid::Invalid,
    resource::{Action, FieldMatch, FieldTest, PathPattern, Route, Split, check},
};

/// Bytes that one compiled regular expression may take, and its cache of states beside it.
pub const REGEX_BYTES_MAX: usize = 256 << 10;
/// Bytes of the text of a regular expression.
pub const REGEX_TEXT_BYTES_MAX: usize = 4 << 10;

/// One compiled route.
#[derive(Debug)]
pub struct Rule {
    pub route: Arc<Route>,
    /// Why this node cannot compile it: it answers 500 `broken_rule`, and the rest stands. It takes what its host, path
    /// and methods match, the other conditions taken as met; where the path itself is what cannot be compiled, every
    /// path. A request must not slip to a lesser route because of a node's age.
    pub broken: Option<String>,
    /// What becomes of path and query beyond a changed prefix.
    pub transform: Option<Box<Transform>>,
    /// What goes on in the place of bodies.
    pub bodies: Option<Box<Bodies>>,
    arms: Option<Arms>,
    pub(super) place: Place,
    pub(super) conditions: Vec<Condition>,
}

/// Where a rule stands among the paths of a host.
#[derive(Debug)]
pub(super) enum Place {
    Exact(String),
    Template(Vec<Segment>),
    Prefix(String),
    /// With the text that every path it takes begins with: cheap to ask first where a host has many.
    Regex(String, Regex),
    /// A regex or template that cannot be compiled here.
    Unknown,
    Any,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(String),
    Param(String),
}

impl Rule {
    pub fn new(route: Arc<Route>) -> Self {
        Self::seeded(route, SplitSeed::default())
    }

    pub(super) fn seeded(route: Arc<Route>, seed: SplitSeed) -> Self {
        let (place, path_broken) = match place(&route.matches.path) {
            Ok(place) => (place, None),
            Err(invalid) => (Place::Unknown, Some(invalid)),
        };
        let (conditions, broken) = match conditions(&route) {
            Ok(conditions) => (conditions, None),
            Err(invalid) => (Vec::new(), Some(invalid)),
        };
        let (transform, unmade) = match Transform::new(&route) {
            Ok(transform) => (transform, None),
            Err(invalid) => (None, Some(invalid)),
        };
        let (bodies, unsaid) = match Bodies::new(&route) {
            Ok(bodies) => (bodies, None),
            Err(invalid) => (None, Some(invalid)),
        };
        let arms = match &route.action {
            Action::Split(split) => Some(Arms::new(split, seed)),
            _ => None,
        };
        let broken = path_broken.or(broken).or(unmade).or(unsaid).map(|invalid| invalid.to_string());
        Self { route, broken, transform, bodies, arms, place, conditions }
    }

    /// Where its traffic is dealt out to.
    pub fn split(&self) -> Option<(&Split, &Arms)> {
        match &self.route.action {
            Action::Split(split) => Some((split, self.arms.as_ref()?)),
            _ => None,
        }
    }

    /// The values of a template's parameters in a canonical path that the rule matches, as they stand in the path.
    pub fn params<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let segments: &[Segment] = match &self.place {
            Place::Template(segments) => segments,
            _ => &[],
        };
        let values = path.strip_prefix('/').unwrap_or(path).split('/');
        segments.iter().zip(values).filter_map(|(segment, value)| match segment {
            Segment::Param(name) => Some((name.as_str(), value)),
            Segment::Literal(_) => None,
        })
    }

    /// The names of the path's parameters.
    pub fn param_names(&self) -> Vec<&str> {
        self.place.params().collect()
    }

    /// None: not this method.
    pub(super) fn takes_method(&self, method: &str) -> Option<MethodRank> {
        let methods = &self.route.matches.methods;
        let names = |method: &str| methods.iter().any(|named| named == method);
        if methods.is_empty() {
            return Some(MethodRank::Any);
        }
        match method {
            _ if names(method) => Some(MethodRank::Named),
            "HEAD" if names("GET") => Some(MethodRank::HeadByGet),
            _ => None,
        }
    }

    /// The path's place in the index has matched already; only a regex is left to ask.
    pub(super) fn takes_path(&self, path: &str) -> bool {
        match &self.place {
            Place::Regex(literal, regex) => path.starts_with(literal.as_str()) && regex.is_match(path),
            _ => true,
        }
    }

    /// Whether host, path and method say it all.
    pub(super) fn is_unconditional(&self) -> bool {
        self.conditions.is_empty() && !matches!(self.place, Place::Regex(..))
    }

    /// The first condition that the request does not meet.
    pub(super) fn unmet(&self, request: &Request<'_>) -> Option<&Condition> {
        self.conditions.iter().find(|condition| !condition.holds(request))
    }
}

/// Checks that a route compiles here (regular expressions within their size limit, template syntax).
pub fn check(route: &Route) -> Result<(), Invalid> {
    place(&route.matches.path)?;
    conditions(route)?;
    Transform::new(route)?;
    Bodies::new(route)?;
    Ok(())
}

pub(super) fn place(path: &PathPattern) -> Result<Place, Invalid> {
    Ok(match path {
        PathPattern::Any => Place::Any,
        PathPattern::Prefix(text) => Place::Prefix(text.clone()),
        PathPattern::Exact(text) => Place::Exact(text.clone()),
        PathPattern::Template(text) => Place::Template(template(text)?),
        PathPattern::Regex(text) => Place::Regex(literal_start(text), regex("match.path_regex", text)?),
    })
}

/// `/orders/{id}`: a parameter is one whole segment that is not empty.
fn template(text: &str) -> Result<Vec<Segment>, Invalid> {
    const FIELD: &str = "match.path_template";
    let wrong = |allowed: &str| Err(Invalid::field(FIELD).found(format!("{text:?}")).allowed(allowed));
    let Some(rest) = text.strip_prefix('/') else {
        return wrong("a path that begins with /, such as /orders/{id}");
    };
    let mut segments = Vec::new();
    let mut names = Vec::new();
    for part in rest.split('/') {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                if name.is_empty() || !name.bytes().all(plain) {
                    return wrong("parameters named with letters, digits and _, such as {id}");
                }
                names.push(name.to_owned());
                segments.push(Segment::Param(name.to_owned()));
            }
            None if part.contains(['{', '}']) => return wrong("parameters that are whole segments, such as /{id}/"),
            None => segments.push(Segment::Literal(part.to_owned())),
        }
    }
    if names.is_empty() {
        return wrong("at least one parameter such as {id}; use path_exact for a path without");
    }
    if check::once(FIELD, &names, String::clone).is_err() {
        return wrong("each parameter's name once");
    }
    // A parameter stands for some name; what is left must be canonical around it.
    let sample: String = segments.iter().flat_map(|it| ["/", it.literal().unwrap_or("x")]).collect();
    check::canonical_path(FIELD, &sample)?;
    Ok(segments)
}

impl Segment {
    fn literal(&self) -> Option<&str> {
        match self {
            Segment::Literal(text) => Some(text),
            Segment::Param(_) => None,
        }
    }
}

fn conditions(route: &Route) -> Result<Vec<Condition>, Invalid> {
    let matches = &route.matches;
    let mut out = Vec::new();
    for (place, it) in matches.headers.iter().enumerate() {
        out.push(Condition::Header(field("headers", place, it)?));
    }
    for (place, it) in matches.query.iter().enumerate() {
        out.push(Condition::Query(field("query", place, it)?));
    }
    for (place, it) in matches.cookies.iter().enumerate() {
        out.push(Condition::Cookie(field("cookies", place, it)?));
    }
    if !matches.client_cidrs.is_empty() {
        out.push(Condition::ClientCidrs(matches.client_cidrs.clone()));
    }
    if !matches.sni.is_empty() {
        out.push(Condition::Sni(matches.sni.clone()));
    }
    if !matches.listeners.is_empty() {
        out.push(Condition::Listeners(matches.listeners.clone()));
    }
    Ok(out)
}

fn field(list: &str, place: usize, it: &FieldMatch) -> Result<Field, Invalid> {
    let test = match &it.test {
        FieldTest::Exact(text) => Test::Exact(text.clone()),
        FieldTest::Regex(text) => Test::Regex(regex(&format!("match.{list}[{place}].regex"), text)?),
        FieldTest::Present => Test::Present,
        FieldTest::Absent => Test::Absent,
    };
    Ok(Field { name: it.name.clone(), test })
}

/// Matches the whole text, as Envoy's implementation of the Gateway API does: `/a` does not take `/a/b`.
fn regex(field: &str, text: &str) -> Result<Regex, Invalid> {
    check::length(field, text, REGEX_TEXT_BYTES_MAX)?;
    // Alone first: `a)|(?:b` would otherwise break out of the group that anchors it.
    let compiled = compile(text).and_then(|_| compile(&format!(r"\A(?:{text})\z")));
    compiled.map_err(|error| bad_regex(field, text, &error, "that matches the whole text"))
}

/// Matches any part of a text.
pub(super) fn regex_within(field: &str, text: &str) -> Result<Regex, Invalid> {
    check::length(field, text, REGEX_TEXT_BYTES_MAX)?;
    compile(text).map_err(|error| bad_regex(field, text, &error, "that matches a part of the text"))
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
}

fn bad_regex(field: &str, text: &str, error: &regex::Error, matches: &str) -> Invalid {
    let allowed = match error {
        regex::Error::CompiledTooBig(_) => format!(
            "a regular expression that compiles to at most {} KiB; [0-9] and [A-Za-z] are smaller than \\d and \\w",
            REGEX_BYTES_MAX >> 10
        ),
        error => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("a linear-time regular expression {matches} ({reason})")
        }
    };
    Invalid::field(field).found(format!("{text:?}")).allowed(allowed)
}

/// The literal text that a pattern surely begins with; empty when in doubt. An alternation could begin otherwise, and
/// before `*`, `?` and `{` the last character may be absent.
fn literal_start(pattern: &str) -> String {
    if pattern.contains('|') {
        return String::new();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-%~:@!,;=".contains(c);
    let end = pattern.find(|c| !plain(c)).unwrap_or(pattern.len());
    let optional = pattern[end..].starts_with(['*', '?', '{']);
    pattern[..end - usize::from(optional && end > 0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_start_of_a_pattern_is_never_too_long() {
        for (pattern, expected) in [
            ("/n/[0-9]+", "/n/"),
            ("/a", "/a"),
            ("/ab*", "/a"),
            ("/ab?c", "/a"),
            ("/ab{0,2}", "/a"),
            ("/ab+", "/ab"),
            ("/a.b", "/a"),
            (r"/a\.b", "/a"),
            ("/a|/b", ""),
            ("/a/(b|c)", ""),
            ("(?i)/a", ""),
            ("^/a", ""),
            ("*", ""),
            ("", ""),
        ] {
            assert_eq!(literal_start(pattern), expected, "{pattern}");
        }
    }
}
