//! What has been revoked, as the request path asks it: a table of fingerprints that one writer changes in place and every
//! worker reads without a lock, in front of the state's own map, which has the last word.

use std::{
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use imbl::{OrdMap, ordmap::DiffItem};
use quorumgate_model::{
    mutants::{self, Mutant},
    revocation::{Revocation, Selector, SelectorKey, SelectorKind, SelectorParts},
};

use super::{
    RevocationSubject,
    replaced::{self, Seen},
};

type Entries = OrdMap<SelectorKey, Arc<Revocation>>;

const SLOTS_MIN: usize = 64;
/// Slots of a cache line.
const LINE: usize = 16;
const EMPTY: u32 = 0;
const GONE: u32 = 1;
/// Each kind with an issuer, and without one.
const SHAPES: usize = 2 * SelectorKind::ALL.len();

#[derive(Debug, Default)]
pub struct Revoked {
    /// How many entries there are of each shape: what has none costs nothing to ask.
    counts: [AtomicU32; SHAPES],
    table: Arc<ArcSwap<Table>>,
    entries: ArcSwap<Entries>,
    hasher: RandomState,
    writer: Mutex<Writer>,
}

thread_local! {
    static SEEN: Seen<Table> = const { Seen::new(None) };
}

/// Open addressing; two entries of the same fingerprint have a slot each. Never more than five eighths full. The
/// fingerprints are short, so that more of the table stays in the processor's caches.
#[derive(Debug)]
struct Table {
    slots: Box<[AtomicU32]>,
}

#[derive(Debug, Default)]
struct Writer {
    published: Entries,
    /// Slots that are not empty, among them those of entries that are gone.
    used: usize,
}

impl Revoked {
    /// The entry that shuts the subject out at this instant of the log clock, if there is one.
    pub fn is_revoked(&self, subject: &RevocationSubject, now_us: u64) -> Option<Arc<Revocation>> {
        self.is_revoked_by(subject, || now_us)
    }

    /// As `is_revoked`; the clock is asked only where an entry is found.
    pub(super) fn is_revoked_by(
        &self,
        subject: &RevocationSubject,
        now_us: impl Fn() -> u64,
    ) -> Option<Arc<Revocation>> {
        let mut found = None;
        each_selector(subject, |parts| {
            if found.is_none() {
                let issued_at = || subject.token.as_ref().and_then(|token| token.issued_at);
                found = self.find(parts).filter(|it| it.expires_at_us > now_us() && it.covers(issued_at()));
            }
        });
        found
    }

    /// All entries that shut the subject out at this instant, for people.
    pub fn entries_of(&self, subject: &RevocationSubject, now_us: u64) -> Vec<Arc<Revocation>> {
        let issued_at = subject.token.as_ref().and_then(|token| token.issued_at);
        let mut found = Vec::new();
        each_selector(subject, |parts| {
            found.extend(self.find(parts).filter(|it| it.expires_at_us > now_us && it.covers(issued_at)));
        });
        found
    }

    /// The entry of exactly this selector, if it holds at this instant.
    pub fn entry(&self, selector: &Selector, now_us: u64) -> Option<Arc<Revocation>> {
        self.find(selector.parts()).filter(|it| it.expires_at_us > now_us)
    }

    /// The entry of exactly this selector, whatever its time.
    fn find(&self, parts: SelectorParts<'_>) -> Option<Arc<Revocation>> {
        if self.counts[shape(parts)].load(Ordering::Acquire) == 0 {
            return None;
        }
        if !replaced::with(&SEEN, &self.table, |table| table.has(self.fingerprint(parts))) {
            return None;
        }
        let key = parts.checked().ok()?.key();
        self.entries.load().get(&key).cloned()
    }

    pub fn len(&self) -> usize {
        self.entries.load().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the tables say what the state says. Costs by what has changed since the last time.
    pub(super) fn publish(&self, entries: &Entries) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut writer.published, entries.clone());
        // The map comes first: a fingerprint that is found must find its entry.
        self.entries.store(Arc::new(entries.clone()));
        for change in before.diff(entries) {
            match change {
                DiffItem::Add(_, entry) => {
                    let parts = entry.selector.parts();
                    self.add(&mut writer, self.fingerprint(parts));
                    self.counts[shape(parts)].fetch_add(1, Ordering::Release);
                }
                DiffItem::Remove(_, entry) => {
                    let parts = entry.selector.parts();
                    self.counts[shape(parts)].fetch_sub(1, Ordering::Release);
                    self.table.load().remove(self.fingerprint(parts));
                }
                DiffItem::Update { .. } => {}
            }
        }
    }

    fn add(&self, writer: &mut Writer, fingerprint: u32) {
        let table = self.table.load();
        if (writer.used + 1) * 8 > table.slots.len() * 5 {
            let (grown, used) = table.grown();
            writer.used = used;
            self.table.store(Arc::new(grown));
        }
        self.table.load().put(fingerprint);
        writer.used += 1;
    }

    /// Keyed anew in each process, and only what was revoked takes a slot: nobody outside can aim at one. Of what was not
    /// revoked, one look-up in some hundreds asks the map in vain at ten million entries.
    fn fingerprint(&self, parts: SelectorParts<'_>) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(u32::from(parts.kind.number()) << 16 | parts.issuer.len() as u32);
        hasher.write(parts.issuer);
        hasher.write(parts.value);
        // Neither EMPTY nor GONE.
        (hasher.finish() as u32).max(GONE + 1)
    }
}

fn shape(parts: SelectorParts<'_>) -> usize {
    usize::from(parts.kind.number()) * 2 + usize::from(parts.issuer.is_empty())
}

/// Every selector that would revoke the subject: a token's with its issuer, and with any issuer.
fn each_selector(subject: &RevocationSubject, mut ask: impl FnMut(SelectorParts<'_>)) {
    use SelectorKind::*;
    let mut part = |kind, issuer: &[u8], value: &[u8]| ask(SelectorParts { kind, issuer, value });
    if let Some(token) = &subject.token {
        let issuer = token.issuer.as_deref().unwrap_or_default().as_bytes();
        part(TokenHash, b"", &token.sha256);
        if let Some(twin) = &token.twin_sha256 {
            part(TokenHash, b"", twin);
        }
        let named = [(Jti, &token.jti), (Sid, &token.sid), (Client, &token.client), (SigningKid, &token.kid)];
        for (kind, value) in named {
            let Some(value) = value.as_deref().filter(|_| !mutants::is(Mutant::SelectorsOfTokensUnasked)) else {
                continue;
            };
            part(kind, b"", value.as_bytes());
            if !issuer.is_empty() {
                part(kind, issuer, value.as_bytes());
            }
        }
        if let Some(subject) = token.subject.as_deref().filter(|_| !issuer.is_empty()) {
            part(Subject, issuer, subject.as_bytes());
        }
    }
    if let Some(consumer) = &subject.consumer {
        part(Consumer, b"", consumer.as_bytes());
    }
    if let Some(credential) = &subject.credential {
        part(Credential, b"", credential.as_bytes());
    }
    if let Some(certificate) = &subject.certificate {
        part(CertificateKey, b"", &certificate.spki_sha256);
        part(CertificateSerial, &certificate.issuer_sha256, &certificate.serial);
    }
}

impl Table {
    fn with_slots(length: usize) -> Self {
        Self { slots: (0..length).map(|_| AtomicU32::new(EMPTY)).collect() }
    }

    /// Of at least the same size, without what is gone, and how many are in it. In the order of the slots the new places
    /// are neighbours too: ten millions take a tenth of a second.
    fn grown(&self) -> (Self, usize) {
        let live = || self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|it| *it > GONE);
        let count = live().count();
        let table = Self::with_slots((count * 2 + 2).next_power_of_two().max(self.slots.len()));
        live().for_each(|fingerprint| table.put(fingerprint));
        (table, count)
    }

    /// All slots of its cache line first, round from its own, then those of the next line: most look-ups touch one.
    fn probe(&self, fingerprint: u32) -> impl Iterator<Item = &AtomicU32> {
        let mask = self.slots.len() - 1;
        let (line, place) = (fingerprint as usize & !(LINE - 1), fingerprint as usize);
        (0..self.slots.len()).map(move |step| {
            let within = place.wrapping_add(step) & (LINE - 1);
            &self.slots[line.wrapping_add(step & !(LINE - 1)).wrapping_add(within) & mask]
        })
    }

    fn has(&self, fingerprint: u32) -> bool {
        for slot in self.probe(fingerprint) {
            match slot.load(Ordering::Acquire) {
                EMPTY => return false,
                GONE if mutants::is(Mutant::GoneEndsTheSearch) => return false,
                found if found == fingerprint => return true,
                _ => {}
            }
        }
        false
    }

    fn put(&self, fingerprint: u32) {
        let free = self.probe(fingerprint).find(|slot| slot.load(Ordering::Relaxed) == EMPTY);
        free.expect("the table is never full").store(fingerprint, Ordering::Release);
    }

    fn remove(&self, fingerprint: u32) {
        let slot = self.probe(fingerprint).find(|slot| slot.load(Ordering::Relaxed) == fingerprint);
        slot.expect("it was put there").store(GONE, Ordering::Release);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::with_slots(SLOTS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{CertificateMarks, TokenMarks};

    fn entry(kind: SelectorKind, issuer: &[u8], value: &[u8], not_before_s: Option<u64>) -> Arc<Revocation> {
        let selector = SelectorParts { kind, issuer, value }.checked().unwrap();
        Arc::new(Revocation { selector, expires_at_us: 100, not_before_s, note: Arc::default() })
    }

    fn published(entries: &[Arc<Revocation>]) -> Revoked {
        let revoked = Revoked::default();
        revoked.publish(&entries.iter().map(|it| (it.selector.key(), it.clone())).collect());
        revoked
    }

    fn subject() -> RevocationSubject {
        RevocationSubject {
            consumer: Some("acme".parse().unwrap()),
            credential: Some("00000000000000ab".into()),
            token: Some(Arc::new(TokenMarks {
                sha256: [1; 32],
                twin_sha256: Some([9; 32]),
                issuer: Some("i".into()),
                subject: Some("u".into()),
                jti: Some("j".into()),
                sid: Some("s".into()),
                client: Some("c".into()),
                kid: Some("k".into()),
                issued_at: Some(50),
            })),
            certificate: Some(Arc::new(CertificateMarks {
                issuer_sha256: [2; 32],
                serial: [3, 4].into(),
                spki_sha256: [5; 32],
                sha256: [6; 32],
            })),
        }
    }

    #[test]
    fn every_kind_of_selector_shuts_its_subject_out() {
        use SelectorKind::*;
        let check = |kind, issuer: &[u8], value: &[u8], expected: bool| {
            let revoked = published(&[entry(kind, issuer, value, None)]);
            assert_eq!(revoked.is_revoked(&subject(), 99).is_some(), expected, "{kind:?} {value:?}");
            assert!(revoked.is_revoked(&subject(), 100).is_none(), "an entry that has ended");
            assert!(revoked.is_revoked(&RevocationSubject::default(), 99).is_none());
        };
        for (kind, value) in [(Jti, b"j"), (Sid, b"s"), (Client, b"c"), (SigningKid, b"k")] {
            check(kind, b"i", value, true);
            check(kind, b"", value, true);
            check(kind, b"other", value, false);
            check(kind, b"i", b"other", false);
        }
        check(TokenHash, b"", &[1; 32], true);
        check(TokenHash, b"", &[9; 32], true);
        check(TokenHash, b"", &[8; 32], false);
        check(Subject, b"i", b"u", true);
        check(Subject, b"other", b"u", false);
        check(Consumer, b"", b"acme", true);
        check(Credential, b"", b"00000000000000ab", true);
        check(CertificateKey, b"", &[5; 32], true);
        check(CertificateSerial, &[2; 32], &[3, 4], true);
        check(CertificateSerial, &[1; 32], &[3, 4], false);
    }

    #[test]
    fn what_was_issued_later_is_spared() {
        let check = |not_before, expected: bool| {
            let revoked = published(&[entry(SelectorKind::Subject, b"i", b"u", Some(not_before))]);
            assert_eq!(revoked.is_revoked(&subject(), 0).is_some(), expected, "{not_before}");
        };
        check(51, true);
        check(50, false);
        let mut without = subject();
        Arc::make_mut(without.token.as_mut().unwrap()).issued_at = None;
        assert!(published(&[entry(SelectorKind::Subject, b"i", b"u", Some(1))]).is_revoked(&without, 0).is_some());
    }

    #[test]
    fn entries_come_and_go_through_every_size() {
        let revoked = Revoked::default();
        let mut all = Entries::new();
        let one = |n: u32| entry(SelectorKind::Jti, b"i", format!("token-{n}").as_bytes(), None);
        let keys: Vec<_> = (0..2000).map(one).collect();
        let has = |n: usize| revoked.find(keys[n].selector.parts()).is_some();
        for n in 0..2000 {
            all.insert(keys[n].selector.key(), keys[n].clone());
            if n >= 100 {
                all.remove(&keys[n - 100].selector.key());
            }
            revoked.publish(&all);
            for at in (0..=n).filter(|at| at % 50 == n % 50) {
                assert_eq!(has(at), at + 100 > n, "{at} after {n}");
            }
        }
        assert!(revoked.table.load().slots.len() <= 1024);
        revoked.publish(&Entries::new());
        assert!(revoked.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
