//! Budgets of the whole cluster: what nodes hold of a limit and spend without asking.
//!
//! `bucket` is the admission core of a holder, used as it is by the proxy's workers and by the simulation.

pub mod bucket;
