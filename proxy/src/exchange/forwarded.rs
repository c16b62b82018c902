//! The elements of Forwarded (RFC 7239) from right to left, and what each says. From the right, because what stands there is
//! a trusted proxy's word: whatever others have written in front of it, an open quote too, does not change how it is read.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
};

/// None: a quote has no partner, and what is left of it cannot be told apart.
pub(super) struct Elements<'a> {
    left: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    pub(super) fn of(field: &'a [u8]) -> Self {
        Self { left: Some(field) }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Option<&'a [u8]>> {
        let field = self.left.take()?;
        let Some(begins) = last_begins(field) else { return Some(None) };
        self.left = begins.checked_sub(1).map(|comma| &field[..comma]);
        Some(Some(field[begins..].trim_ascii()))
    }
}

/// Behind the last comma that is in no quoted string.
fn last_begins(field: &[u8]) -> Option<usize> {
    let mut begins = field.len();
    while let Some(at) = begins.checked_sub(1) {
        begins = match field[at] {
            b',' => return Some(begins),
            b'"' => opened(field, at)?,
            _ => at,
        };
    }
    Some(begins)
}

/// Where the quoted string begins that ends at `closing`: within it every quote is the second of a pair (RFC 9110 5.6.4).
fn opened(field: &[u8], closing: usize) -> Option<usize> {
    let is_paired = |at: usize| field[..at].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1;
    let is_quote = |at: &usize| field[*at] == b'"' && !is_paired(*at);
    (0..closing).rev().find(is_quote).filter(|_| is_quote(&closing))
}

/// Whom one element is for.
pub(super) fn client(element: &[u8]) -> Option<IpAddr> {
    address(std::str::from_utf8(&value(element, b"for")?).ok()?)
}

/// What one element says under a name; None if it does not say so once, or is no list of pairs:
/// `for="[2001:db8::1]:80";proto=https`.
pub(super) fn value<'a>(element: &'a [u8], wanted: &[u8]) -> Option<Cow<'a, [u8]>> {
    let (mut found, mut rest) = (None, element);
    loop {
        // Pairs may be empty (section 4); there may be no spaces, but they are common.
        while let [b';', behind @ ..] = rest {
            rest = behind.trim_ascii_start();
        }
        if rest.is_empty() {
            break;
        }
        let (name, value, behind) = pair(rest)?;
        if name.eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
            return None;
        }
        rest = behind.trim_ascii_start();
        if !matches!(rest, [] | [b';', ..]) {
            return None;
        }
    }
    found.map(unescaped)
}

/// A name, its value without quotes and as it is otherwise, and what is behind it.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, text) = text.split_at(text.iter().position(|b| !is_token(*b))?);
    let text = text.strip_prefix(b"=").filter(|_| !name.is_empty())?;
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|b| !is_bare(*b)).unwrap_or(text.len());
        let (value, behind) = text.split_at(end);
        return (!value.is_empty()).then_some((name, value, behind));
    };
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((name, &quoted[..at], &quoted[at + 1..])),
            b'\\' => {
                bytes.next()?;
            }
            _ => (),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Some proxies do not quote addresses as they should.
fn is_bare(byte: u8) -> bool {
    is_token(byte) || b"[]:".contains(&byte)
}

fn unescaped(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'\\') {
        return Cow::Borrowed(value);
    }
    let mut bytes = value.iter();
    let next = || bytes.next().and_then(|byte| if *byte == b'\\' { bytes.next() } else { Some(byte) });
    Cow::Owned(std::iter::from_fn(next).copied().collect())
}

/// Section 6, and what X-Forwarded-For has: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or
/// `[2001:db8::1]:_port`. Neither `unknown` nor `_hidden`, which are nobody's address.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let (ip, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (ip, port) = text.split_once(']')?;
            (IpAddr::V6(ip.parse().ok()?), port)
        }
        None => match text.parse::<Ipv6Addr>() {
            Ok(ip) => (IpAddr::V6(ip), ""),
            Err(_) => {
                let (ip, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (IpAddr::V4(ip.parse().ok()?), port)
            }
        },
    };
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then(|| ip.to_canonical())
}

fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(hidden) => !hidden.is_empty() && hidden.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_elements(field: &str, expected: &[Option<&str>]) {
        let found: Vec<_> = Elements::of(field.as_bytes()).collect();
        let expected: Vec<_> = expected.iter().map(|it| it.map(str::as_bytes)).collect();
        assert_eq!(found, expected, "{field}");
    }

    #[test]
    fn commas_in_quoted_strings_part_nothing() {
        check_elements("a, b ,c", &[Some("c"), Some("b"), Some("a")]);
        check_elements("", &[Some("")]);
        check_elements("a,,b", &[Some("b"), Some(""), Some("a")]);
        check_elements(r#"a="x,y",b="\",\\""#, &[Some(r#"b="\",\\""#), Some(r#"a="x,y""#)]);
        check_elements(r#"a="x, b="y", c"#, &[Some("c"), Some(r#"b="y""#), None]);
        check_elements(r#"a=", b"#, &[Some("b"), None]);
        check_elements(r#"a="b\""#, &[None]);
        check_elements(r#"a="x\\", b"#, &[Some("b"), Some(r#"a="x\\""#)]);
    }

    #[track_caller]
    fn check_client(element: &str, expected: Option<&str>) {
        let found = client(element.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(found.as_deref(), expected, "{element}");
    }

    #[test]
    fn an_element_is_for_one() {
        check_client("for=192.0.2.1", Some("192.0.2.1"));
        check_client("For=\"192.0.2.1:80\"; Proto=http;;", Some("192.0.2.1"));
        check_client(";;for=192.0.2.1 ;a=b", Some("192.0.2.1"));
        check_client("by=_a;host=\"a;for=6.6.6.6\";for=192.0.2.1", Some("192.0.2.1"));
        check_client(r#"host="a\";for=6.6.6.6;b=\"";for="192\.0.2.1""#, Some("192.0.2.1"));
        check_client("for=\"[2001:db8::1]:80\"", Some("2001:db8::1"));
        check_client("for=\"[2001:db8::1]:_obf-1\"", Some("2001:db8::1"));
        check_client("for=[2001:db8::1]", Some("2001:db8::1"));
        for none in [
            "",
            "proto=http",
            "for=192.0.2.1;for=192.0.2.1",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for=\"192.0.2.1\"x",
            "for=\"192.0.2.1\\\"",
            "for=192.0.2.1;host=\"a",
            "for=192.0.2.1;host",
            "for=192.0.2.1;=a",
            "for=192.0.2.1 proto=http",
            "for=;proto=http",
            "for=\"\"",
            "for = 192.0.2.1",
            "for=unknown",
            "for=_hidden",
            "for=\"_hidden:80\"",
            "for=\"192.0.2.1, 192.0.2.2\"",
        ] {
            check_client(none, None);
        }
    }

    #[test]
    fn an_address_has_one_form() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:65535", Some("192.0.2.1")),
            ("192.0.2.1:_a", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[::ffff:192.0.2.1]", Some("192.0.2.1")),
            ("[2001:db8::1]:1", Some("2001:db8::1")),
            ("192.0.2.1:", None),
            ("192.0.2.1:65536", None),
            ("192.0.2.1:+1", None),
            ("192.0.2.1:_", None),
            ("192.0.2.1 ", None),
            ("192.0.2.01", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("2001:db8::1]", None),
            ("[2001:db8::1]1", None),
            ("\"192.0.2.1\"", None),
            ("", None),
        ] {
            assert_eq!(address(text).map(|ip| ip.to_string()).as_deref(), expected, "{text}");
        }
    }
}
