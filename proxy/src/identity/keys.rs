//! The stored credentials, as the request path finds them: an open-addressing table of shared pointers that one writer
//! changes in place and every worker reads without a lock.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use imbl::{OrdMap, ordmap::DiffItem};
use quorumgate_model::credential::{BasicUser, Credential, CredentialId, CredentialKind};

const SLOTS_MIN: usize = 64;
/// What the pepper hashes for a Basic user: the zero bytes keep it apart from every key that a header can carry.
const BASIC_DOMAIN: &[u8] = b"\0basic\0";

/// The hash under which the state has an API key.
pub fn key_hash(pepper: &[u8; 32], text: &str) -> [u8; 32] {
    *blake3::keyed_hash(pepper, text.as_bytes()).as_bytes()
}

/// The hash whose start is the id of a Basic user.
pub fn user_hash(pepper: &[u8; 32], name: &str) -> [u8; 32] {
    *blake3::Hasher::new_keyed(pepper).update(BASIC_DOMAIN).update(name.as_bytes()).finalize().as_bytes()
}

/// Empty, and without a pepper, until the first publication: then nothing is found.
#[derive(Debug, Default)]
pub struct Keys {
    pepper: ArcSwapOption<[u8; 32]>,
    table: ArcSwap<Table>,
    writer: Mutex<Writer>,
}

/// Never more than three quarters full, the slots of what is gone counted.
#[derive(Debug)]
struct Table {
    slots: Box<[Slot]>,
}

/// The id beside the pointer: probing past a credential does not touch it, which would miss the cache.
#[derive(Debug, Default)]
struct Slot {
    /// 0 while nothing was put here. It stays when its credential goes, so that probing goes on past it.
    id: AtomicU64,
    credential: ArcSwapOption<Credential>,
}

#[derive(Debug, Default)]
struct Writer {
    published: OrdMap<CredentialId, Arc<Credential>>,
    /// Slots that have an id.
    used: usize,
}

impl Keys {
    /// The API key of this text, whatever its standing.
    pub fn find(&self, text: &str) -> Option<Arc<Credential>> {
        let hash = key_hash(self.pepper.load().as_deref()?, text);
        self.by_id(CredentialId::of(&hash)?).filter(|found| found.is_key_of(&hash))
    }

    /// The Basic user of this name, whatever its standing; the password is still to be verified.
    pub fn user(&self, name: &str) -> Option<Arc<Credential>> {
        let hash = user_hash(self.pepper.load().as_deref()?, name);
        let found = self.by_id(CredentialId::of(&hash)?)?;
        let same = |user: &BasicUser| user.name == name;
        matches!(&found.kind, CredentialKind::Basic(user) if same(user)).then_some(found)
    }

    pub fn by_id(&self, id: CredentialId) -> Option<Arc<Credential>> {
        self.table.load().find(id)
    }

    /// Makes the tables say what the state says. Costs by what has changed since the last time.
    pub(super) fn publish(&self, pepper: Option<&[u8; 32]>, credentials: &OrdMap<CredentialId, Arc<Credential>>) {
        if self.pepper.load().as_deref() != pepper {
            self.pepper.store(pepper.map(|pepper| Arc::new(*pepper)));
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut writer.published, credentials.clone());
        for change in before.diff(credentials) {
            match change {
                DiffItem::Add(_, credential) | DiffItem::Update { new: (_, credential), .. } => {
                    self.put(&mut writer, credential);
                }
                DiffItem::Remove(id, _) => {
                    self.table.load().slot_of(*id).inspect(|slot| slot.credential.store(None));
                }
            }
        }
    }

    fn put(&self, writer: &mut Writer, credential: &Arc<Credential>) {
        let table = self.table.load();
        if let Some(slot) = table.slot_of(credential.id) {
            return slot.credential.store(Some(credential.clone()));
        }
        if (writer.used + 1) * 4 <= table.slots.len() * 3 {
            table.put(credential.clone());
            writer.used += 1;
        } else {
            // Made from the newest state: this one comes with the rest, what is gone stays behind.
            writer.used = writer.published.len();
            self.table.store(Arc::new(Table::of(&writer.published)));
        }
    }
}

impl Table {
    fn of(credentials: &OrdMap<CredentialId, Arc<Credential>>) -> Self {
        let length = (credentials.len() * 7 / 4).max(SLOTS_MIN);
        let table = Self { slots: (0..length).map(|_| Slot::default()).collect() };
        credentials.values().for_each(|credential| table.put(credential.clone()));
        table
    }

    /// The id is the start of a keyed hash: as even as any, so that its share of all ids is its place among the slots.
    fn probe(&self, id: CredentialId) -> impl Iterator<Item = &Slot> {
        let start = ((u128::from(id.number()) * self.slots.len() as u128) >> u64::BITS) as usize;
        let (before, from) = self.slots.split_at(start);
        from.iter().chain(before)
    }

    fn find(&self, id: CredentialId) -> Option<Arc<Credential>> {
        self.slot_of(id)?.credential.load_full()
    }

    fn slot_of(&self, id: CredentialId) -> Option<&Slot> {
        for slot in self.probe(id) {
            match slot.id.load(Ordering::Acquire) {
                0 => return None,
                found if found == id.number() => return Some(slot),
                _ => {}
            }
        }
        None
    }

    fn put(&self, credential: Arc<Credential>) {
        let id = credential.id;
        let free = self.probe(id).find(|slot| slot.id.load(Ordering::Relaxed) == 0);
        let slot = free.expect("the table is never full");
        slot.credential.store(Some(credential));
        slot.id.store(id.number(), Ordering::Release);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::of(&OrdMap::new())
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
        let slots = keys.table.load().slots.len();
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
