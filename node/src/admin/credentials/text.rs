//! The texts of API keys: `qg_<env>_<base62 of 24 bytes>_<CRC-32C in hex>`, so that leaked ones can be searched for and
//! mistyped ones told from unknown ones.

use uuid::Uuid;

/// Of randomness.
const BYTES: usize = 24;
/// As many base62 digits as 24 bytes need.
const DIGITS: usize = 33;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The key that the request's `n`th place makes. It follows from the request's id under the pepper, which nobody outside
/// the cluster has: a request that is repeated after an unknown outcome answers with the same secret.
pub fn make(pepper: &[u8; 32], request_id: Uuid, n: usize, env: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("quorumgate 2026 API key of a request");
    hasher.update(pepper).update(request_id.as_bytes()).update(&(n as u64).to_le_bytes());
    let mut random = [0; BYTES];
    hasher.finalize_xof().fill(&mut random);
    let body = format!("qg_{env}_{}", base62(random));
    format!("{body}_{:08x}", crc32c::crc32c(body.as_bytes()))
}

/// The first characters that may be shown: those of the random part in a key of ours, of the whole in another's.
pub fn prefix(text: &str) -> [u8; 8] {
    let ours = text.strip_prefix("qg_").and_then(|rest| rest.split_once('_')).map(|(_, random)| random);
    let shown = ours.unwrap_or(text).bytes().map(|b| if b.is_ascii_alphanumeric() { b } else { b'0' });
    let mut prefix = [b'0'; 8];
    prefix.iter_mut().zip(shown).for_each(|(to, from)| *to = from);
    prefix
}

/// Big-endian division, digit by digit.
fn base62(mut number: [u8; BYTES]) -> String {
    let mut digits = [0; DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
    String::from_utf8_lossy(&digits).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_it_comes_from_and_checks_itself() {
        let id = Uuid::from_bytes([1; 16]);
        let key = make(&[2; 32], id, 0, "live");
        let (body, sum) = key.rsplit_once('_').unwrap();
        assert_eq!(sum, format!("{:08x}", crc32c::crc32c(body.as_bytes())));
        let random = body.strip_prefix("qg_live_").unwrap();
        assert!(random.len() == DIGITS && random.bytes().all(|b| b.is_ascii_alphanumeric()), "{key}");
        assert_eq!(prefix(&key), random.as_bytes()[..8]);
        assert_eq!(make(&[2; 32], id, 0, "live"), key, "a repeat");
        for other in [make(&[3; 32], id, 0, "live"), make(&[2; 32], id, 1, "live")] {
            assert_ne!(other, key);
        }
        assert_eq!(&prefix("a-b"), b"a0b00000");
    }

    #[test]
    fn base62_counts() {
        let mut number = [0; BYTES];
        number[BYTES - 1] = 61;
        assert!(base62(number).ends_with("00z"));
        (number[BYTES - 2], number[BYTES - 1]) = (1, 0);
        assert!(base62(number).ends_with("0048"), "256 is 4 * 62 + 8");
        assert!(base62([0xff; BYTES]).starts_with('E') || base62([0xff; BYTES]).len() == DIGITS);
    }
}
