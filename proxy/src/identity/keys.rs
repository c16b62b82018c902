//! The stored credentials, as the request path finds them: an open-addressing table of shared pointers that one writer
//! changes in place and every worker reads without a lock.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use imbl::{OrdMap, ordmap::DiffItem};
use quorumgate_model::credential::{BasicUser, Credential, CredentialId, CredentialKind};

/// What the pepper hashes for a Basic user: the zero bytes keep it apart from every key that a header can carry.
const BASIC_DOMAIN: &[u8] = b"\0basic\0";
/// Bytes of an API key that a request may show: a longer one is not worth a hash.
pub const KEY_BYTES_MAX: usize = 512;

/// The hash under which the state has an API key.
pub fn key_hash(pepper: &[u8; 32], text: &str) -> [u8; 32] {
    *blake3::keyed_hash(pepper, text.as_bytes()).as_bytes()
}

/// The hash whose start is the id of a Basic user.
pub fn user_hash(pepper: &[u8; 32], name: &str) -> [u8; 32] {
    *blake3::Hasher::new_keyed(pepper).update(BASIC_DOMAIN).update(name.as_bytes()).finalize().as_bytes()
}

/// Whether a client can show it as the name or the password of a Basic user (RFC 7617 2: no control characters).
pub fn is_of_basic(text: &[u8]) -> bool {
    !text.iter().any(u8::is_ascii_control)
}

/// Empty, and without a pepper, until the first publication: then nothing is found.
#[derive(Debug, Default)]
pub struct Keys {
    table: ArcSwap<Table>,
    writer: Mutex<Writer>,
}

/// Never more than three quarters full, the slots of what is gone counted.
#[derive(Debug)]
struct Table {
    pepper: Option<[u8; 32]>,
    lines: Box<[Line]>,
}

/// One cache line: most look-ups touch one, and the credential.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    /// A part of each slot's id, so that probing past a credential does not touch it. `EMPTY` while nothing was put here.
    /// It stays when its credential goes, so that probing goes on past it.
    marks: [AtomicU32; SLOTS],
    /// An id has one slot at most, once its credential is there.
    credentials: [ArcSwapOption<Credential>; SLOTS],
}

type Slot<'a> = (&'a AtomicU32, &'a ArcSwapOption<Credential>);

/// Of a line.
const SLOTS: usize = 5;
const LINES_MIN: usize = 16;
const EMPTY: u32 = 0;

#[derive(Debug, Default)]
struct Writer {
    published: OrdMap<CredentialId, Arc<Credential>>,
    /// Slots that have a mark.
    used: usize,
}

impl Keys {
    /// The API key of this text, whatever its standing.
    pub fn find(&self, text: &str) -> Option<Arc<Credential>> {
        let table = self.table.load();
        let hash = key_hash(table.pepper.as_ref()?, text);
        table.find(CredentialId::of(&hash)?, |found| found.is_key_of(&hash))
    }

    /// The Basic user of this name, whatever its standing; the password is still to be verified.
    pub fn user(&self, name: &str) -> Option<Arc<Credential>> {
        let table = self.table.load();
        let hash = user_hash(table.pepper.as_ref()?, name);
        let same = |user: &BasicUser| user.name == name;
        table.find(CredentialId::of(&hash)?, |it| matches!(&it.kind, CredentialKind::Basic(user) if same(user)))
    }

    pub fn by_id(&self, id: CredentialId) -> Option<Arc<Credential>> {
        self.table.load().find(id, |_| true)
    }

    /// Makes the tables say what the state says. Costs by what has changed since the last time.
    pub(super) fn publish(&self, pepper: Option<&[u8; 32]>, credentials: &OrdMap<CredentialId, Arc<Credential>>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut writer.published, credentials.clone());
        if self.table.load().pepper.as_ref() != pepper {
            return self.renew(&mut writer, pepper);
        }
        for change in before.diff(credentials) {
            match change {
                DiffItem::Add(_, credential) | DiffItem::Update { new: (_, credential), .. } => {
                    self.put(&mut writer, credential);
                }
                DiffItem::Remove(id, _) => {
                    self.table.load().slot_of(*id).inspect(|(_, credential)| credential.store(None));
                }
            }
        }
    }

    fn put(&self, writer: &mut Writer, credential: &Arc<Credential>) {
        let table = self.table.load();
        if let Some((_, slot)) = table.slot_for(credential.id) {
            return slot.store(Some(credential.clone()));
        }
        if (writer.used + 1) * 4 <= table.lines.len() * SLOTS * 3 {
            table.put(credential.clone());
            writer.used += 1;
        } else {
            // Made from the newest state: this one comes with the rest, what is gone stays behind.
            self.renew(writer, table.pepper.as_ref());
        }
    }

    fn renew(&self, writer: &mut Writer, pepper: Option<&[u8; 32]>) {
        writer.used = writer.published.len();
        self.table.store(Arc::new(Table::of(pepper.copied(), &writer.published)));
    }
}

impl Table {
    fn of(pepper: Option<[u8; 32]>, credentials: &OrdMap<CredentialId, Arc<Credential>>) -> Self {
        let lines = (credentials.len() * 7 / 4).div_ceil(SLOTS).max(LINES_MIN);
        let table = Self { pepper, lines: (0..lines).map(|_| Line::default()).collect() };
        credentials.values().for_each(|credential| table.put(credential.clone()));
        table
    }

    /// All slots from the id's line on. The id is the start of a keyed hash: as even as any, so that its share of all ids
    /// is its place among the lines.
    fn probe(&self, id: CredentialId) -> impl Iterator<Item = Slot<'_>> {
        let start = ((u128::from(id.number()) * self.lines.len() as u128) >> u64::BITS) as usize;
        let (before, from) = self.lines.split_at(start);
        from.iter().chain(before).flat_map(|line| line.marks.iter().zip(&line.credentials))
    }

    /// The slots with the id's mark, up to the first that is empty.
    fn with_mark(&self, id: CredentialId) -> impl Iterator<Item = Slot<'_>> {
        let marked = self.probe(id).map(|slot| (slot.0.load(Ordering::Acquire), slot));
        let there = marked.take_while(|(found, _)| *found != EMPTY);
        there.filter(move |(found, _)| *found == mark(id)).map(|(_, slot)| slot)
    }

    /// Looked at before it is shared: its cache lines are fetched at once, not one after the other.
    fn find(&self, id: CredentialId, is_it: impl Fn(&Credential) -> bool) -> Option<Arc<Credential>> {
        self.with_mark(id).find_map(|(_, slot)| {
            let found = slot.load();
            let found = found.as_ref().filter(|it| it.id == id && is_it(it))?;
            Some(found.clone())
        })
    }

    fn slot_of(&self, id: CredentialId) -> Option<Slot<'_>> {
        self.with_mark(id).find(|(_, slot)| slot.load().as_ref().is_some_and(|it| it.id == id))
    }

    /// Where it is, or where one of its mark has gone from.
    fn slot_for(&self, id: CredentialId) -> Option<Slot<'_>> {
        let gone = || self.with_mark(id).find(|(_, slot)| slot.load().is_none());
        self.slot_of(id).or_else(gone)
    }

    fn put(&self, credential: Arc<Credential>) {
        let id = credential.id;
        let free = self.probe(id).find(|(mark, _)| mark.load(Ordering::Relaxed) == EMPTY);
        let (its_mark, slot) = free.expect("the table is never full");
        slot.store(Some(credential));
        its_mark.store(mark(id), Ordering::Release);
    }
}

/// The half of the id that its place does not follow from.
fn mark(id: CredentialId) -> u32 {
    (id.number() as u32).max(EMPTY + 1)
}

impl Default for Table {
    fn default() -> Self {
        Self::of(None, &OrdMap::new())
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::credential::{CredentialState, WallMs};

    use super::*;

    const PEPPER: [u8; 32] = [7; 32];

    fn credential((id, kind): (CredentialId, CredentialKind)) -> Credential {
        Credential {
            id,
            consumer: "acme".parse().unwrap(),
            kind,
            grants: None,
            created: WallMs::default(),
            ends_at_us: None,
            state: CredentialState::Active,
            replaced_by: None,
        }
    }

    fn key(text: &str) -> Arc<Credential> {
        let hash = key_hash(&PEPPER, text);
        Arc::new(credential(CredentialKind::api_key(&hash, *b"abcdefgh").unwrap()))
    }

    #[test]
    fn keys_come_change_and_go() {
        let keys = Keys::default();
        let text = |n: u32| format!("qg_live_{n}");
        let mut all = OrdMap::new();
        assert!(keys.find(&text(1)).is_none());
        // Through several sizes of the table, and through many that are gone.
        for round in 0..40u32 {
            for n in round * 50..(round + 1) * 50 {
                all.insert(key(&text(n)).id, key(&text(n)));
            }
            if round > 1 {
                for n in (round - 2) * 50..(round - 1) * 50 {
                    all.remove(&key(&text(n)).id);
                }
            }
            keys.publish(Some(&PEPPER), &all);
            for n in 0..(round + 1) * 50 {
                let is_there = n + 100 >= (round + 1) * 50;
                assert_eq!(keys.find(&text(n)).is_some(), is_there, "{n} in round {round}");
            }
        }
        let revoked = Credential { state: CredentialState::Revoked, ..Credential::clone(&key(&text(1999))) };
        all.insert(revoked.id, Arc::new(revoked.clone()));
        keys.publish(Some(&PEPPER), &all);
        assert_eq!(*keys.find(&text(1999)).unwrap(), revoked);
        let slots = keys.table.load().lines.len() * SLOTS;
        assert!(slots <= 1024, "what is gone is left behind: {slots}");
    }

    #[test]
    fn the_pepper_decides() {
        let keys = Keys::default();
        let all: OrdMap<_, _> = [(key("a").id, key("a"))].into_iter().collect();
        keys.publish(None, &all);
        assert!(keys.find("a").is_none());
        keys.publish(Some(&[8; 32]), &all);
        assert!(keys.find("a").is_none());
        keys.publish(Some(&PEPPER), &all);
        assert!(keys.find("a").is_some());
    }

    #[test]
    fn the_id_alone_is_no_key() {
        let keys = Keys::default();
        let hash = key_hash(&PEPPER, "a");
        let CredentialKind::ApiKey { mut hash_rest, prefix } = key("a").kind.clone() else { unreachable!() };
        hash_rest[23] ^= 1;
        let id = CredentialId::of(&hash).unwrap();
        let other = Arc::new(credential((id, CredentialKind::ApiKey { hash_rest, prefix })));
        keys.publish(Some(&PEPPER), &[(id, other)].into_iter().collect());
        assert!(keys.by_id(id).is_some() && keys.find("a").is_none());
    }

    #[test]
    fn ids_of_one_mark_are_told_apart() {
        let keys = Keys::default();
        let of = |top: u64| {
            let (_, kind) = CredentialKind::api_key(&[1; 32], *b"abcdefgh").unwrap();
            Arc::new(credential((CredentialId::new(top << 32 | 7).unwrap(), kind)))
        };
        assert_eq!(size_of::<Line>(), 64);
        let all = [of(1), of(2), of(3)];
        // Every order of coming and going: each is there exactly when it should be.
        for change in 0..64u32 {
            let there: OrdMap<_, _> =
                (0..3).filter(|n| change.wrapping_mul(37) >> n & 1 == 1).map(|n| (all[n].id, all[n].clone())).collect();
            keys.publish(Some(&PEPPER), &there);
            for one in &all {
                assert_eq!(keys.by_id(one.id).is_some(), there.contains_key(&one.id), "{change}");
            }
        }
        assert!(keys.writer.lock().unwrap().used <= 3, "they keep their slots");
    }

    #[test]
    fn a_user_that_comes_back_is_found() {
        let keys = Keys::default();
        let key = key("a");
        let all: OrdMap<_, _> = [(key.id, key.clone())].into_iter().collect();
        for _ in 0..3 {
            keys.publish(Some(&PEPPER), &all);
            assert!(keys.find("a").is_some());
            keys.publish(Some(&PEPPER), &OrdMap::new());
            assert!(keys.find("a").is_none());
        }
        assert_eq!(keys.writer.lock().unwrap().used, 1, "it keeps its slot");
    }

    #[test]
    fn a_user_is_no_key() {
        let keys = Keys::default();
        let hash = user_hash(&PEPPER, "ann");
        let user = BasicUser { name: "ann".into(), password_hash: "$argon2id$".into() };
        let id = CredentialId::of(&hash).unwrap();
        let credential = Arc::new(credential((id, CredentialKind::Basic(Arc::new(user)))));
        keys.publish(Some(&PEPPER), &[(id, credential)].into_iter().collect());
        assert!(keys.user("ann").is_some() && keys.user("bob").is_none());
        assert!(keys.find("\0basic\0ann").is_none());
    }
}
