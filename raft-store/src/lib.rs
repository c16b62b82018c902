//! What must survive: the log, the vote, snapshots and the journal, and `model::State` behind openraft's traits.

pub mod backup;
mod departures;
mod disk;
mod due;
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod identity;
pub mod journal;
mod log_store;
mod machine;
pub mod own_chain;
mod salvage;
mod snapshots;
pub mod store;
mod syncs;
pub mod types;
mod wal;
pub mod wire;

pub use departures::{Denied, Departure, Departures};
pub use identity::Identity;
pub use journal::Journal;
pub use log_store::LogStore;
pub use machine::{Builder, Machine};
pub use salvage::{Salvaged, salvage};
pub use snapshots::{Receiving, SNAPSHOT_BYTES_MAX, SnapshotFile};
pub use store::{Opened, Options, StoreHealth, open, prepare, prepare_from};
pub use syncs::{SYNC_BOUNDS_US, Syncs};
pub use types::*;
pub use wal::{PurgeFloor, RECORD_BYTES_MAX as ENTRY_BYTES_MAX};

#[cfg(test)]
mod tests;
