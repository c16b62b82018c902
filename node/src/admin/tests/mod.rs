//! The admin API over its real listeners, against a cluster of one node.

mod access;
mod config;
mod fixture;
mod identity;
mod watch;
