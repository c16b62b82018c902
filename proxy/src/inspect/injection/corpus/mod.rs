//! Patterns held against attacks that they must find and requests that they must let pass, at the default threshold. Both are
//! made here, in the same way each time.

mod attacks;
mod benign;

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, Request, header};
use quorumgate_model::resource::{InjectionClass, InjectionPolicy};
use serde_json::json;

use super::Scan;
use crate::inspect::{found::Violation, media::Media};

/// One request: its head, and a body of this type.
pub(super) struct Sample {
    pub(super) uri: String,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) body: Option<(&'static str, String)>,
}

/// Values as they stand in the attacks, and in the bodies and addresses of all.
pub(super) fn texts() -> impl Iterator<Item = Vec<u8>> {
    let attacks =
        attacks::all().into_iter().flat_map(|(_, payload, _, sample)| [Vec::from(payload), Vec::from(sample.uri)]);
    let benign = benign::all()
        .into_iter()
        .flat_map(|it| [Vec::from(it.uri), it.body.map(|(_, body)| Vec::from(body)).unwrap_or_default()]);
    attacks.chain(benign)
}

fn found(policy: &InjectionPolicy, sample: &Sample) -> Vec<Violation> {
    let mut request = Request::post(sample.uri.as_str());
    for (name, value) in &sample.fields {
        request = request.header(*name, value.as_bytes());
    }
    let parts = request.body(()).unwrap_or_else(|error| panic!("{error}: {}", sample.uri)).into_parts().0;
    let mut scan = Scan::new(policy);
    scan.head(&parts);
    if let Some((kind, body)) = &sample.body {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        scan.body(&headers, &Media::of(&headers), &body.clone().into());
    }
    scan.found()
}

#[test]
fn nineteen_of_twenty_attacks_are_found() {
    let policy = InjectionPolicy::default();
    let (mut total, mut missed) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for (class, payload, how, sample) in attacks::all() {
        *total.entry(class.word()).or_default() += 1;
        if found(&policy, &sample).is_empty() {
            missed.push(format!("{} {how}: {payload}", class.word()));
        }
    }
    let all: usize = total.values().sum();
    assert!(all >= 1_000, "{all} attacks are too few");
    assert!(missed.len() * 20 <= all, "{} of {all} are missed:\n{}", missed.len(), missed.join("\n"));
    for class in InjectionClass::ALL {
        let of_class = missed.iter().filter(|it| it.starts_with(class.word())).count();
        let share = total[class.word()];
        assert!(of_class * 10 <= share, "{of_class} of {share} of {} are missed:\n{}", class.word(), missed.join("\n"));
    }
}

#[test]
fn sql_is_found_whatever_stands_for_a_blank_or_a_quote() {
    let policy: InjectionPolicy = serde_json::from_value(json!({"classes": ["sqli"]})).unwrap();
    for attack in [
        "1 union(select(password)from(users))",
        "1 UNION ALL(SELECT 1,2,user())",
        "1 union-- x\nselect password from users",
        "1 union#x\nselect password from users",
        "1 union--%0aselect 1",
        "1 union\nselect password from users",
        "1 union\x01select\u{a0}password from users",
        "1e0union select password from users",
        "\\Nunion distinctrow select`password`from`users`",
        "' or `id`=`id`",
        "x` or 1=1",
    ] {
        for sample in attacks::ways(attack) {
            assert!(!found(&policy, &sample).is_empty(), "{attack:?} in {} {:?}", sample.uri, sample.body);
        }
    }
}

#[test]
fn the_end_of_a_line_makes_no_sql_of_two_headings() {
    let policy: InjectionPolicy = serde_json::from_value(json!({"classes": ["sqli"]})).unwrap();
    for text in ["European Union\nselect countries, regions", "trade union\n\nSelect 3 options"] {
        for sample in attacks::ways(text) {
            assert_eq!(found(&policy, &sample), [], "{text:?} in {}", sample.uri);
        }
    }
}

#[test]
fn one_of_a_thousand_good_requests_is_taken_for_an_attack_at_most() {
    let policy = InjectionPolicy::default();
    let mut wrong = Vec::new();
    let samples = benign::all();
    assert!(samples.len() >= 5_000);
    for sample in &samples {
        let found = found(&policy, sample);
        if let Some(first) = found.first() {
            let body = sample.body.as_ref().map_or("", |(_, body)| body);
            wrong.push(format!("{} {}{} of {} {body}", first.rule, first.place.word(), first.pointer, sample.uri));
        }
    }
    wrong.sort();
    let shown: Vec<_> = wrong.iter().take(60).map(|it| it.chars().take(400).collect::<String>()).collect();
    assert!(wrong.len() * 1_000 <= samples.len(), "{} are wrong:\n{}", wrong.len(), shown.join("\n"));
}
