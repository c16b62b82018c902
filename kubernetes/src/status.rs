//! What is said of an object, as its status: held against the one that it has, so that only what differs is written, what
//! others wrote stays, and nothing good is said before every node serves it.

use serde_json::{Map, Value, json};

use crate::{
    CONTROLLER,
    conditions::{Condition, ListenerStatus, Party, Status, Told},
};

/// How far the nodes are with what the objects ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Every node serves it.
    Everywhere,
    /// Not yet; whom or what is waited for.
    Waiting(String),
}

/// The status that is to stand there; None: it does already. `now`: RFC 3339.
pub fn update(told: &Told, existing: &Value, progress: &Progress, now: &str) -> Option<Value> {
    let writer = Writer { generation: told.generation, progress, now };
    let status = match &told.status {
        Status::Class(conditions) => {
            json!({ "conditions": writer.conditions(conditions, &existing["conditions"]) })
        }
        Status::Gateway { conditions, listeners, addresses } => json!({
            "addresses": addresses,
            "conditions": writer.conditions(conditions, &existing["conditions"]),
            "listeners": writer.listeners(listeners, &existing["listeners"]),
        }),
        Status::Parents(parties) => json!({ "parents": writer.parties(parties, &existing["parents"], "parentRef") }),
        Status::Ancestors(parties) => {
            json!({ "ancestors": writer.parties(parties, &existing["ancestors"], "ancestorRef") })
        }
    };
    let mut whole = existing.as_object().cloned().unwrap_or_default();
    whole.extend(status.as_object().cloned().unwrap_or_default());
    let stays = whole.iter().all(|(field, value)| same(existing.get(field), value));
    (!stays).then_some(status)
}

/// An empty list and none are one.
fn same(existing: Option<&Value>, value: &Value) -> bool {
    match existing {
        Some(existing) => existing == value,
        None => value.as_array().is_some_and(Vec::is_empty),
    }
}

struct Writer<'w> {
    generation: i64,
    progress: &'w Progress,
    now: &'w str,
}

impl Writer<'_> {
    fn conditions(&self, conditions: &[Condition], existing: &Value) -> Value {
        let known = |kind: &str| existing.as_array()?.iter().find(|it| it["type"] == kind);
        let ours = conditions.iter().map(|it| self.condition(it, known(it.kind)));
        // Of other types somebody else may have written some.
        let others = existing.as_array().into_iter().flatten();
        let others = others.filter(|it| conditions.iter().all(|ours| it["type"] != ours.kind)).cloned();
        ours.chain(others).collect()
    }

    fn condition(&self, it: &Condition, known: Option<&Value>) -> Value {
        let (status, reason, message) = match (it.holds, it.gated, self.progress) {
            (true, true, Progress::Waiting(for_whom)) => {
                // What was true of the same words is true until the nodes say otherwise.
                if let Some(known) = known
                    && known["status"] == "True"
                    && known["observedGeneration"] == self.generation
                {
                    return known.clone();
                }
                ("Unknown", "Pending", for_whom.as_str())
            }
            (true, ..) => ("True", it.reason, it.message.as_str()),
            (false, ..) => ("False", it.reason, it.message.as_str()),
        };
        let since = known.filter(|known| known["status"] == status).map(|known| &known["lastTransitionTime"]);
        json!({
            "type": it.kind,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since.cloned().unwrap_or_else(|| self.now.into()),
        })
    }

    fn listeners(&self, listeners: &[ListenerStatus], existing: &Value) -> Value {
        let known = |name: &str| existing.as_array()?.iter().find(|it| it["name"] == name);
        let listener = |it: &ListenerStatus| {
            let before = known(&it.name).map_or(&Value::Null, |known| &known["conditions"]);
            let kinds = it.kinds.iter().map(|kind| json!({ "group": kind.group(), "kind": kind.word() }));
            json!({
                "name": it.name,
                "supportedKinds": kinds.collect::<Vec<_>>(),
                "attachedRoutes": it.attached,
                "conditions": self.conditions(&it.conditions, before),
            })
        };
        listeners.iter().map(listener).collect()
    }

    /// Ours behind those of other controllers.
    fn parties(&self, parties: &[Party], existing: &Value, word: &str) -> Value {
        let existing: &[Value] = existing.as_array().map(Vec::as_slice).unwrap_or_default();
        let (ours, others): (Vec<&Value>, Vec<&Value>) =
            existing.iter().partition(|it| it["controllerName"] == CONTROLLER);
        let party = |it: &Party| {
            let known = ours.iter().find(|known| known[word] == it.reference);
            let before = known.map_or(&Value::Null, |known| &known["conditions"]);
            let mut entry = Map::new();
            entry.insert(word.to_owned(), it.reference.clone());
            entry.insert("controllerName".to_owned(), CONTROLLER.into());
            entry.insert("conditions".to_owned(), self.conditions(&it.conditions, before));
            Value::Object(entry)
        };
        others.into_iter().cloned().chain(parties.iter().map(party)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{Id, Kind},
        conditions::{ACCEPTED, RESOLVED_REFS},
    };

    const NOW: &str = "2026-11-26T18:00:00Z";
    const BEFORE: &str = "2026-11-25T00:00:00Z";

    fn told(generation: i64, conditions: Vec<Condition>) -> Told {
        let reference = json!({ "name": "gw" });
        let status = Status::Parents(vec![Party { reference, conditions }]);
        Told { kind: Kind::HttpRoute, id: Id::new("n", "r"), generation, status }
    }

    fn ours(condition: Value) -> Value {
        json!({ "parents": [{ "parentRef": { "name": "gw" }, "controllerName": CONTROLLER, "conditions": [condition] }] })
    }

    fn accepted(status: &str, reason: &str, message: &str, generation: i64, since: &str) -> Value {
        json!({ "type": "Accepted", "status": status, "reason": reason, "message": message,
                "observedGeneration": generation, "lastTransitionTime": since })
    }

    #[track_caller]
    fn check(told: &Told, existing: &Value, progress: &Progress, expected: Option<Value>) {
        assert_eq!(update(told, existing, progress, NOW), expected);
    }

    #[test]
    fn nothing_good_is_said_before_every_node_serves_it() {
        let yes = |generation| told(generation, vec![Condition::yes(ACCEPTED, "Accepted", "")]);
        let waiting = Progress::Waiting("not yet on n3".into());
        let everywhere = Progress::Everywhere;
        let pending = ours(accepted("Unknown", "Pending", "not yet on n3", 1, NOW));
        check(&yes(1), &Value::Null, &waiting, Some(pending.clone()));
        let good = ours(accepted("True", "Accepted", "", 1, NOW));
        check(&yes(1), &pending, &everywhere, Some(good));
        // What was good stays so while the same words are applied again; new words are to be served first.
        let good = ours(accepted("True", "Accepted", "", 1, BEFORE));
        check(&yes(1), &good, &waiting, None);
        check(&yes(2), &good, &waiting, Some(ours(accepted("Unknown", "Pending", "not yet on n3", 2, NOW))));
        check(&yes(2), &good, &everywhere, Some(ours(accepted("True", "Accepted", "", 2, BEFORE))));
    }

    #[test]
    fn what_is_wrong_is_said_at_once() {
        let no = told(3, vec![Condition::no(ACCEPTED, "UnsupportedValue", "why")]);
        let waiting = Progress::Waiting("not yet on n3".into());
        let expected = ours(accepted("False", "UnsupportedValue", "why", 3, NOW));
        check(&no, &Value::Null, &waiting, Some(expected.clone()));
        check(&no, &expected, &waiting, None);
        let class = Status::Class(vec![Condition::yes(ACCEPTED, "Accepted", "").at_once()]);
        let class = Told { kind: Kind::GatewayClass, id: Id::new("", "c"), generation: 1, status: class };
        let said = update(&class, &Value::Null, &waiting, NOW).unwrap();
        assert_eq!(said["conditions"][0]["status"], "True");
    }

    #[test]
    fn what_others_wrote_stays_and_what_is_ours_no_more_goes() {
        let other = json!({ "parentRef": { "name": "gw" }, "controllerName": "other.io/it", "conditions": [] });
        let mut existing = ours(accepted("True", "Accepted", "", 1, BEFORE));
        existing["parents"].as_array_mut().unwrap().insert(0, other.clone());
        let gone = Told { status: Status::Parents(Vec::new()), ..told(1, Vec::new()) };
        check(&gone, &existing, &Progress::Everywhere, Some(json!({ "parents": [other] })));
        check(&gone, &json!({}), &Progress::Everywhere, None);
        let both = told(1, vec![Condition::yes(RESOLVED_REFS, RESOLVED_REFS, "")]);
        let said = update(&both, &existing, &Progress::Everywhere, NOW).unwrap();
        let kinds: Vec<&str> = said["parents"][1]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["ResolvedRefs", "Accepted"], "a type that we do not speak of is somebody's");
    }
}
