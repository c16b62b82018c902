//! One canonical path for router, policies, logs and the forwarded request (RFC 3986 6.2.2).

use std::{borrow::Cow, fmt};

use crate::mutants::{self, Mutant};

/// Why a path is refused; every one is 400 `bad_path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    NotAbsolute,
    /// A percent sign without two hex digits.
    BadEscape,
    /// %00, a raw control byte, or a raw backslash.
    ForbiddenByte,
    /// `..;` or `/;a/`.
    DotSegmentWithParameters,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::NotAbsolute => "it does not begin with /",
            BadPath::BadEscape => "a percent sign is not followed by two hex digits",
            BadPath::ForbiddenByte => "it has %00, a control byte or a backslash",
            BadPath::DotSegmentWithParameters => "a segment is empty, . or .. before its ; parameters",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slashes {
    Merge,
    Keep,
}

/// Decodes unreserved characters, upper-cases percent codes, removes dot segments, merges slashes. Borrows when the
/// path is canonical already. `%2F` and `%5C` stay as they are.
///
/// What a URI may not carry raw but clients send all the same (non-ASCII bytes, a space, `"<>^{|}` and the backquote)
/// is percent-encoded, as browsers and Envoy do, so that the raw and the encoded form match the same route. Dot segments
/// go before slashes are merged: `/a//../b` is `/a/b`. `*` (OPTIONS) is not a path: the caller deals with it first.
pub fn path(raw: &str, slashes: Slashes) -> Result<Cow<'_, str>, BadPath> {
    if !raw.starts_with('/') {
        return Err(BadPath::NotAbsolute);
    }
    if is_plain(raw.as_bytes()) || mutants::is(Mutant::PathAsItCame) {
        return Ok(Cow::Borrowed(raw));
    }
    let escaped = escape(raw.as_bytes())?;
    check_parameters(&escaped)?;
    let mut clean = remove_dot_segments(&escaped);
    if slashes == Slashes::Merge {
        merge_slashes(&mut clean);
    }
    match clean == raw {
        true => Ok(Cow::Borrowed(raw)),
        false => Ok(Cow::Owned(clean)),
    }
}

/// Whether `%2F` or `%5C` is in a canonical path: refused after the match unless the route preserves it.
pub fn has_encoded_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|code| code == b"%2F" || code == b"%5C")
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a path as it is: pchar without the percent sign, and the slash.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte)
}

/// One scan that says for certain that nothing is to be done; most paths pass it. A dot, a slash or a semicolon right
/// after a slash, and every percent sign, take the long way.
fn is_plain(raw: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in raw {
        if !is_path_byte(byte) || (after_slash && matches!(byte, b'/' | b'.' | b';')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// Every character in its one form: unreserved ones raw, all others that a path may not carry as upper-case codes.
fn escape(raw: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let digits = raw.get(at..at + 2).ok_or(BadPath::BadEscape)?;
                let code = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| BadPath::BadEscape)?[0];
                at += 2;
                match code {
                    0 => return Err(BadPath::ForbiddenByte),
                    code if is_unreserved(code) => out.push(char::from(code)),
                    code => push_code(&mut out, code),
                }
            }
            b'\\' | 0..=0x1f | 0x7f => return Err(BadPath::ForbiddenByte),
            byte if is_path_byte(byte) => out.push(char::from(byte)),
            byte => push_code(&mut out, byte),
        }
    }
    Ok(out)
}

fn push_code(out: &mut String, code: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(code >> 4)]));
    out.push(char::from(HEX[usize::from(code & 15)]));
}

/// Servers that cut `;x` off would see a dot segment or an empty one where we saw a name.
fn check_parameters(path: &str) -> Result<(), BadPath> {
    let hides = |segment: &str| segment.split_once(';').is_some_and(|(name, _)| matches!(name, "" | "." | ".."));
    match path.split('/').any(hides) {
        true => Err(BadPath::DotSegmentWithParameters),
        false => Ok(()),
    }
}

/// RFC 3986 5.2.4 for a path that begins with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            "." => {}
            _ => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        // `/a/.` names the directory, `/a/`.
        if last {
            out.push('/');
        }
    }
    out
}

fn merge_slashes(path: &mut String) {
    let mut after_slash = false;
    path.retain(|c| {
        let again = after_slash && c == '/';
        after_slash = c == '/';
        !again
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61%2D%2e%5F%7e%41%39", "/a-._~A9"),
            ("/a%2fb%5c", "/a%2Fb%5C"),
            ("/%3a%3A%20%c3%a4", "/%3A%3A%20%C3%A4"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/..%2fb", "/a/..%2Fb"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/%25%32%65", "/%252e"),
            ("/../../a", "/a"),
            ("/.", "/"),
            ("/..", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/...", "/..."),
            ("/a/...b", "/a/...b"),
            ("/.well-known/x", "/.well-known/x"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/a/..//b", "/b"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/a;..", "/a;.."),
            ("/..a;x", "/..a;x"),
            ("/..%3b", "/..%3B"),
            ("/:@!$&'()*+,=", "/:@!$&'()*+,="),
            ("/ä b\"<>^`{|}?#[]", "/%C3%A4%20b%22%3C%3E%5E%60%7B%7C%7D%3F%23%5B%5D"),
            ("/%7B%7d{}", "/%7B%7D%7B%7D"),
        ] {
            assert_eq!(path(raw, Slashes::Merge).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn slashes_are_kept_where_the_listener_says_so() {
        for (raw, expected) in [("//a///b//", "//a///b//"), ("/a//../b", "/a/b"), ("/a//./b", "/a//b")] {
            assert_eq!(path(raw, Slashes::Keep).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for (raw, expected) in [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("a/b", BadPath::NotAbsolute),
            ("http://a/", BadPath::NotAbsolute),
            ("/%", BadPath::BadEscape),
            ("/%2", BadPath::BadEscape),
            ("/%zz", BadPath::BadEscape),
            ("/%+1", BadPath::BadEscape),
            ("/%2%65", BadPath::BadEscape),
            ("/%ä", BadPath::BadEscape),
            ("/%00", BadPath::ForbiddenByte),
            ("/a\0", BadPath::ForbiddenByte),
            ("/a\tb", BadPath::ForbiddenByte),
            ("/a\x7f", BadPath::ForbiddenByte),
            ("/a\\b", BadPath::ForbiddenByte),
            ("/..;/", BadPath::DotSegmentWithParameters),
            ("/a/..;x=1", BadPath::DotSegmentWithParameters),
            ("/a/.;/b", BadPath::DotSegmentWithParameters),
            ("/a/%2e%2e;/b", BadPath::DotSegmentWithParameters),
            ("/a/%2e;x/b", BadPath::DotSegmentWithParameters),
            ("/;a/b", BadPath::DotSegmentWithParameters),
            ("/a/;", BadPath::DotSegmentWithParameters),
        ] {
            assert_eq!(path(raw, Slashes::Merge), Err(expected), "{raw:?}");
        }
    }

    #[test]
    fn canonical_paths_are_borrowed() {
        for raw in ["/", "/a/b/", "/.well-known/acme", "/a%2Fb", "/a;x"] {
            assert!(matches!(path(raw, Slashes::Merge), Ok(Cow::Borrowed(_))), "{raw}");
        }
    }

    #[test]
    fn encoded_slashes_are_seen() {
        for (path, expected) in [("/a%2Fb", true), ("/%5C", true), ("/a%252F", false), ("/a/b", false), ("/%2", false)]
        {
            assert_eq!(has_encoded_slash(path), expected, "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_canonical_path_stays_and_has_no_dot_segment(
            raw in prop_oneof!["/(\\.|/|;|%2[eEfF5]|%5[cC]|%2[35]2[eE]|a|ä|[{ ]|%[0-9a-f]{2}){0,12}", "/\\PC{0,20}"],
            merge in any::<bool>(),
        ) {
            let slashes = if merge { Slashes::Merge } else { Slashes::Keep };
            if let Ok(clean) = path(&raw, slashes) {
                prop_assert!(path(&clean, slashes).is_ok_and(|again| again == clean), "{}", clean);
                prop_assert!(clean.starts_with('/'));
                prop_assert!(clean.bytes().all(|byte| is_path_byte(byte) || byte == b'%'), "{}", clean);
                for segment in clean.split('/') {
                    let name = segment.split(';').next().unwrap();
                    prop_assert!(!matches!(name, "." | ".."), "{}", clean);
                    prop_assert!(!(name.is_empty() && segment.contains(';')), "{}", clean);
                }
                prop_assert!(!merge || !clean.contains("//"), "{}", clean);
            }
        }
    }
}
