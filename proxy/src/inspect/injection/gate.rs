//! Which patterns a text could match at all, found in one pass over it: what every match of a pattern has in it is read from the
//! pattern itself. Whether one does match is for the others to say (`score`); one that is not named here cannot.

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
    dfa::DFA,
};
use regex_syntax::{
    ParserBuilder,
    hir::{
        Hir, HirKind, Look,
        literal::{ExtractKind, Extractor},
    },
};

use super::score::{KINDS, KINDS_LEN, Seen};

/// Patterns, by their place in the list of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Places([u128; 2]);

impl Places {
    pub(super) fn add(&mut self, place: usize) {
        self.0[place / 128] |= 1 << (place % 128);
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    pub(super) fn len(self) -> u32 {
        self.0[0].count_ones() + self.0[1].count_ones()
    }

    pub(super) fn each(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let place = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 128 + place)
            })
        })
    }
}

/// How many needs of a pattern are asked for: each is one that every match has.
const NEEDS: usize = 3;
/// What is longer is no rarer.
const LITERAL_BYTES_MAX: usize = 8;
/// Of one need, which has any of them. One with more says little.
const CLASS_MAX: usize = 4;
const LITERALS_MAX: usize = 64;

/// Of each need, the patterns that have it.
type Needs = [Places; NEEDS];

/// One of these is in whatever the pattern matches: kinds of single bytes, or a literal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    kinds: Seen,
    literals: Vec<Vec<u8>>,
}

impl Need {
    /// None: that says nothing.
    fn of(texts: Vec<Vec<u8>>) -> Option<Self> {
        if texts.is_empty() || texts.iter().any(Vec::is_empty) {
            return None;
        }
        let mut need = Self { kinds: 0, literals: Vec::new() };
        for text in &texts {
            match text[..] {
                // Letters and blanks are everywhere.
                [byte] if KINDS[usize::from(byte)] == 0 || byte == b' ' => return None,
                [byte] => need.kinds |= KINDS[usize::from(byte)],
                // One that has another in it is found by that.
                _ if texts.iter().any(|it| it.len() < text.len() && text.windows(it.len()).any(|part| part == it)) => {}
                _ if need.literals.contains(text) => {}
                _ => need.literals.push(text.clone()),
            }
        }
        Some(need)
    }

    /// More is rarer.
    fn rank(&self) -> (usize, std::cmp::Reverse<usize>) {
        let shortest = self.literals.iter().map(Vec::len).min().unwrap_or(1);
        let least = if self.kinds == 0 { shortest } else { 1 };
        (least, std::cmp::Reverse(self.literals.len() + self.kinds.count_ones() as usize))
    }

    /// Whether whatever has the other has this one, too.
    fn follows_from(&self, other: &Self) -> bool {
        let has = |text: &Vec<u8>| {
            text.iter().any(|byte| KINDS[usize::from(*byte)] & self.kinds != 0)
                || self.literals.iter().any(|it| text.windows(it.len()).any(|part| part == it))
        };
        other.kinds & !self.kinds == 0 && other.literals.iter().all(has)
    }
}

/// Everything that each match has in it, the rarest first.
fn needs(hir: &Hir) -> Vec<Need> {
    let mut found: Vec<_> = begins(hir).into_iter().collect();
    match hir.kind() {
        HirKind::Concat(parts) => {
            for (from, part) in parts.iter().enumerate() {
                found.extend(begins(&Hir::concat(parts[from..].to_vec())));
                found.extend(needs(part));
            }
        }
        HirKind::Capture(it) => found.extend(needs(&it.sub)),
        HirKind::Repetition(it) if it.min > 0 => found.extend(needs(&it.sub)),
        HirKind::Alternation(ways) => {
            let rarest = ways.iter().map(|way| needs(way).into_iter().next()).collect::<Option<Vec<_>>>();
            if let Some(rarest) = rarest {
                let kinds = rarest.iter().fold(0, |kinds, it| kinds | it.kinds);
                let literals = rarest.into_iter().flat_map(|it| it.literals).collect::<Vec<_>>();
                found.push(Need { kinds, literals });
            }
        }
        _ => {}
    }
    found.sort_by_key(|it| std::cmp::Reverse(it.rank()));
    found
}

/// What each match begins with.
fn begins(hir: &Hir) -> Option<Need> {
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix).limit_class(CLASS_MAX).limit_literal_len(LITERAL_BYTES_MAX);
    extractor.limit_total(LITERALS_MAX);
    let found = extractor.extract(hir);
    Need::of(found.literals()?.iter().map(|it| it.as_bytes().to_vec()).collect())
}

pub(super) struct Gate {
    literals: DFA,
    by_literal: Vec<Needs>,
    by_kind: [Needs; KINDS_LEN],
    /// Those that have fewer needs, by need.
    free: Needs,
    /// Those that look at the text's start alone.
    anchored: Places,
}

impl Gate {
    pub(super) fn of<'p>(patterns: impl Iterator<Item = &'p str>) -> Self {
        let (mut texts, mut by_literal) = (Vec::<Vec<u8>>::new(), Vec::<Needs>::new());
        let (mut by_kind, mut free) = ([Needs::default(); KINDS_LEN], Needs::default());
        let mut anchored = Places::default();
        for (place, pattern) in patterns.enumerate() {
            let parsed = ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
            let hir = parsed.expect("every pattern is compiled by a test");
            if hir.properties().look_set_prefix().contains(Look::Start) {
                anchored.add(place);
            }
            let mut chosen: Vec<Need> = Vec::new();
            for need in needs(&hir) {
                if chosen.len() < NEEDS && !chosen.iter().any(|it| need.follows_from(it)) {
                    chosen.push(need);
                }
            }
            free.iter_mut().skip(chosen.len()).for_each(|it| it.add(place));
            for (slot, need) in chosen.iter().enumerate() {
                let kinds = by_kind.iter_mut().enumerate().filter(|(kind, _)| (need.kinds >> *kind) & 1 == 1);
                kinds.for_each(|(_, needs)| needs[slot].add(place));
                for literal in &need.literals {
                    let at = texts.iter().position(|it| it == literal).unwrap_or_else(|| {
                        texts.push(literal.clone());
                        by_literal.push(Needs::default());
                        texts.len() - 1
                    });
                    by_literal[at][slot].add(place);
                }
            }
        }
        let literals = DFA::new(&texts).expect("some hundred short literals");
        Self { literals, by_literal, by_kind, free, anchored }
    }

    pub(super) fn anchored(&self) -> Places {
        self.anchored
    }

    /// What the text could match; `seen` is what it has of kinds.
    pub(super) fn open(&self, text: &[u8], seen: Seen) -> Places {
        let mut found = self.of_kinds(seen);
        let mut state = self.start();
        for byte in text {
            state = self.step(state, *byte, &mut found);
        }
        all_of(found)
    }

    /// And what it could once it is without some bytes, which are of these kinds and of no other.
    pub(super) fn open_twice(&self, text: &[u8], seen: Seen, without: Seen) -> (Places, Places) {
        let (mut found, mut bare) = (self.of_kinds(seen), self.of_kinds(seen & !without));
        let (mut state, mut bare_state) = (self.start(), self.start());
        for byte in text {
            state = self.step(state, *byte, &mut found);
            if KINDS[usize::from(*byte)] & without == 0 {
                bare_state = self.step(bare_state, *byte, &mut bare);
            }
        }
        (all_of(found), all_of(bare))
    }

    fn start(&self) -> StateID {
        self.literals.start_state(Anchored::No).expect("it was built for this")
    }

    #[inline]
    fn step(&self, state: StateID, byte: u8, found: &mut Needs) -> StateID {
        let next = self.literals.next_state(Anchored::No, state, byte);
        if self.literals.is_match(next) {
            self.mark(next, found);
        }
        next
    }

    /// Apart: most steps end no literal.
    #[inline(never)]
    fn mark(&self, state: StateID, found: &mut Needs) {
        for index in 0..self.literals.match_len(state) {
            add_all(found, &self.by_literal[self.literals.match_pattern(state, index).as_usize()]);
        }
    }

    fn of_kinds(&self, seen: Seen) -> Needs {
        let mut found = self.free;
        let mut left = seen;
        while left != 0 {
            add_all(&mut found, &self.by_kind[left.trailing_zeros() as usize]);
            left &= left - 1;
        }
        found
    }
}

fn add_all(found: &mut Needs, more: &Needs) {
    for (found, more) in found.iter_mut().zip(more) {
        *found = found.or(*more);
    }
}

fn all_of(found: Needs) -> Places {
    found.into_iter().reduce(Places::and).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::injection::score::seen;

    fn parsed(pattern: &str) -> Vec<Need> {
        needs(&ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap())
    }

    #[test]
    fn what_every_match_has_is_read_from_the_pattern() {
        for (pattern, expected) in [
            (r"\bselect\b.*\bfrom\b", &["select"][..]),
            (r"(^|[^a-z_])union[ (]*(all|distinct)?x", &["union"]),
            ("a(bcd|efg)+h", &["abcd", "aefg"]),
            ("[;|] ?(cat|ls)", &["cat", "ls"]),
            ("abc|def|xyz ?[0-9]", &["abc", "def", "xyz"]),
            ("a?b*", &[]),
            ("(abc)?x ", &["x "]),
        ] {
            let found = parsed(pattern).into_iter().next();
            let literals: Vec<_> = found.iter().flat_map(|it| &it.literals).map(|it| it.as_slice()).collect();
            let of_kinds = found.as_ref().map_or(0, |it| it.kinds);
            // The rarest may begin earlier than what is written here.
            let is_said = literals.iter().all(|it| {
                let text = String::from_utf8_lossy(it);
                expected.iter().any(|wanted| text.contains(wanted) || wanted.contains(&*text))
            });
            assert!(is_said && of_kinds == 0, "{pattern}: {found:?}");
            assert_eq!(literals.is_empty(), expected.is_empty(), "{pattern}: {found:?}");
        }
    }

    #[test]
    fn a_pattern_is_open_where_all_that_it_needs_is_there() {
        let gate = Gate::of([r"\bselect\b.*\bfrom\b", "^[^']*' ?or", "[a-z]+ ?[0-9]"].into_iter());
        let open = |text: &str| gate.open(text.as_bytes(), seen(text.as_bytes()));
        let places = |text: &str| open(text).each().collect::<Vec<_>>();
        assert_eq!(places("nothing of these"), [2]);
        assert_eq!(places("select a"), [2]);
        assert_eq!(places("select a from b"), [0, 2]);
        assert_eq!(places("' or"), [1, 2]);
        assert_eq!(places("this or that"), [2]);
        assert_eq!(gate.anchored().each().collect::<Vec<_>>(), [1]);
        let text = "sel'ect from";
        let seen = seen(text.as_bytes());
        let (plain, bare) = gate.open_twice(text.as_bytes(), seen, KINDS[usize::from(b'\'')]);
        assert_eq!(plain, open(text));
        assert_eq!(bare, open("select from"));
    }
}
