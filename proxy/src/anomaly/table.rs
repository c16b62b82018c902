//! What one worker has seen of callers lately, in bounded room: where a new one finds no place, it takes that of the quietest of a
//! few. It is asked through the worker's queue, so that an exchange locks nothing.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, RandomState},
    sync::Arc,
};

use quorumgate_model::{
    anomaly::{Event, SLOTS, Seen, Track},
    resource::{AnomalyPolicy, Name, Policy},
};

use super::{Verdicts, words};
use crate::plan::AddressHasher;

/// Callers of all policies that a worker keeps apart.
const KEYS_MAX: usize = 4_096;
/// Hashes that it keeps of all of them together: some 5 MiB.
const MARKS_MAX: usize = 128 << 10;
/// Among how many the quietest goes.
const LOOKED_AT: usize = 8;
/// How many one request may push out.
const PUSHED_OUT_MAX: u64 = 4;
/// Callers that a worker tells of, those nearest to their bounds first, beside those that it is asked about.
const TOLD_MAX: usize = 256;

/// Who is asked about.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Among how many what was seen is spread: workers of all nodes.
    pub parts: u64,
    /// Policies and keys that are told of in any case.
    pub asked: Vec<(Name, String)>,
}

/// What was seen of one caller by one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub policy: Name,
    pub key: String,
    pub seen: Seen,
}

#[derive(Default)]
pub(crate) struct Table {
    /// Keyed anew in each process: nobody can aim at another's place.
    hasher: RandomState,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    places: HashMap<u64, usize, BuildHasherDefault<AddressHasher>>,
    entries: Vec<Entry>,
    /// Where the next that has to go is looked for.
    cursor: usize,
    marks: usize,
}

struct Entry {
    hash: u64,
    policy: Arc<Policy>,
    key: Box<str>,
    track: Track,
    touched_ms: u64,
}

impl Table {
    /// How many were pushed out by it.
    pub(super) fn note(
        &self,
        policy: &Arc<Policy>,
        it: &AnomalyPolicy,
        key: &str,
        now_ms: u64,
        event: &Event<'_>,
    ) -> u64 {
        let hash = self.hasher.hash_one((&*policy.name, key));
        let inner = &mut *self.inner.borrow_mut();
        let mut gone = 0;
        let place = match inner.places.get(&hash) {
            Some(place) => *place,
            None => {
                if inner.entries.len() >= KEYS_MAX {
                    inner.push_out(now_ms, usize::MAX);
                    gone += 1;
                }
                let entry = Entry {
                    hash,
                    policy: policy.clone(),
                    key: key.into(),
                    track: Track::default(),
                    touched_ms: now_ms,
                };
                inner.entries.push(entry);
                inner.places.insert(hash, inner.entries.len() - 1);
                inner.entries.len() - 1
            }
        };
        let entry = &mut inner.entries[place];
        let before = entry.track.marks();
        if !Arc::ptr_eq(&entry.policy, policy) {
            // Slots of another length are none of this window.
            if words(&entry.policy).map(|it| it.window) != Some(it.window) {
                entry.track = Track::default();
            }
            entry.policy = policy.clone();
        }
        entry.touched_ms = now_ms;
        entry.track.note(slot(it, now_ms), event);
        inner.marks = (inner.marks + entry.track.marks()).saturating_sub(before);
        while inner.marks > MARKS_MAX && inner.entries.len() > 1 && gone < PUSHED_OUT_MAX {
            let Some(here) = inner.places.get(&hash).copied() else { break };
            inner.push_out(now_ms, here);
            gone += 1;
        }
        gone
    }

    /// Those that are asked about, and those that may be a part of something and are not known for it.
    pub(crate) fn answer(&self, question: &Question, verdicts: &Verdicts, now_ms: u64) -> Vec<Row> {
        let inner = &mut *self.inner.borrow_mut();
        inner.forget(now_ms);
        let mut rows = Vec::new();
        let mut asked: Vec<usize> = Vec::new();
        for (policy, key) in &question.asked {
            let place = inner.places.get(&self.hasher.hash_one((&**policy, key.as_str())));
            asked.extend(place);
        }
        asked.sort_unstable();
        asked.dedup();
        let mut hot = Vec::new();
        for (place, entry) in inner.entries.iter_mut().enumerate() {
            let Some(it) = words(&entry.policy) else { continue };
            let is_asked = asked.binary_search(&place).is_ok();
            if !is_asked && !it.may_be_over(question.parts, |feature| entry.track.part_of(feature)) {
                continue;
            }
            if !is_asked && verdicts.knows(&entry.policy.name, &entry.key) {
                continue;
            }
            let seen = entry.track.seen(slot(it, now_ms));
            let row = Row { policy: entry.policy.name.clone(), key: entry.key.to_string(), seen };
            match is_asked {
                true => rows.push(row),
                false => hot.push((it.heat(|feature| row.seen.of(feature)), row)),
            }
        }
        hot.sort_by_key(|(heat, _)| std::cmp::Reverse(*heat));
        rows.extend(hot.into_iter().take(TOLD_MAX).map(|(_, row)| row));
        rows
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.borrow().entries.len()
    }
}

impl Inner {
    /// Callers of whom nothing was seen within their window.
    fn forget(&mut self, now_ms: u64) {
        self.marks = 0;
        let mut place = 0;
        while place < self.entries.len() {
            let entry = &mut self.entries[place];
            if let Some(it) = words(&entry.policy) {
                entry.track.advance(slot(it, now_ms));
            }
            match entry.track.requests() {
                0 => self.remove(place),
                _ => {
                    self.marks += entry.track.marks();
                    place += 1;
                }
            }
        }
    }

    /// The quietest of a few, never that at `but`.
    fn push_out(&mut self, now_ms: u64, but: usize) {
        let count = self.entries.len();
        let few = (0..LOOKED_AT.min(count)).map(|step| (self.cursor + step) % count).filter(|place| *place != but);
        let quietest = few.min_by_key(|place| self.entries[*place].loudness(now_ms));
        self.cursor = (self.cursor + LOOKED_AT) % count;
        if let Some(place) = quietest {
            self.marks = self.marks.saturating_sub(self.entries[place].track.marks());
            self.remove(place);
        }
    }

    fn remove(&mut self, place: usize) {
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.hash);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.hash, place);
        }
    }
}

impl Entry {
    /// How near it is to a bound of its policy.
    fn loudness(&self, now_ms: u64) -> u64 {
        let Some(it) = words(&self.policy) else { return 0 };
        match self.touched_ms + it.window.0.as_millis() as u64 >= now_ms {
            true => it.heat(|feature| self.track.part_of(feature)),
            false => 0,
        }
    }
}

/// Never the first of all, so that a track that has seen nothing is behind.
fn slot(it: &AnomalyPolicy, now_ms: u64) -> u64 {
    1 + now_ms / (it.window.0.as_millis() as u64 / SLOTS as u64).max(1)
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::{AnomalyFeature, Kind, Resource};
    use serde_json::json;

    use super::*;

    fn policy(name: &str, window: &str) -> Arc<Policy> {
        let over = json!({ "requests": 100, "objects": 50 });
        let words = json!({ "name": name, "anomaly": { "per": "ip", "window": window, "over": over } });
        match Kind::Policy.parse(words).unwrap() {
            Resource::Policy(it) => it,
            other => panic!("{other:?}"),
        }
    }

    fn note(table: &Table, policy: &Arc<Policy>, key: &str, now_ms: u64, object: u64) -> u64 {
        let event = Event { objects: &[object.wrapping_mul(0x9e37_79b9_7f4a_7c15)], ..Event::default() };
        table.note(policy, words(policy).unwrap(), key, now_ms, &event)
    }

    fn keys(table: &Table, question: &Question, now_ms: u64) -> Vec<(String, u64)> {
        let rows = table.answer(question, &Verdicts::default(), now_ms).into_iter();
        let mut keys: Vec<_> = rows.map(|it| (it.key.clone(), it.seen.of(AnomalyFeature::Requests))).collect();
        keys.sort();
        keys
    }

    #[test]
    fn those_near_a_bound_and_those_asked_about_are_told_of() {
        let (table, walks) = (Table::default(), policy("walks", "60s"));
        for (key, requests) in [("10.0.0.1", 20), ("10.0.0.2", 10), ("10.0.0.3", 1)] {
            for object in 0..requests {
                note(&table, &walks, key, 1_000, object);
            }
        }
        let mut question = Question { parts: 3, asked: Vec::new() };
        assert_eq!(keys(&table, &question, 1_000), [("10.0.0.1".to_owned(), 20)]);
        question.asked = vec![(walks.name.clone(), "10.0.0.3".into()), (walks.name.clone(), "10.0.0.9".into())];
        let both = [("10.0.0.1".to_owned(), 20), ("10.0.0.3".to_owned(), 1)];
        assert_eq!(keys(&table, &question, 2_000), both);
        assert_eq!(table.len(), 3);
        assert_eq!(keys(&table, &question, 62_000), [], "the window is over");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_flood_of_callers_pushes_out_the_quiet_ones() {
        let (table, walks) = (Table::default(), policy("walks", "60s"));
        (0..60).for_each(|object| assert_eq!(note(&table, &walks, "walker", 5, object), 0));
        let guests = 0..3 * KEYS_MAX as u64;
        let pushed_out: u64 = guests.map(|n| note(&table, &walks, &format!("guest-{n}"), 5 + n / 1_000, n)).sum();
        assert_eq!(table.len(), KEYS_MAX);
        let question = Question { parts: 1, asked: Vec::new() };
        assert_eq!(keys(&table, &question, 100), [("walker".to_owned(), 60)]);
        assert_eq!(pushed_out, 2 * KEYS_MAX as u64 + 1);
    }

    #[test]
    fn what_is_kept_of_all_together_is_bounded() {
        let (table, walks) = (Table::default(), policy("walks", "60s"));
        for key in 0..600 {
            for object in 0..400 {
                note(&table, &walks, &key.to_string(), 5, key * 1_000 + object);
            }
        }
        let inner = table.inner.borrow();
        let marks: usize = inner.entries.iter().map(|it| it.track.marks()).sum();
        assert_eq!(inner.marks, marks);
        assert!(marks <= MARKS_MAX && inner.entries.len() < 600, "{marks} of {}", inner.entries.len());
        assert!(inner.entries.iter().enumerate().all(|(place, it)| inner.places[&it.hash] == place));
    }

    #[test]
    fn one_caller_is_two_by_two_policies() {
        let (table, walks, other) = (Table::default(), policy("walks", "60s"), policy("other", "5m"));
        for object in 0..60 {
            note(&table, &walks, "a", 1_000, object);
        }
        for object in 0..7 {
            note(&table, &other, "a", 1_000, object);
        }
        let asked = [&walks, &other].map(|it| (it.name.clone(), "a".to_owned())).to_vec();
        let seen = |now_ms| {
            let rows = table.answer(&Question { parts: 1, asked: asked.clone() }, &Verdicts::default(), now_ms);
            let mut seen: Vec<_> = rows.iter().map(|it| (it.policy.to_string(), it.seen.requests)).collect();
            seen.sort();
            seen
        };
        assert_eq!(seen(1_000), [("other".to_owned(), 7), ("walks".to_owned(), 60)]);
        assert_eq!(seen(120_000), [("other".to_owned(), 7)], "each by its own window");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_policy_with_another_window_begins_anew() {
        let table = Table::default();
        let (first, same, other) = (policy("walks", "60s"), policy("walks", "60s"), policy("walks", "5m"));
        note(&table, &first, "a", 1_000, 1);
        note(&table, &same, "a", 1_000, 2);
        let question = Question { parts: 1, asked: vec![(first.name.clone(), "a".into())] };
        assert_eq!(keys(&table, &question, 1_000), [("a".to_owned(), 2)]);
        note(&table, &other, "a", 1_000, 3);
        assert_eq!(keys(&table, &question, 1_000), [("a".to_owned(), 1)]);
    }
}
