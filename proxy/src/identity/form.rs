//! What the token and introspection endpoints of OAuth 2 are sent (RFC 6749 §2.3.1, §4.4.2; RFC 7662 §2.1).

use std::collections::BTreeMap;

use data_encoding::BASE64;
use http::HeaderValue;

/// `application/x-www-form-urlencoded`.
pub(super) fn encode(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
    pairs.join("&")
}

/// An `Authorization: Basic` in which both parts are encoded first, so that a colon in either does no harm.
pub(super) fn basic(client_id: &str, client_secret: &str) -> HeaderValue {
    let encoded = BASE64.encode(format!("{}:{}", text(client_id), text(client_secret)).as_bytes());
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// The pairs of a form or a query. None where one has broken escapes, is no UTF-8, or says a name twice (RFC 6749 §3.1).
pub(crate) fn decode(form: &str) -> Option<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for pair in form.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pairs.insert(plain(name)?, plain(value)?).is_some() {
            return None;
        }
    }
    Some(pairs)
}

fn plain(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn text(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_value_ends_it() {
        assert_eq!(encode(&[("token", "a&b=c d+é"), ("hint", "x")]), "token=a%26b%3Dc%20d%2B%C3%A9&hint=x");
        let pairs = decode(&encode(&[("token", "a&b=c d+é"), ("hint", "x")])).unwrap();
        assert_eq!(pairs["token"], "a&b=c d+é");
        // `gw%3A1:s%3A%20`
        assert_eq!(basic("gw:1", "s: "), "Basic Z3clM0ExOnMlM0ElMjA=");
    }

    #[test]
    fn a_form_says_each_name_once() {
        let check = |form: &str, expected: Option<usize>| {
            assert_eq!(decode(form).map(|pairs| pairs.len()), expected, "{form}");
        };
        check("", Some(0));
        check("a=1&b=+%41&c", Some(3));
        for wrong in ["a=1&a=1", "a=1&%61=2", "a=%4", "a=%GG", "a=%FF", "a=%+1"] {
            check(wrong, None);
        }
    }
}
