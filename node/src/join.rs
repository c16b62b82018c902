//! Enters a cluster: a token proves, the CA is pinned, the node gets its id and certificate, and `run` does the rest.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use anyhow::Context;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use quorumgate_model::{
    LEVEL, NodeId,
    command::{Reason, Role},
    digest::Digest,
};
use quorumgate_proto::{peer::v1 as pb, store::v1 as store};
use quorumgate_raft_store::Identity;
use rustls::pki_types::CertificateDer;

use crate::{
    VERSION,
    consensus::write_welcome,
    init::Preparing,
    peer::{JoinFailure, ask_to_join},
    pki::{self, Anchor, Held, Keys, Names},
    settings::Settings,
};

/// For one seed: the admission is a write, and may wait for a leader.
const SEED_MAX: Duration = Duration::from_secs(20);
/// Kept over a crash, so that a repeated join is the same join.
const INCARNATION_FILE: &str = "incarnation";
const PREFIX: &str = "QGJT-1-";
const ID_BYTES: usize = 5;
const SECRET_BYTES: usize = 24;

/// `QGJT-1-<base32 SPKI SHA-256 of the CA>-<id>-<secret>`
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub ca_spki_sha256: [u8; 32],
    pub id: String,
    pub secret: String,
}

/// Why the cluster does not let this node in.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    #[error("{seed} refused the join: {message}")]
    Refused {
        seed: String,
        /// None where the words are all there is.
        reason: Option<Reason>,
        message: String,
    },
    /// A seed has another CA than the one that the token was made for.
    #[error("no seed let this node in: {0}")]
    AnotherCluster(String),
    #[error("no seed let this node in: {0}")]
    NoSeed(String),
}

/// Asks each seed (host:port of a peer listener) in turn; the error names the reason of the last refusal. Needs a tokio
/// runtime. `role: None` takes the token's.
pub async fn join(
    seeds: &[String],
    token: &JoinToken,
    dir: &Path,
    settings: &Settings,
    role: Option<Role>,
) -> anyhow::Result<NodeId> {
    let preparing = Preparing::begin(dir)?;
    preparing.clear(&[pki::TLS_DIR, INCARNATION_FILE])?;
    let incarnation = incarnation(dir)?;
    let key = Held::key_of(dir)?;
    let request = pb::JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone().into_bytes(),
        name: settings.node.name.to_string(),
        region: settings.node.region.clone(),
        peer_address: settings.peer_address(),
        incarnation: incarnation.to_vec(),
        role: match role {
            Some(Role::Voter) => store::Role::Voter.into(),
            Some(Role::Replica) => store::Role::Replica.into(),
            None => store::Role::Unspecified.into(),
        },
        csr: key.request(&Names::of(settings))?,
        level: LEVEL,
        version: VERSION.into(),
    };
    let welcome = ask_each(seeds, token, request).await?;

    let ca = CertificateDer::from(&welcome.ca_certificate[..]);
    let cluster: [u8; 16] = welcome.cluster_id[..].try_into().context("the answer's cluster id")?;
    anyhow::ensure!(
        Anchor::new(&ca)?.spki_sha256() == token.ca_spki_sha256,
        "the answer holds another CA than the one that the token was made for"
    );
    Held::write(dir, &key, &ca, &CertificateDer::from(&welcome.certificate[..]))?;
    pki::write_private(&dir.join(pki::CLUSTER_KEY), &Keys::from_bytes(&welcome.cluster_key)?.to_bytes())?;
    write_welcome(dir, &welcome)?;
    quorumgate_raft_store::prepare(dir, Identity { cluster, node: welcome.node_id, incarnation })?;
    settings.write(dir)?;
    std::fs::remove_file(dir.join(INCARNATION_FILE))?;
    preparing.end()?;
    Ok(welcome.node_id)
}

async fn ask_each(
    seeds: &[String],
    token: &JoinToken,
    request: pb::JoinRequest,
) -> Result<pb::JoinResponse, NotAdmitted> {
    let mut failures = Vec::new();
    let mut another_cluster = false;
    for seed in seeds {
        match ask_to_join(seed, token.ca_spki_sha256, request.clone(), SEED_MAX).await {
            Ok(welcome) => return Ok(welcome),
            Err(JoinFailure::Refused { reason, message }) => {
                return Err(NotAdmitted::Refused { seed: seed.clone(), reason, message });
            }
            Err(JoinFailure::AnotherCluster(why)) => {
                another_cluster = true;
                failures.push(why);
            }
            Err(JoinFailure::Seed(why)) => failures.push(why),
        }
    }
    let failures = failures.join("; ");
    match another_cluster {
        true => Err(NotAdmitted::AnotherCluster(failures)),
        false => Err(NotAdmitted::NoSeed(failures)),
    }
}

fn incarnation(dir: &Path) -> anyhow::Result<[u8; 16]> {
    let file = dir.join(INCARNATION_FILE);
    if file.exists() {
        let text = std::fs::read_to_string(&file)?;
        let bytes = HEXLOWER.decode(text.trim().as_bytes())?;
        return bytes.try_into().map_err(|_| anyhow::anyhow!("{} is damaged", file.display()));
    }
    let incarnation: [u8; 16] = pki::random()?;
    pki::write_atomic(&file, HEXLOWER.encode(&incarnation).as_bytes())?;
    Ok(incarnation)
}

impl JoinToken {
    /// A new one for the CA; its hash goes into `CreateJoinToken`.
    pub fn generate(ca_der: &[u8]) -> anyhow::Result<Self> {
        let ca_spki_sha256 = Anchor::new(&CertificateDer::from(ca_der))?.spki_sha256();
        // Neither part may hold a dash: it separates them.
        let id = BASE32_NOPAD.encode(&pki::random::<ID_BYTES>()?).to_ascii_lowercase();
        let secret = HEXLOWER.encode(&pki::random::<SECRET_BYTES>()?);
        Ok(Self { ca_spki_sha256, id, secret })
    }

    /// BLAKE3 of the secret's text.
    pub fn secret_hash(&self) -> Digest {
        Digest::of(self.secret.as_bytes())
    }
}

impl FromStr for JoinToken {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let malformed = || anyhow::anyhow!("not a join token; allowed: {PREFIX}<CA hash>-<id>-<secret>");
        let rest = text.trim().strip_prefix(PREFIX).ok_or_else(malformed)?;
        let [pin, id, secret] = rest.split('-').collect::<Vec<_>>()[..] else { return Err(malformed()) };
        let pin = BASE32_NOPAD.decode(pin.to_ascii_uppercase().as_bytes()).map_err(|_| malformed())?;
        let ca_spki_sha256 = pin.try_into().map_err(|_| malformed())?;
        if id.is_empty() || secret.is_empty() {
            return Err(malformed());
        }
        Ok(Self { ca_spki_sha256, id: id.into(), secret: secret.into() })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", BASE32_NOPAD.encode(&self.ca_spki_sha256), self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_a_damaged_one_does_not() {
        let token = JoinToken { ca_spki_sha256: [9; 32], id: "abc".into(), secret: "s3cret".into() };
        let text = token.to_string();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        for bad in ["", "QGJT-1-", "QGJT-2-AA-b-c", &text[..20], &format!("{text}-x"), "QGJT-1-A0-b-c"] {
            bad.parse::<JoinToken>().unwrap_err();
        }
    }
}
