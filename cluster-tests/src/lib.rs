//! Whole clusters of real processes: started, loaded, killed, cut off and compared. Nothing here is shipped.

pub mod admin;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod issuer;
pub mod lanes;
pub mod load;
pub mod origin;
pub mod scenarios;

pub use admin::Admin;
pub use cluster::{Cluster, Member, Plan};
