//! Auths between prost and model.

use quorumgate_proto::admin::v1::{self as admin, auth::Kind, jwt_auth::Keys, signature_key::Key};

use super::{
    resource::{listed, meta_to, name_from, optional, span_from, span_to, word},
    smaller::{hide, secret_from, secret_to},
};
use crate::{
    invalid::Invalid,
    resource::{
        Algorithm, ApiKeyAuth, Auth, AuthKind, AuthWords, BasicAuth, ClientCredentialsAuth, ConsumerFrom,
        IntrospectionAuth, JwtAuth, JwtKeys, JwtWords, MtlsAuth, OidcLoginAuth, OnError, SignatureAlgorithm,
        SignatureKey, SignatureKeyWords, SignatureWords, UpstreamKeyAuth, VerifyingKey, check::words,
    },
};

pub fn auth_from(it: admin::Auth) -> Result<Auth, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let mut auth = AuthWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        api_key: None,
        jwt: None,
        mtls: None,
        basic: None,
        signature: None,
        introspection: None,
        oidc_login: None,
        client_credentials: None,
        upstream_key: None,
    };
    let under = |word: &'static str| move |invalid: Invalid| invalid.under(word);
    match it.kind {
        None => {}
        Some(Kind::ApiKey(it)) => auth.api_key = Some(api_key_from(it)),
        Some(Kind::Jwt(it)) => auth.jwt = Some(jwt_from(it).map_err(under("jwt"))?),
        Some(Kind::Mtls(it)) => auth.mtls = Some(mtls_from(&it).map_err(under("mtls"))?),
        Some(Kind::Basic(it)) => auth.basic = Some(BasicAuth { realm: optional(it.realm) }),
        Some(Kind::Signature(it)) => auth.signature = Some(signature_from(it).map_err(under("signature"))?),
        Some(Kind::Introspection(it)) => {
            auth.introspection = Some(introspection_from(it).map_err(under("introspection"))?);
        }
        Some(Kind::OidcLogin(it)) => auth.oidc_login = Some(oidc_login_from(it).map_err(under("oidc_login"))?),
        Some(Kind::ClientCredentials(it)) => {
            auth.client_credentials = Some(client_credentials_from(it).map_err(under("client_credentials"))?);
        }
        Some(Kind::UpstreamKey(it)) => {
            auth.upstream_key = Some(upstream_key_from(it).map_err(under("upstream_key"))?);
        }
    }
    auth.try_into()
}

fn api_key_from(it: admin::ApiKeyAuth) -> ApiKeyAuth {
    let default = ApiKeyAuth::default();
    ApiKeyAuth { header: optional(it.header).unwrap_or(default.header), query: optional(it.query) }
}

fn jwt_from(it: admin::JwtAuth) -> Result<JwtWords, Invalid> {
    let algorithms = it.algorithms.iter().enumerate().map(|(place, text)| {
        let field = format!("algorithms[{place}]");
        let found = word(&field, text, Algorithm::ALL, Algorithm::word)?;
        let none = || Invalid::field(&field).found("\"\"").allowed(words(Algorithm::ALL, Algorithm::word));
        found.ok_or_else(none)
    });
    let algorithms = algorithms.collect::<Result<Vec<_>, _>>()?;
    let mut jwt = JwtWords {
        issuer: it.issuer,
        audience: it.audience,
        algorithms: if algorithms.is_empty() { JwtWords::algorithms_default() } else { algorithms },
        jwks_url: None,
        discovery: None,
        jwks_inline: None,
        secret: None,
        consumer_claim: optional(it.consumer_claim),
        groups_claim: optional(it.groups_claim),
        scopes_claim: optional(it.scopes_claim).unwrap_or_else(JwtWords::scopes_claim_default),
        skew: span_from("skew", it.skew)?.unwrap_or_else(JwtWords::skew_default),
        max_lifetime: span_from("max_lifetime", it.max_lifetime)?.unwrap_or_else(JwtWords::max_lifetime_default),
        typ: optional(it.typ),
        allow_private: it.allow_private,
    };
    match it.keys {
        None => {}
        Some(Keys::JwksUrl(url)) => jwt.jwks_url = Some(url),
        Some(Keys::Discovery(flag)) => jwt.discovery = Some(flag),
        Some(Keys::JwksInline(text)) => {
            let wrong = |error: serde_json::Error| {
                Invalid::field("jwks_inline").found(error).allowed("a JWKS as JSON: a map with `keys`")
            };
            jwt.jwks_inline = Some(serde_json::from_str(&text).map_err(wrong)?);
        }
        Some(Keys::Secret(it)) => jwt.secret = Some(secret_from("secret", Some(it))?),
    }
    Ok(jwt)
}

fn mtls_from(it: &admin::MtlsAuth) -> Result<MtlsAuth, Invalid> {
    let from = word("consumer_from", &it.consumer_from, ConsumerFrom::ALL, ConsumerFrom::word)?;
    Ok(MtlsAuth { ca: name_from("ca", &it.ca)?, consumer_from: from.unwrap_or_default() })
}

fn signature_from(it: admin::SignatureAuth) -> Result<SignatureWords, Invalid> {
    let default = SignatureWords::default();
    Ok(SignatureWords {
        components: if it.components.is_empty() { default.components } else { it.components },
        max_age: span_from("max_age", it.max_age)?.unwrap_or(default.max_age),
        keys: listed("keys", it.keys, signature_key_from)?,
    })
}

fn signature_key_from(it: admin::SignatureKey) -> Result<SignatureKeyWords, Invalid> {
    let algorithm = word("algorithm", &it.algorithm, SignatureAlgorithm::ALL, SignatureAlgorithm::word)?;
    let Some(algorithm) = algorithm else {
        let allowed = words(SignatureAlgorithm::ALL, SignatureAlgorithm::word);
        return Err(Invalid::field("algorithm").found("none").allowed(allowed));
    };
    let consumer = name_from("consumer", &it.consumer)?;
    let mut key = SignatureKeyWords { id: it.id, algorithm, public_key: None, secret: None, consumer };
    match it.key {
        None => {}
        Some(Key::PublicKey(pem)) => key.public_key = Some(pem),
        Some(Key::Secret(it)) => key.secret = Some(secret_from("secret", Some(it))?),
    }
    Ok(key)
}

fn introspection_from(it: admin::IntrospectionAuth) -> Result<IntrospectionAuth, Invalid> {
    Ok(IntrospectionAuth {
        endpoint: it.endpoint,
        client_id: it.client_id,
        client_secret: secret_from("client_secret", it.client_secret)?,
        cache: span_from("cache", it.cache)?.unwrap_or_else(IntrospectionAuth::cache_default),
        on_error: word("on_error", &it.on_error, OnError::ALL, OnError::word)?.unwrap_or_default(),
        consumer_claim: optional(it.consumer_claim),
        allow_private: it.allow_private,
    })
}

fn oidc_login_from(it: admin::OidcLoginAuth) -> Result<OidcLoginAuth, Invalid> {
    Ok(OidcLoginAuth {
        issuer: it.issuer,
        client_id: it.client_id,
        client_secret: secret_from("client_secret", it.client_secret)?,
        scopes: if it.scopes.is_empty() { OidcLoginAuth::scopes_default() } else { it.scopes },
        callback_path: optional(it.callback_path).unwrap_or_else(OidcLoginAuth::callback_path_default),
        logout_path: optional(it.logout_path).unwrap_or_else(OidcLoginAuth::logout_path_default),
        session: span_from("session", it.session)?.unwrap_or_else(OidcLoginAuth::session_default),
        consumer_claim: optional(it.consumer_claim),
        allow_private: it.allow_private,
    })
}

fn client_credentials_from(it: admin::ClientCredentialsAuth) -> Result<ClientCredentialsAuth, Invalid> {
    Ok(ClientCredentialsAuth {
        token_endpoint: it.token_endpoint,
        client_id: it.client_id,
        client_secret: secret_from("client_secret", it.client_secret)?,
        scopes: it.scopes,
        allow_private: it.allow_private,
    })
}

fn upstream_key_from(it: admin::UpstreamKeyAuth) -> Result<UpstreamKeyAuth, Invalid> {
    Ok(UpstreamKeyAuth {
        header: optional(it.header).unwrap_or_else(UpstreamKeyAuth::header_default),
        scheme: it.scheme,
        key: secret_from("key", it.key)?,
    })
}

pub fn auth_to(it: &Auth) -> admin::Auth {
    let kind = match &it.kind {
        AuthKind::ApiKey(it) => {
            Kind::ApiKey(admin::ApiKeyAuth { header: it.header.clone(), query: it.query.clone().unwrap_or_default() })
        }
        AuthKind::Jwt(it) => Kind::Jwt(jwt_to(it)),
        AuthKind::Mtls(it) => {
            Kind::Mtls(admin::MtlsAuth { ca: it.ca.to_string(), consumer_from: it.consumer_from.word().into() })
        }
        AuthKind::Basic(it) => Kind::Basic(admin::BasicAuth { realm: it.realm.clone().unwrap_or_default() }),
        AuthKind::Signature(it) => Kind::Signature(admin::SignatureAuth {
            components: it.components.clone(),
            max_age: span_to(it.max_age),
            keys: it.keys.iter().map(signature_key_to).collect(),
        }),
        AuthKind::Introspection(it) => Kind::Introspection(admin::IntrospectionAuth {
            endpoint: it.endpoint.clone(),
            client_id: it.client_id.clone(),
            client_secret: secret_to(&it.client_secret),
            cache: span_to(it.cache),
            on_error: it.on_error.word().into(),
            consumer_claim: it.consumer_claim.clone().unwrap_or_default(),
            allow_private: it.allow_private,
        }),
        AuthKind::OidcLogin(it) => Kind::OidcLogin(admin::OidcLoginAuth {
            issuer: it.issuer.clone(),
            client_id: it.client_id.clone(),
            client_secret: secret_to(&it.client_secret),
            scopes: it.scopes.clone(),
            callback_path: it.callback_path.clone(),
            logout_path: it.logout_path.clone(),
            session: span_to(it.session),
            consumer_claim: it.consumer_claim.clone().unwrap_or_default(),
            allow_private: it.allow_private,
        }),
        AuthKind::ClientCredentials(it) => Kind::ClientCredentials(admin::ClientCredentialsAuth {
            token_endpoint: it.token_endpoint.clone(),
            client_id: it.client_id.clone(),
            client_secret: secret_to(&it.client_secret),
            scopes: it.scopes.clone(),
            allow_private: it.allow_private,
        }),
        AuthKind::UpstreamKey(it) => Kind::UpstreamKey(admin::UpstreamKeyAuth {
            header: it.header.clone(),
            scheme: it.scheme.clone(),
            key: secret_to(&it.key),
        }),
    };
    let meta = meta_to(&it.labels, &it.owner, &it.description);
    admin::Auth { name: it.name.to_string(), meta, kind: Some(kind) }
}

fn jwt_to(it: &JwtAuth) -> admin::JwtAuth {
    let keys = match &it.keys {
        JwtKeys::Url(url) => Keys::JwksUrl(url.clone()),
        JwtKeys::Discovery => Keys::Discovery(true),
        JwtKeys::Inline(jwks) => Keys::JwksInline(jwks.clone()),
        JwtKeys::Secret(secret) => Keys::Secret(secret_to(secret).unwrap_or_default()),
    };
    admin::JwtAuth {
        issuer: it.issuer.clone(),
        audience: it.audience.clone(),
        algorithms: it.algorithms.iter().map(|algorithm| algorithm.word().to_owned()).collect(),
        keys: Some(keys),
        consumer_claim: it.consumer_claim.clone().unwrap_or_default(),
        groups_claim: it.groups_claim.clone().unwrap_or_default(),
        scopes_claim: it.scopes_claim.clone(),
        skew: span_to(it.skew),
        max_lifetime: span_to(it.max_lifetime),
        typ: it.typ.clone().unwrap_or_default(),
        allow_private: it.allow_private,
    }
}

fn signature_key_to(it: &SignatureKey) -> admin::SignatureKey {
    let key = match &it.key {
        VerifyingKey::Public(pem) => Key::PublicKey(pem.clone()),
        VerifyingKey::Secret(secret) => Key::Secret(secret_to(secret).unwrap_or_default()),
    };
    admin::SignatureKey {
        id: it.id.clone(),
        algorithm: it.algorithm.word().into(),
        key: Some(key),
        consumer: it.consumer.to_string(),
    }
}

/// Leaves of every secret its fingerprint.
pub fn hide_secrets(auth: &mut admin::Auth) {
    match &mut auth.kind {
        Some(Kind::Jwt(admin::JwtAuth { keys: Some(Keys::Secret(it)), .. })) => hide(it),
        Some(Kind::Introspection(it)) => it.client_secret.iter_mut().for_each(hide),
        Some(Kind::OidcLogin(it)) => it.client_secret.iter_mut().for_each(hide),
        Some(Kind::ClientCredentials(it)) => it.client_secret.iter_mut().for_each(hide),
        Some(Kind::UpstreamKey(it)) => it.key.iter_mut().for_each(hide),
        Some(Kind::Signature(it)) => {
            for key in &mut it.keys {
                if let Some(Key::Secret(secret)) = &mut key.key {
                    hide(secret);
                }
            }
        }
        Some(Kind::ApiKey(_) | Kind::Jwt(_) | Kind::Mtls(_) | Kind::Basic(_)) | None => {}
    }
}
