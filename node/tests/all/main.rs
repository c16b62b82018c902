//! A node, from its commands to its peers. One program, so that it is linked once.

mod backup;
mod cli;
mod cli_access;
mod cli_node;
mod consensus;
mod members;
mod on_call;
mod renewal;
mod snapshots;
mod strangers;
