//! Keys, what is used of limits, what no longer counts, and who behaves unlike others.

use http::Request;
use quorumgate_proto::admin::v1::{
    self as admin, anomalies_client::AnomaliesClient, bans_client::BansClient, key_client::KeyClient,
    limit_usage_client::LimitUsageClient, revocation_client::RevocationClient, selector,
};
use serde_json::Value;
use tonic::Status;

use super::{
    Local,
    paths::{Asked, KeyVerb},
    words::Words,
};
use crate::{
    admin::{MESSAGE_BYTES_MAX, failure},
    cli::{
        shape,
        verbs::{anomalies, bans, keys, limits, revocations},
    },
};

pub async fn answer<T>(asked: Asked, request: &Request<T>, local: Local) -> Result<Value, Status> {
    match asked {
        Asked::Keys => {
            let words = Words::of(request, &["consumer", "limit", "page_token", "stale"])?;
            let asked = admin::ListKeysRequest {
                consumer: words.text("consumer"),
                limit: words.count("limit")?,
                page_token: words.text("page_token"),
                stale: words.is("stale")?,
            };
            let mut service = KeyClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(keys::listed(&service.list_keys(asked).await?.into_inner()))
        }
        Asked::Usage(limit) => {
            let words = Words::of(request, &["key", "top"])?;
            let key = Some(words.text("key")).filter(|it| !it.is_empty());
            let asked = admin::GetUsageRequest { limit, key, top: words.count("top")? };
            let mut service = LimitUsageClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let of_all = asked.limit.is_empty();
            let answer = service.get_usage(asked).await?.into_inner();
            Ok(if of_all { limits::used_of_all(&answer) } else { limits::used(&answer) })
        }
        Asked::Bans => {
            let words = Words::of(request, &["limit", "stale"])?;
            let asked = admin::ListBansRequest { limit: words.count("limit")?, stale: words.is("stale")? };
            let mut service = BansClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(bans::listed(&service.list_bans(asked).await?.into_inner()))
        }
        Asked::Anomalies => {
            let words = Words::of(request, &["policy", "top"])?;
            let asked = admin::ListAnomaliesRequest { policy: words.text("policy"), top: words.count("top")? };
            let mut service = AnomaliesClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(anomalies::known(&service.list_anomalies(asked).await?.into_inner()))
        }
        Asked::CreateKey => {
            let words = Words::of(request, &["consumer", "scope", "cidr", "env", "expires_in", "request_id"])?;
            let key = admin::NewKey {
                consumer: words.text("consumer"),
                scopes: words.all("scope"),
                cidrs: words.all("cidr"),
                env: words.text("env"),
                expires_in: words.span("expires_in")?,
                given: None,
            };
            let asked = admin::CreateKeyRequest { key: Some(key), request_id: words.text("request_id") };
            Ok(keys::made(&KeyClient::new(local).create_key(asked).await?.into_inner()))
        }
        Asked::RotateKey(id) => {
            let words = Words::of(request, &["overlap", "request_id"])?;
            let (overlap, request_id) = (words.span("overlap")?, words.text("request_id"));
            let asked = admin::RotateKeyRequest { id, overlap, request_id };
            Ok(keys::made(&KeyClient::new(local).rotate_key(asked).await?.into_inner()))
        }
        Asked::Revoke => revoke(request, local).await,
        Asked::Key(id, verb) => {
            Words::of(request, &[])?;
            let (mut service, key) = (KeyClient::new(local), admin::KeyRequest { id });
            let answer = match verb {
                KeyVerb::Revoke => service.revoke_key(key).await?,
                KeyVerb::Disable => service.disable_key(key).await?,
                KeyVerb::Enable => service.enable_key(key).await?,
            };
            Ok(shape::write(&answer.into_inner()))
        }
        _ => {
            let words = Words::of(request, &["limit", "page_token", "stale"])?;
            let asked = admin::ListRevocationsRequest {
                limit: words.count("limit")?,
                page_token: words.text("page_token"),
                stale: words.is("stale")?,
            };
            let mut service = RevocationClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(revocations::listed(&service.list_revocations(asked).await?.into_inner()))
        }
    }
}

type By = fn(String) -> selector::By;

/// By what can be written down in a query; the command line has more.
const BY: [(&str, By); 4] = [
    ("jti", selector::By::Jti),
    ("subject", selector::By::Subject),
    ("client", selector::By::Client),
    ("consumer", selector::By::Consumer),
];

async fn revoke<T>(request: &Request<T>, local: Local) -> Result<Value, Status> {
    let known = ["issuer", "issued_before", "expires_in", "reason", "request_id"];
    let words = Words::of(request, &[&BY.map(|(word, _)| word)[..], &known].concat())?;
    let said: Vec<_> = BY.iter().filter(|(word, _)| !words.text(word).is_empty()).collect();
    let [(word, by)] = said[..] else {
        let allowed = BY.map(|(word, _)| word).join(", ");
        return Err(failure::bad_field("jti", &format!("allowed: exactly one of {allowed}")));
    };
    let selector = admin::Selector { by: Some(by(words.text(word))), issuer: words.text("issuer") };
    let (expires_in, issued_before) = (words.span("expires_in")?, words.time("issued_before")?);
    let revocation = Some(admin::NewRevocation { selector: Some(selector), expires_in, issued_before });
    let (reason, request_id) = (words.text("reason"), words.text("request_id"));
    let asked = admin::RevokeTokenRequest { revocation, reason, wait: admin::WaitFor::AllLive.into(), request_id };
    let told = RevocationClient::new(local).revoke_token(asked).await?.into_inner();
    Ok(shape::write(&revocations::wrote(told)))
}
