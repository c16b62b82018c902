//! Limits: what this node spends of the cluster's budgets, decided on every request without asking anybody.
//!
//! Workers take from leases (`quorumgate_model::ledger::lease`), which are found by a limit's key in a concurrent table.
//! Behind them is one `Holder`, which the control plane drives: only the first request of a key, and requests of limits
//! whose slots are lent one by one, ask it. Without a control plane nothing is lent, and `on_no_quorum` decides.

mod admit;
mod answer;
mod count;
mod drive;
mod key;
mod plan;
mod tally;
mod usage;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize},
};

use arc_swap::ArcSwap;
use quorumgate_model::ledger::{command::Key, holder::Holder};
use tokio::sync::{Notify, mpsc, watch};

use self::plan::Plans;
pub(crate) use self::{
    admit::{Admitted, Asked, Known, Tokens, admit},
    answer::{OverLimit, Stood},
};
pub use self::{
    answer::Style,
    usage::{Decisions, KeyUse, Keys, LimitUse, key_text},
};

/// Keys that wait to be looked at by the holder; what does not fit is told again by the next request.
const SIGNALS_MAX: usize = 4_096;
/// Keys of limits of mode `local`.
const LOCAL_KEYS_MAX: usize = 1_000_000;

/// One per process, shared by the workers and by the control plane's driver.
pub struct Limits {
    plans: ArcSwap<Plans>,
    holder: Mutex<Option<Holder>>,
    /// Into how many shares budgets are cut: read where the holder must not be asked.
    divisor: AtomicU64,
    /// The ledger's version that this node has applied; waiters look again when it changes.
    applied: watch::Sender<u64>,
    signals: mpsc::Sender<Key>,
    signalled: Mutex<mpsc::Receiver<Key>>,
    wake: Notify,
    local_keys: Arc<AtomicUsize>,
    /// Of a node that has just started: how long its first session is waited for. 0: it is there, or nobody waits.
    expected_until_us: AtomicU64,
    /// Messages to the ledger that this node sent.
    proposals: AtomicU64,
}

impl Default for Limits {
    fn default() -> Self {
        let (signals, signalled) = mpsc::channel(SIGNALS_MAX);
        Self {
            plans: ArcSwap::default(),
            holder: Mutex::default(),
            divisor: AtomicU64::new(0),
            applied: watch::Sender::new(0),
            signals,
            signalled: Mutex::new(signalled),
            wake: Notify::new(),
            local_keys: Arc::default(),
            expected_until_us: AtomicU64::new(0),
            proposals: AtomicU64::new(0),
        }
    }
}
