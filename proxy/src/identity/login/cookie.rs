//! What this gateway lets a browser keep for it: sealed so that only the cluster can read or make it, in pieces that
//! browsers take. Every node has the key, so that a session begun on one goes on at any other.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header};

/// How the name of every such cookie begins. A browser takes `__Host-` only from this very host, over TLS, for all paths.
pub(crate) const PREFIX: &str = "__Host-qg-";
/// Browsers keep cookies of up to 4096 bytes with their name and attributes.
const PIECE_BYTES_MAX: usize = 3_600;
/// Together they stay far below what a head may have.
pub(super) const PIECES_MAX: usize = 4;
const SALT_BYTES: usize = 16;
const CONTEXT: &str = "quorumgate 2026 cookies of browser logins";

/// Seals cookies of one auth.
pub(super) struct Sealer {
    key: [u8; 32],
}

impl Sealer {
    /// `secret`: the cluster's cookie key. What was sealed for one auth and client opens for no other.
    pub(super) fn new(secret: &[u8], auth: &str, client_id: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        for part in [secret, auth.as_bytes(), client_id.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self { key: *hasher.finalize().as_bytes() }
    }

    /// What only the cluster can make of these parts.
    pub(super) fn mark(&self, purpose: &str, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.finalize()
    }

    /// `purpose` is sealed in: a cookie that is given another name does not open. None without randomness.
    pub(super) fn seal(&self, purpose: &str, plain: &[u8]) -> Option<String> {
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_LEN]);
        rand::fill(&mut salt).ok()?;
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        self.of(&salt)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some(BASE64URL_NOPAD.encode(&[&salt[..], &nonce, &sealed].concat()))
    }

    pub(super) fn open(&self, purpose: &str, text: &str) -> Option<Vec<u8>> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (salt, rest) = bytes.split_first_chunk::<SALT_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.of(salt)?.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut sealed).ok()?;
        Some(plain.to_vec())
    }

    /// A key for each cookie: random nonces under one key would come to an end for a cluster of many browsers.
    fn of(&self, salt: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
        let key = blake3::keyed_hash(&self.key, salt);
        UnboundKey::new(&AES_256_GCM, key.as_bytes()).ok().map(LessSafeKey::new)
    }
}

/// The value of a cookie; the first one where there are several.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// What stands in a cookie and the pieces behind it.
pub(super) fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let (count, first) = find(headers, name)?.split_once('.')?;
    let count: usize = count.parse().ok().filter(|count| (1..=PIECES_MAX).contains(count))?;
    let mut text = first.to_owned();
    for piece in 1..count {
        text.push_str(find(headers, &piece_name(name, piece))?);
    }
    Some(text)
}

/// How many pieces of a cookie the browser has.
pub(super) fn pieces(headers: &HeaderMap, name: &str) -> usize {
    let has = |piece: &usize| find(headers, &piece_name(name, *piece)).is_some();
    (0..PIECES_MAX).filter(has).max().map_or(0, |last| last + 1)
}

/// Set-Cookie for a text; pieces that the browser `had` before are taken away. None: it is too long.
pub(super) fn set(name: &str, text: &str, max_age_s: u64, had: usize) -> Option<Vec<HeaderValue>> {
    let count = text.len().div_ceil(PIECE_BYTES_MAX).max(1);
    if count > PIECES_MAX {
        return None;
    }
    let mut cookies = Vec::new();
    for piece in 0..count {
        let part = &text[piece * PIECE_BYTES_MAX..text.len().min((piece + 1) * PIECE_BYTES_MAX)];
        let head = if piece == 0 { format!("{count}.") } else { String::new() };
        cookies.push(cookie(&piece_name(name, piece), &format!("{head}{part}"), max_age_s)?);
    }
    for piece in count..had.min(PIECES_MAX) {
        cookies.push(cookie(&piece_name(name, piece), "", 0)?);
    }
    Some(cookies)
}

pub(super) fn unset(name: &str, had: usize) -> Vec<HeaderValue> {
    (0..had.min(PIECES_MAX)).filter_map(|piece| cookie(&piece_name(name, piece), "", 0)).collect()
}

/// Lax: it comes along when the provider sends the browser back, and with nothing else from other sites.
fn cookie(name: &str, value: &str, max_age_s: u64) -> Option<HeaderValue> {
    let text = format!("{name}={value}; Path=/; Max-Age={max_age_s}; Secure; HttpOnly; SameSite=Lax");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// No auth's name has a tilde.
fn piece_name(name: &str, piece: usize) -> String {
    if piece == 0 { name.to_owned() } else { format!("{name}~{piece}") }
}

/// Takes our cookies out of a request: whoever has one is signed in, and no upstream needs to be.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let Some(first) = headers.get(header::COOKIE) else { return };
    let ours = |field: &HeaderValue| field.as_bytes().windows(PREFIX.len()).any(|at| at == PREFIX.as_bytes());
    if !ours(first) && !headers.get_all(header::COOKIE).iter().skip(1).any(ours) {
        return;
    }
    let kept: Vec<Vec<u8>> = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|b| *b == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !pair.starts_with(PREFIX.as_bytes()))
        .map(<[u8]>::to_vec)
        .collect();
    headers.remove(header::COOKIE);
    if let Ok(value) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
        && !value.is_empty()
    {
        headers.insert(header::COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[HeaderValue]) -> HeaderMap {
        let pairs = cookies.iter().filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
        let joined = pairs.collect::<Vec<_>>().join("; ");
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(joined).unwrap())])
    }

    #[test]
    fn only_what_was_sealed_for_it_opens() {
        let sealer = Sealer::new(b"secret", "login", "web");
        let text = sealer.seal("session", b"hello").unwrap();
        assert_eq!(sealer.open("session", &text).as_deref(), Some(&b"hello"[..]));
        assert_ne!(sealer.seal("session", b"hello").unwrap(), text);
        assert_eq!(sealer.open("try0", &text), None);
        for other in [
            Sealer::new(b"secret", "login2", "web"),
            Sealer::new(b"secret2", "login", "web"),
            Sealer::new(b"secret", "login", "we"),
            Sealer::new(b"secretl", "ogin", "web"),
        ] {
            assert_eq!(other.open("session", &text), None);
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open("session", std::str::from_utf8(&bytes).unwrap()), None, "{at}");
        }
        for wrong in ["", "AAAA", &text[..40], &format!("{text}=")] {
            assert_eq!(sealer.open("session", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn long_texts_come_in_pieces_and_leave_none_behind() {
        let check = |length: usize, expected: Option<usize>| {
            let text = "x".repeat(length);
            let cookies = set("__Host-qg-a", &text, 60, 0);
            assert_eq!(cookies.as_ref().map(Vec::len), expected, "{length}");
            let Some(cookies) = cookies else { return };
            assert!(cookies.iter().all(|cookie| cookie.len() < 4096));
            let headers = headers(&cookies);
            assert_eq!(joined(&headers, "__Host-qg-a"), Some(text));
            assert_eq!(Some(pieces(&headers, "__Host-qg-a")), expected);
        };
        check(0, Some(1));
        check(PIECE_BYTES_MAX, Some(1));
        check(PIECE_BYTES_MAX + 1, Some(2));
        check(PIECES_MAX * PIECE_BYTES_MAX, Some(PIECES_MAX));
        check(PIECES_MAX * PIECE_BYTES_MAX + 1, None);
        let shorter = set("a", "x", 60, 3).unwrap();
        assert!(shorter[1].to_str().unwrap().starts_with("a~1=; Path=/; Max-Age=0;"), "{shorter:?}");
        assert_eq!((shorter.len(), unset("a", 3).len()), (3, 3));
        let mut halved = headers(&set("a", &"x".repeat(5000), 60, 0).unwrap()[..1]);
        assert_eq!(joined(&halved, "a"), None);
        halved.insert(header::COOKIE, HeaderValue::from_static("a=9.x"));
        assert_eq!(joined(&halved, "a"), None);
    }

    #[test]
    fn our_cookies_go_no_further() {
        let check = |cookie: &'static str, expected: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(cookie))]);
            strip(&mut headers);
            assert_eq!(headers.get(header::COOKIE).map(|it| it.to_str().unwrap()), expected, "{cookie}");
        };
        check("a=1;b=2", Some("a=1;b=2"));
        check("a=1; __Host-qg-x=2; b=3", Some("a=1; b=3"));
        check("__Host-qg-x=2;__Host-qg-x~1=2", None);
        check("a=__Host-qg-x", Some("a=__Host-qg-x"));
    }
}
