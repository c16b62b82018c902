//! Secrets inside resources: plain on their way in, sealed in the state, a fingerprint for everybody else.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{digest::Digest, invalid::Invalid};

/// Bytes of a plain secret.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
/// Bytes of one that signatures are made with (RFC 7518 section 3.2, for SHA-256).
pub const SIGNING_SECRET_BYTES_MIN: usize = 32;
/// Bytes of a sealed one: the plain one, a nonce and a tag, with room for later versions.
pub const SEALED_BYTES_MAX: usize = SECRET_BYTES_MAX + 256;
const SEALED: &str = "sealed:";
const PLAIN: &str = "plain:";

/// In a file `sealed:<fingerprint>` or `plain:<text>`.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// From a client to the admin API, which seals it before it proposes. A state never holds one.
    Plain(Arc<str>),
    /// Under the cluster's key, which the model does not know.
    Sealed {
        bytes: Arc<[u8]>,
        /// Of the bytes as they were sealed first: a new key changes nothing that anybody sees.
        fingerprint: Fingerprint,
        /// Once they were sealed anew, until the object is changed: the etag that it had before, and keeps.
        etag: Option<Digest>,
    },
    /// The secret that the same object has already: what an export says.
    Kept(Fingerprint),
}

/// Names a sealed secret without telling anything of it: the start of a hash of the sealed bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl Secret {
    pub fn sealed(bytes: Vec<u8>) -> Self {
        let fingerprint = Fingerprint::of(&bytes);
        Self::Sealed { bytes: bytes.into(), fingerprint, etag: None }
    }

    /// The same secret under another key, in an object of that etag.
    pub(crate) fn seal_anew(&mut self, resealed: Arc<[u8]>, object: Option<Digest>) {
        if let Self::Sealed { bytes, etag, .. } = self {
            (*bytes, *etag) = (resealed, object);
        }
    }

    /// Its object is another one from now on.
    pub(crate) fn forget_etag(&mut self) {
        if let Self::Sealed { etag, .. } = self {
            *etag = None;
        }
    }

    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        match self {
            Self::Sealed { bytes, .. } => Some(bytes),
            Self::Plain(_) | Self::Kept(_) => None,
        }
    }

    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Secret::Plain(_) => None,
            Secret::Sealed { fingerprint, .. } | Secret::Kept(fingerprint) => Some(*fingerprint),
        }
    }

    pub(super) fn check(&self, field: &str) -> Result<(), Invalid> {
        match self {
            Secret::Plain(text) if text.is_empty() => {
                Err(Invalid::field(field).found("an empty secret").allowed("at least one character"))
            }
            Secret::Plain(text) => super::check::length(field, text, SECRET_BYTES_MAX),
            Secret::Sealed { bytes, .. } if bytes.len() > SEALED_BYTES_MAX => Err(Invalid::field(field)
                .found(format!("{} sealed bytes", bytes.len()))
                .allowed(format!("at most {SEALED_BYTES_MAX}"))),
            Secret::Sealed { .. } | Secret::Kept(_) => Ok(()),
        }
    }
}

impl Secret {
    /// One that signatures are made with.
    pub(super) fn check_signing(&self, field: &str) -> Result<(), Invalid> {
        self.check(field)?;
        match self {
            Secret::Plain(text) if text.len() < SIGNING_SECRET_BYTES_MIN => Err(Invalid::field(field)
                .found(format!("{} bytes", text.len()))
                .allowed(format!("at least {SIGNING_SECRET_BYTES_MIN} bytes: a shorter one can be guessed"))),
            _ => Ok(()),
        }
    }
}

impl Fingerprint {
    /// Sealing takes a fresh nonce each time, so that equal secrets have unequal fingerprints and none can be guessed at.
    pub fn of(sealed: &[u8]) -> Self {
        let hash = blake3::derive_key("quorumgate 2026 fingerprint of a sealed secret", sealed);
        Self(hash[..8].try_into().expect("32 bytes begin with 8"))
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(drop)?;
        bytes.try_into().map(Self).map_err(drop)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Never the secret itself: objects are logged.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Plain(_) => f.write_str("plain:…"),
            Secret::Sealed { fingerprint, .. } | Secret::Kept(fingerprint) => write!(f, "{SEALED}{fingerprint}"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Secret::Plain(text) => serializer.collect_str(&format_args!("{PLAIN}{text}")),
            Secret::Sealed { fingerprint, .. } | Secret::Kept(fingerprint) => {
                serializer.collect_str(&format_args!("{SEALED}{fingerprint}"))
            }
        }
    }
}

impl FromStr for Secret {
    type Err = String;

    /// The text itself is never repeated in the complaint: it may be the secret.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(plain) = text.strip_prefix(PLAIN) {
            return Ok(Self::Plain(plain.into()));
        }
        let kept = text.strip_prefix(SEALED).and_then(|text| text.parse().ok()).map(Self::Kept);
        kept.ok_or_else(|| {
            "found another text; allowed: sealed: and the 16 hex digits that an export shows, or plain: and the \
             secret; better a file by the word that ends in _file"
                .to_owned()
        })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
