//! The field sections of a request stream, of which the library keeps neither the order nor the number of the
//! pseudo-fields, nor all of a path: a section that RFC 9114 4.3 calls malformed is told from a good one as it passes, by the
//! names of its fields, and by a fragment in its path, which the library would cut off.

use super::screen::varint;

const HEADERS: u64 = 1;
/// Of a frame's kind and length.
const FRAME_HEAD_BYTES_MAX: usize = 16;
/// The longest of a pseudo-field, and one byte by which a longer one is known.
const NAME_BYTES_MAX: usize = 11;
/// An integer that needs more is none that the library takes.
const SHIFT_MAX: u32 = 56;

/// The malformed section is the client's fault alone, and its stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Where a request stream stands.
#[derive(Debug, Default)]
pub(super) struct Sections {
    head: Vec<u8>,
    /// Of the frame's payload.
    left: u64,
    section: Option<Section>,
    /// That have begun: the second are trailers, and a third is an error of the connection, which the library tells.
    sections: u8,
}

impl Sections {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                if let Some(section) = &mut self.section {
                    section.feed(now)?;
                }
                self.left -= now.len() as u64;
                bytes = later;
                continue;
            }
            if self.head.len() == FRAME_HEAD_BYTES_MAX {
                return Ok(());
            }
            self.head.push(*first);
            bytes = rest;
            let Some((kind, n)) = varint(&self.head) else { continue };
            let Some((length, _)) = varint(&self.head[n..]) else { continue };
            self.head.clear();
            self.left = length;
            self.section = match (kind, self.sections) {
                (HEADERS, 0) => Some(Section::new(false)),
                (HEADERS, 1) => Some(Section::new(true)),
                _ => None,
            };
            self.sections = self.sections.saturating_add(u8::from(kind == HEADERS));
        }
        Ok(())
    }
}

/// How many symbols have a code of so many bits (RFC 7541 appendix B). Codes count up from symbol to symbol, and from length
/// to length with a zero behind: these numbers say where each ends.
const SYMBOLS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
/// The code of `#`.
const FRAGMENT: (usize, u32) = (12, 0xffa);

/// A field section of RFC 9204 4.5, without a dynamic table. What it cannot be is left to the library, which refuses it.
#[derive(Debug)]
struct Section {
    next: Part,
    /// Of the integer under way, if any.
    number: Option<(u64, u32)>,
    /// Of the string under way.
    left: u64,
    huffman: bool,
    name: Vec<u8>,
    /// The value is that of `:path`.
    is_path: bool,
    /// Of such a value in the Huffman code.
    code: Code,
    trailers: bool,
    /// A bit for each pseudo-field.
    seen: u8,
    /// A field that is no pseudo-field.
    regular: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Count,
    Base,
    Line,
    /// A name of the static table, with its value or (true) without.
    Index(bool),
    NameLength,
    Name,
    ValueLength,
    Value,
    /// The library ends the connection.
    Nothing,
}

impl Section {
    fn new(trailers: bool) -> Self {
        Self {
            next: Part::Count,
            number: None,
            left: 0,
            huffman: false,
            name: Vec::new(),
            is_path: false,
            code: Code::default(),
            trailers,
            seen: 0,
            regular: false,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some(first) = bytes.first() {
            if matches!(self.next, Part::Name | Part::Value) {
                let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                self.left -= now.len() as u64;
                bytes = later;
                if self.next == Part::Name {
                    self.name.extend(now.iter().take(NAME_BYTES_MAX - self.name.len()));
                } else if self.is_path && self.has_fragment(now) {
                    // Section 4.3.1: a path and a query.
                    return Err(Malformed);
                }
                if self.left == 0 {
                    self.string_ends()?;
                }
                continue;
            }
            let prefix = match self.next {
                Part::Nothing => return Ok(()),
                Part::Count => 8,
                Part::Base => 7,
                Part::ValueLength => {
                    if self.number.is_none() {
                        self.huffman = *first & 0x80 != 0;
                    }
                    7
                }
                _ if self.number.is_some() => 0,
                _ => self.line_begins(*first),
            };
            bytes = &bytes[1..];
            if let Some(number) = self.integer(*first, prefix) {
                self.numbered(number)?;
            }
        }
        Ok(())
    }

    /// How many bits of its first byte are of its integer (RFC 9204 4.5.2 to 4.5.6).
    fn line_begins(&mut self, first: u8) -> u32 {
        let prefix;
        (self.next, prefix) = match first {
            0xc0.. => (Part::Index(true), 6),
            0x50..0x60 | 0x70..0x80 => (Part::Index(false), 4),
            0x20..0x40 => (Part::NameLength, 3),
            _ => (Part::Nothing, 0),
        };
        self.huffman = first & 0x08 != 0;
        prefix
    }

    /// An integer of RFC 7541 5.1, once it is whole.
    fn integer(&mut self, byte: u8, prefix: u32) -> Option<u64> {
        let Some((so_far, shift)) = &mut self.number else {
            let most = (1_u64 << prefix) - 1;
            let number = u64::from(byte) & most;
            if number == most {
                self.number = Some((number, 0));
                return None;
            }
            return Some(number);
        };
        if *shift > SHIFT_MAX {
            self.next = Part::Nothing;
            return None;
        }
        *so_far = so_far.saturating_add(u64::from(byte & 0x7f) << *shift);
        *shift += 7;
        (byte & 0x80 == 0).then(|| self.number.take().map_or(0, |(number, _)| number))
    }

    fn numbered(&mut self, number: u64) -> Result<(), Malformed> {
        self.next = match self.next {
            Part::Count => Part::Base,
            Part::Base => Part::Line,
            Part::Index(whole) => {
                self.named(of_static(number))?;
                if whole { Part::Line } else { Part::ValueLength }
            }
            Part::NameLength => {
                self.left = number;
                self.name.clear();
                Part::Name
            }
            Part::ValueLength => {
                self.left = number;
                Part::Value
            }
            other => other,
        };
        match self.left == 0 && matches!(self.next, Part::Name | Part::Value) {
            true => self.string_ends(),
            false => Ok(()),
        }
    }

    fn string_ends(&mut self) -> Result<(), Malformed> {
        if self.next == Part::Value {
            self.next = Part::Line;
            return Ok(());
        }
        self.next = Part::ValueLength;
        let name = match self.huffman {
            true => PSEUDO.iter().position(|(_, huffman)| self.name == *huffman),
            false => PSEUDO.iter().position(|(plain, _)| self.name == *plain),
        };
        match (name, self.name.first()) {
            (Some(at), _) => self.named(Some(at)),
            // One that nobody knows, which the library refuses.
            (None, Some(b':')) if !self.huffman => {
                self.is_path = false;
                Ok(())
            }
            (None, _) => self.named(None),
        }
    }

    fn has_fragment(&mut self, value: &[u8]) -> bool {
        match self.huffman {
            true => value.iter().any(|byte| self.code.has_fragment(*byte)),
            false => value.contains(&b'#'),
        }
    }

    /// By its place in `PSEUDO`; none: no pseudo-field.
    fn named(&mut self, pseudo: Option<usize>) -> Result<(), Malformed> {
        self.is_path = pseudo == Some(PATH);
        self.code = Code::default();
        let Some(at) = pseudo else {
            self.regular = true;
            return Ok(());
        };
        let bit = 1 << at;
        // Section 4.3: before all others, in no trailers, and what is of answers not in requests; 4.3.1: once each.
        if self.trailers || self.regular || at == STATUS || self.seen & bit != 0 {
            return Err(Malformed);
        }
        self.seen |= bit;
        Ok(())
    }
}

/// The symbol under way: its first bits, how many, and the first code of that length.
#[derive(Debug, Default)]
struct Code {
    bits: u32,
    length: usize,
    first: u32,
}

impl Code {
    fn has_fragment(&mut self, byte: u8) -> bool {
        (0..8).rev().any(|at| self.next(u32::from((byte >> at) & 1)))
    }

    /// Whether a fragment's mark ends with this bit.
    fn next(&mut self, bit: u32) -> bool {
        let symbols = |length: usize| SYMBOLS.get(length).copied().unwrap_or_default();
        self.first = (self.first + symbols(self.length)) << 1;
        self.bits = (self.bits << 1) | bit;
        self.length += 1;
        // A code is as long as the longest at most.
        if self.bits - self.first >= symbols(self.length) {
            return false;
        }
        let Self { bits, length, .. } = std::mem::take(self);
        (length, bits) == FRAGMENT
    }
}

/// As they are, and in the Huffman code of RFC 7541.
const PSEUDO: [(&[u8], &[u8]); 6] = [
    (b":authority", b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f"),
    (b":path", b"\xb9\x58\xd3\x3f"),
    (b":method", b"\xb9\x49\x53\x39\xe4"),
    (b":scheme", b"\xb8\x82\x4e\x5a\x4b"),
    (b":status", b"\xb8\x84\x8d\x36\xa3"),
    (b":protocol", b"\xb9\x5d\x87\x49\xc8\x7a\x3f"),
];
const PATH: usize = 1;
const STATUS: usize = 4;

/// The pseudo-fields of the static table (RFC 9204 appendix A).
fn of_static(index: u64) -> Option<usize> {
    match index {
        0 => Some(0),
        1 => Some(1),
        15..=21 => Some(2),
        22 | 23 => Some(3),
        24..=28 | 63..=71 => Some(STATUS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:method: GET`, `:scheme: https`, `:path: /`, `:authority: a`, from the static table.
    const GOOD: &[u8] = &[0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a'];

    fn frame(payload: &[&[u8]]) -> Vec<u8> {
        let payload = payload.concat();
        assert!(payload.len() < 64);
        [&[HEADERS as u8, payload.len() as u8][..], &payload].concat()
    }

    /// However the bytes are cut.
    fn check(frames: &[Vec<u8>], good: bool) {
        let bytes = frames.concat();
        for cut in 0..bytes.len() {
            let mut sections = Sections::default();
            let fed = sections.feed(&bytes[..cut]).and_then(|()| sections.feed(&bytes[cut..]));
            assert_eq!(fed.is_ok(), good, "{bytes:x?} cut at {cut}");
        }
        let mut sections = Sections::default();
        assert_eq!(bytes.chunks(1).try_for_each(|byte| sections.feed(byte)).is_ok(), good, "{bytes:x?}");
    }

    #[test]
    fn a_path_with_a_fragment_is_malformed() {
        let path = |name: &[u8], value: &[u8], huffman: u8| {
            let length = [huffman | value.len() as u8];
            frame(&[&GOOD[..4], name, &length, value, &GOOD[5..]])
        };
        // By a name of the static table, that never is indexed, by its letters, and in the Huffman code.
        let huffman = [&[0x2c][..], PSEUDO[PATH].1].concat();
        for name in [&[0x51_u8][..], &[0x71], b"\x25:path", &huffman[..]] {
            for (value, is_good) in
                [(&b"/"[..], true), (b"/a?b", true), (b"/#", false), (b"#", false), (b"/a?b#c", false)]
            {
                check(&[path(name, value, 0)], is_good);
            }
            // `/>`, `/D,`, whose bits have those of `#` among them, `/#` and `/>#a`.
            check(&[path(name, &[0x63, 0xfe, 0xff], 0x80)], true);
            check(&[path(name, &[0x62, 0xff, 0xd7], 0x80)], true);
            check(&[path(name, &[0x63, 0xfe, 0xbf], 0x80)], false);
            check(&[path(name, &[0x63, 0xfe, 0xff, 0xe8, 0x7f], 0x80)], false);
        }
        // Elsewhere it is a letter like others.
        check(&[frame(&[GOOD, &[0x21], b"x", &[1, b'#']])], true);
        check(&[frame(&[&GOOD[..4], &[0x51, 1, b'/', 0x50, 1, b'#']])], true);
    }

    #[test]
    fn the_huffman_code_is_whole() {
        assert_eq!(SYMBOLS.iter().sum::<u32>(), 257, "of each byte, and the end");
        let room: u32 = SYMBOLS.iter().enumerate().map(|(length, symbols)| symbols << (30 - length)).sum();
        assert_eq!(room, 1 << 30, "each bit leads somewhere");
    }

    #[test]
    fn a_section_is_judged_by_its_names() {
        let plain = [&[0x27, 2][..], b":scheme:x", &[1, b'x']].concat();
        let [literal, regular] = [[&[0x22][..], b":x", &[1, b'x']].concat(), [&[0x21][..], b"x", &[1, b'y']].concat()];
        let huffman = [&[0x2c][..], PSEUDO[1].1, &[1, b'/']].concat();
        check(&[frame(&[GOOD])], true);
        check(&[frame(&[GOOD, &regular])], true);
        // A long name or an unknown one is the library's to refuse.
        check(&[frame(&[GOOD, &plain, &literal])], true);
        check(&[frame(&[GOOD, &[0xc1]])], false);
        check(&[frame(&[GOOD, &huffman])], false);
        check(&[frame(&[GOOD, &[0xd9]])], false);
        check(&[frame(&[&GOOD[..4], &regular, &GOOD[4..]])], false);
        // An index of two bytes: `:status: 100`, `x-frame-options: sameorigin`.
        check(&[frame(&[GOOD, &[0xff, 0]])], false);
        check(&[frame(&[GOOD, &[0xff, 35]])], true);
        // DATA that looks like one, and trailers.
        check(&[frame(&[GOOD]), vec![0, 2, 1, 1], frame(&[&[0, 0], &regular])], true);
        check(&[frame(&[GOOD]), frame(&[&[0, 0], &regular, &[0xc1]])], false);
        check(&[frame(&[GOOD]), frame(&[&[0, 0, 0xd1]])], false);
        // The library ends the connection.
        check(&[frame(&[GOOD]), frame(&[&[0, 0], &regular]), frame(&[GOOD])], true);
    }
}
