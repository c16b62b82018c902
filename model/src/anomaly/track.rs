//! What one place has seen of one key lately: counts of the last slots of a window, and samples that know when. The time is a
//! number of slots, whose length is the caller's.

use super::{Sample, Seen};
use crate::resource::AnomalyFeature;

/// Into how many slots a window is cut: what is seen is of the last eleven twelfths of it, or more.
pub const SLOTS: usize = 12;

#[derive(Debug, Clone, Default)]
pub struct Track {
    /// The newest slot.
    slot: u64,
    /// Slot n stands at n modulo their number.
    counts: [Counts; SLOTS],
    objects: Sample,
    credentials: Sample,
    numbers: Sample,
    countries: Sample,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u32,
    failures: u32,
    bytes_out: u64,
}

/// One request of the key. Hashes must be spread evenly, and the same everywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    pub failed: bool,
    pub bytes_out: u64,
    /// Hashes of what was asked for.
    pub objects: &'a [u64],
    /// A hash of what was shown, where that was in vain.
    pub credential: Option<u64>,
    /// What was asked for, where it is a number: with a hash of what is numbered.
    pub numbers: &'a [(u64, u64)],
    /// A hash of where it came from.
    pub country: Option<u64>,
}

impl Track {
    pub fn note(&mut self, slot: u64, event: &Event<'_>) {
        self.advance(slot);
        let counts = &mut self.counts[place(self.slot)];
        counts.requests = counts.requests.saturating_add(1);
        counts.failures = counts.failures.saturating_add(event.failed.into());
        counts.bytes_out = counts.bytes_out.saturating_add(event.bytes_out);
        for hash in event.objects {
            self.objects.note(*hash, 0, self.slot);
        }
        if let Some(hash) = event.credential {
            self.credentials.note(hash, 0, self.slot);
        }
        if let Some(hash) = event.country {
            self.countries.note(hash, 0, self.slot);
        }
        for (of, number) in event.numbers {
            self.numbers.note(spread(*of, number >> 6), 1 << (number & 63), self.slot);
        }
    }

    /// Within the window that ends with this slot.
    pub fn seen(&mut self, slot: u64) -> Seen {
        self.advance(slot);
        Seen {
            requests: self.requests(),
            failures: self.sum(|it| it.failures.into()),
            bytes_out: self.sum(|it| it.bytes_out),
            objects: self.objects.clone(),
            credentials: self.credentials.clone(),
            numbers: self.numbers.clone(),
            countries: self.countries.clone(),
        }
    }

    /// As `Seen::part_of`, of the window that ended with the newest slot.
    pub fn part_of(&self, feature: AnomalyFeature) -> u64 {
        match feature {
            AnomalyFeature::Requests => self.requests(),
            AnomalyFeature::Failures => self.sum(|it| it.failures.into()),
            AnomalyFeature::Objects => self.objects.count(),
            AnomalyFeature::Credentials => self.credentials.count(),
            AnomalyFeature::Sequential => self.numbers.bits(),
            AnomalyFeature::BytesOut => self.sum(|it| it.bytes_out),
            AnomalyFeature::Countries => self.countries.count(),
        }
    }

    /// Of the window that ended with the newest slot.
    pub fn requests(&self) -> u64 {
        self.sum(|it| it.requests.into())
    }

    fn sum(&self, of: fn(&Counts) -> u64) -> u64 {
        self.counts.iter().map(of).fold(0, u64::saturating_add)
    }

    /// How many hashes it keeps.
    pub fn marks(&self) -> usize {
        self.objects.len() + self.credentials.len() + self.numbers.len() + self.countries.len()
    }

    /// Forgets what is no longer within the window that ends with this slot. A clock that steps back changes nothing.
    pub fn advance(&mut self, slot: u64) {
        if slot <= self.slot {
            return;
        }
        for passed in (self.slot + 1..=slot).take(SLOTS) {
            self.counts[place(passed)] = Counts::default();
        }
        self.slot = slot;
        let oldest = (slot + 1).saturating_sub(SLOTS as u64);
        for sample in [&mut self.objects, &mut self.credentials, &mut self.numbers, &mut self.countries] {
            sample.forget(oldest);
        }
    }
}

fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

/// A block of numbers as a hash (splitmix64), which nobody can aim at who does not know `of`.
fn spread(of: u64, block: u64) -> u64 {
    let mut x = of ^ block.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(track: &mut Track, slot: u64, object: u64) {
        let failed = object.is_multiple_of(2);
        track.note(slot, &Event { failed, bytes_out: 10, objects: &[object], ..Event::default() });
    }

    #[test]
    fn a_window_slides_by_slots() {
        let mut track = Track::default();
        for slot in 1..=30 {
            note(&mut track, slot, slot);
            let seen = track.seen(slot);
            let held = slot.min(SLOTS as u64);
            assert_eq!((seen.requests, seen.objects.count(), seen.bytes_out), (held, held, held * 10), "at {slot}");
        }
        assert_eq!(track.seen(35).requests, 7);
        assert_eq!(track.seen(20).requests, 7, "the time does not go back");
        assert_eq!(track.seen(500), Seen::default());
        assert_eq!(track.marks(), 0);
    }

    #[test]
    fn a_long_pause_is_no_more_than_a_window() {
        let mut track = Track::default();
        (0..5).for_each(|object| note(&mut track, 3, object));
        note(&mut track, u64::MAX - 1, 1);
        assert_eq!(track.seen(u64::MAX - 1).requests, 1);
    }

    #[test]
    fn a_walk_over_numbers_is_seen_whatever_its_order() {
        let walked_of = |numbers: &[(u64, u64)]| {
            let mut track = Track::default();
            numbers.iter().for_each(|it| track.note(1, &Event { numbers: &[*it], ..Event::default() }));
            track.seen(1).of(AnomalyFeature::Sequential)
        };
        let walked = |numbers: &[u64]| walked_of(&numbers.iter().map(|it| (7, *it)).collect::<Vec<_>>());
        assert_eq!(walked_of(&[(1, 5), (2, 6), (1, 7), (2, 8)]), 0, "of different things");
        assert_eq!(walked(&[1, 2, 3, 4]), 3);
        assert_eq!(walked(&[4, 3, 2, 1, 1, 2]), 3);
        assert_eq!(walked(&[1, 3, 2, 4]), 3);
        assert_eq!(walked(&[10, 20, 30, 1 << 60]), 0);
    }
}
