//! What the token and introspection endpoints of OAuth 2 are sent (RFC 6749 §2.3.1, §4.4.2; RFC 7662 §2.1).

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
        // `gw%3A1:s%3A%20`
        assert_eq!(basic("gw:1", "s: "), "Basic Z3clM0ExOnMlM0ElMjA=");
    }
}
