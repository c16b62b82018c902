//! `limit usage`, `reset` and `grant`: what is used over all nodes, what is forgiven, what is given.

use std::collections::BTreeMap;

use quorumgate_model::resource::Kind;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use super::{files::with_request_id, objects};
use crate::{
    cli::{
        args::{Form, Global, LimitGrant, LimitReset, LimitUsage, LimitVerb, ObjectVerb, UsageBy},
        client::Client,
        failure::{Failure, Outcome},
        output::{self, Answer},
        shape,
        write::{self, Wrote},
    },
    usage::KEYS_MAX,
};

pub async fn run(global: &Global, verb: LimitVerb) -> Outcome {
    match verb {
        LimitVerb::Ls(it) => objects::of_kind(global, Kind::Limit, ObjectVerb::Ls(it)).await,
        LimitVerb::Get { name } => objects::of_kind(global, Kind::Limit, ObjectVerb::Get { name }).await,
        LimitVerb::Set(it) => objects::of_kind(global, Kind::Limit, ObjectVerb::Set(it)).await,
        LimitVerb::Rm(it) => objects::of_kind(global, Kind::Limit, ObjectVerb::Rm(it)).await,
        LimitVerb::Usage(it) => usage(global, &it).await,
        LimitVerb::Reset(it) => reset(global, it).await,
        LimitVerb::Grant(it) => grant(global, it).await,
    }
}

async fn usage(global: &Global, verb: &LimitUsage) -> Outcome {
    let client = Client::connect(global).await?;
    loop {
        let request = client.ask(admin::GetUsageRequest {
            limit: verb.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            key: verb.key.clone(),
            top: top(verb),
        });
        let answer = client.limit_usage().get_usage(request).await?.into_inner();
        let shown = match (&verb.name, answer.limits.first()) {
            (Some(_), Some(limit)) => one(limit, verb, &answer.unanswered),
            _ => all(&answer),
        };
        if !verb.watch {
            return shown.print(global.output);
        }
        match global.output {
            // One object a line, so that a reader can follow.
            Form::Json | Form::Jsonl => output::stdout(&format!("{}\n", shown.json))?,
            form => {
                shown.print(form)?;
                output::stdout("\n")?;
            }
        }
        tokio::time::sleep(verb.every.0).await;
    }
}

/// Sums are of as many keys as a node tells of.
fn top(verb: &LimitUsage) -> u32 {
    match (&verb.name, verb.by) {
        (Some(_), Some(_)) => KEYS_MAX as u32,
        (Some(_), None) => verb.top,
        (None, _) => verb.top.min(100),
    }
}

/// The stable JSON of one limit, with the nodes that gave no answer.
pub fn used(answer: &admin::GetUsageResponse) -> Value {
    let mut json = answer.limits.first().map_or(Value::Null, limit_json);
    json["unanswered"] = json!(answer.unanswered);
    json
}

pub fn used_of_all(answer: &admin::GetUsageResponse) -> Value {
    let limits: Vec<Value> = answer.limits.iter().map(limit_json).collect();
    json!({ "limits": limits, "unanswered": answer.unanswered })
}

/// Every limit in short.
fn all(answer: &admin::GetUsageResponse) -> Answer {
    let row = |it: &admin::LimitReport| {
        let most = it.keys.first();
        let sum = |take: fn(&admin::NodeDecisions) -> u64| it.decisions.iter().map(take).sum::<u64>().to_string();
        vec![
            it.limit.clone(),
            it.kind.clone(),
            it.mode.clone(),
            most.map_or_else(|| "-".into(), |key| format!("{} of {}", key.used, key.limit)),
            most.map_or_else(|| "-".into(), |key| key_cell(&key.key)),
            it.ledger_keys.to_string(),
            sum(|it| it.admitted),
            sum(|it| it.refused),
            sum(|it| it.let_through),
        ]
    };
    Answer {
        header: vec!["limit", "kind", "mode", "most used", "key", "ledger keys", "admitted", "refused", "let through"],
        rows: answer.limits.iter().map(row).collect(),
        names: answer.limits.iter().map(|it| it.limit.clone()).collect(),
        notes: unanswered(&answer.unanswered),
        json: used_of_all(answer),
        list: Some("limits"),
        ..Answer::default()
    }
}

fn one(limit: &admin::LimitReport, verb: &LimitUsage, silent: &[String]) -> Answer {
    let mut json = limit_json(limit);
    json["unanswered"] = json!(silent);
    let names = limit.keys.iter().map(|it| it.key.clone()).collect();
    let mut notes = unanswered(silent);
    if !limit.broken.is_empty() {
        notes.push(format!("the ledger lends no more of it until it is edited: {}", limit.broken));
    }
    if limit.soft {
        let through: u64 = limit.decisions.iter().map(|it| it.let_through).sum();
        notes.push(format!("a soft limit: {through} requests beyond it were let through"));
    }
    if verb.by.is_some() && limit.keys.len() >= KEYS_MAX {
        notes.push(format!("added up are {KEYS_MAX} of its keys; there may be more"));
    }
    let answer = Answer { names, notes, ..Answer::default() };
    if let Some(by) = verb.by {
        let groups = groups(limit, by);
        let word = by_word(by);
        json["by"] = json!(word);
        let shown = |(name, (used, held)): (&String, &(u64, u64))| json!({ "name": name, "used": used, "held": held });
        json["groups"] = groups.iter().map(shown).collect();
        let row =
            |(name, (used, held)): (String, (u64, u64))| vec![key_cell(&name), used.to_string(), held.to_string()];
        let rows = groups.into_iter().map(row).collect();
        return Answer { header: vec![word, "used", "held"], rows, list: Some("groups"), json, ..answer };
    }
    if verb.key.is_some() {
        let text = limit.keys.iter().map(|key| inspected(limit, key)).collect();
        return Answer { text: Some(text), list: Some("keys"), json, ..answer };
    }
    let row = |it: &admin::KeyUsage| {
        let held: Vec<String> = it.held.iter().map(|(node, held)| format!("{node} {held}")).collect();
        vec![
            key_cell(&it.key),
            it.used.to_string(),
            it.limit.to_string(),
            it.resets_in.as_ref().map_or_else(|| "-".into(), shape::words),
            held.join(", "),
            it.bonus.to_string(),
            it.quarantined.to_string(),
        ]
    };
    Answer {
        header: vec!["key", "used", "limit", "resets in", "held", "bonus", "quarantined"],
        wide_columns: 2,
        rows: limit.keys.iter().map(row).collect(),
        list: Some("keys"),
        json,
        ..answer
    }
}

/// Used and held, by name. Where a limit is per consumer among others, a key's first part that says so.
fn groups(limit: &admin::LimitReport, by: UsageBy) -> BTreeMap<String, (u64, u64)> {
    let mut groups: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut add = |name: String, used: u64, held: u64| {
        let group = groups.entry(name).or_default();
        *group = (group.0 + used, group.1 + held);
    };
    let place = limit.per.iter().position(|it| it == "consumer");
    for key in &limit.keys {
        match by {
            UsageBy::Consumer => {
                let parts = parts(&key.key, limit.per.len());
                let name = place.and_then(|place| parts.get(place).cloned()).unwrap_or_default();
                add(name, key.used, key.held.values().sum());
            }
            UsageBy::Region => key.nodes.iter().for_each(|it| add(it.region.clone(), it.used, it.held)),
            UsageBy::Node => key.nodes.iter().for_each(|it| add(it.node.clone(), it.used, it.held)),
        }
        // What is between two nodes was used, and is of neither.
        if by != UsageBy::Consumer && key.coming_home > 0 {
            add("(between nodes)".into(), key.coming_home, 0);
        }
    }
    groups
}

/// `a|b`, where a part has `\|` for a bar of its own.
fn parts(key: &str, count: usize) -> Vec<String> {
    if count <= 1 {
        return vec![key.to_owned()];
    }
    let mut parts = vec![String::new()];
    let mut chars = key.chars();
    while let Some(char) = chars.next() {
        let last = parts.last_mut().expect("it begins with one");
        match char {
            '\\' => last.extend(chars.next()),
            '|' => parts.push(String::new()),
            char => last.push(char),
        }
    }
    parts
}

fn by_word(by: UsageBy) -> &'static str {
    match by {
        UsageBy::Region => "region",
        UsageBy::Consumer => "consumer",
        UsageBy::Node => "node",
    }
}

/// One key in full.
fn inspected(limit: &admin::LimitReport, key: &admin::KeyUsage) -> String {
    let mut text = format!("limit {}, key {}: {} of {} used", limit.limit, key_cell(&key.key), key.used, key.limit);
    if let Some(resets_in) = &key.resets_in {
        text += &format!(", all of it free again in {}", shape::words(resets_in));
    }
    text += "\n";
    if key.bonus > 0 {
        let ends =
            key.bonus_ends_in.as_ref().map_or_else(String::new, |it| format!(", until {} from now", shape::words(it)));
        text += &format!("  a bonus of {}{ends}\n", key.bonus);
    }
    text += match key.in_ledger {
        true => "  in the ledger: some node has outgrown its standing share\n",
        false => "  not in the ledger: every node goes by its standing share\n",
    };
    for node in &key.nodes {
        let demand = if node.demand > 0.0 { format!(", asks for {:.0} a window", node.demand) } else { String::new() };
        text += &format!("  {} ({}) holds {}, {} of them used{demand}\n", node.node, node.region, node.held, node.used);
    }
    for (count, what) in [
        (key.coming_home, "used, between two nodes"),
        (key.free, "free, and held by nobody"),
        (key.quarantined, "in quarantine: a node that held them is gone"),
    ] {
        if count > 0 {
            text += &format!("  {count} {what}\n");
        }
    }
    text
}

fn key_cell(key: &str) -> String {
    match key {
        "" => "(none)".to_owned(),
        key => key.escape_debug().to_string(),
    }
}

fn unanswered(silent: &[String]) -> Vec<String> {
    match silent {
        [] => Vec::new(),
        silent => vec![format!("no answer from {}: what was used there is missing", silent.join(", "))],
    }
}

fn limit_json(it: &admin::LimitReport) -> Value {
    let decisions: Vec<Value> = it
        .decisions
        .iter()
        .map(|it| {
            json!({
                "node": it.node, "admitted": it.admitted, "refused": it.refused, "let_through": it.let_through,
                "unavailable": it.unavailable, "waited": it.waited,
            })
        })
        .collect();
    json!({
        "limit": it.limit,
        "kind": it.kind,
        "mode": it.mode,
        "per": it.per,
        "soft": it.soft,
        "broken": shape::known(&it.broken),
        "budget": it.budget,
        "window": shape::span(it.window.as_ref()),
        "ledger_keys": it.ledger_keys,
        "keys": it.keys.iter().map(key_json).collect::<Vec<_>>(),
        "decisions": decisions,
    })
}

fn key_json(it: &admin::KeyUsage) -> Value {
    let nodes: Vec<Value> = it
        .nodes
        .iter()
        .map(
            |it| json!({ "node": it.node, "region": it.region, "held": it.held, "used": it.used, "demand": it.demand }),
        )
        .collect();
    json!({
        "key": it.key,
        "used": it.used,
        "limit": it.limit,
        "held": it.held,
        "resets_in": shape::span(it.resets_in.as_ref()),
        "bonus": it.bonus,
        "bonus_ends_in": shape::span(it.bonus_ends_in.as_ref()),
        "quarantined": it.quarantined,
        "coming_home": it.coming_home,
        "free": it.free,
        "in_ledger": it.in_ledger,
        "nodes": nodes,
    })
}

async fn reset(global: &Global, verb: LimitReset) -> Outcome {
    let client = Client::connect(global).await?;
    let request_id = verb.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
    let request = admin::ResetUsageRequest {
        limit: verb.name.to_string(),
        key: verb.key,
        message: verb.message,
        request_id: request_id.clone(),
    };
    let sent = client.limit_usage().reset_usage(client.ask(request)).await;
    let answer = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
    write::print(global.output, Wrote::Other("what was used counts no more"), &answer)
}

async fn grant(global: &Global, verb: LimitGrant) -> Outcome {
    let client = Client::connect(global).await?;
    let request_id = verb.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
    let request = admin::GrantBonusRequest {
        limit: verb.name.to_string(),
        key: verb.key,
        amount: verb.amount,
        lasts: verb.lasts.map(|it| shape::to_proto(it.0)),
        message: verb.message,
        request_id: request_id.clone(),
    };
    let sent = client.limit_usage().grant_bonus(client.ask(request)).await;
    let answer = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
    write::print(global.output, Wrote::Other("the bonus is given"), &answer)
}

#[cfg(test)]
mod tests {
    use quorumgate_model::units::Span;

    use super::*;

    #[test]
    fn a_key_of_several_parts_is_taken_apart() {
        assert_eq!(parts("a|b", 1), ["a|b"]);
        assert_eq!(parts("acme|orders", 2), ["acme", "orders"]);
        assert_eq!(parts("a\\|b\\\\|orders", 2), ["a|b\\", "orders"]);
        assert_eq!(parts("|orders", 2), ["", "orders"]);
    }

    #[test]
    fn one_limit_has_the_fields_that_scripts_read() {
        let key = admin::KeyUsage {
            key: "acme".into(),
            used: 37,
            limit: 100,
            held: [("n1".to_owned(), 40)].into(),
            resets_in: Some(prost_types::Duration { seconds: 42, nanos: 0 }),
            ..Default::default()
        };
        let report = admin::LimitReport { limit: "free".into(), keys: vec![key], ..Default::default() };
        let json = limit_json(&report);
        assert_eq!(json["limit"], "free");
        let key = &json["keys"][0];
        assert_eq!((&key["key"], &key["used"], &key["limit"]), (&json!("acme"), &json!(37), &json!(100)));
        assert_eq!((&key["held"], &key["resets_in"]), (&json!({"n1": 40}), &json!("42s")));
    }

    #[test]
    fn sums_are_of_all_keys_that_are_told_and_say_where_there_may_be_more() {
        let mut verb = LimitUsage {
            name: Some("free".parse().unwrap()),
            key: None,
            by: Some(UsageBy::Node),
            top: 20,
            watch: false,
            every: Span::secs(1),
        };
        assert_eq!(top(&verb), 1_000);
        let notes = |count: usize, verb: &LimitUsage| {
            let keys = vec![admin::KeyUsage::default(); count];
            one(&admin::LimitReport { keys, ..Default::default() }, verb, &[]).notes.len()
        };
        assert_eq!((notes(999, &verb), notes(1_000, &verb)), (0, 1));
        verb.by = None;
        assert_eq!((top(&verb), notes(1_000, &verb)), (20, 0));
    }

    #[test]
    fn usage_adds_up_by_region_node_and_consumer() {
        let node = |node: &str, region: &str, used| admin::NodeUsage {
            node: node.into(),
            region: region.into(),
            used,
            held: 2 * used,
            ..Default::default()
        };
        let key = |text: &str| admin::KeyUsage {
            key: text.into(),
            used: 6,
            coming_home: 1,
            held: [("n1".to_owned(), 4), ("n2".to_owned(), 6)].into(),
            nodes: vec![node("n1", "eu", 2), node("n2", "eu", 3)],
            ..Default::default()
        };
        let per = vec!["route".to_owned(), "consumer".to_owned()];
        let report = admin::LimitReport { keys: vec![key("r|acme"), key("s|acme")], per, ..Default::default() };
        let named = |text: &str, used, held| (text.to_owned(), (used, held));
        assert_eq!(groups(&report, UsageBy::Consumer), [named("acme", 12, 20)].into());
        assert_eq!(groups(&report, UsageBy::Region), [named("(between nodes)", 2, 0), named("eu", 10, 20)].into());
        let by_node = [named("(between nodes)", 2, 0), named("n1", 4, 8), named("n2", 6, 12)];
        assert_eq!(groups(&report, UsageBy::Node), by_node.into());
    }
}
