//! The controller of the Kubernetes Gateway API: what a cluster's objects say becomes the objects of one owner of a
//! Quorumgate cluster, by one ApplyConfig a change, and what became of them goes back as their status conditions.
//!
//! A pure translation (`translate`) with a thin loop around it: `watch` keeps a `Snapshot`, `control` applies what it
//! means and writes what `status` makes of the answer.

#[cfg(feature = "controller")]
pub mod admin;
pub mod api;
#[cfg(feature = "controller")]
pub mod client;
pub mod conditions;
#[cfg(feature = "controller")]
pub mod control;
pub mod names;
pub mod snapshot;
#[cfg(feature = "controller")]
pub mod status;
pub mod translate;
#[cfg(feature = "controller")]
pub mod watch;

/// `spec.controllerName` of the GatewayClasses that are this controller's.
pub const CONTROLLER: &str = "quorumgate.io/gateway-controller";
/// Whose all objects are that the controller writes.
pub const OWNER: &str = "k8s";
/// The group of the Gateway API.
pub const GROUP: &str = "gateway.networking.k8s.io";
