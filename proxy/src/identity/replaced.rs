//! A table that is replaced now and then, as workers read it: as long as it is not, a look-up changes no shared counter.

use std::{cell::RefCell, sync::Arc, thread::LocalKey};

use arc_swap::{ArcSwap, Cache};

/// The table that a worker found last. It keeps a replaced one until its next look-up, and may be the one who frees it then:
/// for what every request asks, and what is freed at once.
pub(super) type Seen<T> = RefCell<Option<Cache<Arc<ArcSwap<T>>, Arc<T>>>>;

pub(super) fn with<T, R>(seen: &'static LocalKey<Seen<T>>, table: &Arc<ArcSwap<T>>, read: impl FnOnce(&T) -> R) -> R {
    seen.with_borrow_mut(|seen| {
        let known = seen.take().filter(|it| std::ptr::eq(it.arc_swap(), &**table));
        read(seen.insert(known.unwrap_or_else(|| Cache::new(table.clone()))).load())
    })
}
