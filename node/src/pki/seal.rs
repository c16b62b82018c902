//! Secrets of the replicated state, sealed with AES-256-GCM under the key that every member holds on its own disk.

use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::random;

/// The first byte of a sealed secret.
const VERSION: u8 = 1;

/// 32 bytes, the same on every member; given to joiners over the pinned connection.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    pub fn generate() -> anyhow::Result<Self> {
        Ok(Self(random()?))
    }

    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(Self(bytes.try_into().context("a cluster key has 32 bytes")?))
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `purpose` binds the sealed bytes to their place: they open nowhere else.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut body = secret.to_vec();
        self.key()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose.as_bytes()), &mut body)
            .map_err(|_| anyhow::anyhow!("sealing failed"))?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    pub fn open(&self, purpose: &str, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Some((&VERSION, rest)) = sealed.split_first() else {
            anyhow::bail!("a sealed secret of an unknown version");
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
        *blake3::keyed_hash(&blake3::derive_key(purpose, &self.0), bytes).as_bytes()
    }

    fn key(&self) -> anyhow::Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| anyhow::anyhow!("an unusable cluster key"))?;
        Ok(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}
