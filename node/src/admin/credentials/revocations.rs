//! The Revocation service. An entry must outlive what it revokes: without a time of its own it lasts as long as the
//! longest-lived token that any auth takes, or the very credential that it names; a shorter one is warned of.

use std::{sync::Arc, time::Duration};

use quorumgate_model::{
    command::{Body, NewRevocation, Revoke},
    credential::{Credential, CredentialState},
    invalid::Invalid,
    resource::{AuthKind, Kind, Resource},
    revocation::{Selector, SelectorKey, SelectorKind, TTL_MAX},
    state::{BATCH_MAX, State},
    units::Span,
};
use quorumgate_proto::admin::v1::{self as admin, RevokeTokenResponse, revocation_server::Revocation};
use tonic::{Request, Response, Status};

use super::{Answer, Service, keys::asked, of_kind, page, reports, selectors, token};
use crate::admin::{
    config::taken,
    desk::{self, Read},
    failure,
    gate::Call,
};

/// On top of the longest lifetime of a token: clocks differ, and tokens have skew.
const SLACK: Duration = Duration::from_secs(5 * 60);
/// Without any auth that says how long its tokens live.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// Of a consumer, when it is looked for one that outlives an entry.
const CREDENTIALS_LOOKED_AT_MAX: usize = 1_000;

impl Service {
    async fn revoke(
        &self,
        call: Call,
        asked: quorumgate_model::digest::Digest,
        request: admin::BatchRevokeRequest,
        place: impl Fn(usize) -> String,
    ) -> Answer<RevokeTokenResponse> {
        let request_id = desk::request_id(&request.request_id)?;
        if !(1..=BATCH_MAX).contains(&request.revocations.len()) {
            let why = format!("found {}; allowed: 1 to {BATCH_MAX}", request.revocations.len());
            return Err(failure::bad_field("revocations", &why));
        }
        let (state, now_us) = (self.desk.consensus.state(), self.desk.consensus.clock_us());
        let token = outlives(&state);
        let mut warnings = Vec::new();
        let entries = request.revocations.iter().enumerate().map(|(n, it)| {
            let under = |invalid: Invalid| failure::invalid(&invalid.under(place(n)));
            let entry = entry(it, |selector| credential(&state, selector, now_us).unwrap_or(token)).map_err(under)?;
            if warnings.is_empty() {
                warnings.extend(ends_early(&state, &entry, token, now_us));
            }
            Ok(entry)
        });
        let entries = entries.collect::<Result<Vec<_>, Status>>()?;
        let revoke = Revoke { entries: entries.into(), reason: request.reason };
        let told = self.write(&call, request_id, asked, Body::Revoke(revoke), request.wait).await?;
        Ok(Response::new(RevokeTokenResponse {
            header: Some(self.desk.header()),
            revision: told.written.index,
            noop: told.written.outcome.noop,
            nodes: told.nodes,
            warnings,
            request_id: request_id.to_string(),
        }))
    }
}

impl Service {
    /// The state that the proxy's tables are at, or older: what was revoked before the call is in them.
    async fn looked_up(&self, call: &Call, stale: bool) -> Result<Arc<State>, Status> {
        let state = self.desk.read(call, Read::stale(stale)).await?;
        if !stale {
            self.desk.served(call, state.index).await?;
        }
        Ok(state)
    }
}

#[tonic::async_trait]
impl Revocation for Service {
    async fn revoke_token(&self, request: Request<admin::RevokeTokenRequest>) -> Answer<RevokeTokenResponse> {
        let (call, request) = taken(request)?;
        let asked = asked(&request);
        let admin::RevokeTokenRequest { revocation, reason, wait, request_id } = request;
        let revocations = revocation.into_iter().collect();
        let batch = admin::BatchRevokeRequest { revocations, reason, wait, request_id };
        self.revoke(call, asked, batch, |_| "revocation".to_owned()).await
    }

    async fn batch_revoke(&self, request: Request<admin::BatchRevokeRequest>) -> Answer<RevokeTokenResponse> {
        let (call, request) = taken(request)?;
        let asked = asked(&request);
        self.revoke(call, asked, request, |n| format!("revocations[{n}]")).await
    }

    async fn list_revocations(
        &self,
        request: Request<admin::ListRevocationsRequest>,
    ) -> Answer<admin::ListRevocationsResponse> {
        let (call, request) = taken(request)?;
        let limit = page(request.limit)?;
        let from = match request.page_token.as_str() {
            "" => std::ops::Bound::Unbounded,
            token => std::ops::Bound::Excluded(page_key(token)?),
        };
        let state = self.desk.read(&call, Read::stale(request.stale)).await?;
        let now_us = self.desk.consensus.clock_us();
        let entries = state.revocations.entries();
        let mut found: Vec<_> = entries.range((from, std::ops::Bound::Unbounded)).take(limit + 1).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more).map(|(key, _)| data_encoding::HEXLOWER.encode(&key.0));
        let live = found.iter().filter(|(_, entry)| entry.expires_at_us > now_us);
        Ok(Response::new(admin::ListRevocationsResponse {
            header: Some(self.desk.header_at(&state)),
            revocations: live.map(|(_, entry)| reports::revocation(entry, now_us)).collect(),
            next_page_token: last.unwrap_or_default(),
            total: entries.len() as u64,
        }))
    }

    async fn check_token(&self, request: Request<admin::CheckTokenRequest>) -> Answer<admin::CheckTokenResponse> {
        let (call, request) = taken(request)?;
        let state = self.looked_up(&call, request.stale).await?;
        let now_us = self.directory.now_us();
        let (entries, key) = match &request.what {
            None => return Err(failure::bad_field("what", "found nothing; allowed: a token or a selector")),
            Some(admin::check_token_request::What::Token(text)) => {
                let inspected = token::look(text, &self.directory);
                (token::entries(&inspected, &self.directory, now_us), inspected.key)
            }
            Some(admin::check_token_request::What::Selector(it)) => {
                let selector = selectors::from_message(it).map_err(|invalid| failure::invalid(&invalid))?;
                (self.directory.revoked.entry(&selector, now_us).into_iter().collect(), None)
            }
        };
        let dead = key.as_ref().is_some_and(|key| !key.standing(now_us).is_good());
        Ok(Response::new(admin::CheckTokenResponse {
            header: Some(self.desk.header_at(&state)),
            revoked: dead || !entries.is_empty(),
            entries: entries.iter().map(|it| reports::revocation(it, now_us)).collect(),
            key: key.map(|key| reports::key(&key, now_us)),
        }))
    }

    async fn inspect_token(&self, request: Request<admin::InspectTokenRequest>) -> Answer<admin::InspectTokenResponse> {
        let (call, request) = taken(request)?;
        let state = self.looked_up(&call, request.stale).await?;
        let inspected = token::inspect(&request.token, &self.directory);
        Ok(Response::new(admin::InspectTokenResponse { header: Some(self.desk.header_at(&state)), ..inspected }))
    }
}

/// The longest that a token may live from now on, and some more.
fn outlives(state: &State) -> Duration {
    let auths = of_kind(&state.resources, Kind::Auth);
    let lifetimes = auths.filter_map(|resource| match resource {
        Resource::Auth(auth) => match &auth.kind {
            AuthKind::Jwt(jwt) => Some(jwt.max_lifetime.0),
            // A session is revoked by the same selectors.
            AuthKind::OidcLogin(login) => Some(login.session.0.max(LIFETIME_DEFAULT)),
            _ => None,
        },
        _ => None,
    });
    lifetimes.max().unwrap_or(LIFETIME_DEFAULT) + SLACK
}

/// How long the stored credential that the selector names may still be shown.
fn credential(state: &State, selector: &Selector, now_us: u64) -> Option<Duration> {
    if selector.kind() != SelectorKind::Credential {
        return None;
    }
    let id = std::str::from_utf8(selector.parts().value).ok()?.parse().ok()?;
    Some(lasts(state.credentials.get(id)?, now_us))
}

fn lasts(credential: &Credential, now_us: u64) -> Duration {
    credential.left(now_us).map_or(TTL_MAX, |left| (left + SLACK).min(TTL_MAX))
}

/// What the entry shuts out and does not outlive.
fn ends_early(state: &State, entry: &NewRevocation, token: Duration, now_us: u64) -> Option<String> {
    let ends = format!("{} ends after {}", entry.selector, Span(entry.ttl));
    match credential(state, &entry.selector, now_us) {
        Some(needed) if entry.ttl < needed => {
            return Some(format!(
                "{ends}, but the credential lasts longer and counts again then; `key revoke` shuts it out for good"
            ));
        }
        Some(_) => return None,
        None => {}
    }
    if entry.ttl < token {
        let life = Span(token);
        return Some(format!("{ends}, but a token may live for {life}: one that is revoked now may count again then"));
    }
    let consumer = match entry.selector.kind() {
        SelectorKind::Consumer => std::str::from_utf8(entry.selector.parts().value).ok()?.parse().ok()?,
        _ => return None,
    };
    let stored = state.credentials.of(&consumer).take(CREDENTIALS_LOOKED_AT_MAX);
    let outlives = |id| {
        state
            .credentials
            .get(id)
            .is_some_and(|it| it.state != CredentialState::Revoked && lasts(it, now_us) > entry.ttl)
    };
    let longer = stored.into_iter().find(|id| outlives(*id))?;
    Some(format!(
        "{ends}, but credential {longer} of this consumer lasts longer and counts again then; `key revoke` shuts it out for good"
    ))
}

fn entry(it: &admin::NewRevocation, needed: impl Fn(&Selector) -> Duration) -> Result<NewRevocation, Invalid> {
    let missing = || Invalid::field("selector").found("none").allowed("what is to be revoked");
    let selector = selectors::from_message(it.selector.as_ref().ok_or_else(missing)?)?;
    let ttl = match desk::duration("expires_in", it.expires_in) {
        Ok(ttl) => ttl.unwrap_or_else(|| needed(&selector)),
        Err(_) => return Err(Invalid::field("expires_in").found("less than 0s").allowed("more than 0s")),
    };
    if ttl.as_micros() == 0 || ttl > TTL_MAX {
        return Err(Invalid::field("expires_in").found(Span(ttl)).allowed("more than 0s, at most 3660d"));
    }
    let not_before_s = match &it.issued_before {
        None if selector.kind() == SelectorKind::Subject => {
            return Err(Invalid::field("issued_before").found("nothing").allowed("an instant, with a subject"));
        }
        None => None,
        // Whole seconds, as tokens have them: one that was issued within this second is revoked too.
        Some(at) if at.seconds >= 0 => Some(at.seconds as u64 + u64::from(at.nanos > 0)),
        Some(at) => {
            return Err(Invalid::field("issued_before").found(at.seconds).allowed("an instant since 1970"));
        }
    };
    Ok(NewRevocation { selector, ttl, not_before_s })
}

fn page_key(token: &str) -> Result<SelectorKey, Status> {
    let bytes = data_encoding::HEXLOWER.decode(token.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let wrong = || failure::bad_field("page_token", &format!("found {token:?}; allowed: one from a response"));
    bytes.map(SelectorKey).ok_or_else(wrong)
}
