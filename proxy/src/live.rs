//! The exchanges of a worker that may last, each with what let it in: when that no longer holds, they are woken to end.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    task::{Context, Waker},
};

use crate::{identity::Identity, worker::Worker};

/// What an exchange goes on by.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// Its connection, as `Conn::key` has it.
    pub(crate) conn: usize,
    /// None: nobody was asked who they are.
    pub(crate) identity: Option<Rc<Identity>>,
    pub(crate) client_ip: IpAddr,
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
    /// The client, its consumer or its credential.
    Banned,
    /// It has held a limit's permit for as long as it may.
    HeldTooLong,
    /// The node goes, or the listener that it came in by, and has waited for it for as long as it may.
    Draining,
}

#[derive(Debug, Default)]
struct Slot {
    grant: Option<Grant>,
    /// On CLOCK_BOOTTIME, microseconds.
    hold_until_us: Option<u64>,
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
    /// Slots with a `hold_until_us`.
    holding: Cell<usize>,
}

/// An exchange's place in the table of its worker.
pub(crate) struct Live {
    worker: Rc<Worker>,
    slot: usize,
}

impl LiveTable {
    fn enter(&self, grant: Grant) -> usize {
        let slot = Slot { grant: Some(grant), ..Slot::default() };
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
        let left = std::mem::take(&mut self.slots.borrow_mut()[slot]);
        self.holding.set(self.holding.get() - usize::from(left.hold_until_us.is_some()));
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

    fn hold_until(&self, slot: usize, until_us: u64) {
        let before = self.slots.borrow_mut()[slot].hold_until_us.replace(until_us);
        self.holding.set(self.holding.get() + usize::from(before.is_none()));
    }

    /// Ends what has held a permit for too long.
    pub(crate) fn sweep_held(&self, now_us: u64) {
        if self.holding.get() == 0 {
            return;
        }
        let mut wakers = Vec::new();
        for slot in &mut *self.slots.borrow_mut() {
            if slot.ended.is_none() && slot.hold_until_us.is_some_and(|until_us| until_us <= now_us) {
                slot.ended = Some(Ended::HeldTooLong);
                wakers.extend(slot.waker.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends these, since what they came in by goes.
    pub(crate) fn drain(&self, which: impl Fn(&Grant) -> bool) {
        let mut wakers = Vec::new();
        for slot in &mut *self.slots.borrow_mut() {
            if slot.ended.is_none() && slot.grant.as_ref().is_some_and(&which) {
                slot.ended = Some(Ended::Draining);
                wakers.extend(slot.waker.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.borrow().len() == self.free.borrow().len()
    }

    /// Ends what may not go on. `banned` and `revoked` are asked of everybody; pass None where nothing has changed. `lapsed` is asked
    /// once a second: what let somebody in may end without a change.
    pub(crate) fn sweep(
        &self,
        now_s: u64,
        fresh: bool,
        banned: Option<&dyn Fn(&Grant) -> bool>,
        revoked: Option<&dyn Fn(&Identity) -> bool>,
        lapsed: &dyn Fn(&Identity) -> Option<Ended>,
    ) {
        let expiring = self.looked_at.replace(now_s) != now_s;
        let went_stale = self.was_fresh.replace(fresh) && !fresh;
        if !expiring && !went_stale && revoked.is_none() && banned.is_none() {
            return;
        }
        let why = |grant: &Grant| {
            if grant.fresh_only && !fresh {
                return Some(Ended::Stale);
            }
            if banned.is_some_and(|banned| banned(grant)) {
                return Some(Ended::Banned);
            }
            let gone = |revoked: &dyn Fn(&Identity) -> bool| grant.identity.as_ref().is_some_and(|it| revoked(it));
            if revoked.is_some_and(gone) {
                return Some(Ended::Revoked);
            }
            if grant.ends_at.is_some_and(|at| now_s >= at) {
                return Some(Ended::Expired);
            }
            grant.identity.as_ref().filter(|_| expiring).and_then(|it| lapsed(it))
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

impl Live {
    /// Its permit is over at this instant.
    pub(crate) fn hold_until(&self, until_us: u64) {
        self.worker.live.hold_until(self.slot, until_us);
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
            Self::Banned => "banned",
            Self::HeldTooLong => "upstream_timeout",
            Self::Draining => "drain_grace_over",
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
    fn a_permit_ends_its_exchange_on_time() {
        let table = LiveTable::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let grant = || Grant {
            conn: 1,
            client_ip: IpAddr::from([127, 0, 0, 1]),
            identity: None,
            fresh_only: false,
            ends_at: None,
        };
        let (short, long) = (table.enter(grant()), table.enter(grant()));
        table.hold_until(short, 10);
        assert_eq!(table.ended(short, &mut cx), None);
        table.sweep_held(9);
        assert_eq!(table.ended(short, &mut cx), None);
        table.sweep_held(10);
        assert_eq!(table.ended(short, &mut cx), Some(Ended::HeldTooLong));
        assert_eq!(table.ended(long, &mut cx), None);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        table.leave(short);
        assert_eq!(table.holding.get(), 0);
    }

    #[test]
    fn what_no_longer_holds_is_woken_once() {
        let table = LiveTable::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let grant = |fresh_only, ends_at| Grant {
            conn: 1,
            client_ip: IpAddr::from([127, 0, 0, 1]),
            identity: None,
            fresh_only,
            ends_at,
        };
        let (short, fresh_only, forever) =
            (table.enter(grant(false, Some(10))), table.enter(grant(true, None)), table.enter(grant(false, None)));
        for slot in [short, fresh_only, forever] {
            assert_eq!(table.ended(slot, &mut cx), None);
        }
        table.sweep(9, true, None, None, &|_| None);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        table.sweep(10, true, None, None, &|_| None);
        assert_eq!(table.ended(short, &mut cx), Some(Ended::Expired));
        table.sweep(10, false, None, None, &|_| None);
        assert_eq!(table.ended(fresh_only, &mut cx), Some(Ended::Stale));
        assert_eq!(table.ended(forever, &mut cx), None);
        table.sweep(11, false, None, None, &|_| None);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        let address = |grant: &Grant| grant.client_ip == IpAddr::from([127, 0, 0, 1]);
        table.sweep(11, false, Some(&address), None, &|_| None);
        assert_eq!(table.ended(forever, &mut cx), Some(Ended::Banned));
        table.leave(short);
        assert_eq!(table.enter(grant(false, None)), short);
        assert_eq!(table.ended(short, &mut cx), None);
    }
}
