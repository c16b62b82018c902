//! What is said of a translation: one line for each thing that is not as it was, with its place and what to do by hand.

use std::{cell::RefCell, collections::HashSet, fmt};

/// More lines than this are counted alone.
const LINES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is in no object that was made.
    LeftOut,
    /// The route lets nobody in, since what it asks for could not be translated.
    Closed,
    /// It is there, and does not mean quite the same.
    Differs,
    /// Nothing is lost, but something is to be known or done.
    Note,
}

impl Told {
    /// Whether `--strict` takes offence.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::LeftOut | Self::Closed)
    }

    fn word(self) -> &'static str {
        match self {
            Self::LeftOut => "left out",
            Self::Closed => "closed",
            Self::Differs => "differs",
            Self::Note => "note",
        }
    }
}

/// Shown as `left out: kong.yaml:12: routes[orders].plugins[acl].config: found a map; …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub told: Told,
    /// Which file, by its number, and the line in it.
    pub place: (usize, usize),
    /// `kong.yaml:12`
    pub shown: String,
    pub what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.told.word(), self.shown, self.what)
    }
}

#[derive(Debug, Default)]
pub struct Report(RefCell<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    seen: HashSet<String>,
    more: usize,
    is_loss: bool,
}

/// All that was said, in the order of the files.
#[derive(Debug, Default)]
pub struct Reported {
    pub lines: Vec<Line>,
    /// How many lines there are beyond these.
    pub more: usize,
    /// Whether something was not translated.
    pub is_loss: bool,
}

impl Report {
    /// The same is said once, however many routes it is about.
    pub fn say(&self, line: Line) {
        let mut it = self.0.borrow_mut();
        it.is_loss |= line.told.is_loss();
        if !it.seen.insert(line.to_string()) {
            return;
        }
        match it.lines.len() < LINES_MAX {
            true => it.lines.push(line),
            false => it.more += 1,
        }
    }

    pub fn finish(&self) -> Reported {
        let Lines { mut lines, more, is_loss, .. } = self.0.take();
        lines.sort_by_key(|it| it.place);
        Reported { lines, more, is_loss }
    }
}
