//! What a sign-in asks of the provider: where its endpoints are, and tokens for a code or a refresh token.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::header;
use serde_json::Value;
use tokio::time::Instant;

use super::super::{
    AuthFailure,
    claims::{object, seconds},
    discovery::{Metadata, discover},
    egress::Reach,
    fetch::{Ask, FetchError, Fetcher},
    flights::Flights,
    form,
    jwt::TOKEN_BYTES_MAX,
};

/// How long endpoints are believed without asking again; they outlive this while the provider does not answer.
const METADATA_AGE: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a refresh token.
const REFRESH_BYTES_MAX: usize = 4 * 1024;

pub(super) struct Provider {
    pub(super) issuer: String,
    pub(super) client_id: String,
    client_secret: String,
    reach: Reach,
    fetcher: Fetcher,
    metadata: Mutex<Option<(Instant, Arc<Metadata>)>>,
    flights: Arc<Flights<(), Option<Arc<Metadata>>>>,
}

/// What the token endpoint gave (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) id_token: Option<String>,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in_s: Option<u64>,
    pub(super) scope: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTokens {
    /// The provider does not take the code or the refresh token.
    Refused,
    Unavailable,
}

pub(super) const UNAVAILABLE: AuthFailure = AuthFailure::Unavailable("the identity provider does not answer");

impl Provider {
    pub(super) fn new(
        issuer: &str,
        client_id: &str,
        client_secret: String,
        reach: Reach,
        fetcher: Fetcher,
    ) -> Arc<Self> {
        Arc::new(Self {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            client_secret,
            reach,
            fetcher,
            metadata: Mutex::default(),
            flights: Flights::new(1),
        })
    }

    pub(super) async fn metadata(self: &Arc<Self>) -> Result<Arc<Metadata>, AuthFailure> {
        let known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, metadata)) = &known
            && at.elapsed() < METADATA_AGE
        {
            return Ok(metadata.clone());
        }
        let this = self.clone();
        let found = self.flights.join((), || async move { this.discovered().await }).await.flatten();
        found.or(known.map(|(_, metadata)| metadata)).ok_or(UNAVAILABLE)
    }

    async fn discovered(&self) -> Option<Arc<Metadata>> {
        match discover(&self.fetcher, &self.issuer, self.reach).await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                let mut known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
                *known = Some((Instant::now(), metadata.clone()));
                Some(metadata)
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the provider of a login is not to be discovered");
                None
            }
        }
    }

    /// `grant`: the fields of the request beside those that say who asks.
    pub(super) async fn tokens(self: &Arc<Self>, grant: &[(&str, &str)]) -> Result<Tokens, NoTokens> {
        let metadata = self.metadata().await.map_err(|_| NoTokens::Unavailable)?;
        let Some(endpoint) = &metadata.token else { return Err(NoTokens::Unavailable) };
        let mut pairs = grant.to_vec();
        if metadata.secret_in_body {
            pairs.extend([("client_id", &*self.client_id), ("client_secret", &*self.client_secret)]);
        }
        let mut ask = Ask::form(self.reach, ANSWER_BYTES_MAX, form::encode(&pairs));
        if !metadata.secret_in_body {
            ask.headers.insert(header::AUTHORIZATION, form::basic(&self.client_id, &self.client_secret));
        }
        match self.fetcher.fetch(endpoint, &ask).await {
            Ok(answer) => read(&answer.body).ok_or_else(|| {
                tracing::warn!(issuer = self.issuer, "the token endpoint's answer is not what it must be");
                NoTokens::Unavailable
            }),
            // RFC 6749 §5.2; 401 is about us.
            Err(FetchError::Status(400)) => Err(NoTokens::Refused),
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the token endpoint gives no tokens");
                Err(NoTokens::Unavailable)
            }
        }
    }
}

fn read(json: &[u8]) -> Option<Tokens> {
    let answer = object(json)?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    if !text("token_type")?.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Tokens {
        id_token: text("id_token").filter(|it| it.len() <= TOKEN_BYTES_MAX),
        refresh_token: text("refresh_token").filter(|it| !it.is_empty() && it.len() <= REFRESH_BYTES_MAX),
        expires_in_s: answer.get("expires_in").and_then(seconds).and_then(|it| u64::try_from(it).ok()),
        scope: text("scope"),
    })
}
