//! What clients asked and were told, and whether one order of it all explains that: a set that only grows. Additions take
//! effect at one moment between their call and their answer, or, where the outcome is not known, at any time after the
//! call or never; a read sees all that took effect before one moment of its own.

use quorumgate_model::revocation::SelectorKey;

/// Of a set: a read looks at all of them.
const ELEMENTS_MAX: usize = 96;

/// A moment: how many calls and answers there were before it.
pub type Moment = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Open,
    Done(Moment),
    /// Certainly not, and never.
    Refused,
}

#[derive(Debug, Clone)]
pub struct Add {
    pub called: Moment,
    pub outcome: Outcome,
}

#[derive(Debug, Clone)]
pub struct Read {
    pub called: Moment,
    pub answered: Moment,
    /// Of each addition that had been asked for by the answer, whether it was seen.
    pub seen: Vec<bool>,
}

#[derive(Debug, Default)]
pub struct History {
    now: Moment,
    /// What is added is the place in this list.
    pub adds: Vec<Add>,
    pub reads: Vec<Read>,
}

/// One set, and where the state has its elements.
#[derive(Debug, Default)]
pub struct Set {
    pub history: History,
    pub keys: Vec<SelectorKey>,
}

/// All that there have been. As many as there were first are open, and one that is full makes way for another.
pub struct Sets {
    pub all: Vec<Set>,
    open: Vec<usize>,
}

impl Sets {
    pub fn of(places: usize) -> Self {
        Self { all: (0..places).map(|_| Set::default()).collect(), open: (0..places).collect() }
    }

    /// The number of the set that is open at this place.
    pub fn at(&mut self, place: usize) -> usize {
        if self.all[self.open[place]].keys.len() >= ELEMENTS_MAX {
            self.open[place] = self.all.len();
            self.all.push(Set::default());
        }
        self.open[place]
    }
}

impl History {
    pub fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub fn add(&mut self) -> usize {
        let called = self.tick();
        self.adds.push(Add { called, outcome: Outcome::Open });
        self.adds.len() - 1
    }

    pub fn done(&mut self, added: usize) {
        self.adds[added].outcome = Outcome::Done(self.tick());
    }

    pub fn refused(&mut self, added: usize) {
        self.adds[added].outcome = Outcome::Refused;
    }

    pub fn read(&mut self, called: Moment, seen: Vec<bool>) {
        let answered = self.tick();
        self.reads.push(Read { called, answered, seen });
    }

    /// Additions that were answered, and those of which nobody knows.
    pub fn added(&self) -> (u64, u64) {
        let count = |is: fn(&Outcome) -> bool| self.adds.iter().filter(|add| is(&add.outcome)).count() as u64;
        (count(|it| matches!(it, Outcome::Done(_))), count(|it| *it == Outcome::Open))
    }

    /// Err: what no order explains.
    pub fn check(&self) -> Result<(), String> {
        for read in &self.reads {
            self.check_read(read)?;
        }
        // All reads lie on one line: each sees what any that sees less has seen.
        let mut by_size: Vec<&Read> = self.reads.iter().collect();
        by_size.sort_by_cached_key(|read| (read.size(), read.called));
        for pair in by_size.windows(2) {
            if !pair[0].is_within(pair[1]) {
                return Err(format!("no order has both reads: {:?} and {:?}", pair[0], pair[1]));
            }
        }
        // And none sees less than one that was answered before it was called.
        let mut in_time: Vec<&Read> = self.reads.iter().collect();
        in_time.sort_by_key(|read| read.called);
        let mut answered: Vec<&Read> = self.reads.iter().collect();
        answered.sort_by_key(|read| read.answered);
        let (mut answered, mut most) = (answered.into_iter().peekable(), None::<&Read>);
        for read in in_time {
            while let Some(earlier) = answered.next_if(|it| it.answered < read.called) {
                most = most.filter(|it| it.size() > earlier.size()).or(Some(earlier));
            }
            if let Some(earlier) = most.filter(|earlier| earlier.size() > read.size()) {
                return Err(format!("a later read saw less: {earlier:?}, then {read:?}"));
            }
        }
        Ok(())
    }

    fn check_read(&self, read: &Read) -> Result<(), String> {
        // An addition that had ended before another that is seen began is seen too.
        let seen = self.adds.iter().zip(&read.seen).filter(|(_, seen)| **seen);
        let newest_called = seen.map(|(add, _)| add.called).max();
        for (number, add) in self.adds.iter().enumerate() {
            let seen = read.saw(number);
            let wrong = match add.outcome {
                Outcome::Done(at) if at < read.called && !seen => "is done and not seen",
                Outcome::Done(at) if newest_called.is_some_and(|newest| at < newest) && !seen => "was overtaken",
                Outcome::Refused if seen => "was refused and is seen",
                _ if seen && add.called > read.answered => "is seen before it was asked for",
                _ => continue,
            };
            return Err(format!("{number} {wrong}: {add:?}, {read:?}"));
        }
        match read.seen.len() > self.adds.len() {
            true => Err("what was never added is seen".into()),
            false => Ok(()),
        }
    }
}

impl Read {
    fn saw(&self, number: usize) -> bool {
        self.seen.get(number).copied().unwrap_or(false)
    }

    fn size(&self) -> usize {
        self.seen.iter().filter(|seen| **seen).count()
    }

    fn is_within(&self, other: &Self) -> bool {
        self.seen.iter().enumerate().all(|(number, seen)| !seen || other.saw(number))
    }
}

#[test]
fn histories_are_judged_as_people_would() {
    // (called, done) of additions, (called, answered, seen) of reads.
    let judge = |adds: &[(Moment, Outcome)], reads: &[(Moment, Moment, &[usize])]| {
        let adds = adds.iter().map(|(called, outcome)| Add { called: *called, outcome: *outcome }).collect();
        let reads = reads.iter().map(|(called, answered, seen)| Read {
            called: *called,
            answered: *answered,
            seen: (0..=seen.iter().max().copied().unwrap_or(0)).map(|it| seen.contains(&it)).collect(),
        });
        History { now: 0, adds, reads: reads.collect() }.check()
    };
    use Outcome::{Done, Open, Refused};
    let good: [Result<(), String>; 4] = [
        judge(&[(1, Done(4))], &[(2, 3, &[]), (2, 3, &[0])]),
        judge(&[(1, Open)], &[(5, 6, &[]), (7, 8, &[0])]),
        judge(&[(1, Refused), (2, Done(3))], &[(4, 5, &[1])]),
        judge(&[(1, Done(9)), (2, Done(9))], &[(3, 4, &[1]), (5, 6, &[0, 1])]),
    ];
    assert_eq!(good, [Ok(()), Ok(()), Ok(()), Ok(())]);
    let bad = [
        ("is done and not seen", judge(&[(1, Done(2))], &[(3, 4, &[])])),
        ("was refused and is seen", judge(&[(1, Refused)], &[(3, 4, &[0])])),
        ("before it was asked for", judge(&[(5, Open)], &[(3, 4, &[0])])),
        ("no order has both", judge(&[(1, Open), (2, Open)], &[(3, 6, &[0]), (4, 5, &[1])])),
        ("a later read saw less", judge(&[(1, Open)], &[(2, 3, &[0]), (4, 5, &[])])),
        ("was overtaken", judge(&[(1, Done(3)), (4, Open)], &[(2, 9, &[1])])),
        ("never added", judge(&[], &[(1, 2, &[0, 1])])),
    ];
    for (mention, judged) in bad {
        assert!(judged.as_ref().is_err_and(|why| why.contains(mention)), "{mention}: {judged:?}");
    }
}
