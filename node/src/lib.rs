//! One process: consensus, peer transport, admin API, CLI, telemetry, boot and shutdown.

mod access;
pub mod admin;
pub mod anomaly;
pub mod boot;
mod calendar;
pub mod cli;
mod compile;
pub mod consensus;
mod denials;
mod failures;
#[doc(hidden)]
pub mod fuzzing;
mod handed;
pub mod init;
pub mod join;
mod keyring;
pub mod leases;
mod notify;
mod own_trail;
pub mod peer;
pub mod pki;
pub mod portal;
pub mod providers;
pub mod publish;
pub mod receive;
pub mod refound;
mod reload;
mod sealed;
pub mod secrets;
pub mod settings;
pub mod tasks;
pub mod telemetry;
pub mod usage;

/// The build's version, as `version`, `node ls` and the peers' hello show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
