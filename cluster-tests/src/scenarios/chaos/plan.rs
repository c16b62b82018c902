//! Which faults a round has, whom they hit and when: all from the seed, so that a round can be had again.

use std::{fmt, time::Duration};

/// From a round's begin: when faults may begin, and when all of them are over.
const BEGINS_MS: std::ops::Range<u64> = 200..3_000;
pub const OVER: Duration = Duration::from_secs(8);
const LASTS_MS: std::ops::Range<u64> = 300..6_000;
const FAULTS_MAX: u64 = 3;

/// xorshift64*: a seed replays its rolls.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Of one thing (`what`) in one round of a seed.
    pub fn new(seed: u64, round: u64, what: u64) -> Self {
        let mut mixed = seed;
        for word in [round, what] {
            // splitmix64's finalizer
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed = (mixed ^ (mixed >> 31)).wrapping_add(word.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        Self(mixed | 1)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % sides.max(1)
    }

    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.roll(range.end - range.start)
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and started again at the end.
    Kill,
    KillLeader,
    KillAll,
    /// SIGSTOP, SIGCONT.
    Stop,
    StopLeader,
    /// SIGTERM, and started again at the end.
    Restart,
    /// Cut off from all others.
    Isolate,
    IsolateLeader,
    /// Hears nobody.
    Deaf,
    /// Is heard by nobody.
    Mute,
    /// Less than half of the nodes are cut off from the rest.
    Split,
    /// Two halves that only one node hears both of.
    Bridge,
    Delay,
    Loss,
    /// Packets out of order, and twice.
    Disorder,
    ClockAhead,
    ClockBehind,
    /// A wall clock that jumps about.
    ClockWanders,
    /// No block is left; in half of the cases the node is killed and started on it.
    DiskFull,
    /// Killed, and started on a disk that it cannot write to.
    DiskReadOnly,
    MoveLeader,
    Join,
    /// Killed and removed.
    Remove,
    /// Hands over and goes for good.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Clocks,
    Disks,
    /// More nodes than the least that a cluster is kept at.
    Spare,
    /// Fewer than the most.
    Room,
}

impl Fault {
    pub const ALL: [Fault; 24] = [
        Fault::Kill,
        Fault::KillLeader,
        Fault::KillAll,
        Fault::Stop,
        Fault::StopLeader,
        Fault::Restart,
        Fault::Isolate,
        Fault::IsolateLeader,
        Fault::Deaf,
        Fault::Mute,
        Fault::Split,
        Fault::Bridge,
        Fault::Delay,
        Fault::Loss,
        Fault::Disorder,
        Fault::ClockAhead,
        Fault::ClockBehind,
        Fault::ClockWanders,
        Fault::DiskFull,
        Fault::DiskReadOnly,
        Fault::MoveLeader,
        Fault::Join,
        Fault::Remove,
        Fault::Leave,
    ];

    pub fn needs(self) -> Needs {
        match self {
            Fault::ClockAhead | Fault::ClockBehind | Fault::ClockWanders => Needs::Clocks,
            Fault::DiskFull | Fault::DiskReadOnly => Needs::Disks,
            Fault::Remove | Fault::Leave => Needs::Spare,
            Fault::Join => Needs::Room,
            _ => Needs::Nothing,
        }
    }

    pub fn is_of_leader(self) -> bool {
        matches!(self, Fault::KillLeader | Fault::StopLeader | Fault::IsolateLeader)
    }

    /// Changes who is a member: one of them at a time.
    fn is_of_members(self) -> bool {
        matches!(self, Fault::Join | Fault::Remove | Fault::Leave)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injury {
    pub fault: Fault,
    /// Chooses among the nodes there are.
    pub victim: u64,
    pub begins: Duration,
    pub ends: Duration,
}

impl fmt::Display for Injury {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:.1}–{:.1} s", self.fault, self.begins.as_secs_f64(), self.ends.as_secs_f64())
    }
}

/// One to three different faults, in the order of their beginnings.
pub fn injuries(dice: &mut Dice, able: &[Fault]) -> Vec<Injury> {
    let count = 1 + dice.roll(FAULTS_MAX);
    let mut all: Vec<Injury> = Vec::new();
    for _ in 0..count {
        let fault = dice.of(able);
        let clashes = |it: &Injury| it.fault == fault || (it.fault.is_of_members() && fault.is_of_members());
        let begins = Duration::from_millis(dice.within(BEGINS_MS));
        let ends = (begins + Duration::from_millis(dice.within(LASTS_MS))).min(OVER);
        let victim = dice.roll(u64::MAX);
        if !all.iter().any(clashes) {
            all.push(Injury { fault, victim, begins, ends });
        }
    }
    all.sort_by_key(|it| it.begins);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_every_fault_has_its_turn() {
        let plan = |seed, round| injuries(&mut Dice::new(seed, round, 0), &Fault::ALL);
        let mut seen = BTreeSet::new();
        let mut counts = BTreeSet::new();
        for round in 0..300 {
            let injuries = plan(1, round);
            assert_eq!(injuries, plan(1, round));
            assert!(injuries.iter().all(|it| it.begins < it.ends && it.ends <= OVER), "{injuries:?}");
            counts.insert(injuries.len());
            seen.extend(injuries.iter().map(|it| it.fault));
        }
        assert_eq!(seen, BTreeSet::from(Fault::ALL));
        assert_eq!(counts, BTreeSet::from([1, 2, 3]));
        assert_ne!(plan(1, 0), plan(2, 0));
        assert_ne!(plan(1, 0), plan(1, 1));
    }
}
