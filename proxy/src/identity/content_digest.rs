//! Is the body what its `Content-Digest` says (RFC 9530)? Told while it passes through: the last part is held back until
//! the digest is known to be right, so that no upstream ever has a whole body that is not.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use http::HeaderMap;
use quorumgate_model::mutants::{self, Mutant};

use super::{
    AuthFailure,
    structured::{Bare, Item, Member, dictionary},
};

pub(super) const FIELD: &str = "content-digest";
const MALFORMED: AuthFailure = AuthFailure::Invalid("the content-digest is malformed, or of no known algorithm");
const WRONG: AuthFailure = AuthFailure::Invalid("the body is not what its content-digest says");

/// One body that is passed on.
pub struct Digested {
    /// Every digest that is of a known algorithm must be right.
    running: Vec<(Context, Vec<u8>)>,
    held: Option<Bytes>,
}

impl Digested {
    /// `sha-256` and `sha-512`; others do not count (RFC 9530 §5).
    pub fn new(headers: &HeaderMap) -> Result<Self, AuthFailure> {
        let text = super::signature::combined(headers, FIELD).ok_or(MALFORMED)?;
        let mut running = Vec::new();
        for (algorithm, member) in dictionary(&text).ok_or(MALFORMED)? {
            let Member::Item(Item { bare: Bare::Bytes(expected), .. }) = member else { return Err(MALFORMED) };
            match algorithm.as_str() {
                "sha-256" => running.push((Context::new(&SHA256), expected)),
                "sha-512" => running.push((Context::new(&SHA512), expected)),
                _ => {}
            }
        }
        match running.is_empty() {
            true => Err(MALFORMED),
            false => Ok(Self { running, held: None }),
        }
    }

    /// Takes a part, gives back the one before.
    pub fn pass(&mut self, part: Bytes) -> Option<Bytes> {
        if part.is_empty() {
            return None;
        }
        self.running.iter_mut().for_each(|(context, _)| context.update(&part));
        self.held.replace(part)
    }

    pub fn held_bytes(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.len() as u64)
    }

    /// The last part, if the whole was right.
    pub fn finish(mut self) -> Result<Option<Bytes>, AuthFailure> {
        let held = self.held.take();
        // A digest is no secret: nothing is learnt from how long a comparison takes.
        let right = self.running.into_iter().all(|(context, expected)| context.finish().as_ref() == expected);
        if right || mutants::is(Mutant::DigestIgnored) { Ok(held) } else { Err(WRONG) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const BODY: &str = r#"{"hello": "world"}"#;
    /// RFC 9530, appendix B, and RFC 9421, appendix B.2.
    const SHA_256: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    const SHA_512: &str =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

    fn digested(field: &str) -> Result<Digested, AuthFailure> {
        Digested::new(&HeaderMap::from_iter([(FIELD.parse().unwrap(), HeaderValue::from_str(field).unwrap())]))
    }

    fn pass(field: &str, parts: &[&'static str]) -> (String, bool) {
        let mut digested = digested(field).unwrap();
        let passed = parts.iter().filter_map(|part| digested.pass(Bytes::from_static(part.as_bytes())));
        let mut passed = passed.collect::<Vec<_>>().concat();
        let last = digested.finish();
        passed.extend(last.iter().flatten().flatten());
        (String::from_utf8(passed).unwrap(), last.is_ok())
    }

    #[test]
    fn a_body_passes_whole_or_without_its_last_part() {
        let both = format!("{SHA_256}, {SHA_512}");
        for field in [SHA_256, SHA_512, &both] {
            assert_eq!(pass(field, &[BODY]), (BODY.into(), true));
            assert_eq!(pass(field, &[&BODY[..5], "", &BODY[5..], ""]), (BODY.into(), true));
            assert_eq!(pass(field, &["{\"hello\": ", "\"World\"}"]), ("{\"hello\": ".into(), false));
            assert_eq!(pass(field, &[]), (String::new(), false));
        }
        // One that is wrong is one too many.
        let one_wrong = format!("sha-256=:AAAA:, {SHA_512}");
        assert_eq!(pass(&one_wrong, &[BODY]), (String::new(), false));
        assert_eq!(pass("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", &[]), (String::new(), true));
        assert_eq!(pass(&format!("md5=:AAAA:, {SHA_256}"), &[BODY]), (BODY.into(), true));
    }

    #[test]
    fn a_field_without_a_known_digest_is_refused() {
        for field in ["", "md5=:AAAA:", "sha-256=x", "sha-256", "sha-256=:A:", "sha-256=(:AAAA:)"] {
            assert_eq!(digested(field).map(|_| ()), Err(MALFORMED), "{field}");
        }
        assert!(Digested::new(&HeaderMap::new()).is_err());
    }
}
