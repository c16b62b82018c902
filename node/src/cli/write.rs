//! What every write prints: the revision, where it is active, and how to undo it.

use quorumgate_proto::admin::v1::{NodeReceipt, WriteResponse};

use super::{args::Form, failure::Outcome, output::Answer, shape};

/// What a write has changed, and so how it can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// A new revision of the resources.
    Resources,
    /// Anything else; the sentence says what.
    Other(&'static str),
    /// Nothing: a dry run.
    Nothing,
}

pub fn print(form: Form, wrote: Wrote, answer: &WriteResponse) -> Outcome {
    let json = shape::write(answer);
    let changes = answer
        .changes
        .iter()
        .map(|it| vec![shape::action(it.action).to_owned(), shape::kind(it.kind).to_owned(), it.name.clone()]);
    Answer {
        rows: changes.collect(),
        header: if answer.changes.is_empty() { Vec::new() } else { vec!["action", "kind", "name"] },
        names: answer.changes.iter().map(|it| format!("{}/{}", shape::kind(it.kind), it.name)).collect(),
        notes: notes(wrote, answer),
        json,
        ..Answer::default()
    }
    .print(form)
}

fn notes(wrote: Wrote, answer: &WriteResponse) -> Vec<String> {
    let mut notes: Vec<String> = answer.warnings.iter().map(|it| format!("warning: {it}")).collect();
    match wrote {
        Wrote::Nothing => {
            notes.push(format!("dry run: {}, nothing was written", shape::counts_text(answer.counts.as_ref())))
        }
        Wrote::Other(what) => notes.push(format!("{what}; {}", propagation("index", answer))),
        Wrote::Resources if answer.noop => {
            notes.push(format!("no change: the cluster is at revision {} already", answer.revision));
        }
        Wrote::Resources => {
            notes.push(propagation("revision", answer));
            match &answer.trial_until {
                Some(until) => notes.push(format!(
                    "on trial until {}: quorumgate confirm {}, or it is undone",
                    shape::cell(&shape::time(Some(until))),
                    answer.revision
                )),
                None => notes.push("undo: quorumgate rollback --previous".to_owned()),
            }
        }
    }
    notes
}

/// `revision 43 active on 5/5 nodes, slowest ap-2 92 ms`
pub fn propagation(what: &str, answer: &WriteResponse) -> String {
    let serves = |node: &&NodeReceipt| !node.unreachable && node.applied_revision >= answer.revision;
    let active = answer.nodes.iter().filter(serves).count();
    let mut text = format!("{what} {} active on {active}/{} nodes", answer.revision, answer.nodes.len());
    let times = || answer.nodes.iter().filter(serves).filter_map(|node| Some((millis(node)?, node)));
    if let (Some((first, _)), Some((last, slowest))) = (times().min_by_key(|it| it.0), times().max_by_key(|it| it.0))
        && times().count() > 1
    {
        text += &format!(", slowest {} {} ms", slowest.name, last - first);
    }
    let behind: Vec<&str> = answer.nodes.iter().filter(|it| !serves(it)).map(|it| it.name.as_str()).collect();
    if !behind.is_empty() {
        text += &format!("; not yet on {}", behind.join(", "));
    }
    text
}

fn millis(node: &NodeReceipt) -> Option<i64> {
    let at = node.applied_at?;
    Some(at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn receipt(name: &str, applied_revision: u64, nanos: i32, unreachable: bool) -> NodeReceipt {
        let applied_at = Some(Timestamp { seconds: 100, nanos });
        NodeReceipt { name: name.into(), applied_revision, applied_at, unreachable }
    }

    #[test]
    fn a_write_says_where_it_is_active_and_how_to_undo_it() {
        let mut answer = WriteResponse { revision: 43, ..Default::default() };
        answer.nodes = vec![receipt("eu-1", 43, 0, false), receipt("ap-2", 43, 92_000_000, false)];
        let expected = ["revision 43 active on 2/2 nodes, slowest ap-2 92 ms", "undo: quorumgate rollback --previous"];
        assert_eq!(notes(Wrote::Resources, &answer), expected);

        answer.nodes.push(receipt("us-1", 42, 0, true));
        assert!(notes(Wrote::Resources, &answer)[0].ends_with("; not yet on us-1"));
        answer.noop = true;
        assert_eq!(notes(Wrote::Resources, &answer), ["no change: the cluster is at revision 43 already"]);
    }
}
