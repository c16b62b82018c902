//! How callers behave: what each request of a watched route adds to what is known of its caller, and what becomes of requests of
//! those who were found to behave unlike others. Finding is the cluster's: whoever owns the process asks what was seen here, adds
//! up what all nodes have seen, and says who was found. Routes without such a policy pay one look at an empty list.

mod table;
mod verdicts;

use std::{collections::BTreeMap, fmt::Write, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use quorumgate_model::{
    anomaly::Event,
    resource::{AnomalyAction, AnomalyKey, AnomalyObject, AnomalyPolicy, Name, Policy, PolicyKind, RouteAuth},
    ruleset::{Rule, split::SplitSeed},
};

pub(crate) use self::table::Table;
pub use self::{
    table::{Question, Row},
    verdicts::{KEY_BYTES_MAX, Outcome, VERDICTS_MAX, Verdict, Verdicts},
};
use crate::{
    identity::{Identity, auths::Kind, directory::Facts, shown::Shown},
    metrics::{Counter, WorkerMetrics},
    record::Record,
    refusal::Refusal,
};

/// What the upstream is told: `"walks";objects=214;over=200`.
const X_ANOMALY: HeaderName = HeaderName::from_static("x-anomaly");
/// Refusals of those who are known already: they add nothing.
const KNOWN: [&str; 4] = ["banned", "ip_denied", "abnormal_usage", "step_up_required"];

/// Objects of one request that are looked at.
const OBJECTS_MAX: usize = 16;

/// What a worker counts of it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests of callers who were found, by the policy's action.
    acted: [Counter; AnomalyAction::ALL.len()],
    /// Callers that had to go for others.
    pushed_out: Counter,
}

/// Of one exchange.
pub(crate) struct Watching {
    watches: Vec<Watch>,
    /// A hash of what it shows.
    credential: Option<u64>,
    /// A hash of where it comes from.
    country: Option<u64>,
    found: Option<Arc<Verdict>>,
    /// What the upstream is told.
    told: Vec<HeaderValue>,
}

struct Watch {
    policy: Arc<Policy>,
    objects: Vec<u64>,
    numbers: Vec<(u64, u64)>,
}

fn words(policy: &Policy) -> Option<&AnomalyPolicy> {
    match &policy.kind {
        PolicyKind::Anomaly(it) => Some(it),
        _ => None,
    }
}

impl Watching {
    /// None: it does not count for any of the policies.
    pub(crate) fn enter(
        record: &Record,
        policies: Vec<Arc<Policy>>,
        rule: &Rule,
        seed: SplitSeed,
        parts: &Parts,
        path: &str,
    ) -> Option<Box<Self>> {
        let (mut shown, mut placed) = (false, false);
        let mut watches = Vec::with_capacity(policies.len());
        for policy in policies {
            let Some(it) = words(&policy).filter(|it| !exempts(it, record.client_ip)) else { continue };
            shown |= it.over.credentials.is_some();
            placed |= it.over.countries.is_some();
            let (mut objects, mut numbers) = (Vec::new(), Vec::new());
            if it.over.objects.is_some() || it.over.sequential.is_some() {
                each_object(it.object(), rule, parts.uri.query(), path, |of, object, digits| {
                    if it.over.objects.is_some() {
                        objects.push(seed.hash(object.as_bytes()));
                    }
                    if let Some(number) = digits.and_then(number).filter(|_| it.over.sequential.is_some()) {
                        numbers.push((seed.hash(of.as_bytes()), number));
                    }
                });
            }
            watches.push(Watch { policy, objects, numbers });
        }
        if watches.is_empty() {
            return None;
        }
        let facts = shown.then(|| record.conn.worker.shared.directory.facts());
        let credential = facts.and_then(|facts| credential(&facts, rule.route.auth.as_ref(), parts, seed));
        let place = placed.then(|| record.conn.worker.shared.directory.geo.place(record.client_ip));
        let country = place.and_then(|it| it.country).map(|it| seed.hash(it.to_string().as_bytes()));
        Some(Box::new(Self { watches, credential, country, found: None, told: Vec::new() }))
    }

    /// Before anybody is asked who he is: those who are told by their address alone.
    pub(crate) fn before(&self, record: &Record) -> Result<(), Refusal> {
        let verdicts = &record.conn.worker.shared.verdicts;
        if verdicts.is_empty() {
            return Ok(());
        }
        // Where consumers are exempt, it has to be known first who asks.
        let throttled = |it: &AnomalyPolicy| {
            it.per == AnomalyKey::Ip && it.action == AnomalyAction::Throttle && it.exempt_consumers.is_empty()
        };
        for watch in self.watches.iter().filter(|it| words(&it.policy).is_some_and(throttled)) {
            if let Some(verdict) = watch.verdict(record, verdicts) {
                record.conn.worker.metrics.anomalies.acted[AnomalyAction::Throttle as usize].add(1);
                return Err(Refusal::AbnormalUsage(verdict));
            }
        }
        Ok(())
    }

    /// Once it is known who asks.
    pub(crate) fn behind(&mut self, record: &mut Record) -> Result<(), Refusal> {
        let worker = record.conn.worker.clone();
        let verdicts = &worker.shared.verdicts;
        if verdicts.is_empty() {
            return Ok(());
        }
        for watch in &self.watches {
            let Some(it) = words(&watch.policy) else { continue };
            let Some(verdict) = watch.verdict(record, verdicts) else { continue };
            if it.action == AnomalyAction::Challenge && has_stepped_up(record.identity.as_deref(), &verdict) {
                continue;
            }
            worker.metrics.anomalies.acted[it.action as usize].add(1);
            match it.action {
                AnomalyAction::Throttle => return Err(Refusal::AbnormalUsage(verdict)),
                AnomalyAction::Challenge => {
                    let challenge = step_up(&verdict);
                    return Err(Refusal::StepUpRequired(verdict, challenge.into_iter().collect()));
                }
                AnomalyAction::Header => {
                    let finding = &verdict.finding;
                    let (feature, value, over) = (finding.feature.word(), finding.value, finding.over);
                    let told = format!("\"{}\";{feature}={value};over={over}", verdict.policy);
                    self.told.extend(HeaderValue::try_from(told));
                }
                AnomalyAction::Log | AnomalyAction::Ban | AnomalyAction::Webhook => {}
            }
            record.noticed("limits", format!("{}: {}", verdict.policy, verdict.words()).into());
            self.found = Some(verdict);
        }
        Ok(())
    }

    /// In place of whatever the client says.
    pub(crate) fn tell(&mut self, headers: &mut HeaderMap) {
        headers.remove(X_ANOMALY);
        for told in self.told.drain(..) {
            headers.append(X_ANOMALY, told);
        }
    }

    /// The policy that has found its caller.
    pub(crate) fn found_by(&self) -> Option<&str> {
        self.found.as_ref().map(|it| &*it.policy)
    }

    pub(crate) fn ended(&self, record: &Record, status: u16, code: &str, bytes_out: u64) {
        if KNOWN.contains(&code) {
            return;
        }
        let worker = &record.conn.worker;
        let mut key = String::new();
        for watch in &self.watches {
            let Some(it) = words(&watch.policy) else { continue };
            key.clear();
            if !write_key(it, record, &mut key) {
                continue;
            }
            let failed = it.failure_statuses.contains(&status);
            // Who has proved who he is may be refused something all the same.
            let in_vain = failed && record.identity.is_none();
            let event = Event {
                failed,
                bytes_out,
                objects: &watch.objects,
                credential: self.credential.filter(|_| in_vain && it.over.credentials.is_some()),
                numbers: &watch.numbers,
                country: self.country.filter(|_| it.over.countries.is_some()),
            };
            let gone = worker.watched.note(&watch.policy, it, &key, worker.now_ms(), &event);
            if gone > 0 {
                worker.metrics.anomalies.pushed_out.add(gone);
            }
        }
    }
}

impl Watch {
    fn verdict(&self, record: &Record, verdicts: &Verdicts) -> Option<Arc<Verdict>> {
        let mut key = String::new();
        let it = words(&self.policy)?;
        write_key(it, record, &mut key).then(|| verdicts.of(&self.policy.name, || it.spec(), &key)).flatten()
    }
}

fn exempts(it: &AnomalyPolicy, address: IpAddr) -> bool {
    !it.exempt_cidrs.is_empty() && {
        let address = address.to_canonical();
        it.exempt_cidrs.iter().any(|net| net.contains(&address))
    }
}

/// Whose request it is; false: nobody's that this policy tells apart, or one who is exempt.
fn write_key(it: &AnomalyPolicy, record: &Record, out: &mut String) -> bool {
    let callers = || record.identity.iter().flat_map(|identity| identity.callers());
    let consumer = || callers().find_map(|caller| caller.consumer.as_ref());
    if !it.exempt_consumers.is_empty() && consumer().is_some_and(|it_is| it.exempt_consumers.contains(&it_is.name)) {
        return false;
    }
    match it.per {
        AnomalyKey::Consumer => match consumer() {
            Some(consumer) => out.push_str(&consumer.name),
            None => return false,
        },
        AnomalyKey::Credential => match callers().find_map(|caller| caller.credential.as_ref()) {
            Some(credential) => out.push_str(&credential.id),
            None => return false,
        },
        AnomalyKey::Ip => {
            let net = it.net_of(record.client_ip);
            // A String takes whatever is written.
            let _ = match net.prefix_len() == net.max_prefix_len() {
                true => write!(out, "{}", net.addr()),
                false => write!(out, "{net}"),
            };
        }
    }
    out.len() <= KEY_BYTES_MAX
}

/// What is asked for: what would be numbered, what tells it apart, and the part of that which may be a number.
fn each_object(
    which: AnomalyObject<'_>,
    rule: &Rule,
    query: Option<&str>,
    path: &str,
    mut each: impl FnMut(&str, &str, Option<&str>),
) {
    match which {
        AnomalyObject::Path => {
            // Of several numbers the last: `/users/7/orders/9` is an order of that user.
            let digits = path.rsplit('/').find(|it| number(it).is_some());
            let of = digits.and_then(|it| Some(path.split_at(path.rfind(&format!("/{it}"))?).0));
            each(of.unwrap_or(path), path, digits);
        }
        AnomalyObject::Param(name) => {
            for (_, value) in rule.params(path).filter(|(param, _)| *param == name) {
                each(name, value, Some(value));
            }
        }
        AnomalyObject::Query(name) => {
            let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let of_name = pairs.filter(|(key, _)| form(key) == name);
            for (_, value) in of_name.take(OBJECTS_MAX) {
                let value = form(value);
                each(name, &value, Some(&value));
            }
        }
    }
}

/// As forms write it.
fn form(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Of all that stands for credentials: of a user with a password the user. None: it shows none.
fn credential(facts: &Facts, wanted: Option<&RouteAuth>, parts: &Parts, seed: SplitSeed) -> Option<u64> {
    let shown = Shown::read(&parts.headers, parts.uri.query()).ok()?;
    let mut all: Vec<String> = Vec::new();
    for plan in wanted.into_iter().flat_map(|it| &it.names).filter_map(|name| facts.auths.find(name)) {
        if let Kind::ApiKey { header, query } = &plan.kind
            && let Ok(Some((key, _))) = shown.api_key(header, query.as_deref())
        {
            all.push(key.to_owned());
        }
    }
    match shown.basic() {
        Some(user) => all.extend(user.map(|it| it.user.to_string())),
        None => all.extend(shown.bearer().map(str::to_owned)),
    }
    (!all.is_empty()).then(|| seed.hash(all.join("\n").as_bytes()))
}

/// Whether the caller has proved who it is since it was found.
fn has_stepped_up(identity: Option<&Identity>, verdict: &Verdict) -> bool {
    let mut claims = identity.into_iter().flat_map(|it| it.callers()).filter_map(|caller| caller.claims.as_ref());
    claims.any(|it| {
        it.get("auth_time").and_then(|at| at.as_u64()).is_some_and(|at| at.saturating_mul(1_000) >= verdict.since_ms)
    })
}

/// RFC 9470 3: an authentication that is younger than what was found.
fn step_up(verdict: &Verdict) -> Option<HeaderValue> {
    let age = verdict.age_s();
    let text = format!(
        "Bearer error=\"insufficient_user_authentication\", error_description=\"a newer authentication is required\", max_age=\"{age}\""
    );
    HeaderValue::try_from(text).ok()
}

/// What all workers have seen of each caller.
pub(crate) fn merged(rows: impl Iterator<Item = Row>) -> Vec<Row> {
    let mut merged: BTreeMap<(Name, String), Row> = BTreeMap::new();
    for row in rows {
        match merged.get_mut(&(row.policy.clone(), row.key.clone())) {
            Some(known) => known.seen.merge(&row.seen),
            None => drop(merged.insert((row.policy.clone(), row.key.clone()), row)),
        }
    }
    merged.into_values().collect()
}

pub(crate) fn write(workers: &[Arc<WorkerMetrics>], verdicts: &Verdicts, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write_all(workers, verdicts, out);
}

fn write_all(workers: &[Arc<WorkerMetrics>], verdicts: &Verdicts, out: &mut String) -> std::fmt::Result {
    const FOUND: &str = "quorumgate_anomaly_found_total";
    writeln!(out, "# HELP {FOUND} Callers that policies have found, while this node led.\n# TYPE {FOUND} counter")?;
    for ((policy, feature), count) in verdicts.counts() {
        writeln!(out, "{FOUND}{{policy=\"{policy}\",feature=\"{feature}\"}} {count}")?;
    }
    const ACTED: &str = "quorumgate_anomaly_requests_total";
    writeln!(
        out,
        "# HELP {ACTED} Requests of callers that were found, by what became of them.\n# TYPE {ACTED} counter"
    )?;
    let sum = |of: &dyn Fn(&Counts) -> u64| workers.iter().map(|it| of(&it.anomalies)).fold(0, u64::wrapping_add);
    for action in AnomalyAction::ALL {
        let count = sum(&|it| it.acted[*action as usize].value());
        writeln!(out, "{ACTED}{{action=\"{}\"}} {count}", action.word())?;
    }
    const GONE: &str = "quorumgate_anomaly_pushed_out_total";
    writeln!(out, "# HELP {GONE} Callers that were forgotten for others.\n# TYPE {GONE} counter")?;
    writeln!(out, "{GONE} {}", sum(&|it| it.pushed_out.value()))?;
    const VERDICTS: &str = "quorumgate_anomaly_verdicts";
    writeln!(out, "# HELP {VERDICTS} Callers that are found at the moment.\n# TYPE {VERDICTS} gauge")?;
    writeln!(out, "{VERDICTS} {}", verdicts.len())
}
