//! Enters a cluster: a token proves, the CA is pinned, the node gets its id and certificate, and `run` does the rest.

use std::path::Path;

use quorumgate_model::{NodeId, command::Role};

use crate::settings::Settings;

/// `QGJT-1-<base32 SPKI SHA-256 of the CA>-<id>-<secret>`
#[derive(Clone)]
pub struct JoinToken {
    pub ca_spki_sha256: [u8; 32],
    pub id: String,
    pub secret: String,
}

/// Asks each seed (host:port of a peer listener) in turn; the error names the reason of the last refusal. Needs a tokio
/// runtime. `role: None` takes the token's.
pub async fn join(
    _seeds: &[String],
    _token: &JoinToken,
    _dir: &Path,
    _settings: &Settings,
    _role: Option<Role>,
) -> anyhow::Result<NodeId> {
    todo!("H6")
}

impl JoinToken {
    /// A new one for the CA; its hash goes into `CreateJoinToken`.
    pub fn generate(_ca_der: &[u8]) -> anyhow::Result<Self> {
        todo!("H6")
    }

    /// BLAKE3 of the secret's text.
    pub fn secret_hash(&self) -> quorumgate_model::digest::Digest {
        quorumgate_model::digest::Digest::of(self.secret.as_bytes())
    }
}

impl std::str::FromStr for JoinToken {
    type Err = anyhow::Error;

    fn from_str(_text: &str) -> anyhow::Result<Self> {
        todo!("H6")
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!("H6")
    }
}
