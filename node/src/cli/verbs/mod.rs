//! The verbs that ask a node: each makes one call and prints its answer.

pub mod apis;
pub mod audit;
pub mod audit_export;
pub mod backup;
pub mod bans;
pub mod cache;
pub mod cluster;
pub mod contexts;
pub mod doctor;
pub mod exchanges;
pub mod explain;
pub mod fetch;
pub mod files;
pub mod history;
pub mod keys;
pub mod limits;
pub mod logs;
pub mod nodes;
pub mod objects;
pub mod revocations;
pub mod rotate_ca;
pub mod tokens;
pub mod top;
pub mod upstream_health;
pub mod watch;
