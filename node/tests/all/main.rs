//! A node, from its commands to its peers. One program, so that it is linked once.

mod accesses;
mod addresses;
mod ai;
mod authority;
mod backup;
mod cli;
mod cli_access;
mod cli_node;
mod consensus;
mod explained_elsewhere;
mod handed;
mod json_api;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod members;
mod models_on_three;
mod on_call;
mod otlp;
mod otlp_audit;
mod page;
mod renewal;
mod sealing;
mod snapshots;
mod strangers;
