//! The stored credentials, as the request path finds them: an open-addressing table of shared pointers that one writer
//! changes in place and every worker reads without a lock.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use imbl::{OrdMap, ordmap::DiffItem};
use quorumgate_model::credential::{BasicUser, Credential, CredentialId, CredentialKind, CredentialState};

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

/// The table is never more than five eighths full.
#[derive(Debug)]
struct Table {
    slots: Box<[ArcSwapOption<Credential>]>,
}

#[derive(Debug, Default)]
struct Writer {
    published: OrdMap<CredentialId, Arc<Credential>>,
    /// Slots that are not empty, among them those of credentials that are gone.
    used: usize,
    /// Stands in the slots of what is gone, so that probing goes on past it.
    gone: Option<Arc<Credential>>,
}

impl Keys {
    /// The API key of this text, whatever its standing.
    pub fn find(&self, text: &str) -> Option<Arc<Credential>> {
        let hash = key_hash(self.pepper.load().as_deref()?, text);
        let found = self.by_id(CredentialId::of(&hash)?)?;
        matches!(&found.kind, CredentialKind::ApiKey { hash: stored, .. } if *stored == hash).then_some(found)
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
                DiffItem::Add(_, credential) => self.insert(&mut writer, credential),
                DiffItem::Update { new: (_, credential), .. } => self.replace(credential),
                DiffItem::Remove(id, _) => {
                    let gone = writer.gone.get_or_insert_with(|| Arc::new(gone())).clone();
                    self.table.load().slot_of(*id).inspect(|slot| slot.store(Some(gone)));
                }
            }
        }
    }

    fn insert(&self, writer: &mut Writer, credential: &Arc<Credential>) {
        if (writer.used + 1) * 8 > self.table.load().slots.len() * 5 {
            // What is gone stays behind; the new one comes with the rest.
            let table = Table::of(&writer.published);
            writer.used = writer.published.len();
            self.table.store(Arc::new(table));
        }
        let table = self.table.load();
        // A table that was just made from the newest state has it already.
        if table.find(credential.id).is_none() {
            table.put(credential.clone());
            writer.used += 1;
        }
    }

    fn replace(&self, credential: &Arc<Credential>) {
        if let Some(slot) = self.table.load().slot_of(credential.id) {
            slot.store(Some(credential.clone()));
        }
    }
}

impl Table {
    fn of(credentials: &OrdMap<CredentialId, Arc<Credential>>) -> Self {
        let length = (credentials.len() * 2).next_power_of_two().max(SLOTS_MIN);
        let table = Self { slots: (0..length).map(|_| ArcSwapOption::empty()).collect() };
        credentials.values().for_each(|credential| table.put(credential.clone()));
        table
    }

    /// The id is the start of a keyed hash: as even as any.
    fn probe(&self, id: CredentialId) -> impl Iterator<Item = &ArcSwapOption<Credential>> {
        let mask = self.slots.len() - 1;
        let start = id.number() as usize;
        (0..self.slots.len()).map(move |step| &self.slots[start.wrapping_add(step) & mask])
    }

    fn find(&self, id: CredentialId) -> Option<Arc<Credential>> {
        for slot in self.probe(id) {
            match &*slot.load() {
                None => return None,
                Some(credential) if credential.id == id => return Some(credential.clone()),
                Some(_) => {}
            }
        }
        None
    }

    fn slot_of(&self, id: CredentialId) -> Option<&ArcSwapOption<Credential>> {
        for slot in self.probe(id) {
            match &*slot.load() {
                None => return None,
                Some(credential) if credential.id == id => return Some(slot),
                Some(_) => {}
            }
        }
        None
    }

    fn put(&self, credential: Arc<Credential>) {
        let free = self.probe(credential.id).find(|slot| slot.load().is_none());
        free.expect("the table is never full").store(Some(credential));
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::of(&OrdMap::new())
    }
}

/// No key has this hash, and no hash that a key has leads here but one of 2^64.
fn gone() -> Credential {
    Credential {
        id: CredentialId::new(u64::MAX).expect("it is not 0"),
        consumer: "gone".parse().expect("a name"),
        kind: CredentialKind::ApiKey { hash: [0; 32], prefix: [b'-'; 8] },
        grants: None,
        created_wall_ms: 0,
        ends_at_us: None,
        state: CredentialState::Revoked,
        replaced_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEPPER: [u8; 32] = [7; 32];

    fn key(text: &str) -> Arc<Credential> {
        let hash = key_hash(&PEPPER, text);
        let kind = CredentialKind::ApiKey { hash, prefix: *b"abcdefgh" };
        Arc::new(Credential { id: CredentialId::of(&hash).unwrap(), kind, state: CredentialState::Active, ..gone() })
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
    fn a_user_is_no_key() {
        let keys = Keys::default();
        let hash = user_hash(&PEPPER, "ann");
        let user = BasicUser { name: "ann".into(), password_hash: "$argon2id$".into() };
        let id = CredentialId::of(&hash).unwrap();
        let credential = Arc::new(Credential { id, kind: CredentialKind::Basic(Arc::new(user)), ..gone() });
        keys.publish(Some(&PEPPER), &[(id, credential)].into_iter().collect());
        assert!(keys.user("ann").is_some() && keys.user("bob").is_none());
        assert!(keys.find("\0basic\0ann").is_none());
    }
}
