//! A node's accounts by key. There may be a million of them, nearly all of keys that nobody has outgrown: each names its
//! key once, in its lease, and has books only once it is spoken of.

#![expect(clippy::mutable_key_type, reason = "an account lies where its lease's name says, which never changes")]

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::Arc,
};

use super::{Account, Books};
use crate::ledger::{
    Lease,
    command::{Key, LimitId},
    demand::Demand,
};

#[derive(Debug, Default)]
pub(super) struct Accounts {
    limits: BTreeMap<LimitId, BTreeMap<Place, Account>>,
    count: usize,
}

/// Where an account lies among those of its limit: at its lease's name.
#[derive(Debug)]
struct Place(Arc<Lease>);

impl Borrow<str> for Place {
    fn borrow(&self) -> &str {
        self.0.who()
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.who().cmp(other.0.who())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}

impl Accounts {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn has_of(&self, limit: LimitId) -> bool {
        self.limits.contains_key(&limit)
    }

    pub fn has(&self, key: &Key) -> bool {
        self.of(key).is_some()
    }

    pub fn of(&self, key: &Key) -> Option<&Account> {
        self.limits.get(&key.limit)?.get(&*key.who)
    }

    pub fn of_mut(&mut self, key: &Key) -> Option<&mut Account> {
        self.limits.get_mut(&key.limit)?.get_mut(&*key.who)
    }

    /// Of this lease's key, with nothing in it if it is new.
    pub fn open(&mut self, lease: Arc<Lease>, now_us: u64) -> &mut Account {
        let of_limit = self.limits.entry(lease.limit()).or_default();
        match of_limit.entry(Place(lease.clone())) {
            btree_map::Entry::Occupied(there) => there.into_mut(),
            btree_map::Entry::Vacant(place) => {
                self.count += 1;
                place.insert(Account::of(lease, now_us))
            }
        }
    }

    /// The account of this lease's key goes on with this lease.
    pub fn replace(&mut self, lease: Arc<Lease>) {
        let Some(of_limit) = self.limits.get_mut(&lease.limit()) else { return };
        if let Some(account) = of_limit.remove(&**lease.who()) {
            of_limit.insert(Place(lease.clone()), Account { lease, ..account });
        }
    }

    pub fn close(&mut self, key: &Key) -> Option<Arc<Lease>> {
        let of_limit = self.limits.get_mut(&key.limit)?;
        let account = of_limit.remove(&*key.who)?;
        self.count -= 1;
        if of_limit.is_empty() {
            self.limits.remove(&key.limit);
        }
        Some(account.lease)
    }

    pub fn all(&self) -> impl Iterator<Item = &Account> {
        self.limits.values().flat_map(BTreeMap::values)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        self.limits.values_mut().flat_map(BTreeMap::values_mut)
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.all().map(|account| account.lease.key())
    }

    /// Of one key of a limit, or of all.
    pub fn of_limit_mut(&mut self, limit: LimitId, who: Option<&str>) -> impl Iterator<Item = &mut Account> {
        let from = who.map_or(Bound::Unbounded, Bound::Included);
        let to = from;
        let of_limit = self.limits.get_mut(&limit).into_iter();
        of_limit.flat_map(move |accounts| accounts.range_mut::<str, _>((from, to)).map(|(_, account)| account))
    }

    /// The next `most` keys after that one, in their order.
    pub fn next(&self, after: Option<&Key>, most: usize) -> Vec<Key> {
        let first = after.map_or(0, |key| key.limit);
        let of_limits = self.limits.range(first..).flat_map(|(limit, accounts)| {
            let from = match after {
                Some(key) if key.limit == *limit => Bound::Excluded(&*key.who),
                _ => Bound::Unbounded,
            };
            accounts.range::<str, _>((from, Bound::Unbounded))
        });
        of_limits.take(most).map(|(_, account)| account.lease.key()).collect()
    }
}

impl Account {
    fn of(lease: Arc<Lease>, now_us: u64) -> Self {
        Self { lease, books: None, slots: 0, implicit: false, shrunk: false, noted_us: now_us, active_us: now_us }
    }

    /// Made if need be.
    pub(super) fn books(&mut self) -> &mut Books {
        let (window_us, noted_us) = (self.lease.terms().window_us, self.noted_us);
        self.books.get_or_insert_with(|| Box::new(Books::new(window_us, noted_us)))
    }

    pub(super) fn reserved(&self) -> u64 {
        self.books.as_ref().map_or(0, |books| books.reserved)
    }
}

impl Books {
    fn new(window_us: u64, now_us: u64) -> Self {
        Self {
            reserved: 0,
            demand: Demand::new(window_us, now_us),
            short: 0,
            keep: None,
            surplus: 0,
            spare: 0,
            gave_us: 0,
            told_demand: 0,
            told_want: 0,
            want: 0,
            told_owed: 0,
            withdrawn: 0,
            before: Vec::new(),
        }
    }

    /// The ledger has heard nothing of it yet, or has forgotten it.
    pub(super) fn untell(&mut self) {
        self.keep = None;
        (self.told_demand, self.told_want, self.told_owed, self.withdrawn) = (0, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::lease::{Tenure, Terms};

    /// Of keys there may be a million on a node: what they take is decided here, and the text of each beside it.
    #[test]
    fn a_key_that_no_node_has_outgrown_takes_little() {
        let counts = 2 * size_of::<usize>();
        assert!(counts + size_of::<Lease>() <= 128, "{} bytes of a lease", size_of::<Lease>());
        assert!(size_of::<(Place, Account)>() <= 56, "{} bytes of an account", size_of::<(Place, Account)>());
    }

    #[test]
    fn accounts_are_walked_in_the_order_of_their_keys_and_over_limits() {
        let mut accounts = Accounts::default();
        let tenure = Arc::new(Tenure::default());
        for (limit, who) in [(2, "b"), (1, "x"), (2, "a"), (1, "c"), (2, "b")] {
            accounts
                .open(Arc::new(Lease::new(who.into(), Arc::new(Terms::of_window(limit, 1_000, tenure.clone())))), 0);
        }
        let text = |keys: Vec<Key>| keys.iter().map(|key| format!("{}{}", key.limit, key.who)).collect::<String>();
        let (first, all) = (accounts.next(None, 3), accounts.next(None, 9));
        assert_eq!((text(first.clone()), text(all)), ("1c1x2a".into(), "1c1x2a2b".into()));
        assert_eq!(text(accounts.next(first.get(1), 9)), "2a2b");
        assert_eq!(accounts.of_limit_mut(2, Some("b")).count(), 1);
        assert_eq!((accounts.of_limit_mut(1, None).count(), accounts.len()), (2, 4));
        for key in first {
            assert!(accounts.close(&key).is_some());
        }
        assert_eq!((accounts.len(), accounts.has_of(1), accounts.has_of(2)), (1, false, true));
    }
}
