//! Who is calling: an admin token, a member's certificate, or a user of this machine.
//!
//! - `authorization: Bearer qga_…` counts before everything else; it is looked up by the BLAKE3 hash of its text.
//! - A client certificate counts when it is a node's own: verified against the cluster's CA by TLS, and the key is that
//!   of a member that was not removed. Nodes are admins, since each holds the whole state anyway.
//! - A person's session counts for the web page's own calls, and is told apart by `people`.
//! - On the unix socket root and the daemon's own user are admins.

use std::{fmt, net::SocketAddr, sync::Arc};

use quorumgate_model::{
    command::{Actor, AdminRole},
    digest::Digest,
    mutants::{self, Mutant},
    resource::Name,
    state::State,
};
use quorumgate_proxy::identity::{RevocationSubject, directory::Directory};
use rustls_pki_types::CertificateDer;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::publish::wall_ms;

/// The start of every admin token, so that leaked ones can be searched for.
pub const TOKEN_PREFIX: &str = "qga_";

/// The other end of a connection, as the transport knows it.
#[derive(Debug, Clone)]
pub enum Peer {
    Unix { uid: u32 },
    Tls { address: SocketAddr, certificate: Option<CertificateDer<'static>> },
}

/// A caller whose name was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub role: AdminRole,
    /// Only objects of this owner may be written; empty means all.
    pub owner_scope: String,
    /// None for machines and users of this one.
    pub held: Option<Held>,
}

/// What was shown, and may end while a call goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// The hash of an admin token.
    Token(Digest),
    Session(Session),
}

/// Of somebody who signed in at a provider.
#[derive(Clone)]
pub struct Session {
    /// Seconds since 1970.
    pub ends_s: u64,
    pub subject: RevocationSubject,
    /// Knows what is revoked.
    pub directory: Arc<Directory>,
}

impl Session {
    pub fn stands(&self, now_s: u64) -> bool {
        now_s < self.ends_s && self.directory.is_revoked(&self.subject).is_none()
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        (self.ends_s, &self.subject) == (other.ends_s, &other.subject)
    }
}

impl Eq for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("ends_s", &self.ends_s).field("subject", &self.subject).finish()
    }
}

/// Why nobody is recognised; the words become the ErrorInfo reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    NoCredentials,
    BadHeader,
    TokenUnknown,
    TokenExpired,
    CertificateUnknown,
    UserUnknown,
}

impl Unproven {
    pub fn reason(self) -> &'static str {
        match self {
            Unproven::NoCredentials => "NO_CREDENTIALS",
            Unproven::BadHeader => "BAD_AUTHORIZATION",
            Unproven::TokenUnknown => "TOKEN_UNKNOWN",
            Unproven::TokenExpired => "TOKEN_EXPIRED",
            Unproven::CertificateUnknown => "CERTIFICATE_UNKNOWN",
            Unproven::UserUnknown => "USER_UNKNOWN",
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Unproven::NoCredentials => "no credentials: send an admin token or a member's certificate",
            Unproven::BadHeader => "authorization: allowed: `Bearer qga_…`",
            Unproven::TokenUnknown => "the admin token is unknown or was removed",
            Unproven::TokenExpired => "the admin token has expired",
            Unproven::CertificateUnknown => "the client certificate is not that of a member",
            Unproven::UserUnknown => "this user may not use the admin socket without an admin token",
        }
    }
}

impl Peer {
    /// For the audit trail: where the call came from.
    pub fn source(&self) -> String {
        match self {
            Peer::Unix { uid } => format!("unix:uid={uid}"),
            Peer::Tls { address, .. } => address.to_string(),
        }
    }
}

/// The caller, by what the transport and the `authorization` field prove. `now_us` is `Consensus::clock_us`.
pub fn of(peer: &Peer, authorization: Option<&[u8]>, state: &State, now_us: u64) -> Result<Identity, Unproven> {
    if let Some(field) = authorization {
        return by_token(field, state, now_us);
    }
    match peer {
        Peer::Unix { uid } => by_user(*uid),
        Peer::Tls { certificate: Some(certificate), .. } => by_certificate(certificate, state),
        Peer::Tls { certificate: None, .. } => Err(Unproven::NoCredentials),
    }
}

/// The form in which a token is kept.
pub fn token_hash(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

/// Why what was shown stands no more, if it does not: for calls that go on for long.
pub fn ended(state: &State, held: &Held, now_us: u64) -> Option<Unproven> {
    match held {
        Held::Token(_) if mutants::is(Mutant::WatchOutlivesToken) => None,
        Held::Token(hash) => match find_token(state, *hash) {
            None => Some(Unproven::TokenUnknown),
            Some((_, token)) => (token.expires_at_us <= now_us).then_some(Unproven::TokenExpired),
        },
        Held::Session(session) => (!session.stands(wall_ms() / 1_000)).then_some(Unproven::TokenUnknown),
    }
}

/// 256 random bits, shown once.
pub fn new_token() -> anyhow::Result<String> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    Ok(format!("{TOKEN_PREFIX}{}", data_encoding::BASE64URL_NOPAD.encode(&secret)))
}

/// What a call leaves in the audit trail.
pub fn actor(identity: &Identity, peer: &Peer, path: &str) -> Actor {
    let rpc = path.rsplit_once('.').map_or(path, |(_, rpc)| rpc).to_owned();
    let Identity { name, owner_scope, .. } = identity.clone();
    Actor { name, source: peer.source(), rpc, owner_scope }
}

fn by_token(field: &[u8], state: &State, now_us: u64) -> Result<Identity, Unproven> {
    let text = std::str::from_utf8(field).map_err(|_| Unproven::BadHeader)?;
    let (scheme, token) = text.split_once(' ').ok_or(Unproven::BadHeader)?;
    if !scheme.eq_ignore_ascii_case("bearer") || !token.trim().starts_with(TOKEN_PREFIX) {
        return Err(Unproven::BadHeader);
    }
    let hash = token_hash(token.trim());
    let (name, token) = find_token(state, hash).ok_or(Unproven::TokenUnknown)?;
    // Not the last applied stamp: nothing moves that on while nothing is written, or without a quorum.
    if token.expires_at_us <= now_us && !mutants::is(Mutant::AdminTokenOutlivesItself) {
        return Err(Unproven::TokenExpired);
    }
    Ok(Identity {
        name: format!("token/{name}"),
        role: token.role,
        owner_scope: token.owner.clone(),
        held: Some(Held::Token(hash)),
    })
}

/// Looks at every token whichever matches, so that the time says nothing about them.
fn find_token(state: &State, hash: Digest) -> Option<(&Name, &quorumgate_model::state::AdminToken)> {
    const NONE: u64 = u64::MAX;
    let mut found = NONE;
    for (at, token) in (0u64..).zip(state.admin_tokens.values()) {
        let same: Choice = token.secret_hash.0.ct_eq(&hash.0);
        found.conditional_assign(&at, same);
    }
    (found != NONE).then(|| state.admin_tokens.iter().nth(found as usize)).flatten()
}

fn by_user(uid: u32) -> Result<Identity, Unproven> {
    let own = nix::unistd::geteuid();
    if uid != 0 && uid != own.as_raw() && !mutants::is(Mutant::SocketForAll) {
        return Err(Unproven::UserUnknown);
    }
    let name = if uid == 0 { "root".to_owned() } else { format!("uid/{uid}") };
    Ok(Identity { name, role: AdminRole::Admin, owner_scope: String::new(), held: None })
}

fn by_certificate(certificate: &CertificateDer<'_>, state: &State) -> Result<Identity, Unproven> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| Unproven::CertificateUnknown)?;
    let spki = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.public_key().raw);
    let member = state.nodes.values().find(|node| node.spki_sha256.as_slice() == spki.as_ref());
    let member = member.ok_or(Unproven::CertificateUnknown)?;
    Ok(Identity {
        name: format!("node/{}", member.name),
        role: AdminRole::Admin,
        owner_scope: String::new(),
        held: None,
    })
}

#[cfg(test)]
mod tests {
    use quorumgate_model::state::AdminToken;

    use super::*;

    fn state(tokens: &[(&str, &str, u64)]) -> State {
        let mut state = State { clock_us: 50, ..State::default() };
        for (name, secret, expires_at_us) in tokens {
            let token = AdminToken {
                secret_hash: token_hash(secret),
                role: AdminRole::Viewer,
                owner: "team".into(),
                expires_at_us: *expires_at_us,
            };
            state.admin_tokens.insert(name.parse().unwrap(), token);
        }
        state
    }

    fn remote() -> Peer {
        Peer::Tls { address: "127.0.0.1:1".parse().unwrap(), certificate: None }
    }

    fn check(field: Option<&str>, expected: Result<&str, Unproven>) {
        let state = state(&[("a", "qga_aaa", 101), ("b", "qga_bbb", 101), ("old", "qga_old", 100)]);
        let found = of(&remote(), field.map(str::as_bytes), &state, 100).map(|identity| identity.name);
        assert_eq!(found, expected.map(str::to_owned), "{field:?}");
    }

    #[test]
    fn a_token_counts_until_it_expires() {
        check(Some("Bearer qga_aaa"), Ok("token/a"));
        check(Some("bearer qga_bbb"), Ok("token/b"));
        check(Some("Bearer qga_old"), Err(Unproven::TokenExpired));
        check(Some("Bearer qga_zzz"), Err(Unproven::TokenUnknown));
        check(Some("Bearer qga_"), Err(Unproven::TokenUnknown));
        check(Some("Basic qga_aaa"), Err(Unproven::BadHeader));
        check(Some("qga_aaa"), Err(Unproven::BadHeader));
        check(None, Err(Unproven::NoCredentials));
    }

    #[test]
    fn what_goes_on_for_long_ends_with_its_token() {
        let state = state(&[("a", "qga_aaa", 101)]);
        let held = |token| Held::Token(token_hash(token));
        assert_eq!(ended(&state, &held("qga_aaa"), 100), None);
        assert_eq!(ended(&state, &held("qga_aaa"), 101), Some(Unproven::TokenExpired));
        assert_eq!(ended(&state, &held("qga_removed"), 100), Some(Unproven::TokenUnknown));
    }

    #[test]
    fn root_and_the_daemons_user_are_admins_on_the_socket() {
        let own = nix::unistd::geteuid().as_raw();
        let state = state(&[]);
        for uid in [0, own] {
            assert_eq!(of(&Peer::Unix { uid }, None, &state, 0).unwrap().role, AdminRole::Admin);
        }
        assert_eq!(of(&Peer::Unix { uid: own + 1 }, None, &state, 0), Err(Unproven::UserUnknown));
        assert_eq!(of(&Peer::Unix { uid: own }, Some(b"Bearer qga_x"), &state, 0), Err(Unproven::TokenUnknown));
    }
}
