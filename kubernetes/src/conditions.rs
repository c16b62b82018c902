//! What is said of an object: conditions with the types and reasons of the Gateway API, before anybody knows whether the
//! nodes have applied it.

use serde_json::Value;

use crate::api::{Id, Kind};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Such as `Accepted`.
    pub kind: &'static str,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
    /// A state of the nodes: it is told once every node serves it.
    pub gated: bool,
}

impl Condition {
    /// Good, once every node serves it.
    pub fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into(), gated: true }
    }

    pub fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into(), gated: false }
    }

    /// About the words alone: nothing has to be applied for it.
    pub fn at_once(self) -> Self {
        Self { gated: false, ..self }
    }
}

pub const ACCEPTED: &str = "Accepted";
pub const RESOLVED_REFS: &str = "ResolvedRefs";
pub const PROGRAMMED: &str = "Programmed";
pub const CONFLICTED: &str = "Conflicted";

/// What is to stand in an object's status.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub kind: Kind,
    pub id: Id,
    pub generation: i64,
    pub status: Status,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    Class(Vec<Condition>),
    Gateway {
        conditions: Vec<Condition>,
        listeners: Vec<ListenerStatus>,
        addresses: Vec<Value>,
    },
    /// Of a route: one for each parent that is ours.
    Parents(Vec<Party>),
    /// Of a policy: one for each Gateway that it has to do with.
    Ancestors(Vec<Party>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerStatus {
    pub name: String,
    pub kinds: Vec<Kind>,
    pub attached: usize,
    pub conditions: Vec<Condition>,
}

/// `parentRef` or `ancestorRef` with what is said to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Party {
    pub reference: Value,
    pub conditions: Vec<Condition>,
}
