//! `token`: what no longer counts, and what would decide about a token.

use std::path::Path;

use quorumgate_proto::admin::v1::{self as admin, selector};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{files::with_request_id, keys};
use crate::{
    cli::{
        args::{By, Global, Token, TokenRevoke, Wait},
        client::Client,
        failure::{Failure, Outcome},
        input,
        output::Answer,
        shape,
        write::{self, Wrote},
    },
    pki,
};

const FIELDS: [&str; 6] = ["text", "expires_in", "issued_before", "reason", "actor", "time"];

pub async fn run(global: &Global, verb: Token) -> Outcome {
    match verb {
        Token::Revoke(it) => revoke(global, *it).await,
        Token::Ls { limit } => {
            let client = Client::connect(global).await?;
            let request = admin::ListRevocationsRequest { limit, ..Default::default() };
            let answer = client.revocations().list_revocations(client.ask(request)).await?.into_inner();
            let shapes: Vec<Value> = answer.revocations.iter().map(revocation).collect();
            Answer {
                header: FIELDS.to_vec(),
                rows: shapes.iter().map(|it| shape::cells(it, &FIELDS)).collect(),
                names: answer.revocations.iter().map(|it| it.text.clone()).collect(),
                notes: vec![format!("{} of {}", shapes.len(), answer.total)],
                json: listed(&answer),
                list: Some("revocations"),
                ..Answer::default()
            }
            .print(global.output)
        }
        Token::Check { token, stale } => check(global, token, stale).await,
        Token::Inspect { token, stale } => inspect(global, token, stale).await,
    }
}

async fn revoke(global: &Global, it: TokenRevoke) -> Outcome {
    let selector = admin::Selector { by: Some(by(&it.by)?), issuer: it.issuer.unwrap_or_default() };
    let revocation = admin::NewRevocation {
        selector: Some(selector),
        expires_in: it.expires_in.map(|span| shape::to_proto(span.0)),
        issued_before: it.issued_before.as_deref().map(instant).transpose()?,
    };
    let wait = match it.wait {
        Wait::AllLive => admin::WaitFor::AllLive,
        Wait::Committed => admin::WaitFor::Committed,
    };
    let request_id = it.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
    let client = Client::connect(global).await?;
    let request = admin::RevokeTokenRequest {
        revocation: Some(revocation),
        reason: it.reason,
        wait: wait.into(),
        request_id: request_id.clone(),
    };
    let sent = client.revocations().revoke_token(client.ask(request)).await;
    let told = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
    let what = if told.noop { "it was revoked before, for as long" } else { "revoked" };
    write::print(global.output, Wrote::Other(what), &wrote(told))
}

pub fn wrote(told: admin::RevokeTokenResponse) -> admin::WriteResponse {
    admin::WriteResponse {
        revision: told.revision,
        noop: told.noop,
        nodes: told.nodes,
        warnings: told.warnings,
        request_id: told.request_id,
        ..Default::default()
    }
}

/// Exit 1 if it is revoked.
async fn check(global: &Global, token: String, stale: bool) -> Outcome {
    let token = text(token)?;
    let client = Client::connect(global).await?;
    let what = Some(admin::check_token_request::What::Token(token));
    let request = admin::CheckTokenRequest { what, stale };
    let answer = client.revocations().check_token(client.ask(request)).await?.into_inner();
    let entries: Vec<Value> = answer.entries.iter().map(revocation).collect();
    let mut lines: Vec<String> = answer.entries.iter().map(|it| format!("revoked by {}\n", it.text)).collect();
    lines.extend(answer.key.as_ref().map(|it| format!("key {} of {} is {}\n", it.id, it.consumer, it.state)));
    if !answer.revoked {
        lines.push("not revoked\n".to_owned());
    }
    Answer {
        text: Some(lines.concat()),
        names: answer.entries.iter().map(|it| it.text.clone()).collect(),
        json: json!({
            "revoked": answer.revoked, "entries": entries,
            "key": answer.key.as_ref().map_or(Value::Null, keys::key),
        }),
        list: Some("entries"),
        ..Answer::default()
    }
    .print(global.output)?;
    if answer.revoked { Err(Failure::negative()) } else { Ok(()) }
}

async fn inspect(global: &Global, token: String, stale: bool) -> Outcome {
    let token = text(token)?;
    let client = Client::connect(global).await?;
    let request = client.ask(admin::InspectTokenRequest { token, stale });
    let answer = client.revocations().inspect_token(request).await?.into_inner();
    let parsed = |json: &str| serde_json::from_str::<Value>(json).unwrap_or(Value::Null);
    let findings = answer.findings.iter();
    let shapes = findings.clone().map(|it| json!({ "check": it.check, "good": it.good, "detail": it.detail }));
    let shapes: Vec<Value> = shapes.collect();
    let row = |it: &admin::inspect_token_response::Finding| {
        vec![(if it.good { "√" } else { "×" }).to_owned(), it.check.clone(), it.detail.clone()]
    };
    Answer {
        header: vec!["good", "check", "detail"],
        rows: findings.map(row).collect(),
        names: answer.auths.clone(),
        json: json!({
            "kind": answer.kind,
            "header": parsed(&answer.jwt_header),
            "claims": parsed(&answer.claims),
            "auths": answer.auths,
            "findings": shapes,
            "entries": answer.entries.iter().map(revocation).collect::<Vec<_>>(),
            "key": answer.key.as_ref().map_or(Value::Null, keys::key),
        }),
        list: Some("findings"),
        ..Answer::default()
    }
    .print(global.output)
}

/// The stable JSON of a page.
pub fn listed(answer: &admin::ListRevocationsResponse) -> Value {
    let revocations: Vec<Value> = answer.revocations.iter().map(revocation).collect();
    let more = shape::known(&answer.next_page_token);
    json!({ "revocations": revocations, "total": answer.total, "next_page_token": more })
}

fn revocation(it: &admin::StoredRevocation) -> Value {
    json!({
        "text": it.text,
        "reason": shape::known(&it.reason),
        "actor": it.actor,
        "revision": it.revision,
        "time": shape::time(it.time.as_ref()),
        "issued_before": shape::time(it.issued_before.as_ref()),
        "expires_in": shape::span(it.expires_in.as_ref()),
    })
}

/// As given, or from standard input.
fn text(token: String) -> Outcome<String> {
    match token.as_str() {
        "-" => input::secret(Path::new("-")),
        _ => Ok(token),
    }
}

fn by(it: &By) -> Outcome<selector::By> {
    let words = [
        (&it.jti, selector::By::Jti as fn(String) -> selector::By),
        (&it.subject, selector::By::Subject),
        (&it.sid, selector::By::Sid),
        (&it.client, selector::By::Client),
        (&it.consumer, selector::By::Consumer),
        (&it.credential, selector::By::Credential),
        (&it.kid, selector::By::Kid),
    ];
    if let Some((text, by)) = words.into_iter().find_map(|(text, by)| text.clone().map(|text| (text, by))) {
        return Ok(by(text));
    }
    if let Some(hex) = &it.sha256 {
        let wrong = |_| Failure::usage(format!("--sha256: found {hex:?}; allowed: 64 hex digits"));
        return Ok(selector::By::Sha256(data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(wrong)?));
    }
    if let Some(file) = &it.certificate {
        return certificate(file, |it| {
            let issuer_sha256 = pki::sha256(it.tbs_certificate.issuer.as_raw()).to_vec();
            let serial = it.tbs_certificate.serial.to_bytes_be();
            selector::By::CertificateSerial(admin::CertificateSerial { issuer_sha256, serial })
        });
    }
    match &it.certificate_key {
        Some(file) => certificate(file, |it| selector::By::CertificateKey(pki::sha256(it.public_key().raw).to_vec())),
        None => Err(Failure::usage("nothing says what to revoke").help("add --jti, --subject, --consumer or another")),
    }
}

fn certificate<T>(file: &Path, take: impl Fn(&x509_parser::certificate::X509Certificate<'_>) -> T) -> Outcome<T> {
    let wrong = |error: String| Failure::usage(format!("{}: {error}", file.display()));
    let der = CertificateDer::from_pem_file(file).map_err(|error| wrong(error.to_string()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| wrong(error.to_string()))?;
    Ok(take(&parsed))
}

/// `now`, RFC 3339, or seconds since 1970.
fn instant(text: &str) -> Outcome<prost_types::Timestamp> {
    let at = match (text, text.parse::<i64>()) {
        ("now", _) => Some(OffsetDateTime::now_utc()),
        (_, Ok(seconds)) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        _ => OffsetDateTime::parse(text, &Rfc3339).ok(),
    };
    let wrong = || {
        Failure::usage(format!("--issued-before: found {text:?}; allowed: now, or a time such as 2026-11-24T10:00:00Z"))
    };
    let at = at.ok_or_else(wrong)?;
    Ok(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond() as i32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_now_a_time_or_seconds() {
        assert_eq!(instant("2026-11-24T10:00:00Z").unwrap().seconds, 1_795_514_400);
        assert_eq!(instant("1795514400").unwrap().seconds, 1_795_514_400);
        assert!(instant("now").unwrap().seconds > 1_700_000_000);
        assert!(instant("yesterday").unwrap_err().to_string().contains("allowed: now"));
    }
}
