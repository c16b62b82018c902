//! What looks like a card's number, an account's or an address, found in a text and hidden there. One pass: from each place
//! at most a few dozen characters are looked at, or a run that no other place looks at.

use crate::resource::{PersonalClass, Veil};

/// ISO/IEC 7812.
const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;
/// ISO 13616.
const IBAN_MIN: usize = 15;
const IBAN_MAX: usize = 34;
const STARS: &str = "***";
/// A text must have as many characters that its last ones are not most of it.
const LAST4_MIN: usize = 8;

/// The text with all that is found in it hidden; None: nothing is.
pub(super) fn hidden(text: &str, patterns: &[(PersonalClass, Veil)]) -> Option<String> {
    let mut out: Option<String> = None;
    let (mut at, mut copied, mut before) = (0, 0, None);
    while let Some(next) = text[at..].chars().next() {
        let found = patterns.iter().filter_map(|(class, veil)| Some((end_of(*class, text, at, before)?, *veil)));
        match found.max_by_key(|(end, _)| *end) {
            Some((end, veil)) => {
                let out = out.get_or_insert_default();
                out.push_str(&text[copied..at]);
                out.push_str(&veiled(&text[at..end], veil));
                (before, at, copied) = (text[..end].chars().next_back(), end, end);
            }
            None => {
                before = Some(next);
                at += next.len_utf8();
            }
        }
    }
    out.map(|out| out + &text[copied..])
}

/// In the place of a text.
pub fn veiled(text: &str, veil: Veil) -> String {
    let shown = || text.chars().filter(|it| !it.is_whitespace() && *it != '-');
    match (veil, shown().count()) {
        (Veil::Last4, count) if count >= LAST4_MIN => format!("****{}", shown().skip(count - 4).collect::<String>()),
        _ => STARS.to_owned(),
    }
}

/// Where something of the class ends that begins here.
fn end_of(class: PersonalClass, text: &str, at: usize, before: Option<char>) -> Option<usize> {
    let length = match class {
        PersonalClass::Card if before.is_some_and(|it| it.is_ascii_digit()) => None,
        PersonalClass::Card => card(&text.as_bytes()[at..]),
        PersonalClass::Iban => iban(&text.as_bytes()[at..]),
        PersonalClass::Email if before.is_some_and(is_local) => None,
        PersonalClass::Email => email(&text[at..]),
    };
    Some(at + length?)
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'-' | b'.')
}

/// Characters that `take` takes, with single separators between them, up to `max`: each with its place.
fn run(bytes: &[u8], max: usize, take: impl Fn(u8) -> bool) -> impl Iterator<Item = (usize, u8)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at > 0 && bytes.get(at).is_some_and(|it| is_separator(*it)) {
            at += 1;
        }
        let byte = bytes.get(at).copied().filter(|it| take(*it))?;
        at += 1;
        Some((at - 1, byte))
    })
    .take(max)
}

/// The longest that has a right check digit and ends where the digits do.
fn card(bytes: &[u8]) -> Option<usize> {
    let mut digits = [0; CARD_DIGITS_MAX];
    let mut end = None;
    for (count, (at, byte)) in run(bytes, CARD_DIGITS_MAX, |it| it.is_ascii_digit()).enumerate() {
        digits[count] = byte - b'0';
        let is_last = !bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if count + 1 >= CARD_DIGITS_MIN && is_last && is_issued(&digits) && luhn(&digits[..=count]) {
            end = Some(at + 1);
        }
    }
    end
}

/// The networks' ranges: 2221 to 2720, and all from 3 to 6. What counts milliseconds since 1970 begins with 1.
fn is_issued(digits: &[u8]) -> bool {
    let first_four = digits[..4].iter().fold(0, |sum, digit| sum * 10 + u32::from(*digit));
    (2_221..=2_720).contains(&first_four) || (3..=6).contains(&digits[0])
}

fn luhn(digits: &[u8]) -> bool {
    let twice = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let each = digits.iter().rev().enumerate();
    let sum: u32 = each.map(|(at, digit)| u32::from(if at % 2 == 1 { twice(*digit) } else { *digit })).sum();
    sum.is_multiple_of(10)
}

/// The longest that has right check digits and ends where the letters and digits do.
fn iban(bytes: &[u8]) -> Option<usize> {
    let (country, check) = (bytes.get(..2)?, bytes.get(2..4)?);
    if !country.iter().all(u8::is_ascii_alphabetic) || !check.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let head = bytes[..4].iter();
    let (mut rest, mut end) = (0, None);
    for (count, (at, byte)) in run(bytes, IBAN_MAX, |it| it.is_ascii_alphanumeric()).enumerate().skip(4) {
        rest = mod97(rest, byte);
        let is_last = !bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric);
        if count + 1 >= IBAN_MIN && is_last && head.clone().fold(rest, |rest, byte| mod97(rest, *byte)) == 1 {
            end = Some(at + 1);
        }
    }
    end
}

/// ISO 7064, with A as 10.
fn mod97(rest: u32, byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.to_ascii_uppercase() - b'A') + 10) % 97,
    }
}

/// RFC 5321 4.1.2 without quotes, and RFC 6531.
fn is_local(it: char) -> bool {
    it.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(it) || !it.is_ascii()
}

fn is_domain(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '.' | '-') || !it.is_ascii()
}

fn email(text: &str) -> Option<usize> {
    let local = text.find(|it| !is_local(it)).filter(|at| *at > 0 && text[*at..].starts_with('@'))?;
    let behind = &text[local + 1..];
    let domain = &behind[..behind.find(|it| !is_domain(it)).unwrap_or(behind.len())];
    let domain = domain.trim_end_matches(['.', '-']);
    let has_dot = domain.trim_start_matches('.').contains('.');
    has_dot.then_some(local + 1 + domain.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[(PersonalClass, Veil)] =
        &[(PersonalClass::Card, Veil::Last4), (PersonalClass::Iban, Veil::Last4), (PersonalClass::Email, Veil::Stars)];

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(hidden(text, ALL).as_deref().unwrap_or(text), expected);
    }

    #[test]
    fn numbers_of_cards_are_found_by_their_check_digit() {
        check("4111111111111111", "****1111");
        check("pay 4111 1111 1111 1111 2026 or 5500-0055-5555-5559.", "pay ****1111 2026 or ****5559.");
        check("2026 4111.1111.1111.1111", "2026 ****1111");
        check("371449635398431,6011000990139424", "****8431,****9424");
        check("2223003122003222", "****3222");
        // No check digit, of no network, more digits than a card has, or less.
        check("4111111111111112", "4111111111111112");
        check("1700000000000", "1700000000000");
        check("41111111111111111111111111111111", "41111111111111111111111111111111");
        check("4242 4242 42", "4242 4242 42");
        check("4111  1111 1111 1111", "4111  1111 1111 1111");
    }

    #[test]
    fn numbers_of_accounts_are_found_by_their_check_digits() {
        check("DE89370400440532013000", "****3000");
        check("to: de89 3704 0044 0532 0130 00 please", "to: ****3000 please");
        check("IBANGB82WEST12345698765432;NO9386011117947", "IBAN****5432;****7947");
        check("DE88370400440532013000", "DE88370400440532013000");
        check("DE8937040044", "DE8937040044");
    }

    #[test]
    fn addresses_are_found_by_their_sign() {
        check("ann.o'neil+x@mail.example.com", "***");
        check("To: <ann@x.test>, mailto:ben@x.test.", "To: <***>, mailto:***.");
        check("jürgen@bücher.example", "***");
        check("a@b, @x.test, ann@localhost, x@.y, 5 @ 3.50", "a@b, @x.test, ann@localhost, x@.y, 5 @ 3.50");
        let long = "a".repeat(1 << 20);
        check(&long, &long);
    }

    #[test]
    fn the_last_four_are_shown_of_long_texts_alone() {
        for (text, expected) in [("12345678", "****5678"), ("1234567", "***"), ("", "***"), ("ääääöüßé", "****öüßé")]
        {
            assert_eq!(veiled(text, Veil::Last4), expected);
        }
        assert_eq!(veiled("12345678", Veil::Stars), "***");
    }
}
