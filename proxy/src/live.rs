//! The exchanges of a worker that may last, each with what let it in: when that no longer holds, they are woken to end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use crate::{identity::Identity, worker::Worker};

/// What an exchange goes on by.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// None: nobody was asked who they are.
    pub(crate) identity: Option<Rc<Identity>>,
    /// The route is closed while the node is stale.
    pub(crate) fresh_only: bool,
    /// Seconds since 1970.
    pub(crate) ends_at: Option<u64>,
}

/// Why an exchange must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Revoked,
    Expired,
    Stale,
}

#[derive(Debug, Default)]
struct Slot {
    grant: Option<Grant>,
    ended: Option<Ended>,
    waker: Option<Waker>,
}

/// Slots are used again: an exchange that comes and goes allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct LiveTable {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    /// The second in which expiry was looked at last.
    looked_at: Cell<u64>,
    was_fresh: Cell<bool>,
}

/// An exchange's place in the table of its worker.
pub(crate) struct Live {
    worker: Rc<Worker>,
    slot: usize,
}

impl LiveTable {
    fn enter(&self, grant: Grant) -> usize {
        let slot = Slot { grant: Some(grant), ended: None, waker: None };
        let mut slots = self.slots.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(free) => {
                slots[free] = slot;
                free
            }
            None => {
                slots.push(slot);
                slots.len() - 1
            }
        }
    }

    fn leave(&self, slot: usize) {
        self.slots.borrow_mut()[slot] = Slot::default();
        self.free.borrow_mut().push(slot);
    }

    fn ended(&self, slot: usize, cx: &mut Context<'_>) -> Option<Ended> {
        let slot = &mut self.slots.borrow_mut()[slot];
        if slot.ended.is_none() {
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => slot.waker = Some(cx.waker().clone()),
            }
        }
        slot.ended
    }

    /// Ends what may not go on. `revoked` is asked of every identity; pass None where nothing has changed.
    pub(crate) fn sweep(&self, now_s: u64, fresh: bool, revoked: Option<&dyn Fn(&Identity) -> bool>) {
        let expiring = self.looked_at.replace(now_s) != now_s;
        let went_stale = self.was_fresh.replace(fresh) && !fresh;
        if !expiring && !went_stale && revoked.is_none() {
            return;
        }
        let why = |grant: &Grant| {
            if grant.fresh_only && !fresh {
                return Some(Ended::Stale);
            }
            let gone = |revoked: &dyn Fn(&Identity) -> bool| grant.identity.as_ref().is_some_and(|it| revoked(it));
            if revoked.is_some_and(gone) {
                return Some(Ended::Revoked);
            }
            grant.ends_at.is_some_and(|at| now_s >= at).then_some(Ended::Expired)
        };
        let mut wakers = Vec::new();
        for slot in &mut *self.slots.borrow_mut() {
            if slot.ended.is_none()
                && let Some(grant) = &slot.grant
                && let Some(ended) = why(grant)
            {
                slot.ended = Some(ended);
                wakers.extend(slot.waker.take());
            }
        }
        // Who wakes may leave the table at once.
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Live {
    pub(crate) fn enter(worker: &Rc<Worker>, grant: Grant) -> Self {
        Self { slot: worker.live.enter(grant), worker: worker.clone() }
    }

    /// Wakes the task when this becomes something.
    pub(crate) fn ended(&self, cx: &mut Context<'_>) -> Option<Ended> {
        self.worker.live.ended(self.slot, cx)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.worker.live.leave(self.slot);
    }
}

impl Ended {
    /// As the access log has it: the code that the next request would be refused with.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Revoked => "token_revoked",
            Self::Expired => "token_expired",
            Self::Stale => "state_stale",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_no_longer_holds_is_woken_once() {
        let table = LiveTable::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let grant = |fresh_only, ends_at| Grant { identity: None, fresh_only, ends_at };
        let (short, fresh_only, forever) =
            (table.enter(grant(false, Some(10))), table.enter(grant(true, None)), table.enter(grant(false, None)));
        for slot in [short, fresh_only, forever] {
            assert_eq!(table.ended(slot, &mut cx), None);
        }
        table.sweep(9, true, None);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        table.sweep(10, true, None);
        assert_eq!(table.ended(short, &mut cx), Some(Ended::Expired));
        table.sweep(10, false, None);
        assert_eq!(table.ended(fresh_only, &mut cx), Some(Ended::Stale));
        assert_eq!(table.ended(forever, &mut cx), None);
        table.sweep(11, false, None);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        table.leave(short);
        assert_eq!(table.enter(grant(false, None)), short);
        assert_eq!(table.ended(short, &mut cx), None);
    }
}
