//! What must survive: the log, the vote, snapshots and the journal, and `model::State` behind openraft's traits.

pub mod identity;
pub mod journal;
pub mod store;
pub mod types;
pub mod wire;

pub use identity::Identity;
pub use journal::Journal;
pub use store::{Opened, Options, SnapshotFile, StoreHealth, open, prepare};
pub use types::*;
