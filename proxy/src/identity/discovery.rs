//! OpenID Connect Discovery 1.0: what an issuer says about itself, believed only where it names itself as we do.

use serde_json::Value;

use super::{
    claims::object,
    egress::Reach,
    fetch::{Ask, Endpoint, FetchError, Fetcher},
};

const BYTES_MAX: usize = 256 * 1024;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// The endpoints that this gateway has a use for. Each is https if the issuer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub jwks: Endpoint,
    pub authorization: Option<Endpoint>,
    pub token: Option<Endpoint>,
    pub introspection: Option<Endpoint>,
    pub end_session: Option<Endpoint>,
    /// Every authorization response says who it is from (RFC 9207 §3).
    pub says_issuer: bool,
    /// The token endpoint takes the client's secret in the form only (`client_secret_post`).
    pub secret_in_body: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the issuer's metadata is not a JSON object, each name once")]
    Malformed,
    #[error("the metadata is of the issuer {0:?}")]
    Issuer(String),
    #[error("`{0}` of the metadata is missing, or not https although the issuer is")]
    Endpoint(&'static str),
}

pub async fn discover(fetcher: &Fetcher, issuer: &str, reach: Reach) -> Result<Metadata, DiscoveryError> {
    let endpoint = Endpoint::parse(&format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')))?;
    let answer = fetcher.fetch(&endpoint, &Ask::get(reach, BYTES_MAX)).await?;
    read(issuer, endpoint.is_tls(), &answer.body)
}

/// `issuer` must be the same text (§4.3): otherwise one tenant of a provider could speak for another.
fn read(issuer: &str, tls: bool, json: &[u8]) -> Result<Metadata, DiscoveryError> {
    let document = object(json).ok_or(DiscoveryError::Malformed)?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(DiscoveryError::Issuer(text("issuer").unwrap_or_default().chars().take(200).collect()));
    }
    let endpoint = |name: &'static str| match text(name) {
        None => Ok(None),
        Some(url) => match Endpoint::parse(url) {
            Ok(endpoint) if endpoint.is_tls() || !tls => Ok(Some(endpoint)),
            _ => Err(DiscoveryError::Endpoint(name)),
        },
    };
    Ok(Metadata {
        jwks: endpoint("jwks_uri")?.ok_or(DiscoveryError::Endpoint("jwks_uri"))?,
        authorization: endpoint("authorization_endpoint")?,
        token: endpoint("token_endpoint")?,
        introspection: endpoint("introspection_endpoint")?,
        end_session: endpoint("end_session_endpoint")?,
        says_issuer: document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
        secret_in_body: document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array).is_some_and(
            |methods| {
                let has = |wanted: &str| methods.iter().any(|it| it == wanted);
                has("client_secret_post") && !has("client_secret_basic")
            },
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_of_the_issuer_and_as_safe_as_it() {
        let check = |document: Value, expected: Result<(), DiscoveryError>| {
            let outcome = read("https://idp.test/a", true, document.to_string().as_bytes());
            assert_eq!(outcome.map(|_| ()), expected, "{document}");
        };
        let good = json!({"issuer": "https://idp.test/a", "jwks_uri": "https://keys.test/jwks"});
        check(good.clone(), Ok(()));
        let with = |name: &str, value: Value| {
            let mut document = good.clone();
            document[name] = value;
            document
        };
        check(with("issuer", json!("https://idp.test/b")), Err(DiscoveryError::Issuer("https://idp.test/b".into())));
        check(with("issuer", json!("https://idp.test/a/")), Err(DiscoveryError::Issuer("https://idp.test/a/".into())));
        check(with("issuer", json!(7)), Err(DiscoveryError::Issuer(String::new())));
        check(with("jwks_uri", json!("http://keys.test/jwks")), Err(DiscoveryError::Endpoint("jwks_uri")));
        check(with("jwks_uri", json!(null)), Err(DiscoveryError::Endpoint("jwks_uri")));
        check(with("token_endpoint", json!("http://idp.test/token")), Err(DiscoveryError::Endpoint("token_endpoint")));
        assert_eq!(read("i", true, br#"{"issuer":"x","issuer":"i"}"#), Err(DiscoveryError::Malformed));
    }
}
