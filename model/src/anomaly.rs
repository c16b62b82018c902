//! What a policy of kind `anomaly` makes of what was seen of one key: on one worker, on one node, in the whole cluster. Each part
//! is small and can be added to the others', so that nobody needs to see everything.

mod sample;
mod track;

pub use sample::{SAMPLE_MAX, Sample};
pub use track::{Event, SLOTS, Track};

use crate::resource::{AnomalyFeature, AnomalyPolicy};

/// What was seen of one key within a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub requests: u64,
    pub failures: u64,
    pub bytes_out: u64,
    /// What was asked for.
    pub objects: Sample,
    /// What was shown in vain.
    pub credentials: Sample,
    /// Numbers that were asked for, by blocks of neighbours.
    pub numbers: Sample,
    pub countries: Sample,
}

/// More of something than the policy takes for usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    pub feature: AnomalyFeature,
    pub value: u64,
    pub over: u64,
}

impl Seen {
    /// With what another part of the cluster has seen of the same key.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.objects.merge(&other.objects);
        self.credentials.merge(&other.credentials);
        self.numbers.merge(&other.numbers);
        self.countries.merge(&other.countries);
    }

    pub fn of(&self, feature: AnomalyFeature) -> u64 {
        match feature {
            AnomalyFeature::Requests => self.requests,
            AnomalyFeature::Failures => self.failures,
            AnomalyFeature::Objects => self.objects.count(),
            AnomalyFeature::Credentials => self.credentials.count(),
            AnomalyFeature::Sequential => self.numbers.neighbours(),
            AnomalyFeature::BytesOut => self.bytes_out,
            AnomalyFeature::Countries => self.countries.count(),
        }
    }

    /// As much as it may be with what others have seen: these parts add up to no less than the sum of all.
    pub fn part_of(&self, feature: AnomalyFeature) -> u64 {
        match feature {
            // Neighbours may have been asked for elsewhere, one here and one there.
            AnomalyFeature::Sequential => self.numbers.bits(),
            other => self.of(other),
        }
    }
}

impl AnomalyPolicy {
    /// What is furthest over its bound, if anything is.
    pub fn judge(&self, seen: &Seen) -> Option<Finding> {
        let found = self.over.iter().map(|(feature, over)| Finding { feature, value: seen.of(feature), over });
        found.filter(|it| it.value > it.over).max_by_key(|it| thousandths(it.value, it.over))
    }

    /// How near it is to what the policy takes for unusual: thousandths of the nearest bound.
    pub fn heat(&self, of: impl Fn(AnomalyFeature) -> u64) -> u64 {
        self.over.iter().map(|(feature, over)| thousandths(of(feature), over)).max().unwrap_or(0)
    }

    /// Whether what one of so many has seen may be a part of more than a bound: of what is over one, somebody has seen so much.
    pub fn may_be_over(&self, parts: u64, part_of: impl Fn(AnomalyFeature) -> u64) -> bool {
        self.over.iter().any(|(feature, over)| part_of(feature).saturating_mul(parts.max(1)) > over)
    }
}

fn thousandths(value: u64, of: u64) -> u64 {
    value.saturating_mul(1_000) / of.max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{Kind, PolicyKind, Resource};

    fn policy(words: serde_json::Value) -> AnomalyPolicy {
        let Resource::Policy(it) = Kind::Policy.parse(json!({ "name": "p", "anomaly": words })).unwrap() else {
            panic!("another kind")
        };
        let PolicyKind::Anomaly(it) = &it.kind else { panic!("another kind") };
        (**it).clone()
    }

    /// What a node of three sees of a walk that goes round robin.
    fn third(of: u64, walked: u64) -> Seen {
        let mut track = Track::default();
        for number in (0..walked).filter(|number| number % 3 == of) {
            let (objects, numbers) = ([number.wrapping_mul(0x9e37_79b9_7f4a_7c15)], [(7, number)]);
            track.note(1, &Event { objects: &objects, numbers: &numbers, ..Event::default() });
        }
        track.seen(1)
    }

    #[test]
    fn what_no_node_sees_alone_is_seen_together() {
        let it = policy(json!({ "per": "consumer", "over": { "objects": 100, "sequential": 100 } }));
        let parts = [third(0, 210), third(1, 210), third(2, 210)];
        for part in &parts {
            assert_eq!((it.judge(part), part.of(AnomalyFeature::Sequential)), (None, 0));
            assert!(it.may_be_over(3, |it| part.part_of(it)), "none of the parts would be looked at");
        }
        let mut all = Seen::default();
        parts.iter().for_each(|part| all.merge(part));
        let found = it.judge(&all).unwrap();
        assert_eq!((found.feature, found.value, found.over), (AnomalyFeature::Objects, 210, 100));
        // Of 210 neighbours some stand on two sides of a block's end.
        assert_eq!(all.of(AnomalyFeature::Sequential), 209 - 3);
        assert_eq!(it.heat(|feature| all.of(feature)), 2_100);
    }

    #[test]
    fn the_furthest_over_its_bound_is_told() {
        let it = policy(json!({ "per": "ip", "over": { "requests": 100, "failures": 5, "bytes_out": "1KiB" } }));
        let seen = |requests, failures, bytes_out| Seen { requests, failures, bytes_out, ..Seen::default() };
        let check = |seen: Seen, expected: Option<(AnomalyFeature, u64)>| {
            assert_eq!(it.judge(&seen).map(|it| (it.feature, it.value)), expected, "{seen:?}");
        };
        check(seen(100, 5, 1_024), None);
        check(seen(101, 5, 1_024), Some((AnomalyFeature::Requests, 101)));
        check(seen(101, 10, 1_024), Some((AnomalyFeature::Failures, 10)));
        check(seen(0, 0, u64::MAX), Some((AnomalyFeature::BytesOut, u64::MAX)));
        let mut most = seen(u64::MAX, 1, u64::MAX);
        most.merge(&seen(2, 2, 2));
        assert_eq!((most.requests, most.bytes_out), (u64::MAX, u64::MAX));
        let may_be = |seen: Seen| it.may_be_over(3, |feature| seen.part_of(feature));
        assert!(!may_be(seen(33, 1, 341)) && may_be(seen(34, 0, 0)) && may_be(seen(0, 2, 0)));
    }
}
