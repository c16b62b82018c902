//! What XML 1.0 asks of characters, names, references and blanks, which the library that reads it takes as they come. What one
//! server refuses and another makes something of must not depend on who is behind.

/// The byte that no XML has anywhere (2.2), where there is one.
pub(super) fn control(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte < b' ' && !is_blank(*byte))
}

/// Where it ends to be text in UTF-8 that XML may have: U+FFFE and U+FFFF are no characters (2.2).
pub(super) fn not_text(bytes: &[u8]) -> Option<usize> {
    let is_none = |it: &[u8]| matches!(it, [0xef, 0xbf, 0xbe | 0xbf]);
    match std::str::from_utf8(bytes) {
        Err(error) => Some(error.valid_up_to()),
        Ok(_) => bytes.windows(3).position(is_none),
    }
}

/// 2.3. What is not ASCII is a letter here: which ones are differs with the encoding.
pub(super) fn is_name(name: &[u8]) -> bool {
    let begins = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':' | 0x80..);
    let goes_on = |byte: u8| begins(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    name.first().is_some_and(|byte| begins(*byte)) && name.iter().all(|byte| goes_on(*byte))
}

/// `xml` in whatever case is nobody's (2.6).
pub(super) fn is_target(name: &[u8]) -> bool {
    is_name(name) && !name.eq_ignore_ascii_case(b"xml")
}

/// What stands between `&` and `;`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// A character that XML may have (4.1).
    Character,
    Entity(&'a [u8]),
    Wrong,
}

pub(super) fn reference(text: &[u8]) -> Reference<'_> {
    let (digits, radix) = match text {
        [b'#', b'x', digits @ ..] => (digits, 16),
        [b'#', digits @ ..] => (digits, 10),
        name if is_name(name) => return Reference::Entity(name),
        _ => return Reference::Wrong,
    };
    let add = |sum: u32, digit: &u8| {
        let digit = char::from(*digit).to_digit(radix)?;
        Some(sum.saturating_mul(radix).saturating_add(digit))
    };
    let code = digits.iter().try_fold(0, add).filter(|_| !digits.is_empty());
    match code {
        Some(0x9 | 0xa | 0xd | 0x20..=0xd7ff | 0xe000..=0xfffd | 0x10000..=0x10_ffff) => Reference::Character,
        _ => Reference::Wrong,
    }
}

/// Each in a value of an attribute; one without an end is wrong.
pub(super) fn references(value: &[u8]) -> impl Iterator<Item = Reference<'_>> {
    value.split(|byte| *byte == b'&').skip(1).map(|it| match it.iter().position(|byte| *byte == b';') {
        Some(end) => reference(&it[..end]),
        None => Reference::Wrong,
    })
}

/// Whether there is a blank behind each value (3.1).
pub(super) fn are_parted(attributes: &[u8]) -> bool {
    let (mut quote, mut is_behind) = (None, false);
    for byte in attributes {
        match quote {
            Some(end) if *byte == end => (quote, is_behind) = (None, true),
            Some(_) => {}
            None if is_behind && !is_blank(*byte) => return false,
            None => {
                is_behind = false;
                quote = matches!(byte, b'"' | b'\'').then_some(*byte);
            }
        }
    }
    true
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_characters_are_those_of_xml() {
        for name in ["a", "_", ":a", "a-1.b", "größe", "x:y"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", "1a", "-a", ".a", "$x", "a$", "a/b", "a\"b", "a<b", "a b", "a="] {
            assert!(!is_name(name.as_bytes()), "{name}");
        }
        assert!(is_target(b"xml-stylesheet") && !is_target(b"XmL"));
        assert_eq!(control(b"<a>\t\r\n \x7f</a>"), None);
        assert_eq!(control(b"<a>\x01</a>"), Some(3));
        assert_eq!(not_text("ü\u{fffd}".as_bytes()), None);
        assert_eq!(not_text("ü\u{ffff}".as_bytes()), Some(2));
        assert_eq!(not_text(b"ab\xff"), Some(2));
    }

    #[test]
    fn references_are_to_characters_that_xml_may_have() {
        let list: Vec<_> = references(b"&#9;&#x41;&#65533;&#x10FFFF;&lt; & b").collect();
        use Reference::{Character, Entity, Wrong};
        assert_eq!(list, [Character, Character, Character, Character, Entity(b"lt"), Wrong]);
        for wrong in
            ["", "#", "#x", "#0", "#1", "#xD800", "#xFFFE", "#x110000", "#99999999999", "#X41", "#+5", "1", "a b"]
        {
            assert_eq!(reference(wrong.as_bytes()), Wrong, "{wrong}");
        }
    }

    #[test]
    fn attributes_are_parted_by_blanks() {
        for fine in ["", " a='1'", " a='\"'\tb=\"x'y\"\n", " a = '1' b='2'"] {
            assert!(are_parted(fine.as_bytes()), "{fine}");
        }
        assert!(!are_parted(b" a='1'b='2'"));
        assert!(!are_parted(b" a=\"1\"\"2\""));
    }
}
