//! The admin API over its real listeners, against a cluster of one node.

mod access;
mod config;
mod credentials;
pub(crate) mod fixture;
mod governance;
mod identity;
mod limits;
mod logs;
mod people;
mod tls;
mod upstreams;
mod watch;
