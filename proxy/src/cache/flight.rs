//! Who asks the upstream for what others want to know too. Within one worker: others ask at most once each.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Questions under way at once; what is more is asked by everybody for himself.
const FLIGHTS_MAX: usize = 4096;
/// Questions of which it is remembered that nobody can share their answers.
const IN_VAIN_MAX: usize = 4096;
const IN_VAIN_FOR: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Flights(Rc<RefCell<Table>>);

#[derive(Default)]
struct Table {
    under_way: HashMap<u64, Rc<Notify>>,
    /// Until when nobody waits for another's answer, which would only make them one behind the other.
    in_vain: HashMap<u64, Instant>,
    hasher: RandomState,
}

pub(super) enum Landing {
    /// Nobody else asks.
    Leads(Flight),
    Follows(Landed),
    /// There is nothing to wait for, or it is one question too many to keep count of.
    Alone,
}

/// Held by the one who asks, until the answer is kept or it is known that it will not be.
pub(crate) struct Flight {
    flights: Rc<RefCell<Table>>,
    key: u64,
}

pub(super) struct Landed(Rc<Notify>);

impl Flights {
    /// For who answers already, and asks beside. None: somebody asks.
    pub(super) fn take_off_beside(&self, url: &str, way: &str) -> Option<Flight> {
        let mut table = self.0.borrow_mut();
        let table = &mut *table;
        let key = table.hasher.hash_one((url, way));
        if table.under_way.len() >= FLIGHTS_MAX || table.under_way.contains_key(&key) {
            return None;
        }
        table.under_way.insert(key, Rc::default());
        Some(Flight { flights: self.0.clone(), key })
    }

    /// Two questions of one hash would only wait for each other, and then look for their own answers.
    pub(super) fn take_off(&self, url: &str, way: &str) -> Landing {
        let mut table = self.0.borrow_mut();
        let table = &mut *table;
        let key = table.hasher.hash_one((url, way));
        if let Some(notify) = table.under_way.get(&key) {
            return Landing::Follows(Landed(notify.clone()));
        }
        if let Some(until) = table.in_vain.get(&key) {
            if *until > Instant::now() {
                return Landing::Alone;
            }
            table.in_vain.remove(&key);
        }
        if table.under_way.len() >= FLIGHTS_MAX {
            return Landing::Alone;
        }
        table.under_way.insert(key, Rc::default());
        Landing::Leads(Flight { flights: self.0.clone(), key })
    }
}

impl Flight {
    /// The answer is for nobody else, and the next one will hardly be.
    pub(super) fn was_in_vain(self) {
        let mut table = self.flights.borrow_mut();
        if table.in_vain.len() >= IN_VAIN_MAX {
            table.in_vain.clear();
        }
        table.in_vain.insert(self.key, Instant::now() + IN_VAIN_FOR);
    }
}

impl Landed {
    pub(super) async fn wait(self) {
        self.0.notified().await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(notify) = self.flights.borrow_mut().under_way.remove(&self.key) {
            notify.notify_waiters();
        }
    }
}
