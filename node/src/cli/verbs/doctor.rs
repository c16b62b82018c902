//! `doctor`: what is wrong, and what to do about it; and the one line that monitoring systems read.

use quorumgate_proto::admin::v1::{DoctorRequest, DoctorResponse, Finding, GetStatusResponse};
use serde_json::{Value, json};

use crate::cli::{
    args::{Form, Global},
    client::Client,
    failure::{Exit, Failure, Outcome},
    output::{self, Answer},
    shape,
};

pub async fn run(global: &Global) -> Outcome {
    if global.output == Form::Nagios {
        return nagios(ask(global).await.map(|answer| of_doctor(&answer)));
    }
    let answer = ask(global).await?;
    Answer {
        text: Some(text(&answer)),
        names: answer.findings.iter().filter(|it| it.level != "ok").map(name).collect(),
        json: json(&answer),
        list: Some("findings"),
        ..Answer::default()
    }
    .print(global.output)
}

async fn ask(global: &Global) -> Outcome<DoctorResponse> {
    let client = Client::connect(global).await?;
    Ok(client.observe().doctor(client.ask(DoctorRequest {})).await?.into_inner())
}

/// The stable JSON.
pub fn json(answer: &DoctorResponse) -> Value {
    json!({ "verdict": answer.verdict, "findings": answer.findings.iter().map(finding).collect::<Vec<_>>() })
}

fn finding(it: &Finding) -> Value {
    json!({
        "check": it.check,
        "node": shape::known(&it.node),
        "level": it.level,
        "found": it.found,
        "allowed": shape::known(&it.allowed),
        "fix": shape::known(&it.fix),
    })
}

/// `clock/n2`
fn name(it: &Finding) -> String {
    match it.node.as_str() {
        "" => it.check.clone(),
        node => format!("{}/{node}", it.check),
    }
}

fn text(answer: &DoctorResponse) -> String {
    let width = answer.findings.iter().map(|it| name(it).chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for it in &answer.findings {
        let sign = match it.level.as_str() {
            "ok" => "√",
            "critical" => "×",
            _ => "‼",
        };
        text += &format!("{sign} {:width$}  {}\n", name(it), it.found);
        if it.level != "ok" {
            text += &format!("    allowed: {}\n    fix: {}\n", it.allowed, it.fix);
        }
    }
    text
}

/// What a check of Nagios, Icinga and their kind says: its exit code, one line, the figures, and lines with more.
pub struct Check {
    exit: u8,
    line: String,
    figures: String,
    more: Vec<String>,
}

const WORDS: [&str; 4] = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
const UNKNOWN: u8 = 3;

fn of_doctor(answer: &DoctorResponse) -> Check {
    let count = |level: &str| answer.findings.iter().filter(|it| it.level == level).count();
    let (critical, warnings, unknown) = (count("critical"), count("warning"), count("unknown"));
    let bad = answer.findings.iter().filter(|it| it.level != "ok");
    let line = match answer.findings.iter().find(|it| it.level != "ok") {
        None => format!("{} checks", answer.findings.len()),
        Some(first) => format!(
            "{}: {} ({critical} critical, {warnings} warnings, {unknown} unknown of {} checks)",
            name(first),
            first.found,
            answer.findings.len()
        ),
    };
    let exit = match (critical, warnings, unknown) {
        (0, 0, 0) => 0,
        (0, 0, _) => UNKNOWN,
        (0, ..) => 1,
        _ => 2,
    };
    Check {
        exit,
        line,
        figures: format!("critical={critical} warnings={warnings} unknown={unknown} checks={}", answer.findings.len()),
        more: bad.map(|it| format!("{} {}: {}; fix: {}", it.level, name(it), it.found, it.fix)).collect(),
    }
}

pub fn of_health(status: &GetStatusResponse) -> Check {
    let lost = status.leader.is_empty() || status.findings.iter().any(|it| it.contains("majority"));
    let stopped = status.findings.iter().any(|it| it.contains("has stopped"));
    let exit = match status.healthy {
        true => 0,
        false if lost || stopped => 2,
        false => 1,
    };
    let line = match status.findings.first() {
        Some(first) => first.clone(),
        None => format!("{}: leader {}, {} voters", status.cluster, status.leader, status.voters),
    };
    let figures = format!(
        "voters={} failure_tolerance={} revision={} term={}",
        status.voters, status.failure_tolerance, status.revision, status.term
    );
    Check { exit, line, figures, more: status.findings.iter().skip(1).cloned().collect() }
}

/// A node that cannot be asked is UNKNOWN, not CRITICAL: the check has learned nothing of the cluster.
pub fn nagios(check: Outcome<Check>) -> Outcome {
    let check = check.unwrap_or_else(|failure| {
        let why = failure.problems.first().map(|it| it.message.clone()).unwrap_or_default();
        Check { exit: UNKNOWN, line: why, figures: String::new(), more: Vec::new() }
    });
    let plain = |text: &str| text.replace(['|', '\n'], "/");
    let figures = if check.figures.is_empty() { String::new() } else { format!(" | {}", check.figures) };
    let mut text = format!("QUORUMGATE {} - {}{figures}\n", WORDS[usize::from(check.exit)], plain(&check.line));
    check.more.iter().for_each(|line| text += &format!("{}\n", plain(line)));
    output::stdout(&text)?;
    match check.exit {
        0 => Ok(()),
        1 => Err(Failure::negative()),
        // The numbers that plugins end with.
        2 => Err(Failure { exit: Exit::Usage, problems: Vec::new() }),
        _ => Err(Failure { exit: Exit::Forbidden, problems: Vec::new() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: &str, node: &str, level: &str) -> Finding {
        let (check, node, level) = (check.into(), node.into(), level.into());
        Finding { check, node, level, found: "3 s | off".into(), allowed: "less".into(), fix: "set it".into() }
    }

    #[test]
    fn a_check_ends_as_its_worst_finding_says() {
        for (levels, exit) in [("ok", 0), ("ok unknown", 3), ("warning unknown", 1), ("warning critical", 2)] {
            let findings = levels.split(' ').map(|level| found("clock", "n2", level)).collect();
            assert_eq!(of_doctor(&DoctorResponse { findings, ..Default::default() }).exit, exit, "{levels}");
        }
    }

    #[test]
    fn every_finding_has_its_sign_and_its_fix() {
        let findings = vec![found("clock", "n2", "critical"), found("rtt", "n1", "warning"), found("quorum", "", "ok")];
        let text = text(&DoctorResponse { findings, ..Default::default() });
        let expected = "\
× clock/n2  3 s | off
    allowed: less
    fix: set it
‼ rtt/n1    3 s | off
    allowed: less
    fix: set it
√ quorum    3 s | off
";
        assert_eq!(text, expected);
    }

    #[test]
    fn health_is_critical_without_a_leader_and_a_warning_without_a_node() {
        let status = |leader: &str, findings: &[&str]| GetStatusResponse {
            leader: leader.into(),
            healthy: findings.is_empty(),
            findings: findings.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        assert_eq!(of_health(&status("n1", &[])).exit, 0);
        assert_eq!(of_health(&status("n1", &["node n2 is unreachable"])).exit, 1);
        assert_eq!(of_health(&status("", &["no leader is known: writes are refused"])).exit, 2);
    }
}
