//! How many retries may run at once: a share of an upstream's active requests, so that retries cannot multiply a fault.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::registry::Origin;

/// Always allowed, however small the share.
const RETRIES_MIN: u32 = 3;

/// One retry under way.
pub(super) struct Permit(Arc<AtomicU32>);

impl Permit {
    pub fn acquire(origin: &Origin) -> Option<Self> {
        let active: u32 = origin.members.iter().map(|member| member.endpoint.in_flight()).sum();
        let share = u64::from(active) * u64::from(origin.config.retries.budget_percent) / 100;
        let allowed = RETRIES_MIN.max(share as u32);
        let permit = Self(origin.retrying.clone());
        // Counted first, so that two at once cannot both take the last place.
        let before = permit.0.fetch_add(1, Relaxed);
        (before < allowed).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
