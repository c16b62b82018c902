//! The verbs about configuration files: apply, diff, export, validate, fmt, confirm and abort.

use std::path::PathBuf;

use quorumgate_model::{
    convert,
    resource::{Kind, Resource},
};
use quorumgate_proto::admin::v1::{
    AbortTrialRequest, ApplyConfigRequest, Change, ConfirmTrialRequest, GetConfigRequest, WriteResponse, change::Action,
};
use serde_json::json;
use tonic::Status;

use crate::cli::{
    args::{Apply, Diff, Export, Files, Fmt, Form, Global, Prune, Trial, WriteNote},
    client::Client,
    config::{self, Config, canonical, source},
    diff,
    failure::{Exit, Failure, Outcome, Problem},
    input,
    output::{Answer, stdout},
    shape, status,
    write::{self, Wrote},
};

pub async fn apply(global: &Global, verb: Apply) -> Outcome {
    let config = config::load(&verb.files.files)?;
    let client = Client::connect(global).await?;
    let mut request = request(&config, &verb.prune, &verb.note);
    request.trial = verb.trial.map(|it| shape::to_proto(it.0));
    if verb.prune.prune && !verb.dry_run && !global.yes {
        preview_deletions(global, &client, &config, &request).await?;
    }
    request.validate_only = verb.dry_run;
    let answer = send(&client, &config, request).await?;
    if verb.dry_run {
        return print_diff(global, &answer);
    }
    write::print(global.output, Wrote::Resources, &answer)
}

pub async fn diff(global: &Global, verb: Diff) -> Outcome {
    let config = config::load(&verb.files.files)?;
    let client = Client::connect(global).await?;
    let note = WriteNote { message: String::new(), if_revision: None, request_id: None };
    let mut request = request(&config, &verb.prune, &note);
    request.validate_only = true;
    let answer = send(&client, &config, request).await?;
    print_diff(global, &answer)?;
    match verb.exit_code && !answer.changes.is_empty() {
        true => Err(Failure::negative()),
        false => Ok(()),
    }
}

fn request(config: &Config, prune: &Prune, note: &WriteNote) -> ApplyConfigRequest {
    ApplyConfigRequest {
        config: Some(config.message()),
        prune: prune.prune,
        owner: prune.owner.clone().unwrap_or_default(),
        expected_revision: note.if_revision,
        request_id: note.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string(),
        message: note.message.clone(),
        ..ApplyConfigRequest::default()
    }
}

async fn send(client: &Client, config: &Config, request: ApplyConfigRequest) -> Outcome<WriteResponse> {
    let id = request.request_id.clone();
    let sent = client.config().apply_config(client.ask(request)).await;
    Ok(sent.map_err(|status| located(config, status, &id))?.into_inner())
}

/// The server's complaints, at their lines; and the request id where a repeat needs it.
fn located(config: &Config, status: Status, request_id: &str) -> Failure {
    let complaints = status::violations(&status);
    let failure = config.locate(Failure::from(status), &complaints);
    of_write(failure, request_id)
}

/// Of a write of resources: what conflicts there was made for another revision.
pub fn of_write(failure: Failure, request_id: &str) -> Failure {
    match failure.problems.last() {
        Some(last) if failure.exit == Exit::Conflict && last.code == "conflict" => {
            failure.help("somebody else was faster: look at the newest revision and try again")
        }
        _ => with_request_id(failure, request_id),
    }
}

/// After an unknown outcome the same request may be repeated, and it happens once.
pub fn with_request_id(failure: Failure, request_id: &str) -> Failure {
    match failure.exit {
        Exit::Deadline => failure
            .help(format!("look with `quorumgate audit ls`, or repeat the command with --request-id {request_id}")),
        _ => failure,
    }
}

async fn preview_deletions(global: &Global, client: &Client, config: &Config, request: &ApplyConfigRequest) -> Outcome {
    let mut rehearsal = request.clone();
    rehearsal.validate_only = true;
    rehearsal.request_id = uuid::Uuid::new_v4().to_string();
    rehearsal.trial = None;
    let answer = send(client, config, rehearsal).await?;
    let gone: Vec<String> = answer.changes.iter().filter(|it| it.action() == Action::Deleted).map(key).collect();
    match gone.is_empty() {
        true => Ok(()),
        false => input::confirm(global, &format!("--prune deletes {}: {}", gone.len(), gone.join(", "))),
    }
}

fn key(change: &Change) -> String {
    format!("{}/{}", shape::kind(change.kind), change.name)
}

fn print_diff(global: &Global, answer: &WriteResponse) -> Outcome {
    Answer {
        text: Some(diff::text(&answer.changes)?),
        json: shape::write(answer),
        names: answer.changes.iter().map(key).collect(),
        notes: answer.warnings.iter().map(|it| format!("warning: {it}")).collect(),
        ..Answer::default()
    }
    .print(global.output)
}

/// A trial ends once.
const ENDED: &str = "look with `quorumgate history`: the revision is on trial, or is not; repeating it is safe";

pub async fn confirm(global: &Global, verb: Trial) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(ConfirmTrialRequest { revision: verb.revision.unwrap_or_default() });
    let answer = client.config().confirm_trial(request).await.map_err(status::or_look(ENDED))?.into_inner();
    write::print(global.output, Wrote::Other("the change stays"), &answer)
}

pub async fn abort(global: &Global, verb: Trial) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(AbortTrialRequest { revision: verb.revision.unwrap_or_default() });
    let answer = client.config().abort_trial(request).await.map_err(status::or_look(ENDED))?.into_inner();
    write::print(global.output, Wrote::Other("the change is undone"), &answer)
}

pub async fn export(global: &Global, verb: Export) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(GetConfigRequest { revision: verb.revision, stale: verb.stale });
    let answer = client.config().get_config(request).await?.into_inner();
    let resources = convert::config_from(answer.config.unwrap_or_default()).map_err(Failure::internal)?;
    print_file(global, &resources)
}

/// The file itself, which is YAML unless JSON is asked for.
pub fn print_file(global: &Global, resources: &[Resource]) -> Outcome {
    let file = canonical::file(resources.iter())?;
    let mut json = json!({});
    for kind in Kind::ALL {
        let ours = resources.iter().filter(|it| it.kind() == kind);
        json[kind.list()] = ours.map(canonical::complete).collect::<Outcome<Vec<_>>>()?.into();
    }
    let names = resources.iter().map(|it| it.key().to_string()).collect();
    Answer { text: Some(file.clone()), yaml: Some(file), json, names, ..Answer::default() }.print(global.output)
}

pub fn validate(global: &Global, verb: &Files) -> Outcome {
    let config = config::load(&verb.files)?;
    config.check_together()?;
    let count = config.resources().count();
    Answer {
        text: Some(format!("ok: {count} objects\n")),
        json: json!({ "valid": true, "objects": count }),
        names: config.resources().map(|it| it.key().to_string()).collect(),
        ..Answer::default()
    }
    .print(global.output)
}

pub fn fmt(global: &Global, verb: &Fmt) -> Outcome {
    let mut untidy = Vec::new();
    for source in source::read(&verb.files.files)? {
        let config = Config::parse(vec![source.clone()])?;
        let canonical = config.canonical()?;
        if source.text != canonical {
            untidy.push(source.name.clone());
        }
        match (&source.path, verb.write, verb.check) {
            (_, _, true) => {}
            (Some(path), true, _) => rewrite(path, &source.text, &canonical)?,
            _ if global.output == Form::Json => print_file(global, &config.resources().cloned().collect::<Vec<_>>())?,
            _ => stdout(&canonical)?,
        }
    }
    match verb.check && !untidy.is_empty() {
        true => {
            let problem = |name: &String| Problem {
                code: "negative".into(),
                message: format!("{name} is not in its canonical form"),
                place: String::new(),
                help: format!("quorumgate fmt --write -f {name}"),
            };
            Err(Failure { problems: untidy.iter().map(problem).collect(), ..Failure::negative() })
        }
        false => Ok(()),
    }
}

fn rewrite(path: &PathBuf, before: &str, after: &str) -> Outcome {
    if before == after {
        return Ok(());
    }
    std::fs::write(path, after).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    eprintln!("rewrote {}", path.display());
    Ok(())
}
