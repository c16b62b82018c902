//! What has been revoked: selectors in a compact form, and when an entry may be forgotten.

use std::{fmt, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;

use crate::{
    invalid::Invalid,
    mutants::{self, Mutant},
};

/// The longest issuer or value of a selector, bytes.
pub const SELECTOR_BYTES_MAX: usize = 1_024;
/// How long an entry may be asked to last; what shuts out something that never ends lasts as long.
pub const TTL_MAX: Duration = Duration::from_secs(3_660 * 86_400);

/// By what something is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SelectorKind {
    /// The token's id.
    Jti,
    /// SHA-256 of the token's text.
    TokenHash,
    /// All tokens of a subject that were issued before an instant.
    Subject,
    /// A session of the identity provider.
    Sid,
    Client,
    /// Everything that speaks for a consumer.
    Consumer,
    /// A stored credential by its id.
    Credential,
    /// Everything that a key of the issuer has signed.
    SigningKid,
    /// A certificate by the SHA-256 of its issuer's name and its serial number.
    CertificateSerial,
    /// Certificates by the SHA-256 of their public key.
    CertificateKey,
}

impl SelectorKind {
    pub const ALL: [SelectorKind; 10] = [
        SelectorKind::Jti,
        SelectorKind::TokenHash,
        SelectorKind::Subject,
        SelectorKind::Sid,
        SelectorKind::Client,
        SelectorKind::Consumer,
        SelectorKind::Credential,
        SelectorKind::SigningKid,
        SelectorKind::CertificateSerial,
        SelectorKind::CertificateKey,
    ];

    /// `jti`
    pub fn word(self) -> &'static str {
        match self {
            SelectorKind::Jti => "jti",
            SelectorKind::TokenHash => "sha256",
            SelectorKind::Subject => "subject",
            SelectorKind::Sid => "sid",
            SelectorKind::Client => "client",
            SelectorKind::Consumer => "consumer",
            SelectorKind::Credential => "credential",
            SelectorKind::SigningKid => "kid",
            SelectorKind::CertificateSerial => "certificate_serial",
            SelectorKind::CertificateKey => "certificate_key",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Its place in `ALL`, and its tag in the stored form.
    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What the issuer part must be.
    fn issuer(self) -> Part {
        match self {
            SelectorKind::Jti | SelectorKind::Sid | SelectorKind::Client | SelectorKind::SigningKid => Part::Optional,
            SelectorKind::Subject => Part::Required,
            SelectorKind::CertificateSerial => Part::Sha256,
            _ => Part::None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Optional,
    Required,
    Sha256,
}

/// A selector as one run of bytes: the kind's number, the issuer's length (two bytes, little-endian), the issuer, the
/// value. An empty issuer stands for any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Box<[u8]>);

/// The parts of a selector, borrowed: what a look-up is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectorParts<'a> {
    pub kind: SelectorKind,
    /// Text, except for `CertificateSerial` (32 bytes). Empty: any, or the kind has none.
    pub issuer: &'a [u8],
    /// Text, except for hashes (32 bytes) and serials (big-endian without leading zeros).
    pub value: &'a [u8],
}

/// The first 16 bytes of the selector's BLAKE3: its place in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SelectorKey(pub [u8; 16]);

impl SelectorParts<'_> {
    /// Field paths are `issuer` and `value`.
    pub fn checked(self) -> Result<Selector, Invalid> {
        let Self { kind, issuer, value } = self;
        let bytes = |field: &str, found: usize, allowed: &str| {
            Err(Invalid::field(field).found(format!("{found} bytes")).allowed(allowed))
        };
        match (kind.issuer(), issuer.len()) {
            (Part::None, 1..) => return bytes("issuer", issuer.len(), "none with this selector"),
            (Part::Required, 0) => return bytes("issuer", 0, "1 to 1024 bytes"),
            (Part::Sha256, length) if length != 32 => return bytes("issuer", length, "the 32 bytes of a SHA-256"),
            (_, length) if length > SELECTOR_BYTES_MAX => return bytes("issuer", length, "at most 1024 bytes"),
            _ => {}
        }
        match (kind, value.len()) {
            (SelectorKind::TokenHash | SelectorKind::CertificateKey, length) if length != 32 => {
                return bytes("value", length, "the 32 bytes of a SHA-256");
            }
            (_, 0) => return bytes("value", 0, "1 to 1024 bytes"),
            (_, length) if length > SELECTOR_BYTES_MAX => return bytes("value", length, "1 to 1024 bytes"),
            (SelectorKind::CertificateSerial, _) if value[0] == 0 => {
                return Err(Invalid::field("value")
                    .found(HEXLOWER.encode(value))
                    .allowed("a serial without leading zeros"));
            }
            _ => {}
        }
        for (field, text, plain) in
            [("issuer", issuer, kind.issuer() != Part::Sha256), ("value", value, kind.is_text())]
        {
            if plain && std::str::from_utf8(text).is_err() {
                return Err(Invalid::field(field).found(HEXLOWER.encode(text)).allowed("UTF-8 text"));
            }
        }
        let length = u16::try_from(issuer.len()).expect("it was measured above");
        let mut bytes = Vec::with_capacity(3 + issuer.len() + value.len());
        bytes.push(kind.number());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(issuer);
        bytes.extend_from_slice(value);
        Ok(Selector(bytes.into()))
    }
}

impl Selector {
    /// From its stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let damaged =
            || Invalid::field("selector").found(HEXLOWER.encode(bytes)).allowed("a kind, an issuer and a value");
        let [kind, low, high, rest @ ..] = bytes else { return Err(damaged()) };
        let kind = SelectorKind::from_number(*kind).ok_or_else(damaged)?;
        let (issuer, value) =
            rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high]))).ok_or_else(damaged)?;
        SelectorParts { kind, issuer, value }.checked()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn parts(&self) -> SelectorParts<'_> {
        let issuer_end = 3 + usize::from(u16::from_le_bytes([self.0[1], self.0[2]]));
        SelectorParts {
            kind: SelectorKind::from_number(self.0[0]).expect("it was made from a kind"),
            issuer: &self.0[3..issuer_end],
            value: &self.0[issuer_end..],
        }
    }

    pub fn kind(&self) -> SelectorKind {
        self.parts().kind
    }

    pub fn key(&self) -> SelectorKey {
        let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(&self.0).as_bytes();
        SelectorKey(key)
    }
}

impl SelectorKind {
    fn is_text(self) -> bool {
        !matches!(self, Self::TokenHash | Self::CertificateKey | Self::CertificateSerial)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SelectorParts { kind, issuer, value } = self.parts();
        write!(f, "{}=", kind.word())?;
        match kind.is_text() {
            true => f.write_str(&String::from_utf8_lossy(value))?,
            false => f.write_str(&HEXLOWER.encode(value))?,
        }
        match (issuer, kind.issuer()) {
            ([], _) => Ok(()),
            (issuer, Part::Sha256) => write!(f, " issuer={}", HEXLOWER.encode(issuer)),
            (issuer, _) => write!(f, " issuer={}", String::from_utf8_lossy(issuer)),
        }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub selector: Selector,
    /// Log-clock instant, microseconds; forgotten some time after.
    pub expires_at_us: u64,
    /// Seconds since 1970. Some: what was issued at or after it is not revoked.
    pub not_before_s: Option<u64>,
    pub note: Arc<RevocationNote>,
}

/// Who revoked and why, shared by all entries of one command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevocationNote {
    /// Of the command.
    pub index: u64,
    pub wall_ms: u64,
    pub reason: String,
    pub actor: String,
}

impl Revocation {
    /// Whether it holds for something issued at `issued_at` (seconds since 1970); what does not say when it was issued
    /// counts as issued before any instant.
    pub fn covers(&self, issued_at: Option<u64>) -> bool {
        match (self.not_before_s, issued_at) {
            (Some(not_before), Some(issued_at)) => {
                issued_at + u64::from(mutants::is(Mutant::InstantTooEarly)) < not_before
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: SelectorKind, issuer: &[u8], value: &[u8]) -> Result<Selector, String> {
        SelectorParts { kind, issuer, value }.checked().map_err(|invalid| invalid.field)
    }

    #[test]
    fn selectors_come_back_as_they_were() {
        for kind in SelectorKind::ALL {
            assert_eq!(SelectorKind::from_word(kind.word()), Some(kind));
            let issuer: &[u8] = match kind.issuer() {
                Part::None => b"",
                Part::Sha256 => &[7; 32],
                _ => b"https://idp.test",
            };
            let selector = check(kind, issuer, &[b'v'; 32]).unwrap();
            assert_eq!(selector.parts(), SelectorParts { kind, issuer, value: &[b'v'; 32] });
            assert_eq!(Selector::from_bytes(selector.bytes()), Ok(selector));
        }
        assert_eq!(check(SelectorKind::Jti, b"i", b"a").unwrap().to_string(), "jti=a issuer=i");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let [a, b] = [(&b"ab"[..], &b"c"[..]), (b"a", b"bc")].map(|(i, v)| check(SelectorKind::Jti, i, v).unwrap());
        assert_ne!(a.key(), b.key());
    }

    #[test]
    fn a_selector_without_what_its_kind_needs_is_refused() {
        let refused = |kind, issuer: &[u8], value: &[u8]| check(kind, issuer, value).unwrap_err();
        assert_eq!(refused(SelectorKind::Subject, b"", b"u"), "issuer");
        assert_eq!(refused(SelectorKind::Consumer, b"i", b"u"), "issuer");
        assert_eq!(refused(SelectorKind::CertificateSerial, b"i", b"u"), "issuer");
        assert_eq!(refused(SelectorKind::CertificateSerial, &[1; 32], &[0, 1]), "value");
        assert_eq!(refused(SelectorKind::TokenHash, b"", b"short"), "value");
        assert_eq!(refused(SelectorKind::Jti, b"", b""), "value");
        assert_eq!(refused(SelectorKind::Jti, b"", &[0xff]), "value");
        assert_eq!(refused(SelectorKind::Jti, b"", &[b'a'; 1025]), "value");
        assert!(Selector::from_bytes(&[0, 9, 0, b'a']).is_err());
        assert!(Selector::from_bytes(&[99, 0, 0, b'a']).is_err());
    }

    #[test]
    fn an_instant_spares_what_came_after() {
        let selector = check(SelectorKind::Subject, b"i", b"u").unwrap();
        let entry = Revocation { selector, expires_at_us: 1, not_before_s: Some(100), note: Arc::default() };
        assert!(entry.covers(Some(99)) && entry.covers(None));
        assert!(!entry.covers(Some(100)));
    }
}
