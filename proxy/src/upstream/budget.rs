//! How many retries may run at once: a share of an upstream's active requests, so that retries cannot multiply a fault.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::origin::Origin;

/// Always allowed, however small the share.
const RETRIES_MIN: u32 = 3;
/// How long a retry may wait for its place.
const WAIT_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Budget {
    running: AtomicU32,
    freed: Notify,
}

impl Budget {
    pub fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }
}

/// One retry under way.
pub(super) struct Permit(Arc<Budget>);

impl Permit {
    pub fn acquire(origin: &Origin) -> Option<Self> {
        let active: u32 = origin.members.iter().map(|member| member.endpoint.in_flight()).sum();
        let share = u64::from(active) * u64::from(origin.config.retries.budget_percent) / 100;
        let allowed = RETRIES_MIN.max(share as u32);
        let budget = &origin.standing.budget;
        // Counted first, so that two at once cannot both take the last place.
        if budget.running.fetch_add(1, Relaxed) < allowed {
            return Some(Self(budget.clone()));
        }
        budget.running.fetch_sub(1, Relaxed);
        None
    }

    /// When a retry cannot multiply a fault, because it goes to a target without one, it waits for its place.
    pub async fn wait(origin: &Origin) -> Option<Self> {
        let place = async {
            loop {
                let freed = origin.standing.budget.freed.notified();
                if let Some(permit) = Self::acquire(origin) {
                    return permit;
                }
                freed.await;
            }
        };
        timeout(WAIT_MAX, place).await.ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}
