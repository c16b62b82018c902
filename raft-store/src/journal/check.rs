//! Whether the audit chain is what was written: followed from the state's head down, with every entry that is not named.

use quorumgate_model::{
    digest::Digest,
    state::{AuditEntry, AuditHead},
};

use super::{Journal, raw};

/// Entries that are named.
const NAMED_MAX: usize = 100;

/// What was found of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Entries that could be read.
    pub checked: u64,
    /// The oldest and the newest that should be there; 0 where there was never any.
    pub first: u64,
    pub last: u64,
    /// Oldest first.
    pub flaws: Vec<Flaw>,
}

/// A run of entries that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub sequence: u64,
    /// The last of the run.
    pub until: u64,
    pub what: What,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Altered,
    Unreadable,
    Missing,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            What::Altered => "altered",
            What::Unreadable => "unreadable",
            What::Missing => "missing",
        }
    }
}

impl Checked {
    /// The flaw is older than those before, or goes on where the last began.
    pub(crate) fn add(&mut self, sequence: u64, what: What, why: String) {
        self.add_run(sequence, sequence, what, why);
    }

    pub(crate) fn add_run(&mut self, sequence: u64, until: u64, what: What, why: String) {
        match self.flaws.last_mut() {
            Some(last) if last.what == what && what != What::Altered && last.sequence.checked_sub(1) == Some(until) => {
                last.sequence = sequence;
            }
            _ => self.flaws.push(Flaw { sequence, until, what, why }),
        }
    }

    /// Turned to oldest first, and to as many as are named.
    pub(crate) fn done(mut self) -> Self {
        self.flaws.reverse();
        self.flaws.truncate(NAMED_MAX);
        self
    }
}

/// What the chain above says of the entry that comes next.
enum Expected {
    /// It has this hash; told by entries that have proven right.
    Proven(Digest),
    /// It should have this one, if the entry that says so is right itself.
    Said(Digest),
    Nothing,
}

impl Journal {
    /// Blocks on the disk. `oldest` entries are trimmed by age, so the chain begins where the journal does; what is missing
    /// above that is told.
    pub fn check_audit(&self, head: AuditHead) -> Checked {
        let mut checked = Checked { last: head.count, ..Checked::default() };
        if head.count == 0 {
            return checked;
        }
        let oldest = self.read(|books| books.audit.oldest()).flatten().unwrap_or(head.count);
        checked.first = oldest.min(self.kept_from(head.count)).max(1);
        let mut expected = Expected::Proven(head.hash);
        for sequence in (checked.first..=head.count).rev() {
            match self.audit_entry(sequence) {
                Ok(Some(entry)) => {
                    checked.checked += 1;
                    expected = follow(&mut checked, expected, &entry, sequence);
                }
                Ok(None) => {
                    checked.add(sequence, What::Missing, "this node does not hold it".into());
                    expected = Expected::Nothing;
                }
                Err(why) => {
                    checked.add(sequence, What::Unreadable, why);
                    expected = Expected::Nothing;
                }
            }
        }
        self.name_altered(checked).done()
    }

    /// Where a journal that was never set aside would begin: with the first entry, as long as nothing is trimmed.
    fn kept_from(&self, newest: u64) -> u64 {
        newest.saturating_sub(super::books::AUDIT_MAX - 1)
    }

    fn audit_entry(&self, sequence: u64) -> Result<Option<AuditEntry>, String> {
        if let Some(entry) = self.inner.gathered.lock().audit.get(&sequence) {
            return Ok(Some(entry.clone()));
        }
        let Some(books) = &self.inner.books else { return Ok(None) };
        super::books::guarded(|| books.entry(sequence)).map_err(|error| format!("{error:#}"))
    }

    /// What was found broken before sled had opened the file. It may have been written again since, from the log: that an
    /// entry had changed is told all the same, until somebody removes the list.
    fn name_altered(&self, mut checked: Checked) -> Checked {
        let mut altered = raw::noted(&self.inner.dir);
        altered.retain(|sequence| (checked.first..=checked.last).contains(sequence));
        if altered.is_empty() {
            return checked;
        }
        let mut flaws = std::mem::take(&mut checked.flaws);
        flaws.reverse();
        let mut named: Vec<(u64, What, String)> = Vec::new();
        for flaw in flaws {
            let run = (flaw.sequence..=flaw.until).filter(|it| !altered.contains(it) || flaw.what == What::Altered);
            named.extend(run.map(|sequence| (sequence, flaw.what, flaw.why.clone())));
        }
        for sequence in altered {
            if named.iter().all(|(it, ..)| *it != sequence) {
                named.push((sequence, What::Altered, "its bytes on the disk did not match their checksum".into()));
            }
        }
        named.sort_by_key(|(sequence, ..)| std::cmp::Reverse(*sequence));
        named.into_iter().for_each(|(sequence, what, why)| checked.add(sequence, what, why));
        checked
    }
}

fn follow(checked: &mut Checked, expected: Expected, entry: &AuditEntry, sequence: u64) -> Expected {
    let hash = entry.hash();
    match expected {
        Expected::Proven(wanted) if hash == wanted && entry.sequence == sequence => Expected::Proven(entry.previous),
        Expected::Proven(wanted) => {
            checked.add(sequence, What::Altered, format!("its hash is {hash}, and the chain says {wanted}"));
            Expected::Said(entry.previous)
        }
        Expected::Said(wanted) if hash == wanted => Expected::Proven(entry.previous),
        // Which of the two is wrong cannot be told: the one above is named already.
        Expected::Said(_) | Expected::Nothing => Expected::Said(entry.previous),
    }
}
