//! The Key service. A secret is made, hashed and shown here, and nothing but its hash goes on.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, SaltString},
};
use prost::Message;
use quorumgate_model::{
    command::{Body, Decided, NewCredential, RotateCredential},
    credential::{BasicUser, Credential, CredentialId, CredentialKind, ENV_DEFAULT, Grants, PREFIX_CHARS},
    digest::Digest,
    invalid::Invalid,
    resource::Name,
    state::{BATCH_MAX, State},
};
use quorumgate_proto::admin::v1::{self as admin, CreateKeyResponse, WriteResponse, key_server::Key, new_key::Given};
use quorumgate_proxy::identity::keys::{KEY_BYTES_MAX, is_of_basic, key_hash, user_hash};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{Answer, Service, internal, page, reports, text};
use crate::admin::{
    config::taken,
    desk::{self, Read},
    failure,
    gate::Call,
};

/// Each costs as much time and memory as a login is meant to.
const BASIC_BATCH_MAX: usize = 32;
const OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
const OVERLAP_MAX: Duration = Duration::from_secs(365 * 86_400);
/// The shortest text of a key that may be brought along, and the longest.
const TEXT_BYTES: std::ops::RangeInclusive<usize> = 16..=KEY_BYTES_MAX;
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1_024;

/// A credential to be proposed, and the secret to be shown.
struct Made {
    new: NewCredential,
    secret: String,
}

impl Service {
    /// `place` names the nth key in a complaint.
    async fn make(
        &self,
        keys: Vec<admin::NewKey>,
        request_id: Uuid,
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<Made>, Status> {
        let pepper = self.pepper()?;
        let all = move || {
            let mut made = Vec::with_capacity(keys.len());
            let mut last: Option<Arc<Grants>> = None;
            for (n, key) in keys.into_iter().enumerate() {
                made.push(make_one(&pepper, request_id, n, key, &mut last).map_err(|invalid| (n, invalid))?);
            }
            Ok(made)
        };
        // Argon2 takes its time, by intention.
        let made = tokio::task::spawn_blocking(all).await.map_err(|error| internal(error.into()))?;
        made.map_err(|(n, invalid): (usize, Invalid)| failure::invalid(&invalid.under(place(n))))
    }

    async fn set_state(&self, request: Request<admin::KeyRequest>, to: Decided) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        let id = id("id", &request.id)?;
        self.desk.write_other(&call, Body::SetCredentialState { id, to }).await.map(Response::new)
    }

    async fn read(&self, call: &Call, stale: bool) -> Result<Arc<State>, Status> {
        self.desk.read(call, Read::stale(stale)).await
    }
}

#[tonic::async_trait]
impl Key for Service {
    async fn create_key(&self, request: Request<admin::CreateKeyRequest>) -> Answer<CreateKeyResponse> {
        let (call, request) = taken(request)?;
        let asked = asked(&request);
        let request_id = desk::request_id(&request.request_id)?;
        let keys = request.key.into_iter().collect::<Vec<_>>();
        if keys.is_empty() {
            return Err(failure::bad_field("key", "found nothing; allowed: a key"));
        }
        let mut made = self.make(keys, request_id, |_| "key".to_owned()).await?;
        let Made { new, secret } = made.remove(0);
        let id = new.id;
        let told = self.write(&call, request_id, asked, Body::CreateCredentials([new].into()), 0).await?;
        Ok(Response::new(CreateKeyResponse {
            header: Some(self.desk.header()),
            id: id.to_string(),
            secret,
            revision: told.written.index,
            nodes: told.nodes,
            request_id: request_id.to_string(),
        }))
    }

    async fn batch_create_keys(
        &self,
        request: Request<admin::BatchCreateKeysRequest>,
    ) -> Answer<admin::BatchCreateKeysResponse> {
        let (call, request) = taken(request)?;
        let asked = asked(&request);
        let request_id = desk::request_id(&request.request_id)?;
        if !(1..=BATCH_MAX).contains(&request.keys.len()) {
            let why = format!("found {}; allowed: 1 to {BATCH_MAX}", request.keys.len());
            return Err(failure::bad_field("keys", &why));
        }
        let basic = request.keys.iter().filter(|key| matches!(key.given, Some(Given::Basic(_)))).count();
        if basic > BASIC_BATCH_MAX {
            let why = format!("found {basic} Basic users; allowed: at most {BASIC_BATCH_MAX} at once");
            return Err(failure::bad_field("keys", &why));
        }
        let made = self.make(request.keys, request_id, |n| format!("keys[{n}]")).await?;
        let (new, keys): (Vec<_>, Vec<_>) = made
            .into_iter()
            .map(|Made { new, secret }| {
                let id = new.id.to_string();
                (new, admin::batch_create_keys_response::Made { id, secret })
            })
            .unzip();
        let told = self.write(&call, request_id, asked, Body::CreateCredentials(new.into()), request.wait).await?;
        Ok(Response::new(admin::BatchCreateKeysResponse {
            header: Some(self.desk.header()),
            keys,
            revision: told.written.index,
            nodes: told.nodes,
            request_id: request_id.to_string(),
        }))
    }

    async fn list_keys(&self, request: Request<admin::ListKeysRequest>) -> Answer<admin::ListKeysResponse> {
        let (call, request) = taken(request)?;
        let limit = page(request.limit)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(id("page_token", token)?),
        };
        let state = self.read(&call, request.stale).await?;
        let now_us = self.desk.consensus.clock_us();
        let credentials = &state.credentials;
        let mut found: Vec<Arc<Credential>> = match request.consumer.as_str() {
            "" => {
                let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
                let range = credentials.by_id().range((from, std::ops::Bound::Unbounded));
                range.take(limit + 1).map(|(_, credential)| credential.clone()).collect()
            }
            consumer => {
                let consumer: Name = consumer.parse().map_err(|why: String| failure::bad_field("consumer", &why))?;
                let ids = credentials.of_after(&consumer, after).take(limit + 1);
                ids.filter_map(|id| credentials.get(id).cloned()).collect()
            }
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more).map(|credential| credential.id.to_string());
        Ok(Response::new(admin::ListKeysResponse {
            header: Some(self.desk.header_at(&state)),
            keys: found.iter().map(|credential| reports::key(credential, now_us)).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn get_key(&self, request: Request<admin::GetKeyRequest>) -> Answer<admin::GetKeyResponse> {
        let (call, request) = taken(request)?;
        let id = id("id", &request.id)?;
        let state = self.read(&call, request.stale).await?;
        let now_us = self.desk.consensus.clock_us();
        let missing = || failure::status(Code::NotFound, "NOT_FOUND", format!("there is no credential {id}"));
        let credential = state.credentials.get(id).ok_or_else(missing)?;
        let key = Some(reports::key(credential, now_us));
        Ok(Response::new(admin::GetKeyResponse { header: Some(self.desk.header_at(&state)), key }))
    }

    async fn rotate_key(&self, request: Request<admin::RotateKeyRequest>) -> Answer<CreateKeyResponse> {
        let (call, request) = taken(request)?;
        let asked = asked(&request);
        let id = id("id", &request.id)?;
        let request_id = desk::request_id(&request.request_id)?;
        let overlap = desk::duration("overlap", request.overlap)?.unwrap_or(OVERLAP_DEFAULT);
        if overlap > OVERLAP_MAX {
            return Err(failure::bad_field("overlap", &format!("found {overlap:?}; allowed: 0s to {OVERLAP_MAX:?}")));
        }
        // The environment stays what it was.
        let state = self.read(&call, false).await?;
        let env = state.credentials.get(id).map_or(ENV_DEFAULT.to_owned(), |it| it.env().to_owned());
        let secret = text::make(&self.pepper()?, request_id, 0, &env);
        let (new_id, kind) = hashed(&self.pepper()?, &secret).map_err(|invalid| failure::invalid(&invalid))?;
        let rotate = RotateCredential { id, new_id, kind, overlap, keys_max: None };
        let told = self.write(&call, request_id, asked, Body::RotateCredential(rotate), 0).await?;
        Ok(Response::new(CreateKeyResponse {
            header: Some(self.desk.header()),
            id: new_id.to_string(),
            secret,
            revision: told.written.index,
            nodes: told.nodes,
            request_id: request_id.to_string(),
        }))
    }

    async fn revoke_key(&self, request: Request<admin::KeyRequest>) -> Answer<WriteResponse> {
        self.set_state(request, Decided::Revoked).await
    }

    async fn disable_key(&self, request: Request<admin::KeyRequest>) -> Answer<WriteResponse> {
        self.set_state(request, Decided::Disabled).await
    }

    async fn enable_key(&self, request: Request<admin::KeyRequest>) -> Answer<WriteResponse> {
        self.set_state(request, Decided::Active).await
    }
}

fn make_one(
    pepper: &[u8; 32],
    request_id: Uuid,
    n: usize,
    key: admin::NewKey,
    last: &mut Option<Arc<Grants>>,
) -> Result<Made, Invalid> {
    let consumer: Name = key.consumer.parse().map_err(|why: String| Invalid::field("consumer").allowed(why))?;
    let env = if key.env.is_empty() { ENV_DEFAULT } else { &key.env };
    let mut secret = String::new();
    let (id, kind) = match key.given {
        None => {
            secret = text::make(pepper, request_id, n, env);
            hashed(pepper, &secret)?
        }
        Some(Given::Text(text)) => {
            let plain = text.bytes().all(|b| b.is_ascii_graphic());
            if !TEXT_BYTES.contains(&text.len()) || !plain {
                let found = format!("{} bytes", text.len());
                return Err(Invalid::field("text").found(found).allowed("16 to 512 visible ASCII characters"));
            }
            hashed(pepper, &text)?
        }
        Some(Given::Hash(hash)) => {
            let wrong = || Invalid::field("hash").found(format!("{} bytes", hash.len())).allowed("32 bytes");
            let hash: [u8; 32] = hash.as_slice().try_into().map_err(|_| wrong())?;
            api_key(&hash, *b"00000000")?
        }
        Some(Given::Basic(user)) => basic(pepper, request_id, n, user)?,
    };
    let cidr = |(at, text): (usize, &String)| {
        let wrong = || Invalid::field(format!("cidrs[{at}]")).found(format!("{text:?}"));
        text.parse().map_err(|_| wrong().allowed("a network such as 10.0.0.0/8"))
    };
    let grants = Grants {
        env: env.into(),
        scopes: key.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        cidrs: key.cidrs.iter().enumerate().map(cidr).collect::<Result<_, _>>()?,
        label: Box::default(),
    };
    let bad = |scope: &&str| scope.is_empty() || scope.bytes().any(|b| !b.is_ascii_graphic());
    if let Some(scope) = grants.scopes.iter().map(|scope| &**scope).find(bad) {
        return Err(Invalid::field("scopes").found(format!("{scope:?}")).allowed("visible ASCII, without spaces"));
    }
    if last.as_deref() != Some(&grants) {
        *last = Some(Arc::new(grants.clone()));
    }
    let grants = last.clone().filter(|_| grants != Grants::default());
    let ttl = desk::duration("expires_in", key.expires_in)
        .map_err(|_| Invalid::field("expires_in").found("less than 0s").allowed("more than 0s"))?;
    if ttl.is_some_and(|ttl| ttl.as_micros() == 0) {
        return Err(Invalid::field("expires_in").found("0s").allowed("more than 0s"));
    }
    Ok(Made { new: NewCredential { id, consumer, kind, grants, ttl, keys_max: None }, secret })
}

/// A key that somebody makes for himself: its text, and what the state has of it.
pub fn own(pepper: &[u8; 32], request_id: Uuid, env: &str) -> Result<(String, CredentialId, CredentialKind), Invalid> {
    let secret = text::make(pepper, request_id, 0, env);
    let (id, kind) = hashed(pepper, &secret)?;
    Ok((secret, id, kind))
}

/// Only the Argon2id hash of the password goes on. The salt follows from the request, so that a repeat is the same.
fn basic(
    pepper: &[u8; 32],
    request_id: Uuid,
    n: usize,
    user: admin::BasicUser,
) -> Result<(CredentialId, CredentialKind), Invalid> {
    if !PASSWORD_BYTES.contains(&user.password.len()) {
        let found = format!("{} bytes", user.password.len());
        return Err(Invalid::field("basic.password").found(found).allowed("8 to 1024 bytes"));
    }
    // The state takes them: users that are there already stay, though nobody can be one of them.
    if !is_of_basic(user.username.as_bytes()) {
        let found = format!("{:?}", user.username);
        return Err(Invalid::field("basic.username").found(found).allowed("no control characters (RFC 7617)"));
    }
    if !is_of_basic(user.password.as_bytes()) {
        let invalid = Invalid::field("basic.password").found("a control character");
        return Err(invalid.allowed("none (RFC 7617)"));
    }
    let mut hasher = blake3::Hasher::new_derive_key("quorumgate 2026 salt of a Basic user");
    hasher.update(pepper).update(request_id.as_bytes()).update(&(n as u64).to_le_bytes());
    let mut salt = [0; 16];
    hasher.finalize_xof().fill(&mut salt);
    let unusable = |_| Invalid::field("basic.password").found("one that cannot be hashed").allowed("another");
    let salt = SaltString::encode_b64(&salt).map_err(unusable)?;
    let password_hash = Argon2::default().hash_password(user.password.as_bytes(), &salt).map_err(unusable)?.to_string();
    let id = id_of(&user_hash(pepper, &user.username))?;
    Ok((id, CredentialKind::Basic(Arc::new(BasicUser { name: user.username, password_hash }))))
}

fn hashed(pepper: &[u8; 32], text: &str) -> Result<(CredentialId, CredentialKind), Invalid> {
    api_key(&key_hash(pepper, text), text::prefix(text))
}

fn id_of(hash: &[u8; 32]) -> Result<CredentialId, Invalid> {
    CredentialId::of(hash).ok_or_else(no_hash)
}

fn api_key(hash: &[u8; 32], prefix: [u8; PREFIX_CHARS]) -> Result<(CredentialId, CredentialKind), Invalid> {
    CredentialKind::api_key(hash, prefix).ok_or_else(no_hash)
}

fn no_hash() -> Invalid {
    Invalid::field("hash").found("eight zero bytes").allowed("a real hash")
}

fn id(field: &str, text: &str) -> Result<CredentialId, Status> {
    text.parse().map_err(|why: String| failure::bad_field(field, &why))
}

/// Tells a repeat of a request from another one under the same id.
pub(super) fn asked(request: &impl Message) -> Digest {
    Digest::of(&request.encode_to_vec())
}
