//! The cluster's certificates: the CA, what each node holds on disk, how it is verified, renewed and swapped while in use.

mod authority;
mod clients;
pub mod expiry;
mod files;
mod held;
mod keys;
mod seal;
mod verify;

use std::{sync::OnceLock, time::Duration};

pub use authority::{Authority, Names, NodeKey, request_spki_sha256, uri};
pub use clients::check_authority;
pub use files::{CLUSTER_KEY, TLS_DIR, read_private, write_atomic, write_private};
pub use held::Held;
pub use keys::Keys;
pub use seal::ClusterKey;
pub use verify::{Anchor, PeerIdentity, Presented, provider};

/// How long a node's certificate lives; it is renewed once a third of that has passed.
const LIFETIME: Duration = Duration::from_secs(72 * 3600);

/// Tests of whole processes shorten it (seconds).
const LIFETIME_VARIABLE: &str = "QUORUMGATE_TEST_CERT_LIFETIME";

static LIFETIME_OF_PROCESS: OnceLock<Duration> = OnceLock::new();

/// The lifetime of certificates that this process signs.
pub fn lifetime() -> Duration {
    *LIFETIME_OF_PROCESS.get_or_init(|| {
        let seconds = std::env::var(LIFETIME_VARIABLE).ok().and_then(|text| text.parse::<f64>().ok());
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(LIFETIME)
    })
}

/// For tests within one process, before anything is signed.
pub fn shorten_lifetime(lifetime: Duration) {
    let _ = LIFETIME_OF_PROCESS.set(lifetime);
}

/// Random bytes from the system; its failure leaves nothing sensible to do.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    Ok(bytes)
}

/// SHA-256, as pins and node records hold it of a SubjectPublicKeyInfo.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests;
