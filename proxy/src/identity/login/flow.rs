//! The browser's way to the provider and back, and out.

use std::{net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use quorumgate_model::{
    command::NewRevocation,
    mutants::{self, Mutant},
    revocation::{SelectorKind, SelectorParts},
};
use serde_json::Value;

use super::{
    Login, NO_RANDOM, Whence, cookie,
    provider::{NoTokens, UNAVAILABLE},
    refresh_at,
    session::{Begun, Session, challenge, random},
};
use crate::{
    body::ResponseBody,
    identity::{
        AuthFailure,
        directory::Directory,
        fetch::Endpoint,
        form,
        handed::{Asker, NotAgreed},
        jwt::sha256,
    },
};

/// How long somebody may take to sign in.
const SIGN_IN_MAX_S: u64 = 600;
/// Sign-ins that a browser may have under way; a further one takes the place of an earlier one.
const SIGN_INS: u8 = 4;
/// Bytes of the path and query that a browser is sent back to; whoever asked for more begins at the root.
const BACK_BYTES_MAX: usize = 2048;
/// An entry outlives the session that it shuts out, whatever the clocks say.
const SLACK: Duration = Duration::from_secs(5 * 60);

type Answer = Result<Response<ResponseBody>, AuthFailure>;

impl Login {
    pub(crate) fn is_callback(&self, path: &str) -> bool {
        path == self.asked.callback_path
    }

    pub(crate) fn is_logout(&self, path: &str) -> bool {
        path == self.asked.logout_path
    }

    /// Sends a browser to the provider (OpenID Connect Core §3.1.2.1, RFC 7636).
    pub(crate) async fn begin(self: &Arc<Self>, whence: Whence<'_>, query: Option<&str>, now_s: u64) -> Answer {
        let redirect_uri = whence.url(&self.asked.callback_path)?;
        let metadata = self.provider.metadata().await?;
        let endpoint = metadata.authorization.as_ref().ok_or(UNAVAILABLE)?;
        let new = || random().ok_or(NO_RANDOM);
        let begun = Begun {
            state: new()?,
            nonce: new()?,
            verifier: new()?,
            back: back(whence.path, query),
            redirect_uri,
            at_s: now_s,
        };
        let challenge = challenge(&begun.verifier);
        let location = with_query(
            endpoint,
            &[
                ("response_type", "code"),
                ("client_id", &self.asked.client_id),
                ("redirect_uri", &begun.redirect_uri),
                ("scope", &self.asked.scopes.join(" ")),
                ("state", &begun.state),
                ("nonce", &begun.nonce),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
            ],
        );
        let name = self.attempt_name(&begun.state);
        let sealed =
            serde_json::to_vec(&begun).ok().and_then(|json| self.sealer.seal(&name, &json)).ok_or(NO_RANDOM)?;
        let cookies = cookie::set(&name, &sealed, SIGN_IN_MAX_S, 0).ok_or(NO_RANDOM)?;
        redirect(&location, cookies)
    }

    /// The browser comes back (OpenID Connect Core §3.1.2.5, RFC 9207).
    pub(crate) async fn callback(self: &Arc<Self>, headers: &HeaderMap, query: Option<&str>, now_s: u64) -> Answer {
        self.arrive(headers, query, now_s).await.map(|(_, response)| response)
    }

    /// Who came back, and what gives the browser the session.
    pub(super) async fn arrive(
        self: &Arc<Self>,
        headers: &HeaderMap,
        query: Option<&str>,
        now_s: u64,
    ) -> Result<(Session, Response<ResponseBody>), AuthFailure> {
        const FOREIGN: AuthFailure =
            AuthFailure::Invalid("the sign-in was not begun in this browser, or took too long");
        let said = form::decode(query.unwrap_or_default()).ok_or(FOREIGN)?;
        let state = said.get("state").ok_or(FOREIGN)?;
        let name = self.attempt_name(state);
        let sealed = cookie::joined(headers, &name).ok_or(FOREIGN)?;
        let begun = self.sealer.open(&name, &sealed).and_then(|json| serde_json::from_slice::<Begun>(&json).ok());
        let begun = begun.ok_or(FOREIGN)?;
        let is_its = verify_slices_are_equal(begun.state.as_bytes(), state.as_bytes()).is_ok();
        if !is_its || begun.at_s > now_s + SIGN_IN_MAX_S || begun.at_s.saturating_add(SIGN_IN_MAX_S) <= now_s {
            return Err(FOREIGN);
        }
        let metadata = self.provider.metadata().await?;
        match said.get("iss") {
            Some(issuer) if *issuer != self.asked.issuer => {
                return Err(AuthFailure::Invalid("the answer is of another issuer"));
            }
            None if metadata.says_issuer => return Err(AuthFailure::Invalid("the answer does not say its issuer")),
            _ => (),
        }
        let Some(code) = said.get("code").filter(|_| !said.contains_key("error")) else {
            return Err(AuthFailure::Invalid("the identity provider signed nobody in"));
        };
        let session = self.session(code, &begun, now_s).await?;
        let had = cookie::pieces(headers, &self.cookie);
        let mut cookies = self.cookies(&session, had, now_s)?;
        cookies.extend(cookie::unset(&name, cookie::pieces(headers, &name)));
        redirect(&begun.back, cookies).map(|response| (session, response))
    }

    async fn session(self: &Arc<Self>, code: &str, begun: &Begun, now_s: u64) -> Result<Session, AuthFailure> {
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &begun.redirect_uri),
            ("code_verifier", &begun.verifier),
        ];
        let tokens = self.provider.tokens(&grant).await.map_err(|no| match no {
            NoTokens::Refused => AuthFailure::Invalid("the identity provider does not take the code"),
            NoTokens::Unavailable => UNAVAILABLE,
        })?;
        let id_token = tokens.id_token.ok_or(AuthFailure::Invalid("the identity provider gave no ID token"))?;
        let claims = self.verify(&id_token, now_s).await?;
        let nonce = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        let is_its = verify_slices_are_equal(nonce.as_bytes(), begun.nonce.as_bytes()).is_ok();
        if !is_its && !mutants::is(Mutant::NonceIgnored) {
            return Err(AuthFailure::Invalid("the ID token was made for another sign-in"));
        }
        let sub = claims.get("sub").and_then(Value::as_str);
        let sub = sub.ok_or(AuthFailure::Invalid("the ID token has no subject"))?.to_owned();
        let mut session = Session {
            id: random().ok_or(NO_RANDOM)?,
            sub,
            sid: None,
            // By the provider's clock, which is the one that tells when subjects are shut out.
            signed_in_s: claims.get("iat").and_then(Value::as_u64).unwrap_or(now_s),
            ends_s: now_s.saturating_add(self.asked.session.0.as_secs()),
            refresh_s: tokens.expires_in_s.map(|left| refresh_at(now_s, left)),
            refresh_token: tokens.refresh_token,
            scope: tokens.scope.unwrap_or_else(|| self.asked.scopes.join(" ")),
            claims: Default::default(),
        };
        session.take_claims(&claims);
        Ok(session)
    }

    /// Ends the session on every node, takes its cookies away, and sends the browser to the provider's own sign-out.
    pub(crate) async fn logout(
        self: &Arc<Self>,
        headers: &HeaderMap,
        directory: &Directory,
        client_ip: IpAddr,
        now_s: u64,
    ) -> Answer {
        let name = self.cookie.clone();
        let session = cookie::joined(headers, &name).and_then(|text| self.sealer.open("session", &text));
        let session = session.and_then(|json| serde_json::from_slice::<Session>(&json).ok());
        let agreed = match session.filter(|session| session.ends_s > now_s) {
            Some(session) => {
                let ttl = Duration::from_secs(session.ends_s - now_s) + SLACK;
                let value = sha256(session.id.as_bytes());
                let selector = SelectorParts { kind: SelectorKind::TokenHash, issuer: b"", value: &value }.checked();
                let entry = selector.map(|selector| NewRevocation { selector, ttl, not_before_s: None });
                let asker = Asker { route: format!("logout of {}", self.auth), who: session.sub, client_ip };
                directory.revoke(entry.into_iter().collect(), "signed out", asker).await
            }
            None => Ok(()),
        };
        let cookies = cookie::unset(&name, cookie::pieces(headers, &name));
        if agreed == Err(NotAgreed) {
            // A copy of the cookie, if there is one, still opens doors.
            let mut response = page("Signed out in this browser; the cluster could not be told. Try again.\n", cookies);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        let metadata = self.provider.metadata().await.ok();
        match metadata.as_ref().and_then(|metadata| metadata.end_session.as_ref()) {
            Some(endpoint) => redirect(&with_query(endpoint, &[("client_id", &self.asked.client_id)]), cookies),
            None => Ok(page("Signed out.\n", cookies)),
        }
    }

    /// A place for each of a few sign-ins at a time, by their state.
    fn attempt_name(&self, state: &str) -> String {
        let place = sha256(state.as_bytes())[0] % SIGN_INS;
        format!("{}~try{place}", self.cookie)
    }
}

impl Whence<'_> {
    pub(crate) fn url(&self, path: &str) -> Result<String, AuthFailure> {
        if self.host.is_empty() {
            return Err(AuthFailure::Invalid("the request names no host to come back to"));
        }
        let scheme = if self.tls { "https" } else { "http" };
        let port = self.port.filter(|port| *port != if self.tls { 443 } else { 80 });
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(format!("{scheme}://{}{port}{path}", self.host))
    }
}

/// A place on this very host: what begins with two slashes, or a slash and a backslash, would be read as another one.
fn back(path: &str, query: Option<&str>) -> String {
    let place = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut bytes = place.bytes();
    let is_here = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    let is_plain = place.bytes().all(|b| b.is_ascii_graphic());
    let is_here = is_here || mutants::is(Mutant::BackToAnotherSite);
    if is_here && is_plain && place.len() <= BACK_BYTES_MAX { place } else { "/".into() }
}

fn with_query(endpoint: &Endpoint, pairs: &[(&str, &str)]) -> String {
    let url = endpoint.to_string();
    let between = if url.contains('?') { '&' } else { '?' };
    format!("{url}{between}{}", form::encode(pairs))
}

/// 303: whatever the request was, the next one is a GET.
fn redirect(location: &str, cookies: Vec<HeaderValue>) -> Answer {
    let location = HeaderValue::try_from(location).map_err(|_| UNAVAILABLE)?;
    let mut response = page("", cookies);
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn page(text: &'static str, cookies: Vec<HeaderValue>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(text.into()));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !text.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_back_to_this_host_only() {
        let check = |path: &str, query: Option<&str>, expected: &str| assert_eq!(back(path, query), expected, "{path}");
        check("/a/b", Some("c=//d"), "/a/b?c=//d");
        check("/", None, "/");
        check("//evil.test/a", None, "/");
        check("/\\evil.test", None, "/");
        check("https://evil.test", None, "/");
        check("", None, "/");
        check("/a\nb", None, "/");
        check("/a", Some(&"x".repeat(BACK_BYTES_MAX)), "/");
    }

    #[test]
    fn the_way_back_is_where_the_browser_is() {
        let check = |tls, host, port, expected: &str| {
            let whence = Whence { tls, host, port, path: "/x" };
            assert_eq!(whence.url("/callback").unwrap_or_default(), expected);
        };
        check(true, "a.test", None, "https://a.test/callback");
        check(true, "a.test", Some(443), "https://a.test/callback");
        check(true, "a.test", Some(80), "https://a.test:80/callback");
        check(false, "[::1]", Some(8080), "http://[::1]:8080/callback");
        check(false, "", None, "");
    }
}
