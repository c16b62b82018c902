//! Changes as people read them: per object its action, and the lines of its canonical words that differ.

use quorumgate_model::{convert, resource::Resource};
use quorumgate_proto::admin::v1::{self as admin, change::Action};
use serde_json::{Value, json};

use super::{
    config::canonical,
    failure::{Failure, Outcome},
    shape,
};

/// How many lines of one object are compared; a longer one is shown whole.
const LINES_MAX: usize = 2_000;

pub fn text(changes: &[admin::Change]) -> Outcome<String> {
    let mut text = String::new();
    for change in changes {
        text += &format!("{} {}/{}\n", shape::action(change.action), shape::kind(change.kind), change.name);
        let before = lines(change.before.as_ref())?;
        let after = lines(change.after.as_ref())?;
        let is_whole = match Action::try_from(change.action) {
            Ok(Action::Created) => change.after.is_some(),
            Ok(Action::Deleted) => change.before.is_some(),
            _ => change.before.is_some() && change.after.is_some(),
        };
        if !is_whole {
            text += "  (not all of it is shown)\n";
        }
        for (sign, line) in compare(&before, &after) {
            text += &format!("  {sign} {}\n", shape::visible(line));
        }
    }
    Ok(text)
}

/// One change in full, in the words of the configuration file.
pub fn json(change: &admin::Change) -> Outcome<Value> {
    let words = |resource: &Option<admin::Resource>| match resource {
        None => Ok(Value::Null),
        Some(message) => {
            let resource: Resource = convert::resource_from(message.clone()).map_err(Failure::internal)?;
            serde_json::to_value(canonical::words(&resource)?).map_err(Failure::internal)
        }
    };
    Ok(json!({
        "kind": shape::kind(change.kind),
        "name": change.name,
        "action": shape::action(change.action),
        "before": words(&change.before)?,
        "after": words(&change.after)?,
    }))
}

fn lines(resource: Option<&admin::Resource>) -> Outcome<Vec<String>> {
    let Some(message) = resource else { return Ok(Vec::new()) };
    let resource: Resource = convert::resource_from(message.clone()).map_err(Failure::internal)?;
    let yaml = serde_saphyr::to_string(&canonical::words(&resource)?).map_err(Failure::internal)?;
    Ok(yaml.lines().map(str::to_owned).collect())
}

/// The lines of both, marked `-`, `+` or ` `, along the longest common subsequence.
fn compare<'l>(before: &'l [String], after: &'l [String]) -> Vec<(char, &'l str)> {
    let whole = before.len() > LINES_MAX || after.len() > LINES_MAX;
    let common = if whole { Vec::new() } else { common(before, after) };
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (next_i, next_j) in common.into_iter().chain([(before.len(), after.len())]) {
        out.extend(before[i..next_i].iter().map(|line| ('-', line.as_str())));
        out.extend(after[j..next_j].iter().map(|line| ('+', line.as_str())));
        if next_i < before.len() {
            out.push((' ', &before[next_i]));
        }
        (i, j) = (next_i + 1, next_j + 1);
    }
    out
}

/// The positions of a longest common subsequence.
fn common(before: &[String], after: &[String]) -> Vec<(usize, usize)> {
    let mut longest = vec![vec![0u32; after.len() + 1]; before.len() + 1];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            longest[i][j] = match before[i] == after[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < before.len() && j < after.len() {
        if before[i] == after[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_marked() {
        let lines = |text: &str| text.split(' ').filter(|it| !it.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let check = |before: &str, after: &str, expected: &str| {
            let (before, after) = (lines(before), lines(after));
            let marked: Vec<String> =
                compare(&before, &after).iter().map(|(sign, line)| format!("{sign}{line}")).collect();
            assert_eq!(marked.join(","), expected);
        };
        check("a b c", "a x c", " a,-b,+x, c");
        check("", "a b", "+a,+b");
        check("a b", "", "-a,-b");
        check("a", "a", " a");
        check("a b", "b c", "-a, b,+c");
    }

    #[test]
    fn a_change_without_its_bodies_says_so() {
        let kind = admin::Kind::Route.into();
        let change =
            |action: Action| admin::Change { kind, name: "a".into(), action: action.into(), ..Default::default() };
        let shown = text(&[change(Action::Updated), change(Action::Created)]).unwrap();
        assert_eq!(shown.matches("(not all of it is shown)").count(), 2, "{shown}");
    }
}
