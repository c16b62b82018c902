//! Secrets of the replicated state, sealed with AES-256-GCM under a key that every member holds on its own disk.

use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use quorumgate_model::sealed::{NUMBERED, UNNUMBERED};

use super::random;

pub(super) const KEY_BYTES: usize = 32;

/// The same on every member; given to joiners over the pinned connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    /// 0 for the first of a cluster, and for keys of other uses.
    number: u64,
    key: [u8; KEY_BYTES],
}

impl ClusterKey {
    pub fn generate() -> anyhow::Result<Self> {
        Ok(Self { number: 0, key: random()? })
    }

    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(Self { number: 0, key: bytes.try_into().context("a cluster key has 32 bytes")? })
    }

    pub fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// `purpose` binds the sealed bytes to their place: they open nowhere else.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut body = secret.to_vec();
        self.key()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose.as_bytes()), &mut body)
            .map_err(|_| anyhow::anyhow!("sealing failed"))?;
        let mut sealed = self.prefix();
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    pub fn open(&self, purpose: &str, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Some(rest) = sealed.strip_prefix(&self.prefix()[..]) else {
            anyhow::bail!("the {purpose} is sealed in another way, or under another key");
        };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).context("a sealed secret is cut short")?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| anyhow::anyhow!("a bad nonce"))?;
        let mut body = body.to_vec();
        let opened = self
            .key()?
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut body)
            .map_err(|_| anyhow::anyhow!("the cluster key does not open the {purpose}"))?;
        Ok(opened.to_vec())
    }

    /// A hash that only members can make: of what may hold a secret, which the plain hash would let anyone guess at.
    pub fn hash(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&blake3::derive_key(purpose, &self.key), bytes).as_bytes()
    }

    /// What sealed bytes begin with.
    fn prefix(&self) -> Vec<u8> {
        match self.number {
            0 => vec![UNNUMBERED],
            number => [&[NUMBERED][..], &number.to_le_bytes()].concat(),
        }
    }

    fn key(&self) -> anyhow::Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, &self.key).map_err(|_| anyhow::anyhow!("an unusable cluster key"))?;
        Ok(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterKey({}, …)", self.number)
    }
}
