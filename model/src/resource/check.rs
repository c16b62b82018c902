//! Checks that the words of several kinds share, each with the name of what it allows.

use std::collections::{BTreeMap, BTreeSet};

use super::is_host;
use crate::{
    canonical::{self, Slashes},
    invalid::Invalid,
    units::Span,
};

/// How many entries a list of an object may have: targets, hosts, conditions, edits.
pub const LIST_MAX: usize = 1_000;
/// How many conditions on headers, on query parameters and on cookies a route may have, each.
pub const CONDITIONS_MAX: usize = 64;
/// How many headers a route may set, add or remove, each.
pub const HEADER_EDITS_MAX: usize = 64;
pub const LABELS_MAX: usize = 64;
/// Bytes of a label's name, a label's value and an owner.
pub const WORD_BYTES_MAX: usize = 256;
pub const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
pub const PATH_BYTES_MAX: usize = 2 << 10;
/// Bytes of a header's value, in a condition or an edit.
pub const VALUE_BYTES_MAX: usize = 4 << 10;
pub const HEADER_NAME_BYTES_MAX: usize = 128;
pub const METHOD_BYTES_MAX: usize = 32;
/// The longest time-out or interval.
pub const SPAN_MAX: Span = Span::secs(24 * 3600);
/// The shortest time-out or interval that is not zero.
pub const SPAN_MIN: Span = Span::millis(1);
pub const ATTEMPTS_MAX: u32 = 10;

/// Headers that say how a message is framed or belong to one connection: the gateway's own (RFC 9110 section 7.6.1).
const CONNECTION_HEADERS: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

pub fn count(field: &str, found: usize, max: usize) -> Result<(), Invalid> {
    match found <= max {
        true => Ok(()),
        false => Err(Invalid::field(field).found(format!("{found} entries")).allowed(format!("at most {max}"))),
    }
}

pub fn length(field: &str, text: &str, max: usize) -> Result<(), Invalid> {
    match text.len() <= max {
        true => Ok(()),
        false => {
            Err(Invalid::field(field).found(format!("{} bytes", text.len())).allowed(format!("at most {max} bytes")))
        }
    }
}

pub fn meta(labels: &BTreeMap<String, String>, owner: &str, description: &str) -> Result<(), Invalid> {
    count("labels", labels.len(), LABELS_MAX)?;
    for (name, value) in labels {
        if name.is_empty() {
            return Err(Invalid::field("labels").found("\"\"").allowed("names of at least one character"));
        }
        length("labels", name, WORD_BYTES_MAX)?;
        length(&format!("labels.{name}"), value, WORD_BYTES_MAX)?;
    }
    length("owner", owner, WORD_BYTES_MAX)?;
    length("description", description, DESCRIPTION_BYTES_MAX)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// A header's name in lower case.
pub fn header_name(field: &str, text: &str) -> Result<String, Invalid> {
    match is_token(text) && text.len() <= HEADER_NAME_BYTES_MAX {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Invalid::field(field)
            .found(format!("{text:?}"))
            .allowed(format!("a header name of at most {HEADER_NAME_BYTES_MAX} letters, digits, - and the like"))),
    }
}

/// A header's name that a route may change, in lower case.
pub fn edited_header_name(field: &str, text: &str) -> Result<String, Invalid> {
    let name = header_name(field, text)?;
    if CONNECTION_HEADERS.contains(&&*name) || name.starts_with("proxy-") {
        let allowed = "a header that does not frame the message or belong to one connection";
        return Err(Invalid::field(field).found(name).allowed(allowed));
    }
    if name == "host" {
        return Err(Invalid::field(field).found(name).allowed("another header; the host is set by rewrite.host"));
    }
    Ok(name)
}

pub fn header_value(field: &str, text: &str) -> Result<(), Invalid> {
    length(field, text, VALUE_BYTES_MAX)?;
    let visible = text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    match visible && text.trim_ascii() == text {
        true => Ok(()),
        false => Err(Invalid::field(field)
            .found(format!("{text:?}"))
            .allowed("visible ASCII characters with spaces between, not around them")),
    }
}

/// The headers of `words` under lower-case names, none of them twice.
pub fn header_map(field: &str, words: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    count(field, words.len(), HEADER_EDITS_MAX)?;
    let mut headers = BTreeMap::new();
    for (name, value) in words {
        let place = format!("{field}.{name}");
        header_value(&place, &value)?;
        let lower = edited_header_name(&place, &name)?;
        if headers.insert(lower, value).is_some() {
            return Err(Invalid::field(place).found(name).allowed("each header once, in whatever case"));
        }
    }
    Ok(headers)
}

pub fn method(field: &str, text: &str) -> Result<String, Invalid> {
    match is_token(text) && text.len() <= METHOD_BYTES_MAX {
        true => Ok(text.to_ascii_uppercase()),
        false => Err(Invalid::field(field).found(format!("{text:?}")).allowed("an HTTP method, such as GET")),
    }
}

pub fn host(field: &str, text: &str) -> Result<String, Invalid> {
    match is_host(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Invalid::field(field).found(format!("{text:?}")).allowed("a host name, such as api.acme.test")),
    }
}

/// A path as requests are compared with it: `canonical::path` with slashes merged changes nothing.
pub fn canonical_path(field: &str, text: &str) -> Result<(), Invalid> {
    length(field, text, PATH_BYTES_MAX)?;
    let wrong = |allowed: String| Err(Invalid::field(field).found(format!("{text:?}")).allowed(allowed));
    match canonical::path(text, Slashes::Merge) {
        Ok(path) if path == text => Ok(()),
        Ok(path) => wrong(format!("a canonical path; of this one the canonical form is {path:?}")),
        Err(bad) => wrong(format!("a path that begins with /; {bad}")),
    }
}

/// Zero is refused.
pub fn span(field: &str, span: Span) -> Result<(), Invalid> {
    match (SPAN_MIN..=SPAN_MAX).contains(&span) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(span).allowed(format!("{SPAN_MIN} to {SPAN_MAX}"))),
    }
}

pub fn span_or_zero(field: &str, limit: Span) -> Result<(), Invalid> {
    match limit == Span::default() {
        true => Ok(()),
        false => span(field, limit).map_err(|invalid| {
            let allowed = format!("0s or {}", invalid.allowed);
            invalid.allowed(allowed)
        }),
    }
}

pub fn number(field: &str, found: u32, min: u32, max: u32) -> Result<(), Invalid> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(found).allowed(format!("{min} to {max}"))),
    }
}

/// The first entry that is there twice, by its place.
pub fn once<T: Ord>(field: &str, entries: &[T], show: impl Fn(&T) -> String) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    match entries.iter().position(|entry| !seen.insert(entry)) {
        None => Ok(()),
        Some(place) => {
            Err(Invalid::field(format!("{field}[{place}]")).found(show(&entries[place])).allowed("each entry once"))
        }
    }
}

/// `deny, allow`
pub fn words<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> String {
    all.iter().map(|it| word(*it)).collect::<Vec<_>>().join(", ")
}

/// A text that is not empty and has no control characters.
pub fn text(field: &str, text: &str, max: usize) -> Result<(), Invalid> {
    length(field, text, max)?;
    match !text.is_empty() && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err(Invalid::field(field)
            .found(format!("{text:?}"))
            .allowed("at least one character, and no control characters")),
    }
}

/// A word without spaces: a group, a scope, an audience, a plan.
pub fn tag(field: &str, word: &str) -> Result<(), Invalid> {
    length(field, word, WORD_BYTES_MAX)?;
    match !word.is_empty() && !word.contains(|c: char| c.is_control() || c.is_whitespace()) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(format!("{word:?}")).allowed("at least one character, and no spaces")),
    }
}

/// Words without spaces, each once.
pub fn tags(field: &str, words: &[String], max: usize) -> Result<(), Invalid> {
    count(field, words.len(), max)?;
    for (place, word) in words.iter().enumerate() {
        tag(&format!("{field}[{place}]"), word)?;
    }
    once(field, words, String::clone)
}

pub fn span_up_to(field: &str, found: Span, min: Span, max: Span) -> Result<(), Invalid> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(found).allowed(format!("{min} to {max}"))),
    }
}

/// What the gateway fetches: https, or http where `private` addresses are allowed; no user, no fragment.
pub fn url(field: &str, text: &str, private: bool) -> Result<(), Invalid> {
    length(field, text, PATH_BYTES_MAX)?;
    let wrong = |allowed: &str| Err(Invalid::field(field).found(format!("{text:?}")).allowed(allowed));
    let rest = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => rest,
        (_, Some(rest)) if private => rest,
        (_, Some(_)) => return wrong("an https:// URL, or allow_private: true beside it"),
        (None, None) => return wrong("an https:// URL"),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let named = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => authority.parse::<super::Authority>().is_ok(),
        _ => format!("{authority}:443").parse::<super::Authority>().is_ok(),
    };
    match named && rest.bytes().all(|b| b.is_ascii_graphic() && !b"#\\\"<>".contains(&b)) {
        true => Ok(()),
        false => wrong("a URL such as https://idp.test/jwks, without user, password and fragment"),
    }
}

/// One block or more with this label. RFC 7468, strictly enough to tell a wrong file; what is inside is read elsewhere.
pub fn pem(field: &str, text: &str, label: &str, max: usize) -> Result<(), Invalid> {
    length(field, text, max)?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let wrong =
        |found: String| Err(Invalid::field(field).found(found).allowed(format!("PEM, one block or more of {begin}")));
    let mut blocks = 0;
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        if line.starts_with("-----BEGIN ") && line != begin {
            return wrong(line.to_owned());
        }
        if line != begin {
            continue;
        }
        let mut body = String::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) => body += line.trim(),
                None => return wrong(format!("a block without {end}")),
            }
        }
        if body.is_empty() || data_encoding::BASE64.decode(body.as_bytes()).is_err() {
            return wrong("a block that is not base64".into());
        }
        blocks += 1;
    }
    match blocks {
        0 => wrong("no block".into()),
        _ => Ok(()),
    }
}
