//! Maglev's look-up table: the same key meets the same target on every node, targets share keys by weight, and when one
//! comes or goes few keys move that need not (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).

use std::{net::SocketAddr, sync::Arc};

/// Primes; the table has at least a hundred entries per target, so that shares are even within a percent (section 5.3).
const SIZES: [usize; 2] = [65_537, 655_373];
const ENTRIES_PER_TARGET: usize = 100;
const EMPTY: u16 = u16::MAX;

/// One place of the table's targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub target: Arc<str>,
    pub address: SocketAddr,
    pub weight: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    /// What it was made of, to see whether it still holds.
    seats: Vec<Seat>,
    /// Indices into `seats`.
    entries: Vec<u16>,
}

/// Where one target's permutation of the table stands.
struct Turn {
    seat: u16,
    at: usize,
    skip: usize,
    weight: u64,
    credit: u64,
}

impl Table {
    /// At least one seat, and fewer than 65,535.
    pub fn build(seats: Vec<Seat>) -> Self {
        assert!(!seats.is_empty() && seats.len() < usize::from(EMPTY), "an upstream's targets are bounded far below");
        let wanted = seats.len() * ENTRIES_PER_TARGET;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[1]);
        let mut entries = vec![EMPTY; size];
        let mut turns: Vec<Turn> = seats.iter().enumerate().map(|(i, seat)| Turn::first(i, seat, size)).collect();
        // Who comes first is the same on every node, however the configuration lists them.
        turns.sort_by_key(|turn| (turn.at, turn.skip));
        let heaviest = seats.iter().map(|seat| u64::from(seat.weight)).max().unwrap_or(1).max(1);
        let mut empty = size;
        while empty > 0 {
            for turn in &mut turns {
                turn.credit += turn.weight;
                if turn.credit < heaviest || empty == 0 {
                    continue;
                }
                turn.credit -= heaviest;
                let at = turn.next_empty(&entries);
                entries[at] = turn.seat;
                empty -= 1;
            }
        }
        Self { seats, entries }
    }

    pub fn is_of(&self, seats: &[Seat]) -> bool {
        self.seats == seats
    }

    /// The key's target; if that is not eligible the next one in the table, which differs from key to key.
    pub fn find(&self, key: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let first = (key % self.entries.len() as u64) as usize;
        let seat = usize::from(self.entries[first]);
        if eligible(seat) {
            return Some(seat);
        }
        if !(0..self.seats.len()).any(&eligible) {
            return None;
        }
        let around = self.entries[first..].iter().chain(&self.entries[..first]);
        around.map(|seat| usize::from(*seat)).find(|seat| eligible(*seat))
    }
}

impl Turn {
    fn first(seat: usize, it: &Seat, size: usize) -> Self {
        let hash = blake3::hash(format!("{} {}", it.target, it.address).as_bytes());
        let word = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&hash.as_bytes()[from..from + 8]);
            u64::from_le_bytes(word)
        };
        let (at, skip) = (word(0) % size as u64, word(8) % (size as u64 - 1) + 1);
        let weight = u64::from(it.weight);
        Self { seat: seat as u16, at: at as usize, skip: skip as usize, weight, credit: 0 }
    }

    fn next_empty(&mut self, entries: &[u16]) -> usize {
        loop {
            let at = self.at;
            self.at = (at + self.skip) % entries.len();
            if entries[at] == EMPTY {
                return at;
            }
        }
    }
}

/// What a key's text is looked up by.
pub(super) fn key(text: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&blake3::hash(text).as_bytes()[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(weights: &[u32]) -> Vec<Seat> {
        let seat = |(i, weight): (usize, &u32)| {
            let address = SocketAddr::from(([10, 0, 0, i as u8 + 1], 80));
            Seat { target: address.to_string().into(), address, weight: *weight }
        };
        weights.iter().enumerate().map(seat).collect()
    }

    fn shares(table: &Table) -> Vec<f64> {
        let mut counts = vec![0.0; table.seats.len()];
        table.entries.iter().for_each(|seat| counts[usize::from(*seat)] += 100.0 / table.entries.len() as f64);
        counts
    }

    #[test]
    fn every_entry_is_taken_and_shares_go_by_weight() {
        for weights in [&[1][..], &[1, 1, 1], &[6, 3, 1], &[1000, 1]] {
            let sum: u32 = weights.iter().sum();
            for (share, weight) in shares(&Table::build(seats(weights))).iter().zip(weights) {
                let fair = 100.0 * f64::from(*weight) / f64::from(sum);
                assert!((share - fair).abs() < 0.1 + fair / 100.0, "{weights:?}: {share} for {weight}");
            }
        }
    }

    /// Of the entries whose target stays, how many percent moved all the same.
    fn moved(before: &Table, after: &Table) -> f64 {
        let name = |table: &Table, i: usize| table.seats[usize::from(table.entries[i])].target.clone();
        let stays = |target: &Arc<str>| after.seats.iter().any(|seat| seat.target == *target);
        let kept: Vec<usize> = (0..before.entries.len()).filter(|i| stays(&name(before, *i))).collect();
        let moved = kept.iter().filter(|i| name(before, **i) != name(after, **i)).count();
        100.0 * moved as f64 / kept.len() as f64
    }

    /// The paper sees below 2 % for a table of this size (section 5.3, figure 12).
    #[test]
    fn when_a_target_goes_few_other_keys_move() {
        let all = seats(&[1; 20]);
        let before = Table::build(all.clone());
        for gone in [0, 7, 19] {
            let mut left = all.clone();
            left.remove(gone);
            let moved = moved(&before, &Table::build(left));
            assert!(moved < 2.0, "{moved} % of the keys of the others moved when target {gone} went");
        }
    }

    #[test]
    fn when_a_target_comes_keys_move_to_it_and_hardly_elsewhere() {
        let all = seats(&[1; 20]);
        let (before, after) = (Table::build(all[..19].to_vec()), Table::build(all));
        let newest = &after.seats[19].target;
        let name = |table: &Table, i: usize| table.seats[usize::from(table.entries[i])].target.clone();
        let elsewhere = (0..before.entries.len())
            .filter(|i| name(&before, *i) != name(&after, *i) && name(&after, *i) != *newest)
            .count();
        assert!(elsewhere * 100 < 2 * before.entries.len(), "{elsewhere} moved between old targets");
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter() {
        let all = seats(&[1, 2, 3]);
        let reversed: Vec<Seat> = all.iter().rev().cloned().collect();
        let (a, b) = (Table::build(all), Table::build(reversed));
        for word in 0..1000u64 {
            let key = key(&word.to_le_bytes());
            let at = |table: &Table| table.seats[table.find(key, |_| true).unwrap()].target.clone();
            assert_eq!(at(&a), at(&b));
        }
    }

    #[test]
    fn the_keys_of_a_target_that_is_out_spread_over_the_others_and_come_back() {
        let table = Table::build(seats(&[1; 4]));
        let mut others = [0; 4];
        for word in 0..4000u64 {
            let key = key(&word.to_le_bytes());
            let home = table.find(key, |_| true).unwrap();
            let away = table.find(key, |seat| seat != 0).unwrap();
            assert!(away == home || home == 0, "only the keys of the target that is out go elsewhere");
            others[away] += usize::from(home == 0);
        }
        assert!(others[0] == 0 && others[1..].iter().all(|n| (200..500).contains(n)), "{others:?}");
        assert_eq!(table.find(7, |_| false), None);
    }
}
