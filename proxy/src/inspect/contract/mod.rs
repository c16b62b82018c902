//! Contracts as requests and answers are held against them: one for all workers of a node, made when its rules are published.

mod answer;
mod compile;
mod deep;
mod forms;
mod request;
mod values;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use quorumgate_model::{
    invalid::Invalid,
    resource::{ContentForm, ParameterPlace, ParameterStyle, PathPiece, Policy, PolicyKind, PolicyMode, Tolerance},
    ruleset::Ruleset,
};

pub use self::answer::{Again, Watched};
pub(crate) use self::{
    answer::Promise,
    request::{Body, Entry, Visit},
};
use super::schema::{Id, Schemas, Shape};

/// A contract that can be asked.
#[derive(Debug)]
pub(crate) struct Contract {
    schemas: Schemas,
    mode: PolicyMode,
    responses: PolicyMode,
    body_max: u64,
    unknown: Tolerance,
    operations: Vec<Operation>,
    /// By how many segments they have; of each, the more literal before the others.
    paths: HashMap<usize, Vec<Path>>,
}

#[derive(Debug)]
struct Path {
    segments: Vec<Segment>,
    /// Each with its operation.
    methods: Vec<(String, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
    /// Both, such as `{name}.json`.
    Mixed(Vec<PathPiece>),
}

#[derive(Debug)]
struct Operation {
    mode: PolicyMode,
    parameters: Vec<Parameter>,
    body: Option<Taken>,
    answers: Vec<Answer>,
}

#[derive(Debug)]
struct Parameter {
    place: ParameterPlace,
    name: String,
    required: bool,
    /// None: any text.
    schema: Option<(Id, Shape)>,
    style: ParameterStyle,
    explodes: bool,
}

#[derive(Debug)]
struct Taken {
    required: bool,
    content: Vec<Content>,
}

#[derive(Debug)]
struct Content {
    media: String,
    /// None: whatever is in it.
    schema: Option<Id>,
    encoding: Vec<Encoding>,
}

/// How one member of a form is written.
#[derive(Debug)]
struct Encoding {
    name: String,
    /// Empty: as its schema has it.
    types: Vec<String>,
    style: ParameterStyle,
    explodes: bool,
}

#[derive(Debug)]
struct Answer {
    status: String,
    content: Vec<Content>,
}

/// How a body is read, and what it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) form: ContentForm,
    pub(crate) schema: Id,
    /// Of its content, among the others.
    at: usize,
}

/// Whether this build can carry the policy out.
pub fn check(policy: &Policy) -> Result<(), Invalid> {
    match &policy.kind {
        PolicyKind::Contract(it) => compile::contract(it).map(drop).map_err(|invalid| invalid.under("contract")),
        _ => Ok(()),
    }
}

/// The contracts of a node. Each keeps its policy, so that no other can take its address.
#[derive(Default)]
pub(crate) struct Contracts(Mutex<HashMap<usize, (Arc<Policy>, Compiled)>>);

/// None: this build cannot carry it out.
pub(crate) type Compiled = Option<Arc<Contract>>;

impl Contracts {
    /// Makes those that requests will ask for, and lets go of those that are gone.
    pub(crate) fn prepare(&self, rules: &Ruleset) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (policy, _)| rules.asks(policy));
        drop(kept);
        rules.inspections_of(|kind| matches!(kind, PolicyKind::Contract(_))).for_each(|policy| drop(self.of(policy)));
    }

    pub(crate) fn of(&self, policy: &Arc<Policy>) -> Compiled {
        let PolicyKind::Contract(it) = &policy.kind else { return None };
        let address = Arc::as_ptr(policy) as usize;
        if let Some((_, compiled)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address) {
            return compiled.clone();
        }
        // Not while others wait for the lock: a large one takes a while.
        let compiled = match compile::contract(it) {
            Ok(contract) => Some(Arc::new(contract)),
            Err(invalid) => {
                tracing::error!(policy = %policy.name, %invalid, "a contract cannot be carried out by this build");
                None
            }
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(address).or_insert((policy.clone(), compiled)).1.clone()
    }
}

/// What a contract says of a request.
enum Found<'c, 'p> {
    Operation(usize, Vec<(&'c str, &'p str)>),
    /// The methods that are taken here; none: nothing is known of the path.
    Unknown(Vec<String>),
}

impl Contract {
    /// The operation of a canonical path, with what stands in the place of its parameters.
    fn find<'p>(&self, method: &str, path: &'p str) -> Found<'_, 'p> {
        let given: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        let mut allowed = Vec::new();
        for it in self.paths.get(&given.len()).into_iter().flatten() {
            let Some(values) = it.values(&given) else { continue };
            // RFC 9110 9.3.2: HEAD is GET without what it would say.
            let of = |method: &str| it.methods.iter().find(|(name, _)| name == method);
            match of(method).or_else(|| of("GET").filter(|_| method == "HEAD")) {
                Some((_, operation)) => return Found::Operation(*operation, values),
                None => allowed.extend(it.methods.iter().map(|(name, _)| name.clone())),
            }
        }
        allowed.sort_unstable();
        allowed.dedup();
        Found::Unknown(allowed)
    }
}

impl Path {
    fn values<'p>(&self, given: &[&'p str]) -> Option<Vec<(&str, &'p str)>> {
        let mut values = Vec::new();
        for (segment, &text) in self.segments.iter().zip(given) {
            match segment {
                Segment::Literal(it) if it == text => {}
                Segment::Parameter(name) if !text.is_empty() => values.push((name.as_str(), text)),
                Segment::Mixed(pieces) => mixed(pieces, text, &mut values)?,
                _ => return None,
            }
        }
        Some(values)
    }
}

/// Each parameter is what comes before the next literal, the last all that is left.
fn mixed<'c, 'p>(pieces: &'c [PathPiece], mut text: &'p str, values: &mut Vec<(&'c str, &'p str)>) -> Option<()> {
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            PathPiece::Literal(it) => text = text.strip_prefix(it.as_str())?,
            PathPiece::Parameter(name) => {
                let end = match pieces.next() {
                    None => text.len(),
                    Some(PathPiece::Literal(it)) => {
                        // The last one has to be at the end.
                        let at = if pieces.peek().is_none() {
                            text.strip_suffix(it.as_str())?.len()
                        } else {
                            text.find(it.as_str())?
                        };
                        values.push((name.as_str(), &text[..at]));
                        (at > 0).then_some(())?;
                        text = &text[at + it.len()..];
                        continue;
                    }
                    Some(PathPiece::Parameter(_)) => return None,
                };
                (end > 0).then_some(())?;
                values.push((name.as_str(), text));
                text = "";
            }
        }
    }
    text.is_empty().then_some(())
}

/// Of a list of types the place of the one that is nearest to this.
fn nearest<'c>(list: impl Iterator<Item = &'c str> + Clone, media: &str) -> Option<usize> {
    let kind = media.split('/').next().unwrap_or_default();
    let find = |is: &dyn Fn(&str) -> bool| list.clone().position(is);
    find(&|it| it == media)
        .or_else(|| find(&|it| it.strip_suffix("/*").is_some_and(|it| it == kind)))
        .or_else(|| find(&|it| it == "*/*"))
}

#[cfg(test)]
mod tests;
