//! Guardrails are held here, on the resources that a change would make, before it is proposed; apply compares which
//! guardrails that were (`State::guardrails` says why that is enough). What was applied once is left in peace: a change
//! answers for the objects that it writes, a new guardrail for all that there are.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use quorumgate_model::{
    change::{self, Changed},
    mutants::{self, Mutant},
    resource::{GuardEffect, Guardrail, Key, Kind, Resource, of_kind},
    state::State,
};
use quorumgate_proxy::identity::authorize::Statement;
use tokio::{sync::Semaphore, time::timeout_at};
use tonic::{Code, Status};

use super::places::Places;
use crate::{
    admin::{failure, gate::Call},
    cli::config::canonical,
};

/// How often one change may ask a guardrail about an object.
const ASKED_MAX: usize = 200_000;
/// How many objects a refusal, a warning or a finding names.
const SHOWN_MAX: usize = 5;
/// How many guardrails a finding goes into the audit trail for; with `SHOWN_MAX` within the model's own bounds.
const FINDINGS_MAX: usize = quorumgate_model::command::FINDINGS_MAX;

/// What guardrails found and let pass.
#[derive(Debug, Default)]
pub struct Held {
    /// For who made the change.
    pub warnings: Vec<String>,
    /// For the audit trail.
    pub findings: Vec<String>,
}

/// A guardrail that the change leaves there, and whether it is one by the change.
struct Rail<'r> {
    rail: &'r Guardrail,
    statement: Statement,
    anew: bool,
}

/// How many changes are asked about at a time on one node: beside them others have the processors too.
static ASKING: Semaphore = Semaphore::const_new(1);

/// Err: a guardrail denies an object, or this build cannot ask one. On a thread of its own, since the one that this runs on
/// serves consensus, and no longer than the caller waits. Gives back what it was given.
pub async fn hold(
    call: &Call,
    state: &Arc<State>,
    changed: Vec<Changed>,
    places: &mut Places,
) -> Result<(Vec<Changed>, Held), Status> {
    let is_rail = |it: &Changed| it.key.kind == Kind::Guardrail && it.after.is_some();
    if changed.is_empty() || (state.guardrails().is_none() && !changed.iter().any(is_rail)) {
        return Ok((changed, Held::default()));
    }
    let ends = Instant::now() + call.left();
    let Ok(Ok(turn)) = timeout_at(ends.into(), ASKING.acquire()).await else { return Err(too_late()) };
    let (state, taken) = (state.clone(), std::mem::take(places));
    let asked = tokio::task::spawn_blocking(move || {
        let held = ask_all(&state, &changed, &taken, ends);
        // Kept until here, though the caller may have left.
        drop(turn);
        (changed, taken, held)
    });
    let (changed, taken, held) = asked.await.map_err(|_| {
        failure::status(Code::Internal, "INTERNAL", "asking the guardrails broke down; the node's log says where")
    })?;
    *places = taken;
    Ok((changed, held?))
}

/// Nothing is on its way: not what DEADLINE_EXCEEDED says of a write, which is that nobody knows.
fn too_late() -> Status {
    failure::status(
        Code::Unavailable,
        "GUARDRAILS_NOT_ASKED",
        "the guardrails could not be asked in time; nothing was written",
    )
}

fn ask_all(state: &State, changed: &[Changed], places: &Places, ends: Instant) -> Result<Held, Status> {
    let rails = rails(state, changed)?;
    let mut broken: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
    let mut asked = 0;
    let mut ask = |resource: &Resource, of: &dyn Fn(&Rail<'_>) -> bool| -> Result<(), Status> {
        let kind = resource.kind();
        let looks = |rail: &&Rail<'_>| {
            of(rail) && rail.rail.looks_at(kind) && rail.rail.except_owners.iter().all(|it| it != resource.owner())
        };
        let mut looking = rails.iter().enumerate().filter(|(_, rail)| looks(rail)).peekable();
        if looking.peek().is_none() {
            return Ok(());
        }
        let words = canonical::complete(resource)
            .map_err(|_| failure::status(Code::Internal, "INTERNAL", format!("{} has no words", resource.key())))?;
        for (at, rail) in looking {
            asked += 1;
            if Instant::now() >= ends {
                return Err(too_late());
            }
            if !rail.statement.holds(kind.list(), &words) && !mutants::is(Mutant::GuardrailUnasked) {
                broken.entry(at).or_default().push(resource.key());
            }
        }
        match asked > ASKED_MAX {
            true => Err(failure::bad_field("guardrails", &too_much())),
            false => Ok(()),
        }
    };
    for resource in changed.iter().filter_map(|change| change.after.as_ref()) {
        ask(resource, &|rail| !rail.anew)?;
    }
    if rails.iter().any(|rail| rail.anew) {
        let after = change::redo(&state.resources, changed);
        after.values().try_for_each(|stored| ask(&stored.resource, &|rail| rail.anew))?;
    }
    told(&rails, &broken, places)
}

fn too_much() -> String {
    format!("found more than {ASKED_MAX} questions in one change; allowed: a change in parts, or narrower `kinds`")
}

fn rails<'r>(state: &'r State, changed: &'r [Changed]) -> Result<Vec<Rail<'r>>, Status> {
    let is_changed = |it: &&Resource| changed.iter().any(|change| change.key == it.key());
    let stand = of_kind(&state.resources, Kind::Guardrail).filter(|it| !is_changed(it)).map(|it| (it, false));
    let come = changed.iter().filter_map(|change| change.after.as_ref()).map(|it| (it, true));
    let all = stand.chain(come).filter_map(|(it, anew)| match it {
        Resource::Guardrail(rail) => Some((&**rail, anew)),
        _ => None,
    });
    all.map(|(rail, anew)| {
        let statement = Statement::compile(&rail.require).map_err(|invalid| {
            failure::invalid(&invalid.under("require").under(format!("guardrails/{}", rail.name)))
        })?;
        Ok(Rail { rail, statement, anew })
    })
    .collect()
}

fn told(rails: &[Rail<'_>], broken: &BTreeMap<usize, Vec<Key>>, places: &Places) -> Result<Held, Status> {
    let mut held = Held::default();
    let mut denied = Vec::new();
    for (at, keys) in broken {
        let Guardrail { name, effect, message, .. } = rails[*at].rail;
        match effect {
            GuardEffect::Deny => denied.extend(keys.iter().map(|key| {
                let why = format!("guardrail \"{name}\" denies {key}: {message}");
                (places.place(key), why)
            })),
            GuardEffect::Warn => {
                held.warnings.push(format!("guardrail \"{name}\" warns of {}: {message}", shown(keys)));
            }
            GuardEffect::Audit => {}
        }
        if *effect != GuardEffect::Deny && held.findings.len() < FINDINGS_MAX {
            held.findings.push(format!("guardrail {name} ({}): {}", effect.word(), shown(keys)));
        }
    }
    match denied.is_empty() {
        true => Ok(held),
        false => {
            let more = denied.len().saturating_sub(SHOWN_MAX);
            denied.truncate(SHOWN_MAX);
            Err(failure::guarded(&denied, more))
        }
    }
}

/// `route/a, route/b and 3 more`
fn shown(keys: &[Key]) -> String {
    let first: Vec<_> = keys.iter().take(SHOWN_MAX).map(Key::to_string).collect();
    match keys.len().saturating_sub(SHOWN_MAX) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn nobody_is_asked_for_longer_than_the_caller_waits() {
        let new = |kind: Kind, words| {
            let resource = kind.parse(words).unwrap();
            Changed { key: resource.key(), before: None, after: Some(resource) }
        };
        let rail = json!({ "name": "r", "kinds": ["consumers"], "require": "false", "message": "m", "effect": "warn" });
        let changed = [new(Kind::Consumer, json!({ "name": "c" })), new(Kind::Guardrail, rail)];
        let ask = |ends| ask_all(&State::default(), &changed, &Places::default(), ends);
        let held = ask(Instant::now() + Duration::from_secs(3_600)).unwrap();
        assert_eq!(held.warnings, ["guardrail \"r\" warns of consumer/c: m"]);
        let late = ask(Instant::now()).map(|held| held.warnings).unwrap_err();
        assert_eq!(late.code(), Code::Unavailable, "it is certain that nothing was written: {late}");
    }
}
