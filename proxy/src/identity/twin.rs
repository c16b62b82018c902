//! The other text of a token. Where (r, s) is a good ECDSA signature, (r, n - s) is one too, so whoever has a token can
//! write it in a second way without the issuer's key. What is revoked by the hash of one text must be so by the other.

use data_encoding::BASE64URL_NOPAD;

use super::{
    algorithm::Algorithm,
    claims::{base64url, object},
    jwt::{TOKEN_BYTES_MAX, sha256},
};

/// The order of each curve's group, big-endian (SEC 2, 2.4.2, 2.5.1, 2.6.1).
const P256: [u8; 32] = *b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\
    \xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
const P384: [u8; 48] = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \xff\xff\xff\xff\xff\xff\xff\xff\xc7\x63\x4d\x81\xf4\x37\x2d\xdf\
    \x58\x1a\x0d\xb2\x48\xb0\xa7\x7a\xec\xec\x19\x6a\xcc\xc5\x29\x73";
const P521: [u8; 66] = *b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \xfa\x51\x86\x87\x83\xbf\x2f\x96\x6b\x7f\xcc\x01\x48\xf7\x09\xa5\xd0\
    \x3b\xb5\xc9\xb8\x89\x9c\x47\xae\xbb\x6f\xb7\x1e\x91\x38\x64\x09";

/// SHA-256 of the token's other text; None where it has only one. The algorithm is taken at the token's word.
pub fn twin_sha256(token: &str) -> Option<[u8; 32]> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let head = object(&base64url(token.split('.').next()?)?)?;
    twin(token, head.get("alg")?.as_str()?.parse().ok()?).map(|text| sha256(text.as_bytes()))
}

/// The other text of a token that was signed with this algorithm.
pub(super) fn twin(token: &str, algorithm: Algorithm) -> Option<String> {
    let order: &[u8] = match algorithm {
        Algorithm::ES256 => &P256,
        Algorithm::ES384 => &P384,
        Algorithm::ES512 => &P521,
        _ => return None,
    };
    let (message, signature) = token.rsplit_once('.')?;
    let mut signature = base64url(signature).filter(|it| it.len() == 2 * order.len())?;
    negate(&mut signature[order.len()..], order)?;
    Some(format!("{message}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// `order - number`, both big-endian and of one length; None where the number is larger.
fn negate(number: &mut [u8], order: &[u8]) -> Option<()> {
    let mut borrow = false;
    for (digit, of_order) in number.iter_mut().zip(order).rev() {
        let (less, under) = of_order.overflowing_sub(*digit);
        let (less, under_again) = less.overflowing_sub(u8::from(borrow));
        (*digit, borrow) = (less, under || under_again);
    }
    (!borrow).then_some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::tokens::Signer;

    #[test]
    fn only_signatures_on_curves_have_a_twin_and_it_has_the_first_for_its_own() {
        let claims = json!({"sub": "ann"});
        for signer in [Signer::es256("a"), Signer::es384("b"), Signer::es512("c")] {
            let token = signer.token(&claims);
            let algorithm = signer.algorithm().parse().unwrap();
            let other = twin(&token, algorithm).unwrap();
            assert_ne!(other, token);
            assert_eq!(twin(&other, algorithm).unwrap(), token);
            assert_eq!(twin_sha256(&token), Some(sha256(other.as_bytes())));
        }
        for signer in [Signer::ed25519("d"), Signer::Secret(vec![7; 32])] {
            assert_eq!(twin_sha256(&signer.token(&claims)), None);
        }
        for text in ["", "a.b.c", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(twin_sha256(text), None);
        }
        // Larger than the order.
        let huge = format!("eyJhbGciOiJFUzI1NiJ9.e30.{}", BASE64URL_NOPAD.encode(&[0xff; 64]));
        assert_eq!(twin_sha256(&huge), None);
    }
}
