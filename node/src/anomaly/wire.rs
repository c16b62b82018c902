//! What nodes tell one another of callers, as messages. What cannot be is left out.

use quorumgate_model::{
    anomaly::{Finding, Sample, Seen},
    resource::AnomalyFeature,
};
use quorumgate_proto::peer::v1 as pb;
use quorumgate_proxy::anomaly::{KEY_BYTES_MAX, Outcome, Row, Verdict};

pub(super) fn seen_to(row: &Row) -> pb::AnomalySeen {
    let seen = &row.seen;
    pb::AnomalySeen {
        caller: Some(pb::AnomalyCaller { policy: row.policy.to_string(), key: row.key.clone() }),
        requests: seen.requests,
        failures: seen.failures,
        bytes_out: seen.bytes_out,
        objects: sample_to(&seen.objects),
        credentials: sample_to(&seen.credentials),
        numbers: sample_to(&seen.numbers),
        countries: sample_to(&seen.countries),
    }
}

pub(super) fn seen_from(it: pb::AnomalySeen) -> Option<Row> {
    let caller = it.caller?;
    let seen = Seen {
        requests: it.requests,
        failures: it.failures,
        bytes_out: it.bytes_out,
        objects: sample_from(it.objects),
        credentials: sample_from(it.credentials),
        numbers: sample_from(it.numbers),
        countries: sample_from(it.countries),
    };
    (caller.key.len() <= KEY_BYTES_MAX).then_some(Row { policy: caller.policy.parse().ok()?, key: caller.key, seen })
}

fn sample_to(it: &Sample) -> Option<pb::AnomalySample> {
    let (hashes, bits): (Vec<_>, Vec<_>) = it.kept().unzip();
    let bits = if bits.iter().all(|it| *it == 0) { Vec::new() } else { bits };
    (!it.is_empty()).then(|| pb::AnomalySample { level: it.level().into(), hashes, bits })
}

fn sample_from(it: Option<pb::AnomalySample>) -> Sample {
    let Some(it) = it else { return Sample::default() };
    let bits = it.bits.into_iter().chain(std::iter::repeat(0));
    Sample::of(u8::try_from(it.level).unwrap_or(u8::MAX), it.hashes.into_iter().zip(bits))
}

pub(super) fn verdict_to(it: &Verdict, now_ms: u64) -> pb::AnomalyVerdict {
    pb::AnomalyVerdict {
        caller: Some(pb::AnomalyCaller { policy: it.policy.to_string(), key: it.key.to_string() }),
        feature: it.finding.feature.word().to_owned(),
        value: it.finding.value,
        over: it.finding.over,
        nodes: it.nodes,
        since_ms: it.since_ms,
        ends_in_ms: it.ends_ms.saturating_sub(now_ms),
        outcome: it.outcome.word().to_owned(),
        spec: it.spec,
        known_in_ms: it.known_ms.saturating_sub(now_ms),
    }
}

pub(super) fn verdict_from(it: pb::AnomalyVerdict, now_ms: u64) -> Option<Verdict> {
    let caller = it.caller?;
    let feature = *AnomalyFeature::ALL.iter().find(|known| known.word() == it.feature)?;
    Some(Verdict {
        policy: caller.policy.parse().ok()?,
        key: caller.key.into(),
        finding: Finding { feature, value: it.value, over: it.over },
        nodes: it.nodes,
        since_ms: it.since_ms,
        ends_ms: now_ms.saturating_add(it.ends_in_ms),
        known_ms: now_ms.saturating_add(it.known_in_ms),
        spec: it.spec,
        outcome: Outcome::ALL.into_iter().find(|known| known.word() == it.outcome).unwrap_or_default(),
    })
}
