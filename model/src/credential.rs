//! Stored credentials: API keys and Basic users, as hashes. What a request shows is looked up by the id, which is the
//! start of the keyed hash, so that no second index is needed.

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::resource::Name;

/// The environment of a key that names none: `qg_live_…`.
pub const ENV_DEFAULT: &str = "live";
/// How many characters of a key are stored in clear, for people to tell keys apart.
pub const PREFIX_CHARS: usize = 8;

/// The first eight bytes of the keyed hash, shown as 16 hex digits. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(NonZeroU64);

impl CredentialId {
    pub const ALLOWED: &'static str = "16 hex digits, not all of them 0";

    /// None for 0.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// None where the hash starts with eight zero bytes, which no one will see.
    pub fn of(hash: &[u8; 32]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        Self::new(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    pub fn number(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for CredentialId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let id = u64::from_str_radix(text, 16).ok().filter(|_| hex).and_then(Self::new);
        id.ok_or_else(|| format!("found {text:?}; allowed: {}", Self::ALLOWED))
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One credential of a consumer. A million of them fit into 200 bytes each, all tables included: what is rare is behind
/// one pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub id: CredentialId,
    pub consumer: Name,
    pub kind: CredentialKind,
    /// None: no scope, from anywhere, of the default environment.
    pub grants: Option<Arc<Grants>>,
    /// For people only.
    pub created: WallMs,
    /// Log-clock instant, microseconds: when it expires, when its overlap ends, or when it was revoked.
    pub ends_at_us: Option<NonZeroU64>,
    pub state: CredentialState,
    /// The key that it was rotated to.
    pub replaced_by: Option<CredentialId>,
}

impl Credential {
    /// How long it counts from this log-clock instant on; `None`: for ever.
    pub fn left(&self, now_us: u64) -> Option<Duration> {
        self.ends_at_us.map(|at| Duration::from_micros(at.get().saturating_sub(now_us)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// BLAKE3 of the key's whole text under the pepper, without its start, which is the id, and the first characters of
    /// the key's random part.
    ApiKey {
        hash_rest: [u8; 24],
        prefix: [u8; PREFIX_CHARS],
    },
    Basic(Arc<BasicUser>),
}

/// Milliseconds since 1970, in seven bytes: with the state beside them they fill one word of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WallMs([u8; 7]);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicUser {
    pub name: String,
    /// Argon2id in the PHC string form.
    pub password_hash: String,
}

/// What a credential may do, and from where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grants {
    pub env: Box<str>,
    pub scopes: Arc<[Box<str>]>,
    /// Empty: from anywhere.
    pub cidrs: Box<[IpNet]>,
    /// What its owner calls it; says nothing of what it may do.
    pub label: Box<str>,
}

impl Default for Grants {
    fn default() -> Self {
        Self { env: ENV_DEFAULT.into(), scopes: Arc::default(), cidrs: Box::default(), label: Box::default() }
    }
}

/// What was decided about it; time does the rest, see `Standing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CredentialState {
    #[default]
    Active,
    /// Replaced, and good until `ends_at_us`.
    Rotating,
    Disabled,
    Revoked,
}

/// Whether a credential is good at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active,
    Rotating,
    Disabled,
    Expired,
    Revoked,
}

impl Credential {
    /// Whether it is the API key of this hash.
    pub fn is_key_of(&self, hash: &[u8; 32]) -> bool {
        let CredentialKind::ApiKey { hash_rest, .. } = &self.kind else { return false };
        CredentialId::of(hash) == Some(self.id) && hash.ends_with(hash_rest)
    }

    /// At an instant of the log clock, microseconds.
    pub fn standing(&self, now_us: u64) -> Standing {
        match self.state {
            CredentialState::Revoked => Standing::Revoked,
            CredentialState::Disabled => Standing::Disabled,
            _ if self.ends_at_us.is_some_and(|end| end.get() <= now_us) => Standing::Expired,
            CredentialState::Rotating => Standing::Rotating,
            CredentialState::Active => Standing::Active,
        }
    }

    pub fn env(&self) -> &str {
        self.grants.as_ref().map_or(ENV_DEFAULT, |grants| &grants.env)
    }

    pub fn scopes(&self) -> &[Box<str>] {
        self.grants.as_ref().map_or(&[], |grants| &grants.scopes)
    }

    pub fn label(&self) -> &str {
        self.grants.as_ref().map_or("", |grants| &grants.label)
    }

    /// Empty: from anywhere.
    pub fn cidrs(&self) -> &[IpNet] {
        self.grants.as_ref().map_or(&[], |grants| &grants.cidrs)
    }
}

impl WallMs {
    /// What does not fit, some two million years, is the last instant that does.
    pub fn of(ms: u64) -> Self {
        let [bytes @ .., _] = ms.min((1 << 56) - 1).to_le_bytes();
        Self(bytes)
    }

    pub fn get(self) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, 0])
    }
}

impl CredentialKind {
    /// An API key and its id, by its hash; None for a hash that no key has (`CredentialId::of`).
    pub fn api_key(hash: &[u8; 32], prefix: [u8; PREFIX_CHARS]) -> Option<(CredentialId, Self)> {
        let (_, hash_rest) = hash.split_last_chunk()?;
        Some((CredentialId::of(hash)?, Self::ApiKey { hash_rest: *hash_rest, prefix }))
    }

    /// `api_key`
    pub fn word(&self) -> &'static str {
        match self {
            Self::ApiKey { .. } => "api_key",
            Self::Basic(_) => "basic",
        }
    }
}

impl Standing {
    /// `active`
    pub fn word(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Rotating => "rotating",
            Standing::Disabled => "disabled",
            Standing::Expired => "expired",
            Standing::Revoked => "revoked",
        }
    }

    /// Whether it lets anybody in.
    pub fn is_good(self) -> bool {
        matches!(self, Standing::Active | Standing::Rotating)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_16_hex_digits() {
        let id = CredentialId::new(0xab).unwrap();
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", "00000000000000AB", "0000000000000000", "+0000000000000ab"] {
            assert!(bad.parse::<CredentialId>().unwrap_err().contains("allowed"), "{bad}");
        }
    }

    #[test]
    fn a_credential_takes_no_more_than_planned() {
        // Beside it: 16 bytes of reference counts, about 50 in the maps of the state, 27 in the proxy's table.
        assert!(size_of::<Credential>() <= 96, "{}", size_of::<Credential>());
    }

    #[test]
    fn an_instant_is_kept_in_seven_bytes() {
        for ms in [0, 1, 1_795_000_000_000, (1 << 56) - 1] {
            assert_eq!(WallMs::of(ms).get(), ms);
        }
        assert_eq!(WallMs::of(u64::MAX).get(), (1 << 56) - 1);
    }

    #[test]
    fn time_ends_what_nobody_ended() {
        let mut credential = Credential {
            id: CredentialId::new(1).unwrap(),
            consumer: "acme".parse().unwrap(),
            kind: CredentialKind::ApiKey { hash_rest: [1; 24], prefix: *b"abcdefgh" },
            grants: None,
            created: WallMs::default(),
            ends_at_us: NonZeroU64::new(10),
            state: CredentialState::Rotating,
            replaced_by: None,
        };
        assert_eq!(credential.standing(9), Standing::Rotating);
        assert_eq!(credential.standing(10), Standing::Expired);
        credential.state = CredentialState::Revoked;
        assert_eq!(credential.standing(9), Standing::Revoked);
    }
}
