//! How much one value looks like an attack, by class. Most values have no byte that any pattern begins with, and cost one look
//! at each of their bytes; the others are held against those patterns alone that could match them at all (`gate`).

use std::sync::LazyLock;

use quorumgate_model::resource::InjectionClass;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::{
    gate::{Gate, Places},
    normal::{Comments, Plus, normalize},
    patterns::PATTERNS,
};

/// Of some of a class's patterns together, and of the states that a thread remembers of them.
const SET_BYTES_MAX: usize = 32 << 20;
const STATES_BYTES_MAX: usize = 2 << 20;
/// Of one pattern by itself.
const STATES_BYTES_OF_ONE: usize = 256 << 10;
/// So many of a set are held against a text one by one; if more of them are open, all are at once. It bounds what a text that
/// was made for this costs.
const SINGLES_MAX: u32 = 4;

const CLASSES: usize = InjectionClass::ALL.len();

/// What each class scored, in the order of `InjectionClass::ALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scores([u32; CLASSES]);

impl Scores {
    pub(super) fn of(&self, class: InjectionClass) -> u32 {
        self.0[class as usize]
    }

    /// Of each class what it scored more.
    fn most(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|class| self.0[class].max(other.0[class])))
    }

    /// Without all classes but these.
    pub(super) fn only(&self, classes: &[InjectionClass]) -> Self {
        let mut kept = Self::default();
        classes.iter().for_each(|class| kept.0[*class as usize] = self.of(*class));
        kept
    }

    pub(super) fn sum(&self) -> u32 {
        self.0.iter().sum()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0 == [0; CLASSES]
    }
}

/// Those of a class's patterns that look at a text's start alone, which are mostly done with it soon, or the others.
struct Set {
    class: InjectionClass,
    patterns: RegexSet,
    places: Vec<usize>,
    members: Places,
}

struct Pattern {
    weight: u32,
    alone: RegexSet,
}

struct All {
    gate: Gate,
    patterns: Vec<Pattern>,
    sets: Vec<Set>,
    classes: [Places; CLASSES],
}

static ALL: LazyLock<All> = LazyLock::new(|| {
    let texts: Vec<_> = PATTERNS
        .iter()
        .flat_map(|(class, those)| those.iter().map(move |(weight, text)| (*class, *weight, *text)))
        .collect();
    let gate = Gate::of(texts.iter().map(|(.., text)| *text));
    let compiled = |texts: Vec<&str>, states: usize| {
        let mut builder = RegexSetBuilder::new(texts);
        builder.unicode(false).size_limit(SET_BYTES_MAX).dfa_size_limit(states);
        builder.build().expect("every pattern is compiled by a test")
    };
    let mut classes = [Places::default(); CLASSES];
    let mut patterns = Vec::new();
    for (place, (class, weight, text)) in texts.iter().enumerate() {
        classes[*class as usize].add(place);
        let alone = compiled(vec![*text], STATES_BYTES_OF_ONE);
        patterns.push(Pattern { weight: (*weight).into(), alone });
    }
    let mut sets = Vec::new();
    for class in InjectionClass::ALL {
        let anchored = classes[*class as usize].and(gate.anchored());
        for members in [anchored, classes[*class as usize].without(anchored)] {
            let places: Vec<_> = members.each().collect();
            let patterns = compiled(places.iter().map(|place| texts[*place].2).collect(), STATES_BYTES_MAX);
            sets.push(Set { class: *class, patterns, places, members });
        }
    }
    All { gate, patterns, sets, classes }
});

/// Compiles the patterns, which takes a while, before a request needs them.
pub(in crate::inspect) fn prepare() {
    LazyLock::force(&ALL);
}

impl All {
    /// `open` are those that might match the text.
    fn score(&self, text: &[u8], open: Places) -> Scores {
        let mut scores = Scores::default();
        for set in &self.sets {
            let open = open.and(set.members);
            let score = match open.len() {
                0 => continue,
                1..=SINGLES_MAX => {
                    let open = open.each().map(|place| &self.patterns[place]);
                    open.filter(|it| it.alone.is_match(text)).map(|it| it.weight).sum::<u32>()
                }
                _ => set.score(text, &self.patterns),
            };
            scores.0[set.class as usize] += score;
        }
        scores
    }

    /// Those of the classes that a text of these kinds may be of.
    fn of_kinds(&self, seen: Seen, text: &[u8]) -> Places {
        let may_be = InjectionClass::ALL.iter().filter(|class| may_be(**class, seen, text));
        may_be.fold(Places::default(), |sum, class| sum.or(self.classes[*class as usize]))
    }
}

impl Set {
    fn score(&self, text: &[u8], patterns: &[Pattern]) -> u32 {
        match self.patterns.is_match(text) {
            false => 0,
            true => self.patterns.matches(text).iter().map(|at| patterns[self.places[at]].weight).sum(),
        }
    }
}

/// Scores values one after another, in buffers that it keeps.
#[derive(Default)]
pub(super) struct Scorer {
    normal: Vec<u8>,
    bare: Vec<u8>,
}

impl Scorer {
    pub(super) fn score(&mut self, text: &[u8], plus: Plus) -> Scores {
        if is_plain(text, plus) {
            return Scores::default();
        }
        let had = normalize(text, plus, Comments::Cut, &mut self.normal);
        let mut scores = self.score_normal();
        if had.comments {
            normalize(text, plus, Comments::Kept, &mut self.normal);
            scores = scores.most(&self.score_normal());
        }
        if had.lines {
            normalize(text, plus, Comments::LinesCut, &mut self.normal);
            scores = scores.most(&self.score_sql());
        }
        scores
    }

    fn score_sql(&self) -> Scores {
        let seen = seen(&self.normal);
        if !may_be(InjectionClass::Sqli, seen, &self.normal) {
            return Scores::default();
        }
        let open = ALL.gate.open(&self.normal, seen).and(ALL.classes[InjectionClass::Sqli as usize]);
        ALL.score(&self.normal, open)
    }

    fn score_normal(&mut self) -> Scores {
        let seen = seen(&self.normal);
        let classes = ALL.of_kinds(seen, &self.normal);
        if classes == Places::default() {
            return Scores::default();
        }
        // `c'a't` is `cat` for a shell.
        if seen & OF_SHELLS == 0 || !may_be(InjectionClass::Command, seen, &self.normal) {
            return ALL.score(&self.normal, ALL.gate.open(&self.normal, seen).and(classes));
        }
        let (open, open_bare) = ALL.gate.open_twice(&self.normal, seen, OF_SHELLS);
        let scores = ALL.score(&self.normal, open.and(classes));
        let open_bare = open_bare.and(ALL.classes[InjectionClass::Command as usize]);
        if open_bare == Places::default() {
            return scores;
        }
        self.bare.clear();
        self.bare.extend(self.normal.iter().filter(|byte| KINDS[usize::from(**byte)] & OF_SHELLS == 0));
        scores.most(&ALL.score(&self.bare, open_bare))
    }
}

/// What a text has of bytes: one bit for a blank, for each sign of ASCII, and for all that is none of these and no letter, no
/// digit and none of `-_.,`.
pub(super) type Seen = u64;

pub(super) const KINDS_LEN: usize = 34;

const SPACE: Seen = kind(b' ');
const QUOTE: Seen = kind(b'\'') | kind(b'"') | kind(b'`');
const ANGLE: Seen = kind(b'<');
const SLASH: Seen = kind(b'/');
const BACKSLASH: Seen = kind(b'\\');
/// What ends a command.
const SEPARATOR: Seen = kind(b';') | kind(b'|') | kind(b'&') | kind(b'`');
const DOLLAR: Seen = kind(b'$');
const BRACE: Seen = kind(b'{');
const COLON: Seen = kind(b':');
const PAREN: Seen = kind(b'(');
const EQUALS: Seen = kind(b'=');
const AT: Seen = kind(b'@');
const HASH: Seen = kind(b'#');
const PERCENT: Seen = kind(b'%');
const BRACKET: Seen = kind(b'[');
const CARET: Seen = kind(b'^');
/// What a shell leaves out of a word.
const OF_SHELLS: Seen = kind(b'\'') | kind(b'"') | BACKSLASH | CARET;
/// What no class begins with.
const OTHER: Seen = kind(b'!')
    | kind(b')')
    | kind(b'*')
    | kind(b'+')
    | kind(b'>')
    | kind(b'?')
    | kind(b']')
    | kind(b'}')
    | kind(b'~')
    | kind(0);

const fn kind(byte: u8) -> Seen {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b',' => 0,
        b' '..=b'/' => 1 << (byte - b' '),
        b':'..=b'@' => 1 << (16 + byte - b':'),
        b'['..=b'`' => 1 << (23 + byte - b'['),
        b'{'..=b'~' => 1 << (29 + byte - b'{'),
        _ => 1 << 33,
    }
}

pub(super) static KINDS: [Seen; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = kind(byte as u8);
        byte += 1;
    }
    kinds
};

pub(super) fn seen(text: &[u8]) -> Seen {
    text.iter().fold(0, |seen, byte| seen | KINDS[*byte as usize])
}

/// Words, numbers, ids, dates and addresses of mail: no attack has nothing else.
fn is_plain(text: &[u8], plus: Plus) -> bool {
    let harmless = COLON | AT | OTHER;
    let plain = |byte: &u8| KINDS[*byte as usize] & !harmless == 0 && (byte.is_ascii_graphic() || *byte > 0xc1);
    text.iter().all(plain) && !(plus == Plus::Space && text.contains(&b'+'))
}

/// Whether anything that the class's patterns need is there.
fn may_be(class: InjectionClass, seen: Seen, text: &[u8]) -> bool {
    let any = |kinds: Seen| seen & kinds != 0;
    match class {
        InjectionClass::Sqli => any(SPACE | QUOTE | PAREN | SEPARATOR | AT | BRACKET),
        InjectionClass::Xss => {
            any(ANGLE | PAREN | BRACKET) || any(QUOTE) && any(EQUALS) || any(COLON) && any(QUOTE | EQUALS | SEPARATOR)
        }
        InjectionClass::Traversal => any(SLASH | BACKSLASH),
        InjectionClass::Command => any(SEPARATOR | PAREN | DOLLAR) || any(SLASH) && any(SPACE),
        InjectionClass::Ssrf => any(SLASH) && (any(COLON) || text.starts_with(b"//")),
        InjectionClass::Template => {
            any(BRACE)
                || any(ANGLE) && any(PERCENT | HASH)
                || any(PAREN) && any(AT | HASH | DOLLAR)
                || any(BRACKET) && any(QUOTE | PAREN)
        }
        InjectionClass::Log4shell => any(DOLLAR) && any(BRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles_and_each_class_has_some() {
        prepare();
        assert!(ALL.patterns.iter().all(|it| (1..=5).contains(&it.weight)));
        assert!(ALL.classes.iter().all(|it| it.len() > 0));
        // Each is in one set, and in one of its class.
        let mut held: Vec<usize> = ALL.sets.iter().flat_map(|set| set.places.iter().copied()).collect();
        held.sort_unstable();
        assert!(held.into_iter().eq(0..ALL.patterns.len()));
        for set in &ALL.sets {
            assert_eq!(set.members.without(ALL.classes[set.class as usize]), Places::default());
        }
    }

    #[test]
    fn no_pattern_is_shut_that_matches() {
        use crate::inspect::injection::corpus;
        let (mut matched, mut scorer) = (0, Scorer::default());
        let texts: Vec<Vec<u8>> = corpus::texts().collect();
        for text in &texts {
            for comments in [Comments::Cut, Comments::Kept, Comments::LinesCut] {
                normalize(text, Plus::Space, comments, &mut scorer.normal);
                let normal = &scorer.normal;
                let bare: Vec<u8> = normal.iter().copied().filter(|byte| !b"'\"\\^".contains(byte)).collect();
                let (open, open_bare) = ALL.gate.open_twice(normal, seen(normal), OF_SHELLS);
                assert_eq!(open, ALL.gate.open(normal, seen(normal)));
                assert_eq!(open_bare, ALL.gate.open(&bare, seen(&bare)));
                for set in &ALL.sets {
                    for (read, open) in [(normal, open), (&bare, open_bare)] {
                        for at in set.patterns.matches(read).iter() {
                            matched += 1;
                            let is_open = open.each().any(|it| it == set.places[at]);
                            assert!(is_open, "{:?} {at}: {}", set.class, String::from_utf8_lossy(read));
                        }
                    }
                }
            }
        }
        assert!(matched > 5_000, "{matched} matches are too few to tell");
    }

    #[test]
    fn one_by_one_and_all_at_once_score_the_same() {
        use crate::inspect::injection::corpus;
        let mut scorer = Scorer::default();
        for text in corpus::texts() {
            normalize(&text, Plus::Space, Comments::Cut, &mut scorer.normal);
            let normal = &scorer.normal;
            let mut at_once = Scores::default();
            ALL.sets.iter().for_each(|set| at_once.0[set.class as usize] += set.score(normal, &ALL.patterns));
            let one_by_one = ALL.score(normal, ALL.gate.open(normal, seen(normal)));
            assert_eq!(one_by_one, at_once, "{}", String::from_utf8_lossy(normal));
        }
    }

    #[test]
    fn the_shape_of_a_pattern_does_not_make_it_slow() {
        // What makes backtracking readers go back again and again.
        let mut scorer = Scorer::default();
        for text in [
            "<a ".repeat(20_000),
            "' or (".repeat(10_000),
            "${".repeat(30_000),
            "../".repeat(20_000),
            "{{ ".repeat(20_000),
        ] {
            let began = std::time::Instant::now();
            scorer.score(text.as_bytes(), Plus::Plus);
            assert!(began.elapsed() < std::time::Duration::from_secs(60), "{}", &text[..6]);
        }
    }
}
