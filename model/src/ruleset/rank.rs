//! The order of precedence among routes that take the same request: the lower rank wins.

use std::cmp::Reverse;

use super::rule::{Place, Rule, Segment};
use crate::resource::HostPattern;

/// Compared field by field, top to bottom; routes that are equal in all of them go by name. (The Gateway API would ask
/// for the older one before the name: a route's age is not part of the agreed resources, its name is.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub priority: Reverse<i32>,
    pub host: HostRank,
    pub path: PathRank,
    pub method: MethodRank,
    pub headers: Reverse<u32>,
    pub query: Reverse<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRank {
    Exact,
    /// Bytes of the suffix: the longer is the more specific.
    Suffix(Reverse<u32>),
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathRank {
    Exact,
    /// Literal segments.
    Template(Reverse<u32>),
    /// Bytes.
    Prefix(Reverse<u32>),
    Regex,
    /// No word about the path: below a regex, where an explicit `path_prefix: /` is above it.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MethodRank {
    Named,
    /// HEAD on a route that names GET and not HEAD.
    HeadByGet,
    Any,
}

impl Rank {
    /// The rank of a rule among those of one host pattern (None: every host).
    pub fn of(rule: &Rule, host: Option<&HostPattern>) -> Self {
        let matches = &rule.route.matches;
        Self {
            priority: Reverse(rule.route.priority),
            host: match host {
                Some(HostPattern::Exact(_)) => HostRank::Exact,
                Some(HostPattern::Suffix(suffix)) => HostRank::Suffix(Reverse(suffix.len() as u32)),
                None => HostRank::Any,
            },
            path: match &rule.place {
                Place::Exact(_) => PathRank::Exact,
                Place::Template(segments) => {
                    let literals = segments.iter().filter(|segment| matches!(segment, Segment::Literal(_)));
                    PathRank::Template(Reverse(literals.count() as u32))
                }
                Place::Prefix(prefix) => PathRank::Prefix(Reverse(prefix.len() as u32)),
                Place::Regex(..) | Place::Unknown => PathRank::Regex,
                Place::Any => PathRank::Any,
            },
            method: match matches.methods.is_empty() {
                true => MethodRank::Any,
                false => MethodRank::Named,
            },
            headers: Reverse(matches.headers.len() as u32),
            query: Reverse(matches.query.len() as u32),
        }
    }
}
