//! `context`: the clusters that this user goes to, by name.

use serde_json::{Value, json};

use crate::cli::{
    args::{ContextVerb, Global},
    client,
    contexts::{Context, Contexts},
    failure::Outcome,
    input,
    output::Answer,
};

/// Asks no node.
pub fn run(global: &Global, verb: ContextVerb) -> Outcome {
    let mut contexts = Contexts::read()?;
    match verb {
        ContextVerb::Ls => list(global, &contexts),
        ContextVerb::Set { name } => {
            let context = Context::of(name, global)?;
            client::check(global, &context.endpoint)?;
            contexts.contexts.retain(|it| it.name != context.name);
            let note = format!("context {} is set; use it: quorumgate context use {}", context.name, context.name);
            contexts.contexts.push(context);
            contexts.contexts.sort_by(|a, b| a.name.cmp(&b.name));
            contexts.write()?;
            eprintln!("{note}");
            Ok(())
        }
        ContextVerb::Use { name } => {
            let name = contexts.find(&name)?.name.clone();
            eprintln!("context {name} is the current one");
            contexts.current = Some(name);
            contexts.write()
        }
        ContextVerb::Rm { name } => {
            let context = contexts.find(&name)?.clone();
            input::confirm(global, &format!("removes the context {} ({})", context.name, context.endpoint))?;
            contexts.contexts.retain(|it| *it != context);
            contexts.current = contexts.current.filter(|it| *it != context.name);
            contexts.write()?;
            eprintln!("context {} is removed", context.name);
            Ok(())
        }
    }
}

fn list(global: &Global, contexts: &Contexts) -> Outcome {
    let is_current = |it: &Context| contexts.current.as_ref() == Some(&it.name);
    let shapes: Vec<Value> = contexts
        .contexts
        .iter()
        .map(|it| {
            json!({
                "name": it.name, "current": is_current(it), "endpoint": it.endpoint, "ca": it.ca,
                "admin_token_file": it.admin_token_file, "client_cert": it.client_cert, "client_key": it.client_key,
            })
        })
        .collect();
    let rows = contexts.contexts.iter().map(|it| {
        let current = if is_current(it) { "*" } else { "" };
        vec![it.name.to_string(), current.to_owned(), it.endpoint.clone()]
    });
    Answer {
        header: vec!["name", "current", "endpoint"],
        rows: rows.collect(),
        names: contexts.contexts.iter().map(|it| it.name.to_string()).collect(),
        json: json!({ "contexts": shapes }),
        list: Some("contexts"),
        ..Answer::default()
    }
    .print(global.output)
}
