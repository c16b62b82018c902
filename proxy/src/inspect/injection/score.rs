//! How much one value looks like an attack, by class. Most values have no byte that any pattern begins with, and cost one look
//! at each of their bytes; the others are held against the patterns of those classes alone that they could be of.

use std::sync::LazyLock;

use quorumgate_model::resource::InjectionClass;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::{
    normal::{Comments, Plus, normalize},
    patterns::PATTERNS,
};

/// Of one class's patterns together, and of the states that a thread remembers of them.
const SET_BYTES_MAX: usize = 32 << 20;
const STATES_BYTES_MAX: usize = 4 << 20;

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

struct Set {
    class: InjectionClass,
    patterns: RegexSet,
    weights: Vec<u32>,
}

static SETS: LazyLock<Vec<Set>> = LazyLock::new(|| {
    let set = |(class, patterns): &(InjectionClass, &[(u8, &str)])| {
        let mut builder = RegexSetBuilder::new(patterns.iter().map(|(_, text)| text));
        builder.unicode(false).size_limit(SET_BYTES_MAX).dfa_size_limit(STATES_BYTES_MAX);
        let compiled = builder.build().expect("every pattern is compiled by a test");
        Set {
            class: *class,
            patterns: compiled,
            weights: patterns.iter().map(|(weight, _)| (*weight).into()).collect(),
        }
    };
    PATTERNS.iter().map(set).collect()
});

/// Compiles the patterns, which takes a while, before a request needs them.
pub(in crate::inspect) fn prepare() {
    LazyLock::force(&SETS);
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
        let mut scores = Scores::default();
        let seen = seen(&self.normal);
        for set in SETS.iter().filter(|set| set.class == InjectionClass::Sqli && may_be(set.class, seen, &self.normal))
        {
            scores.0[set.class as usize] = set.score(&self.normal);
        }
        scores
    }

    fn score_normal(&mut self) -> Scores {
        let mut scores = Scores::default();
        let seen = seen(&self.normal);
        for set in SETS.iter().filter(|set| may_be(set.class, seen, &self.normal)) {
            scores.0[set.class as usize] += set.score(&self.normal);
        }
        // `c'a't` is `cat` for a shell.
        if may_be(InjectionClass::Command, seen, &self.normal) && seen & (QUOTE | BACKSLASH | CARET) != 0 {
            self.bare.clear();
            self.bare.extend(self.normal.iter().filter(|byte| !matches!(byte, b'\'' | b'"' | b'\\' | b'^')));
            let of_commands = SETS.iter().filter(|set| set.class == InjectionClass::Command);
            let bare = of_commands.map(|set| set.score(&self.bare)).sum();
            let score = &mut scores.0[InjectionClass::Command as usize];
            *score = (*score).max(bare);
        }
        scores
    }
}

impl Set {
    fn score(&self, text: &[u8]) -> u32 {
        match self.patterns.is_match(text) {
            false => 0,
            true => self.patterns.matches(text).iter().map(|place| self.weights[place]).sum(),
        }
    }
}

type Seen = u32;

const SPACE: Seen = 1;
/// `'`, `"` and `` ` ``
const QUOTE: Seen = 1 << 1;
const ANGLE: Seen = 1 << 2;
const SLASH: Seen = 1 << 3;
const BACKSLASH: Seen = 1 << 4;
/// What ends a command: `;`, `|`, `&`, `` ` ``
const SEPARATOR: Seen = 1 << 5;
const DOLLAR: Seen = 1 << 6;
const BRACE: Seen = 1 << 7;
const COLON: Seen = 1 << 8;
const PAREN: Seen = 1 << 9;
const EQUALS: Seen = 1 << 10;
const AT: Seen = 1 << 11;
const HASH: Seen = 1 << 12;
const PERCENT: Seen = 1 << 13;
const BRACKET: Seen = 1 << 14;
const CARET: Seen = 1 << 15;
/// None of these, and neither a letter, a digit nor one of `-_.,`.
const OTHER: Seen = 1 << 16;

const fn kind(byte: u8) -> Seen {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b',' => 0,
        b' ' => SPACE,
        b'\'' | b'"' => QUOTE,
        b'`' => QUOTE | SEPARATOR,
        b'<' => ANGLE,
        b'/' => SLASH,
        b'\\' => BACKSLASH,
        b';' | b'|' | b'&' => SEPARATOR,
        b'$' => DOLLAR,
        b'{' => BRACE,
        b':' => COLON,
        b'(' => PAREN,
        b'=' => EQUALS,
        b'@' => AT,
        b'#' => HASH,
        b'%' => PERCENT,
        b'[' => BRACKET,
        b'^' => CARET,
        _ => OTHER,
    }
}

static KINDS: [Seen; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = kind(byte as u8);
        byte += 1;
    }
    kinds
};

fn seen(text: &[u8]) -> Seen {
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
        for (set, class) in SETS.iter().zip(InjectionClass::ALL) {
            assert_eq!(set.class, *class);
            assert!(!set.weights.is_empty() && set.weights.iter().all(|weight| (1..=5).contains(weight)));
        }
        assert_eq!(SETS.len(), CLASSES);
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
