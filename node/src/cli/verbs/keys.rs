//! `key`: API keys and Basic users. A secret is shown once, when it is made.

use quorumgate_proto::admin::v1::{self as admin, new_key::Given};
use serde_json::{Value, json};

use super::files::with_request_id;
use crate::cli::{
    args::{Form, Global, Key, KeyCreate},
    client::Client,
    failure::{Failure, Outcome},
    input,
    output::{Answer, stdout},
    shape, status,
    write::{self, Wrote},
};

const FIELDS: [&str; 10] =
    ["id", "consumer", "kind", "state", "prefix", "username", "expires_in", "scopes", "cidrs", "created_at"];
/// The last of them are for `-o wide` alone.
const WIDE: usize = 3;

pub async fn run(global: &Global, verb: Key) -> Outcome {
    let client = Client::connect(global).await?;
    let mut keys = client.keys();
    let look = || status::or_look("look with `quorumgate key get`; repeating it is safe");
    match verb {
        Key::Create(it) => create(global, &client, it).await,
        Key::Ls { consumer, limit } => {
            let consumer = consumer.map(|name| name.to_string()).unwrap_or_default();
            let request = admin::ListKeysRequest { consumer, limit, ..Default::default() };
            let answer = keys.list_keys(client.ask(request)).await?.into_inner();
            list(global, &answer)
        }
        Key::Get { id } => {
            let answer = keys.get_key(client.ask(admin::GetKeyRequest { id, stale: false })).await?.into_inner();
            let key = key(&answer.key.unwrap_or_default());
            Answer {
                header: FIELDS.to_vec(),
                rows: vec![shape::cells(&key, &FIELDS)],
                names: vec![shape::cell(&key["id"])],
                json: key,
                ..Answer::default()
            }
            .print(global.output)
        }
        Key::Rotate { id, overlap, request_id, quiet } => {
            let request_id = request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
            let overlap = Some(shape::to_proto(overlap.0));
            let request = admin::RotateKeyRequest { id: id.clone(), overlap, request_id: request_id.clone() };
            let sent = keys.rotate_key(client.ask(request)).await;
            let made = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
            shown_once(global, quiet, made, &format!("replaces {id}"))
        }
        Key::Revoke { id } => {
            let answer = keys.revoke_key(client.ask(admin::KeyRequest { id })).await.map_err(look())?.into_inner();
            write::print(global.output, Wrote::Other("key revoked, for good"), &answer)
        }
        Key::Disable { id } => {
            let answer = keys.disable_key(client.ask(admin::KeyRequest { id })).await.map_err(look())?.into_inner();
            write::print(global.output, Wrote::Other("key disabled; undo: quorumgate key enable"), &answer)
        }
        Key::Enable { id } => {
            let answer = keys.enable_key(client.ask(admin::KeyRequest { id })).await.map_err(look())?.into_inner();
            write::print(global.output, Wrote::Other("key enabled"), &answer)
        }
    }
}

async fn create(global: &Global, client: &Client, it: KeyCreate) -> Outcome {
    let given = match (&it.basic_user, &it.password_file, &it.key_file) {
        (Some(username), Some(file), _) => {
            Some(Given::Basic(admin::BasicUser { username: username.clone(), password: input::secret(file)? }))
        }
        (_, _, Some(file)) => Some(Given::Text(input::secret(file)?)),
        _ => None,
    };
    let key = admin::NewKey {
        consumer: it.consumer.to_string(),
        scopes: it.scopes,
        cidrs: it.cidrs,
        env: it.env.unwrap_or_default(),
        expires_in: it.expires.map(|span| shape::to_proto(span.0)),
        given,
    };
    let request_id = it.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
    let request = admin::CreateKeyRequest { key: Some(key), request_id: request_id.clone() };
    let sent = client.keys().create_key(client.ask(request)).await;
    let made = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
    shown_once(global, it.quiet, made, &format!("of {}", it.consumer))
}

fn shown_once(global: &Global, quiet: bool, made: admin::CreateKeyResponse, what: &str) -> Outcome {
    if quiet {
        return stdout(&format!("{}\n", if made.secret.is_empty() { &made.id } else { &made.secret }));
    }
    let (json, wrote) = (self::made(&made), wrote(&made));
    let shown = if made.secret.is_empty() { "" } else { ", its secret is shown once" };
    let undo = format!("undo: quorumgate key revoke {}", made.id);
    let notes = vec![format!("key {} {what}{shown}; {}", made.id, write::propagation("index", &wrote)), undo];
    let text = if made.secret.is_empty() { &made.id } else { &made.secret };
    let text = Some(format!("{text}\n"));
    Answer { text, names: vec![made.id], json, notes, ..Answer::default() }.print(global.output)
}

fn list(global: &Global, answer: &admin::ListKeysResponse) -> Outcome {
    let shapes: Vec<Value> = answer.keys.iter().map(key).collect();
    let more = (!answer.next_page_token.is_empty()).then(|| "there are more: --limit".to_owned());
    Answer {
        header: FIELDS.to_vec(),
        rows: shapes.iter().map(|it| shape::cells(it, &FIELDS)).collect(),
        wide_columns: WIDE,
        names: shapes.iter().map(|it| shape::cell(&it["id"])).collect(),
        json: listed(answer),
        list: Some("keys"),
        notes: more.filter(|_| matches!(global.output, Form::Table | Form::Wide)).into_iter().collect(),
        ..Answer::default()
    }
    .print(global.output)
}

fn wrote(made: &admin::CreateKeyResponse) -> admin::WriteResponse {
    let (nodes, request_id) = (made.nodes.clone(), made.request_id.clone());
    admin::WriteResponse { revision: made.revision, nodes, request_id, ..Default::default() }
}

/// The stable JSON of a new key, with its secret.
pub fn made(made: &admin::CreateKeyResponse) -> Value {
    let mut json = shape::write(&wrote(made));
    json["id"] = Value::String(made.id.clone());
    json["secret"] = shape::known(&made.secret);
    json
}

/// The stable JSON of a page.
pub fn listed(answer: &admin::ListKeysResponse) -> Value {
    let keys: Vec<Value> = answer.keys.iter().map(key).collect();
    json!({ "keys": keys, "next_page_token": shape::known(&answer.next_page_token) })
}

pub(super) fn key(it: &admin::StoredKey) -> Value {
    json!({
        "id": it.id,
        "consumer": it.consumer,
        "kind": it.kind,
        "state": it.state,
        "prefix": shape::known(&it.prefix),
        "username": shape::known(&it.username),
        "env": it.env,
        "scopes": it.scopes,
        "cidrs": it.cidrs,
        "created_at": shape::time(it.created_at.as_ref()),
        "expires_in": shape::span(it.expires_in.as_ref()),
        "replaced_by": shape::known(&it.replaced_by),
        "label": shape::known(&it.label),
    })
}
