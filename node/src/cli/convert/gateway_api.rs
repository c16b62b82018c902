//! Manifests of the Kubernetes Gateway API, by the translation that the controller has (`quorumgate_kubernetes`). What a
//! cluster would add to them, files do not have: classes of ours, endpoints, secrets; those are made up here and told.

mod manifests;

use std::collections::{BTreeMap, BTreeSet};

use quorumgate_kubernetes::{
    api::{Id, Kind as Theirs},
    conditions::{ACCEPTED, Condition, RESOLVED_REFS, Status},
    snapshot::Snapshot,
    translate::{Origin, Refusals, Settings, Translation, translate},
};
use quorumgate_model::{convert, resource::Kind};
use serde_json::{Map, Value as Json, json};

use self::manifests::Manifests;
use super::{
    effects::CLOSED,
    out::{Draft, Out},
    reader::Item,
};
use crate::cli::{
    config::canonical,
    failure::{Failure, Outcome},
};

/// Rules are reduced one by one until the translation takes them.
const TURNS_MAX: usize = 100;
/// From this turn on, all rules of a route at once.
const SINGLE_TURNS_MAX: usize = 30;
/// How far a rule is reduced: as it is, its matches alone, of those the paths alone, nothing but its hosts, not at all.
const MATCHES_ALONE: u8 = 1;
const PATHS_ALONE: u8 = 2;
const HOSTS_ALONE: u8 = 3;
const GONE: u8 = 4;
/// What is left of a match that has lost something.
const PATH_FIELDS: [&str; 2] = ["path", "method"];
/// A header that such matches have until they are translated: else they would be those of an older route that lets in.
const MARK: &str = "x-not-converted";

/// A rule of a route.
type Rule = (Theirs, Id, usize);

struct Reduced {
    /// How far, by rule; a rule that is in it is closed.
    levels: BTreeMap<Rule, u8>,
}

pub fn convert<'d>(documents: &[Item<'d>], out: &mut Out<'d>) -> Outcome {
    let manifests = Manifests::read(documents)?;
    let mut reduced = Reduced { levels: BTreeMap::new() };
    let settings = Settings { bind: [0, 0, 0, 0].into(), ports: BTreeMap::new(), service: None };
    let mut translation = Translation::default();
    let mut is_done = false;
    for turn in 0..TURNS_MAX {
        let snapshot = reduced.snapshot(&manifests)?;
        translation = translate(&snapshot, &settings, &Refusals::new());
        if !reduced.further(&translation, &manifests, turn < SINGLE_TURNS_MAX) {
            is_done = true;
            break;
        }
    }
    if !is_done {
        return Err(manifests.anything().wrong("routes whose rules are understood, or fewer that are not"));
    }
    tell(&translation, &manifests);
    for (origin, object) in &translation.objects {
        let resource = convert::resource_from(object.clone()).map_err(Failure::internal)?;
        let Json::Object(mut words) = canonical::words(&resource)? else { continue };
        // The controller replaces what is its own; this is the operator's from now on.
        words.shift_remove("owner");
        put(origin, resource.kind(), words, &manifests, &reduced, out);
    }
    Ok(())
}

fn put<'d>(
    origin: &Origin,
    kind: Kind,
    mut words: Map<String, Json>,
    manifests: &Manifests<'d>,
    reduced: &Reduced,
    out: &mut Out<'d>,
) {
    let name = words.get("name").and_then(Json::as_str).unwrap_or_default().to_owned();
    match origin {
        Origin::Secret(id) if manifests.made_up.contains(&(Theirs::Secret, id.clone())) => {
            manifests.anything().left_out(format!(
                "Secret {id} is not in the files: write the certificate {name} that its listener names: certificates: [{{ name: {name}, \
                 chain_file: F, key_file: F }}]"
            ));
        }
        Origin::Route(theirs, id) => {
            let from = manifests.item(*theirs, id);
            let number = rule_of(words.get("description").and_then(Json::as_str).unwrap_or_default());
            let rule = (*theirs, id.clone(), number);
            let level = reduced.levels.get(&rule).copied().unwrap_or_default();
            let is_reduced = level > 0;
            let mut order = Vec::new();
            if level >= PATHS_ALONE {
                without_mark(&mut words);
                // It takes more than it did, and is asked before all others.
                order.push(1);
            }
            let protects = is_reduced || manifests.is_closed(*theirs, id);
            if is_reduced {
                for action in ["upstream", "split", "redirect"] {
                    words.shift_remove(action);
                }
                words.insert("respond".into(), json!({ "status": 403 }));
            }
            if protects {
                words.insert("authorize".into(), json!([{ "name": CLOSED, "deny": {} }]));
            }
            out.routes.push(Draft { from, words, order, protects, takes_more: false, beyond: None, below: None });
        }
        Origin::Secret(id) => {
            let from = manifests.item(Theirs::Secret, id);
            from.note("its private key is in what is written, and sealed when that is applied");
            out.put_named(kind, &from, name, Json::Object(words));
        }
        Origin::Service(id) => out.put_named(kind, &manifests.item(Theirs::Service, id), name, Json::Object(words)),
        Origin::ConfigMap(id) => out.put_named(kind, &manifests.item(Theirs::ConfigMap, id), name, Json::Object(words)),
        Origin::Port(port) => {
            manifests.anything().note(format!(
                "the nodes will open port {port} (listener {name}): give it another address if something is there already"
            ));
            out.put_named(kind, &manifests.anything(), name, Json::Object(words));
        }
        Origin::Nowhere => out.put_named(kind, &manifests.anything(), name, Json::Object(words)),
    }
}

fn without_mark(words: &mut Map<String, Json>) {
    let Some(matches) = words.get_mut("match").and_then(Json::as_object_mut) else { return };
    if let Some(headers) = matches.get_mut("headers").and_then(Json::as_array_mut) {
        headers.retain(|it| it["name"] != MARK);
        if headers.is_empty() {
            matches.shift_remove("headers");
        }
    }
}

/// A match of what nobody understands, with what is left of it.
fn marked(matches: &Json) -> Json {
    let left = matches.as_object().into_iter().flatten().filter(|(field, _)| PATH_FIELDS.contains(&field.as_str()));
    let mut left: Map<String, Json> = left.map(|(field, it)| (field.clone(), it.clone())).collect();
    left.insert("headers".into(), json!([{ "name": MARK, "value": CLOSED }]));
    Json::Object(left)
}

/// Of `HTTPRoute shop/orders, rule 2, match 0, port 80`.
fn rule_of(description: &str) -> usize {
    let number = description.rsplit_once(", rule ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
    number.unwrap_or_default()
}

impl Reduced {
    fn snapshot(&self, manifests: &Manifests<'_>) -> Outcome<Snapshot> {
        let mut snapshot = manifests.snapshot.clone();
        for ((kind, id), object) in &manifests.routes {
            let mut object = object.clone();
            if let Some(rules) = object.pointer_mut("/spec/rules").and_then(Json::as_array_mut) {
                for (number, rule) in rules.iter_mut().enumerate() {
                    let matches = rule.get("matches").cloned();
                    match self.levels.get(&(*kind, id.clone(), number)) {
                        None => {}
                        Some(&MATCHES_ALONE) => *rule = json!({ "matches": matches.unwrap_or_else(|| json!([])) }),
                        Some(&PATHS_ALONE) => {
                            let all = matches.as_ref().and_then(Json::as_array).cloned().unwrap_or_default();
                            let all = if all.is_empty() { vec![json!({})] } else { all };
                            *rule = json!({ "matches": all.iter().map(marked).collect::<Vec<_>>() });
                        }
                        // One that is gone still has its number.
                        Some(_) => *rule = json!({ "matches": [marked(&json!({}))] }),
                    }
                }
            }
            let is_gone = |number: usize| self.levels.get(&(*kind, id.clone(), number)) == Some(&GONE);
            let count = manifests.rules_of(*kind, id);
            if count > 0 && (0..count).all(is_gone) {
                continue;
            }
            snapshot.put(*kind, object).map_err(|why| manifests.item(*kind, id).wrong(&format!("a {kind} ({why})")))?;
        }
        Ok(snapshot)
    }

    /// Whether something was reduced further.
    fn further(&mut self, translation: &Translation, manifests: &Manifests<'_>, one_by_one: bool) -> bool {
        let mut found = BTreeSet::new();
        for told in &translation.told {
            let Status::Parents(parties) = &told.status else { continue };
            let mut conditions = parties.iter().flat_map(|it| &it.conditions);
            let refused = |it: &&Condition| {
                it.kind == ACCEPTED && !it.holds && matches!(it.reason, "UnsupportedValue" | "IncompatibleFilters")
            };
            let Some(why) = conditions.find(refused).map(|it| it.message.clone()) else { continue };
            let number = why.strip_prefix("rules[").and_then(|it| it.split(']').next()?.parse::<usize>().ok());
            let numbers = match number.filter(|_| one_by_one) {
                Some(number) => number..number + 1,
                None => 0..manifests.rules_of(told.kind, &told.id),
            };
            for number in numbers {
                let level = self.levels.entry((told.kind, told.id.clone(), number)).or_default();
                if *level >= GONE {
                    continue;
                }
                *level += 1;
                found.insert((told.kind, told.id.clone(), number));
                let what = match *level {
                    MATCHES_ALONE => "it lets nobody in, since more than its matches is not understood",
                    PATHS_ALONE => {
                        "it lets nobody in by any of its paths, since more than those is not understood, and goes before other routes"
                    }
                    HOSTS_ALONE => "it lets nobody in by any path of its hosts, since its matches are not understood",
                    _ => "nothing is left of it",
                };
                manifests.item(told.kind, &told.id).closed(format!(
                    "rule {number}: {what} ({why}); write the route by hand, and take the rule {CLOSED} away"
                ));
            }
        }
        !found.is_empty()
    }
}

/// What the translation says of the objects, which a cluster would have as their status.
fn tell(translation: &Translation, manifests: &Manifests<'_>) {
    for told in &translation.told {
        let of_parties = |parties: &[quorumgate_kubernetes::conditions::Party]| -> Vec<Condition> {
            parties.iter().flat_map(|it| it.conditions.clone()).collect()
        };
        let conditions = match &told.status {
            Status::Class(_) => continue,
            Status::Gateway { conditions, listeners, .. } => {
                let inner = listeners.iter().flat_map(|listener| {
                    let named = |it: &Condition| Condition {
                        message: format!("listener {}: {}", listener.name, it.message),
                        ..it.clone()
                    };
                    listener.conditions.iter().filter(|it| !it.holds).map(named).collect::<Vec<_>>()
                });
                conditions.iter().cloned().chain(inner).collect()
            }
            Status::Parents(parties) | Status::Ancestors(parties) => of_parties(parties),
        };
        let item = manifests.item(told.kind, &told.id);
        for it in conditions.iter().filter(|it| [ACCEPTED, RESOLVED_REFS].contains(&it.kind)) {
            match it.holds {
                false => item.left_out(format!("{} ({})", it.message, it.reason)),
                true if !it.message.is_empty() => item.differs(&it.message),
                true => {}
            }
        }
    }
}
