//! By what a refusal was decided, with the numbers that were compared: for `explain` and the access log.

use std::sync::Arc;

use crate::{exchange::PASSES_MAX, plan::Plan, refusal::Refusal, upstream::Trail, worker::Worker};

pub(crate) struct Told {
    pub(crate) numbers: Vec<(&'static str, u64)>,
    /// In place of the route, where something else has decided.
    pub(crate) policy: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
}

impl Told {
    pub(crate) fn of(refusal: &Refusal, plan: Option<&Plan>, worker: &Worker, trail: &Trail) -> Self {
        let mut told = Self { numbers: numbers(refusal, plan, worker), policy: None, rule: None };
        match refusal {
            Refusal::OverLimit(over) => told.policy = Some(Arc::from(&*over.policy)),
            Refusal::LimitUnavailable(limit) => told.policy = Some(Arc::from(&**limit)),
            Refusal::Unauthenticated(..) | Refusal::AmbiguousCredentials(_) => told.rule = taken(plan),
            Refusal::MethodNotAllowed(methods) => told.rule = Some(Arc::from(methods.join(", "))),
            Refusal::IpDenied(shut) => {
                told.policy = Some(Arc::from(&*shut.policy));
                told.rule = Some(Arc::from(shut.how.word()));
            }
            Refusal::BotDenied(found) => {
                told.policy = Some(Arc::from(&*found.policy));
                let rule = format!("{} {}", found.how.word(), found.how.detail());
                told.rule = Some(Arc::from(rule.trim_end()));
            }
            Refusal::Retired(version) | Refusal::Brownout(version, _) => {
                told.policy = Some(Arc::from(&*version.policy.name));
                told.rule =
                    Some(Arc::from(if matches!(refusal, Refusal::Retired(_)) { "retired" } else { "brownouts" }));
            }
            Refusal::AbnormalUsage(verdict) | Refusal::StepUpRequired(verdict, _) => {
                told.policy = Some(Arc::from(&*verdict.policy));
                told.rule = Some(Arc::from(verdict.finding.feature.word()));
            }
            Refusal::Banned(ban) => {
                let is_named = !worker.shared.settings.redaction.hides_callers();
                let whom = ban.as_ref().filter(|_| is_named).map(|ban| ban.subject.to_string());
                told.policy = Some(whom.map_or(Arc::from("ban"), Arc::from));
                told.rule = Some(Arc::from("ban"));
            }
            Refusal::TooLargeToInspect { policy, .. } => {
                told.policy = Some(Arc::from(&**policy));
                told.rule = Some(Arc::from("body_max"));
            }
            Refusal::TypeNotTaken { policy, rule } => {
                told.policy = Some(Arc::from(&**policy));
                told.rule = Some(Arc::from(*rule));
            }
            Refusal::UnknownOperation { policy, .. } => {
                told.policy = Some(Arc::from(&**policy));
                told.rule = Some(Arc::from("unknown_operations"));
            }
            Refusal::Invalid(found) | Refusal::AnswerInvalid(found) => {
                told.policy = Some(Arc::from(&*found.policy));
                told.rule = Some(Arc::from(found.rule()));
            }
            Refusal::AnswerNotMasked { policy, .. } => {
                told.policy = Some(Arc::from(&**policy));
                told.rule = Some(Arc::from("mask"));
            }
            Refusal::BrokenRule => {
                told.rule = plan.and_then(|plan| plan.rule.broken.as_ref()).map(|why| Arc::from(why.to_string()));
            }
            _ => (),
        }
        if trail.attempts > 0 {
            told.numbers.push(("attempts", trail.attempts.into()));
        }
        told
    }
}

/// What the route takes to show who asks.
fn taken(plan: Option<&Plan>) -> Option<Arc<str>> {
    let auth = plan?.rule.route.auth.as_ref()?;
    Some(Arc::from(format!("{} {}", auth.combine.word(), auth.names.join(", "))))
}

pub(crate) fn numbers(refusal: &Refusal, plan: Option<&Plan>, worker: &Worker) -> Vec<(&'static str, u64)> {
    let limits = &worker.shared.settings.limits;
    let millis = |it: std::time::Duration| it.as_millis() as u64;
    match refusal {
        Refusal::OverLimit(over) => over.numbers(),
        Refusal::AbnormalUsage(verdict) | Refusal::StepUpRequired(verdict, _) => {
            let finding = &verdict.finding;
            vec![(finding.feature.word(), finding.value), ("over", finding.over), ("retry_after_s", verdict.left_s())]
        }
        Refusal::TooManyFailures(seconds) | Refusal::CircuitOpen(seconds) => vec![("retry_after_s", *seconds)],
        Refusal::BodyTooLarge => plan.map(|plan| ("body_bytes_max", plan.rule.route.body.max.0)).into_iter().collect(),
        Refusal::UnpacksTooLarge => {
            plan.map(|plan| ("body_decompressed_max", plan.rule.route.body.decompressed_max.0)).into_iter().collect()
        }
        Refusal::TooLargeToInspect { bytes_max, .. } => vec![("body_max", *bytes_max)],
        Refusal::Invalid(found) => vec![("errors", found.errors.len() as u64)],
        Refusal::UriTooLong => vec![("uri_bytes_max", limits.uri_bytes_max as u64)],
        Refusal::HeadersTooLarge => vec![
            ("header_fields_max", limits.header_fields_max as u64),
            ("header_bytes_max", limits.header_bytes_max as u64),
        ],
        Refusal::LateHead => vec![("header_read_ms", millis(limits.header_read))],
        Refusal::LoopDetected => vec![("passes_max", PASSES_MAX as u64)],
        Refusal::RequestTimeout => vec![("body_idle_ms", millis(limits.body_idle))],
        Refusal::Overloaded => vec![
            ("buffered_bytes", worker.metrics.buffered_bytes.value()),
            ("buffered_bytes_max", limits.buffered_bytes_max / worker.shared.settings.workers as u64),
        ],
        Refusal::UpstreamTimeout => {
            let total = plan.map(|plan| millis(plan.rule.route.timeouts.total.0)).filter(|total| *total > 0);
            total.map(|total| ("route_timeout_ms", total)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}
