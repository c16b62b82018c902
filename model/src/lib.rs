//! What the cluster agrees on and what follows from it: resources, commands, state, routes and membership rules.
//!
//! Pure: no I/O, no clock, no randomness, no floats, no hash order. Time and identity come in as arguments.

pub mod anomaly;
pub mod ban;
pub mod canonical;
pub mod change;
pub mod command;
pub mod convert;
pub mod credential;
pub mod digest;
pub mod invalid;
pub mod ledger;
pub mod membership;
pub mod mutants;
pub mod purge;
pub mod resource;
pub mod revocation;
pub mod ruleset;
pub mod sealed;
pub mod snapshot;
pub mod state;
pub mod template;
pub mod timing;
pub mod units;

/// The feature level of this build: the highest command and record kinds it understands.
pub const LEVEL: u32 = 6;

/// A raft member's number: the log index of the `AdmitNode` entry that let it in; 1 for the founder. Never reused.
pub type NodeId = u64;
