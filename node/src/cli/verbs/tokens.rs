//! `join-token` and `admin-token`: secrets are shown once, when they are made.

use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use crate::cli::{
    args::{AdminToken, Form, Global, JoinToken},
    client::Client,
    failure::Outcome,
    output::{Answer, stdout},
    shape, status,
    write::{self, Wrote},
};

/// A second removal says that there is none.
const REMOVED: &str = "repeating it is safe: one that is gone is not found";

pub async fn join(global: &Global, verb: JoinToken) -> Outcome {
    let client = Client::connect(global).await?;
    let mut cluster = client.cluster();
    match verb {
        JoinToken::Create { role, ttl, uses, quiet } => {
            let ttl = Some(shape::to_proto(ttl.0));
            let request = admin::CreateJoinTokenRequest { role: role.word().into(), ttl, uses };
            let made = cluster
                .create_join_token(client.ask(request))
                .await
                .map_err(status::or_look("a token that nobody was shown runs out by itself: create another one"))?
                .into_inner();
            let json = json!({
                "id": made.id, "token": made.token, "role": role.word(), "uses": uses,
                "ttl": shape::span(made.ttl.as_ref()), "revision": made.revision,
            });
            let note = format!("token {} is shown once; undo: quorumgate join-token rm {}", made.id, made.id);
            shown_once(global, quiet, &made.token, &made.id, json, note)
        }
        JoinToken::Ls => {
            let tokens =
                cluster.list_join_tokens(client.ask(admin::ListJoinTokensRequest {})).await?.into_inner().tokens;
            let shapes = tokens.iter().map(|it| {
                json!({
                    "id": it.id, "role": it.role, "uses_left": it.uses_left,
                    "expires_in": shape::span(it.expires_in.as_ref()), "state": it.state,
                })
            });
            list(global, &["id", "role", "uses_left", "expires_in", "state"], shapes.collect())
        }
        JoinToken::Rm { id } => {
            let answer = cluster
                .remove_join_token(client.ask(admin::RemoveJoinTokenRequest { id }))
                .await
                .map_err(status::or_look(REMOVED))?
                .into_inner();
            write::print(global.output, Wrote::Other("join token removed"), &answer)
        }
    }
}

pub async fn admin(global: &Global, verb: AdminToken) -> Outcome {
    let client = Client::connect(global).await?;
    let mut cluster = client.cluster();
    match verb {
        AdminToken::Create { name, role, owner, ttl, quiet } => {
            let owner = owner.unwrap_or_default();
            let request = admin::CreateAdminTokenRequest {
                name: name.to_string(),
                role: role.word().into(),
                owner: owner.clone(),
                ttl: Some(shape::to_proto(ttl.0)),
            };
            let made = cluster
                .create_admin_token(client.ask(request))
                .await
                .map_err(status::or_look(&format!(
                    "if `quorumgate admin-token ls` has it, nobody was shown its secret: quorumgate admin-token rm {name}, and \
                     create it anew"
                )))?
                .into_inner();
            let json = json!({
                "name": made.name, "token": made.token, "role": role.word(), "owner": shape::known(&owner),
                "ttl": ttl.to_string(), "revision": made.revision,
            });
            let note = format!("token {name} is shown once; undo: quorumgate admin-token rm {name}");
            shown_once(global, quiet, &made.token, &made.name, json, note)
        }
        AdminToken::Ls => {
            let tokens =
                cluster.list_admin_tokens(client.ask(admin::ListAdminTokensRequest {})).await?.into_inner().tokens;
            let shapes = tokens.iter().map(|it| {
                json!({
                    "name": it.name, "role": it.role, "owner": shape::known(&it.owner),
                    "expires_in": shape::span(it.expires_in.as_ref()), "state": it.state,
                })
            });
            list(global, &["name", "role", "owner", "expires_in", "state"], shapes.collect())
        }
        AdminToken::Rm { name } => {
            let request = client.ask(admin::RemoveAdminTokenRequest { name });
            let answer = cluster.remove_admin_token(request).await.map_err(status::or_look(REMOVED))?.into_inner();
            write::print(global.output, Wrote::Other("admin token removed"), &answer)
        }
    }
}

fn shown_once(global: &Global, quiet: bool, token: &str, name: &str, json: Value, note: String) -> Outcome {
    if quiet {
        return stdout(&format!("{token}\n"));
    }
    let notes = match global.output {
        Form::Table | Form::Wide => vec![note],
        _ => Vec::new(),
    };
    Answer { text: Some(format!("{token}\n")), names: vec![name.to_owned()], json, notes, ..Answer::default() }
        .print(global.output)
}

fn list(global: &Global, fields: &[&'static str], shapes: Vec<Value>) -> Outcome {
    Answer {
        header: fields.to_vec(),
        rows: shapes.iter().map(|it| shape::cells(it, fields)).collect(),
        names: shapes.iter().map(|it| shape::cell(&it[fields[0]])).collect(),
        json: json!({ "tokens": shapes }),
        list: Some("tokens"),
        ..Answer::default()
    }
    .print(global.output)
}
