//! How the sending of audit trails stands: for /metrics, and for `doctor` on any node.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::place::Place;

/// As it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivered {
    pub sent: u64,
    pub lost: u64,
    /// Entries that the collector does not have yet, and for how long it has taken none of them.
    pub waiting: u64,
    pub stuck: Duration,
    /// Why the last attempt failed; empty if it did not.
    pub trouble: String,
}

pub struct Progress(Mutex<Inner>);

struct Inner {
    sent: u64,
    lost: u64,
    place: Place,
    /// Since there was something to send, or something was taken.
    since: Instant,
    trouble: String,
}

impl Default for Progress {
    fn default() -> Self {
        let (sent, lost, place, trouble) = Default::default();
        Self(Mutex::new(Inner { sent, lost, place, since: Instant::now(), trouble }))
    }
}

impl Progress {
    /// Against the trails as they are: how many entries the cluster's has, and this node's own.
    pub fn against(&self, mutations: u64, denials: u64) -> Delivered {
        let inner = self.inner();
        let waiting =
            mutations.saturating_sub(inner.place.mutations.count) + denials.saturating_sub(inner.place.denials);
        let stuck = if waiting > 0 { inner.since.elapsed() } else { Duration::ZERO };
        Delivered { sent: inner.sent, lost: inner.lost, waiting, stuck, trouble: inner.trouble.clone() }
    }

    /// There is something to send again.
    pub fn woke(&self) {
        self.inner().since = Instant::now();
    }

    pub fn moved(&self, place: Place, sent: u64, lost: u64) {
        let mut inner = self.inner();
        inner.sent += sent;
        inner.lost += lost;
        (inner.place, inner.since) = (place, Instant::now());
        inner.trouble.clear();
    }

    /// Whether it went well before.
    pub fn failed(&self, why: &str) -> bool {
        let mut inner = self.inner();
        let before = std::mem::replace(&mut inner.trouble, why.to_owned());
        before.is_empty()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::state::AuditHead;

    use super::*;

    #[test]
    fn what_waits_is_what_the_collector_has_not_taken() {
        let progress = Progress::default();
        assert_eq!(progress.against(0, 0), Delivered::default());
        assert_eq!(progress.against(5, 2).waiting, 7);
        assert!(progress.failed("refused") && !progress.failed("refused"), "told once");
        let place = Place { mutations: AuditHead { count: 5, ..AuditHead::default() }, denials: 1 };
        progress.moved(place, 6, 1);
        let delivered = progress.against(5, 2);
        assert_eq!((delivered.sent, delivered.lost, delivered.waiting, delivered.trouble.as_str()), (6, 1, 1, ""));
        // A trail that is not read to its end yet, as after a start.
        assert_eq!(progress.against(3, 0), Delivered { sent: 6, lost: 1, ..Delivered::default() });
    }
}
