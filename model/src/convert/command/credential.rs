//! Credentials between model and the stored form.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use quorumgate_proto::store::v1 as store;

use super::words::*;
use crate::{
    command::{Decided, NewCredential, RotateCredential},
    credential::{
        BasicUser, Credential, CredentialId, CredentialKind, CredentialState, ENV_DEFAULT, Grants, PREFIX_CHARS, WallMs,
    },
    digest::Digest,
    invalid::Invalid,
};

/// What the credential adds to the sum of its keyspace: BLAKE3 of its stored form.
pub(crate) fn credential_hash(credential: &Credential) -> Digest {
    Digest::of(&credential_to(credential).encode_to_vec())
}

pub(crate) fn credential_to(it: &Credential) -> store::CredentialRecord {
    store::CredentialRecord {
        consumer: it.consumer.to_string(),
        created_wall_ms: it.created.get(),
        ends_at_us: it.ends_at_us.map_or(0, NonZeroU64::get),
        state: state_to(it.state).into(),
        replaced_by: it.replaced_by.map_or(0, CredentialId::number),
        ..parts_to(it.id, &it.kind, it.grants.as_deref())
    }
}

pub(crate) fn credential_from(it: store::CredentialRecord) -> Result<Credential, Invalid> {
    Ok(Credential {
        id: credential_id("credential.id", it.id)?,
        consumer: name("credential.consumer", &it.consumer)?,
        created: WallMs::of(it.created_wall_ms),
        ends_at_us: NonZeroU64::new(it.ends_at_us),
        state: state_from(it.state)?,
        replaced_by: CredentialId::new(it.replaced_by),
        grants: grants_from(&it)?.map(Arc::new),
        kind: kind_from(it)?,
    })
}

pub(super) fn new_credentials_to(all: &[NewCredential]) -> store::CreateCredentials {
    let new = |it: &NewCredential| store::NewCredential {
        credential: Some(store::CredentialRecord {
            consumer: it.consumer.to_string(),
            ..parts_to(it.id, &it.kind, it.grants.as_deref())
        }),
        ttl_us: it.ttl.map_or(0, micros),
        keys_max: it.keys_max.map_or(0, NonZeroU32::get),
    };
    store::CreateCredentials { credentials: all.iter().map(new).collect() }
}

pub(super) fn new_credentials_from(it: store::CreateCredentials) -> Result<Arc<[NewCredential]>, Invalid> {
    // Most of a batch have the same grants, or none.
    let mut last: Option<Arc<Grants>> = None;
    let mut new = |it: store::NewCredential| {
        let parts = present("credential", it.credential)?;
        if let Some(grants) = grants_from(&parts)?
            && last.as_deref() != Some(&grants)
        {
            last = Some(Arc::new(grants));
        }
        let grants = if has_grants(&parts) { last.clone() } else { None };
        Ok(NewCredential {
            id: credential_id("id", parts.id)?,
            consumer: name("consumer", &parts.consumer)?,
            kind: kind_from(parts)?,
            grants,
            ttl: (it.ttl_us != 0).then(|| Duration::from_micros(it.ttl_us)),
            keys_max: NonZeroU32::new(it.keys_max),
        })
    };
    let all = it.credentials.into_iter().enumerate();
    all.map(|(at, it)| new(it).map_err(|invalid: Invalid| invalid.under(format!("credentials[{at}]")))).collect()
}

pub(super) fn rotate_to(it: &RotateCredential) -> store::RotateCredential {
    let parts = parts_to(it.new_id, &it.kind, None);
    store::RotateCredential {
        id: it.id.number(),
        new_id: it.new_id.number(),
        key_hash: parts.key_hash,
        prefix: parts.prefix,
        overlap_us: micros(it.overlap),
        keys_max: it.keys_max.map_or(0, NonZeroU32::get),
    }
}

pub(super) fn rotate_from(it: store::RotateCredential) -> Result<RotateCredential, Invalid> {
    Ok(RotateCredential {
        id: credential_id("id", it.id)?,
        new_id: credential_id("new_id", it.new_id)?,
        kind: api_key(it.new_id, &it.key_hash, &it.prefix)?,
        overlap: Duration::from_micros(it.overlap_us),
        keys_max: NonZeroU32::new(it.keys_max),
    })
}

pub(super) fn credential_id(field: &str, id: u64) -> Result<CredentialId, Invalid> {
    CredentialId::new(id).ok_or_else(|| Invalid::field(field).found(0).allowed(CredentialId::ALLOWED))
}

pub(super) fn decided_to(to: Decided) -> store::CredentialState {
    state_to(match to {
        Decided::Active => CredentialState::Active,
        Decided::Disabled => CredentialState::Disabled,
        Decided::Revoked => CredentialState::Revoked,
    })
}

pub(super) fn decided_from(state: i32) -> Result<Decided, Invalid> {
    match state_from(state)? {
        CredentialState::Active => Ok(Decided::Active),
        CredentialState::Disabled => Ok(Decided::Disabled),
        CredentialState::Revoked => Ok(Decided::Revoked),
        CredentialState::Rotating => {
            Err(Invalid::field("state").found("rotating").allowed("active, disabled or revoked"))
        }
    }
}

/// The fields that do not depend on when and how it goes on.
fn parts_to(id: CredentialId, kind: &CredentialKind, grants: Option<&Grants>) -> store::CredentialRecord {
    let mut parts = store::CredentialRecord { id: id.number(), ..Default::default() };
    match kind {
        CredentialKind::ApiKey { hash_rest, prefix } => {
            parts.key_hash = [&id.number().to_be_bytes()[..], hash_rest].concat();
            parts.prefix = String::from_utf8_lossy(prefix).into_owned();
        }
        CredentialKind::Basic(user) => {
            parts.username = user.name.clone();
            parts.password_hash = user.password_hash.clone();
        }
    }
    if let Some(grants) = grants {
        parts.env = grants.env.to_string();
        parts.scopes = grants.scopes.iter().map(|scope| scope.to_string()).collect();
        parts.cidrs = grants.cidrs.iter().map(ToString::to_string).collect();
        parts.label = grants.label.to_string();
    }
    parts
}

fn kind_from(it: store::CredentialRecord) -> Result<CredentialKind, Invalid> {
    match it.key_hash.is_empty() {
        true => Ok(CredentialKind::Basic(Arc::new(BasicUser { name: it.username, password_hash: it.password_hash }))),
        false => api_key(it.id, &it.key_hash, &it.prefix),
    }
}

fn api_key(id: u64, hash: &[u8], prefix: &str) -> Result<CredentialKind, Invalid> {
    let prefix: [u8; PREFIX_CHARS] = array("prefix", prefix.as_bytes())?;
    // It must come back from text as it was.
    if !prefix.is_ascii() {
        return Err(Invalid::field("prefix").found(format!("{prefix:?}")).allowed("8 letters and digits"));
    }
    match CredentialKind::api_key(&array("key_hash", hash)?, prefix) {
        Some((of_hash, kind)) if of_hash.number() == id => Ok(kind),
        _ => Err(Invalid::field("id").found(format!("{id:016x}")).allowed("the start of the key's hash")),
    }
}

fn has_grants(it: &store::CredentialRecord) -> bool {
    !(it.env.is_empty() && it.scopes.is_empty() && it.cidrs.is_empty() && it.label.is_empty())
}

fn grants_from(it: &store::CredentialRecord) -> Result<Option<Grants>, Invalid> {
    if !has_grants(it) {
        return Ok(None);
    }
    let cidr = |text: &String| {
        let wrong = || Invalid::field("cidrs").found(format!("{text:?}")).allowed("an address and a prefix length");
        text.parse().map_err(|_| wrong())
    };
    Ok(Some(Grants {
        env: if it.env.is_empty() { ENV_DEFAULT.into() } else { it.env.as_str().into() },
        scopes: it.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        cidrs: it.cidrs.iter().map(cidr).collect::<Result<_, _>>()?,
        label: it.label.as_str().into(),
    }))
}

fn state_to(state: CredentialState) -> store::CredentialState {
    match state {
        CredentialState::Active => store::CredentialState::CredentialActive,
        CredentialState::Rotating => store::CredentialState::CredentialRotating,
        CredentialState::Disabled => store::CredentialState::CredentialDisabled,
        CredentialState::Revoked => store::CredentialState::CredentialRevoked,
    }
}

fn state_from(state: i32) -> Result<CredentialState, Invalid> {
    match store::CredentialState::try_from(state) {
        Ok(store::CredentialState::CredentialActive) => Ok(CredentialState::Active),
        Ok(store::CredentialState::CredentialRotating) => Ok(CredentialState::Rotating),
        Ok(store::CredentialState::CredentialDisabled) => Ok(CredentialState::Disabled),
        Ok(store::CredentialState::CredentialRevoked) => Ok(CredentialState::Revoked),
        Ok(store::CredentialState::Unspecified) | Err(_) => {
            Err(Invalid::field("state").found(state).allowed("active, rotating, disabled or revoked"))
        }
    }
}
