//! What a route's policies would look at in the request, once they have its body, and in the answer.

use quorumgate_model::{
    resource::{JsonPolicy, PolicyKind, PolicyMode, Tolerance},
    ruleset::{Mask, Rule, Ruleset},
};

/// In words, and by which policy.
pub fn told(rules: &Ruleset, rule: &Rule) -> Vec<(String, String)> {
    let told = rules.inspections(rule).into_iter().filter_map(|policy| {
        let look = policy.kind.look()?;
        let what = match &policy.kind {
            PolicyKind::Ip(_) | PolicyKind::Version(_) | PolicyKind::Ai(_) | PolicyKind::Mask(_) => return None,
            PolicyKind::Anomaly(_) | PolicyKind::Bot(_) | PolicyKind::Portal(_) => return None,
            PolicyKind::Json(it) => json(it),
            PolicyKind::Injection(it) => {
                let classes = match it.classes.as_slice() {
                    [] => "all classes".to_owned(),
                    some => some.iter().map(|it| it.word()).collect::<Vec<_>>().join(", "),
                };
                format!("attacks of {classes} from score {}, {} exceptions", it.threshold, it.exceptions.len())
            }
            PolicyKind::Contract(it) => {
                let answers = match it.responses {
                    PolicyMode::Enforce => ", and answers",
                    PolicyMode::Detect => ", and answers, told of",
                    PolicyMode::Off => "",
                };
                format!("a contract of {} operations{answers}", it.operations.len())
            }
            PolicyKind::Xml(it) => {
                let (depth, elements, attributes, text) =
                    (it.max_depth, it.max_elements, it.max_attributes, it.max_text);
                let dtd = if it.dtd == Tolerance::Refuse { ", no DTD" } else { "" };
                format!("XML of depth {depth}, {elements} elements with {attributes} attributes, texts of {text}{dtd}")
            }
            PolicyKind::Multipart(it) => {
                format!("multipart of {} parts with {} files, parts of {}", it.max_parts, it.max_files, it.max_part)
            }
            PolicyKind::Graphql(it) => {
                let (depth, aliases, fields, batch) = (it.max_depth, it.max_aliases, it.max_complexity, it.max_batch);
                let schema = if it.introspection == Tolerance::Refuse { ", no introspection" } else { "" };
                format!("GraphQL of depth {depth}, {aliases} aliases, {fields} fields, {batch} at once{schema}")
            }
        };
        let then = match look.mode {
            PolicyMode::Enforce => "else refused",
            PolicyMode::Detect => "else told of and let pass",
            PolicyMode::Off => "not looked at",
        };
        let others = match look.other_types {
            Tolerance::Allow => "",
            Tolerance::Refuse => "; no other types",
        };
        Some((format!("{what}, bodies up to {}; {then}{others}", look.body_max), policy.name.to_string()))
    });
    told.chain(rules.masks(rule).iter().map(|it| mask(it))).collect()
}

fn mask(it: &Mask) -> (String, String) {
    let except = match it.unless.groups.is_empty() && it.unless.scopes_any.is_empty() {
        true => String::new(),
        false => format!(", but not from {}", [&it.unless.groups[..], &it.unless.scopes_any].concat().join(", ")),
    };
    let others = match it.other_types {
        Tolerance::Allow => "",
        Tolerance::Refuse => "; no other types",
    };
    (
        format!("values of answers are hidden{except}, bodies up to {}; else refused{others}", it.body_max),
        it.policy.to_string(),
    )
}

fn json(it: &JsonPolicy) -> String {
    let twice = match it.duplicate_keys {
        Tolerance::Allow => "",
        Tolerance::Refuse => ", no key twice",
    };
    let (depth, keys, array, string) = (it.max_depth, it.max_keys, it.max_array, it.max_string);
    format!("JSON of depth {depth}, {keys} keys, arrays of {array}, texts of {string}{twice}")
}
