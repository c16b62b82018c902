//! Who behaves unlike others, by what all nodes have seen together. The leader asks each node once a second for the callers who
//! may be over a bound, adds up what it hears, and asks all of them about these in the next round: of what is over a bound, some
//! node has seen its share. Whom it finds it tells to all nodes, and bans where the policy says so.

mod found;
mod left_out;
mod webhook;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use quorumgate_model::{
    ban::BanSubject,
    command::{Actor, AddBans, Body, NewBan},
    mutants::{self, Mutant},
    resource::{AnomalyAction, AnomalyPolicy, Name, Policy, PolicyKind},
};
use quorumgate_proto::peer::v1 as pb;
use quorumgate_proxy::{
    Proxy,
    anomaly::{Outcome, Question, Row, VERDICTS_MAX, Verdict},
    freshness::boottime_ns,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{found::Found, left_out::LeftOut};
pub use self::{
    found::{Caller, Callers},
    webhook::{Webhooks, webhooks},
};
use crate::{
    consensus::{Consensus, Draft},
    publish::wall_ms,
};

/// Between two rounds of the leader, and between two looks of a node at itself while it hears of none.
const ROUND: Duration = Duration::from_secs(1);
/// A node that has heard of no round for so long judges by what it sees alone.
const ALONE_AFTER: Duration = Duration::from_secs(5);
/// For the answers of the other nodes, on top of a round trip of the cluster.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);
const PROPOSE_MAX: Duration = Duration::from_secs(4);
/// Callers that all nodes are asked about in one round.
pub const ASKED_MAX: usize = 512;
/// What one answer tells of: callers, and hashes of all their samples together (half a MiB).
const ROWS_MAX: usize = 1_024;
const MARKS_MAX: usize = 64 << 10;
/// How many callers may be banned in any minute: a bound that is set too low must not shut out everybody.
pub const BANS_A_MINUTE_MAX: usize = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// Lines of one round; the rest is a number.
const LINES_MAX: usize = 20;

/// The policies that watch, by name.
pub type Policies = BTreeMap<Name, Arc<Policy>>;

/// What this node answers, and what it was told.
pub struct Anomalies {
    proxy: Arc<Proxy>,
    terms: Terms,
    heard_ns: AtomicU64,
    left_out: LeftOut,
    webhooks: Webhooks,
}

pub fn words(policy: &Policy) -> Option<&AnomalyPolicy> {
    match &policy.kind {
        PolicyKind::Anomaly(it) => Some(it),
        _ => None,
    }
}

impl Anomalies {
    pub fn new(proxy: Arc<Proxy>, webhooks: Webhooks) -> Arc<Self> {
        let (terms, heard_ns) = (Terms::default(), AtomicU64::new(boottime_ns()));
        Arc::new(Self { proxy, terms, heard_ns, left_out: LeftOut::default(), webhooks })
    }

    /// Callers near a bound of whom there was no room to tell or to ask, the most of late.
    pub fn left_out(&self) -> u64 {
        self.left_out.lately(boottime_ns())
    }

    /// Messages to webhooks that nobody has taken.
    pub fn messages_lost(&self) -> u64 {
        self.webhooks.lost()
    }

    pub fn write_metrics(&self, out: &mut String) {
        const NAME: &str = "quorumgate_anomaly_rows_left_out";
        const HELP: &str = "Callers near a bound of whom there was no room to tell, the most of the last ten minutes.";
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {NAME} {HELP}\n# TYPE {NAME} gauge\n{NAME} {}", self.left_out());
        self.webhooks.write_metrics(out);
    }

    pub fn policies(&self) -> Policies {
        self.proxy.ruleset().all_watches().map(|it| (it.name.clone(), it.clone())).collect()
    }

    pub async fn answer(&self, request: pb::AnomaliesRequest) -> pb::AnomaliesResponse {
        if let Some(said) = request.said {
            self.hear(said);
        }
        let asked = request.asked.into_iter().take(ASKED_MAX);
        let asked: Vec<(Name, String)> = asked.filter_map(|it| Some((it.policy.parse().ok()?, it.key))).collect();
        let first: BTreeSet<(Name, String)> = asked.iter().cloned().collect();
        let rows = self.proxy.seen(Question { parts: request.parts.max(1), asked }).await;
        let rows = self.bounded(rows, &first, &self.policies());
        pb::AnomaliesResponse { seen: rows.iter().map(wire::seen_to).collect() }
    }

    fn bounded(&self, rows: Vec<Row>, asked: &BTreeSet<(Name, String)>, policies: &Policies) -> Vec<Row> {
        let count = rows.len();
        let told = bounded(rows, asked, policies);
        self.left_out.note(count - told.len(), boottime_ns());
        told
    }

    /// A leader of before is not heard any more.
    fn hear(&self, said: pb::AnomalyVerdicts) {
        if !self.terms.hears(said.term) {
            return;
        }
        self.heard_ns.store(boottime_ns(), Relaxed);
        let now_ms = wall_ms();
        self.proxy.verdicts().replace(said.verdicts.into_iter().filter_map(|it| wire::verdict_from(it, now_ms)));
    }

    fn is_alone(&self) -> bool {
        Duration::from_nanos(boottime_ns().saturating_sub(self.heard_ns.load(Relaxed))) > ALONE_AFTER
    }

    /// Those of policies that say still what they said.
    pub fn known(&self, policies: &Policies) -> Vec<Verdict> {
        let all = self.proxy.verdicts().all();
        of_policies(policies, all.iter().map(|it| Verdict::clone(it)))
    }
}

/// The newest of those who led a round.
#[derive(Debug, Default)]
struct Terms(AtomicU64);

impl Terms {
    fn hears(&self, term: u64) -> bool {
        self.0.fetch_max(term, Relaxed) <= term || mutants::is(Mutant::PastLeaderHeard)
    }
}

/// Those of policies that say still what they said.
fn of_policies(policies: &Policies, all: impl Iterator<Item = Verdict>) -> Vec<Verdict> {
    let specs: BTreeMap<&Name, u64> =
        policies.iter().filter_map(|(name, it)| Some((name, words(it)?.spec()))).collect();
    all.filter(|it| specs.get(&it.policy) == Some(&it.spec)).collect()
}

/// Of those who were found as many as there is room for beside those who are known: nobody is banned of whom nobody would know it.
fn with_room(mut new: Vec<Found>, known: &[Verdict]) -> Vec<Found> {
    new.truncate(VERDICTS_MAX.saturating_sub(known.len()));
    new
}

/// As many as one answer has room for: those that were asked about, then those nearest to their bounds.
fn bounded(mut rows: Vec<Row>, asked: &BTreeSet<(Name, String)>, policies: &Policies) -> Vec<Row> {
    let heat = |row: &Row| {
        let it = policies.get(&row.policy).and_then(|it| words(it));
        it.map_or(0, |it| it.heat(|feature| row.seen.of(feature)))
    };
    let is_asked = |row: &Row| asked.contains(&(row.policy.clone(), row.key.clone()));
    rows.sort_by_cached_key(|row| std::cmp::Reverse((is_asked(row), heat(row))));
    let mut left = MARKS_MAX;
    let fits = |row: &Row| {
        let seen = &row.seen;
        let marks = seen.objects.len() + seen.credentials.len() + seen.numbers.len() + seen.countries.len();
        left.checked_sub(marks).map(|rest| left = rest).is_some()
    };
    rows.into_iter().take(ROWS_MAX).filter(fits).collect()
}

/// The leader's rounds; on the others it only looks.
pub struct Watch {
    pub consensus: Consensus,
    pub anomalies: Arc<Anomalies>,
}

impl Watch {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut asked = Vec::new();
        let mut bans = Bans::default();
        while stop.run_until_cancelled(tokio::time::sleep(ROUND)).await.is_some() {
            let policies = self.anomalies.policies();
            if policies.is_empty() {
                asked.clear();
                self.anomalies.proxy.verdicts().replace([]);
                continue;
            }
            let round = async {
                match self.consensus.leads() {
                    true => self.round(&policies, &mut asked, &mut bans).await,
                    false => {
                        asked.clear();
                        self.alone(&policies).await;
                    }
                }
            };
            if stop.run_until_cancelled(round).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn round(&self, policies: &Policies, asked: &mut Vec<pb::AnomalyCaller>, bans: &mut Bans) {
        let mut known = self.anomalies.known(policies);
        let (now_ms, term) = (wall_ms(), self.consensus.view().term);
        let said =
            pb::AnomalyVerdicts { term, verdicts: known.iter().map(|it| wire::verdict_to(it, now_ms)).collect() };
        let callers = Callers::ask(&self.consensus, policies, std::mem::take(asked), Some(said)).await;
        let new = with_room(found::judge(&callers, policies, &known), &known);
        let (next, left_out) = callers.asked_next(policies, &known);
        *asked = next;
        self.anomalies.left_out.note(left_out, boottime_ns());
        if new.is_empty() {
            return;
        }
        for it in &new {
            self.anomalies.proxy.verdicts().found(&it.policy.name, it.finding.feature);
        }
        let settled = self.settle(&new, bans).await;
        tell(&new, &settled);
        self.anomalies.webhooks.tell(&self.consensus, &new, &settled);
        known.extend(settled);
        // At once here, and on the others with the next round.
        self.anomalies.proxy.verdicts().replace(known);
    }

    /// What becomes of each.
    async fn settle(&self, new: &[Found], bans: &mut Bans) -> Vec<Verdict> {
        let one = |it: &Found| {
            if it.words().action != AnomalyAction::Ban {
                return Err(Outcome::InForce);
            }
            let subject = it.words().subject(&it.key).ok_or(Outcome::Exempt)?;
            if bans.admits(Instant::now()) { Ok(subject) } else { Err(Outcome::HeldBack) }
        };
        let decided: Vec<_> = new.iter().map(one).collect();
        let settled = new.iter().zip(decided).map(|(it, decided)| async move {
            let outcome = match decided {
                Err(outcome) => outcome,
                Ok(subject) => match self.ban(it, subject).await {
                    true => Outcome::Banned,
                    false => Outcome::HeldBack,
                },
            };
            it.verdict(outcome, wall_ms())
        });
        join_all(settled).await
    }

    async fn ban(&self, it: &Found, subject: BanSubject) -> bool {
        let actor = Actor {
            name: format!("anomaly/{}", it.policy.name),
            source: "cluster".to_owned(),
            rpc: "Bans/AddBans".to_owned(),
            ..Actor::default()
        };
        let bans = vec![NewBan { subject, ttl: it.words().hold.0 }].into();
        let body = Body::AddBans(AddBans { bans, reason: it.reason() });
        let draft = Draft { request_id: None, asked: None, actor: Arc::new(actor), body };
        match self.consensus.propose(draft, PROPOSE_MAX).await.map(|applied| applied.outcome) {
            Ok(Ok(_)) => true,
            Ok(Err(rejected)) => {
                warn!(policy = %it.policy.name, %rejected, "a ban is refused");
                false
            }
            // Whether or not it came to be: a ban that is there already is only made longer.
            Err(error) => {
                debug!(policy = %it.policy.name, %error, "a ban is not agreed on yet");
                false
            }
        }
    }

    /// While nobody leads: what this node alone has seen too much of. It bans nobody and tells no webhook, since each node would.
    async fn alone(&self, policies: &Policies) {
        if !self.anomalies.is_alone() {
            return;
        }
        let rows = self.anomalies.proxy.seen(Question { parts: 1, asked: Vec::new() }).await;
        let mut known = self.anomalies.known(policies);
        let own = Callers::own(self.anomalies.bounded(rows, &BTreeSet::new(), policies));
        let new = with_room(found::judge(&own, policies, &known), &known);
        if new.is_empty() {
            return;
        }
        let outcome = |it: &Found| match it.words().action {
            AnomalyAction::Ban => Outcome::HeldBack,
            _ => Outcome::InForce,
        };
        let settled: Vec<_> = new.iter().map(|it| it.verdict(outcome(it), wall_ms())).collect();
        tell(&new, &settled);
        known.extend(settled);
        self.anomalies.proxy.verdicts().replace(known);
    }
}

/// When those of the last minute were made, the oldest first; at most as many as there may be.
#[derive(Debug, Default)]
struct Bans(VecDeque<Instant>);

impl Bans {
    fn admits(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            self.0.pop_front();
        }
        let admits = self.0.len() < BANS_A_MINUTE_MAX || mutants::is(Mutant::BansUnbounded);
        if admits {
            self.0.push_back(now);
        }
        admits
    }
}

/// Keys are words of callers': quoted.
fn tell(new: &[Found], settled: &[Verdict]) {
    for (it, verdict) in new.iter().zip(settled).take(LINES_MAX) {
        let (feature, value, over) = (it.finding.feature.word(), it.finding.value, it.finding.over);
        let outcome = verdict.outcome.word();
        let (policy, action, nodes) = (&it.policy.name, it.words().action.word(), it.nodes);
        warn!(%policy, key = ?it.key, feature, value, over, nodes, action, outcome, "a caller behaves unlike others");
    }
    if let Some(more) = new.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        warn!(more, "more callers behave unlike others");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_found_is_not_known_once_it_says_something_else() {
        let (_, verdict) = found::tests::walker();
        let policies = found::tests::policies();
        let other = Verdict { spec: verdict.spec + 1, key: "other".into(), ..verdict.clone() };
        let gone = Verdict { policy: "gone".parse().unwrap(), key: "gone".into(), ..verdict.clone() };
        let known = of_policies(&policies, [verdict.clone(), other, gone].into_iter());
        assert_eq!(known, [verdict]);
    }

    #[test]
    fn no_more_are_found_than_can_be_told_of() {
        let (_, verdict) = found::tests::walker();
        let new = |count: usize| (0..count).map(|_| found::tests::walker().0).collect::<Vec<_>>();
        for (known, expected) in [(0, 3), (VERDICTS_MAX - 2, 2), (VERDICTS_MAX, 0), (VERDICTS_MAX + 1, 0)] {
            let known = vec![verdict.clone(); known];
            assert_eq!(with_room(new(3), &known).len(), expected, "beside {}", known.len());
        }
    }

    #[test]
    fn a_leader_of_before_is_not_heard() {
        let terms = Terms::default();
        let heard: Vec<_> = [3, 3, 2, 4, 3, 4].into_iter().filter(|term| terms.hears(*term)).collect();
        assert_eq!(heard, [3, 3, 4, 4]);
    }

    #[test]
    fn no_more_are_banned_in_any_minute_than_may_be() {
        let mut bans = Bans::default();
        let start = Instant::now();
        let admitted = |bans: &mut Bans, at: u64, count: usize| {
            (0..count).filter(|_| bans.admits(start + Duration::from_secs(at))).count()
        };
        assert_eq!(admitted(&mut bans, 0, 50), 50);
        assert_eq!(admitted(&mut bans, 30, 50), BANS_A_MINUTE_MAX - 50);
        assert_eq!(admitted(&mut bans, 59, 50), 0);
        assert_eq!(admitted(&mut bans, 60, 100), 50);
        assert_eq!(bans.0.len(), BANS_A_MINUTE_MAX);
    }
}
