//! What portals ask: the keys of whoever is signed in, made, rotated and revoked by proposals like any operator's, and what
//! is used of their limits on all nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quorumgate_model::{
    command::{Actor, Body, Decided, NewCredential, Reason, RotateCredential},
    credential::{Credential, CredentialId, CredentialKind, ENV_DEFAULT, Grants, Standing},
    resource::{Key, Kind, Limit, LimitPart, Name, PortalKeys, Resource},
    state::State,
};
use quorumgate_proxy::{
    identity::directory::Directory,
    portal::{
        OVERLAP,
        desk::{Asked, Calls, LimitUse, NotDone, OwnKey, OwnUsage, Question as Wanted, Reply, Visitor},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::{
    admin,
    consensus::{Consensus, Draft, ProposeError},
    secrets,
    tasks::Tasks,
    usage::{self, Question, Usage},
};

/// Questions under way at once.
const AT_ONCE_MAX: usize = 16;
/// Less than the proxy waits.
const PROPOSE_MAX: Duration = Duration::from_secs(5);
/// Until every node takes a new key: whoever is shown one uses it anywhere.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(3);
const USAGE_WITHIN: Duration = Duration::from_secs(2);
/// Of one consumer within a minute, on this node.
const WRITES_MAX: u32 = 10;
const READS_MAX: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// Consumers whose pace is known; beyond, those of the last minute are waited for.
const CONSUMERS_MAX: usize = 4_096;
/// Credentials of one consumer that are looked at for one page; one that has more is not shown all.
const LOOKED_AT_MAX: usize = 10_000;
/// Of a person's subject in the audit trail.
const SUBJECT_CHARS_MAX: usize = 128;
/// Keys that one page shows.
const SHOWN_MAX: usize = 250;

pub fn start(tasks: &Tasks, consensus: Consensus, directory: &Arc<Directory>) {
    if let Some(asked) = directory.asked() {
        let portal = Arc::new(Portal { consensus, directory: directory.clone(), pace: Mutex::default() });
        tasks.start("portals", run(portal, asked, tasks.stop()));
    }
}

struct Portal {
    consensus: Consensus,
    directory: Arc<Directory>,
    pace: Mutex<Pace>,
}

type Done = Result<Reply, NotDone>;

async fn run(portal: Arc<Portal>, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(()) = under_way.next() => {}
            next = asked.recv(), if under_way.len() < AT_ONCE_MAX => match next {
                Some(next) if next.is_given_up() => {}
                Some(next) => {
                    let portal = portal.clone();
                    under_way.push(async move {
                        let reply = portal.reply(&next.visitor, &next.question).await;
                        next.answer(reply);
                    });
                }
                None => return Ok(()),
            },
        }
    }
}

impl Portal {
    async fn reply(&self, visitor: &Visitor, question: &Wanted) -> Done {
        let now = Instant::now();
        let is_write = !matches!(question, Wanted::Keys { .. } | Wanted::Usage { .. });
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(&visitor.consumer, is_write, now)?;
        if visitor.is_shut_out(&self.directory) {
            return Err(NotDone::ShutOut);
        }
        match question {
            Wanted::Keys { given } => Ok(Reply::Keys(self.keys(&visitor.consumer, given.as_ref()))),
            Wanted::Create { scopes, label, given } => self.create(visitor, scopes, label, given).await,
            Wanted::Rotate { id, given } => self.rotate(visitor, *id, given).await,
            Wanted::Revoke { id } => self.revoke(visitor, *id).await,
            Wanted::Usage { limits, versions } => Ok(Reply::Usage(self.usage(visitor, limits, versions).await)),
        }
    }

    /// The newest first; of those that are over the last ones.
    fn keys(&self, consumer: &Name, given: Option<&PortalKeys>) -> Vec<OwnKey> {
        let (state, now_us) = (self.consensus.state(), self.consensus.clock_us());
        let mut own: Vec<_> = keys_of(&state, consumer).collect();
        own.sort_by_key(|it| (!it.standing(now_us).is_good(), std::cmp::Reverse(it.created.get())));
        own.truncate(SHOWN_MAX);
        own.into_iter().map(|it| shown(it, given, now_us)).collect()
    }

    async fn create(&self, visitor: &Visitor, scopes: &[String], label: &str, given: &PortalKeys) -> Done {
        let request_id = Uuid::new_v4();
        let (secret, id, kind) = self.made(request_id, ENV_DEFAULT)?;
        let scopes = scopes.iter().map(|it| it.as_str().into()).collect();
        let grants = Grants { scopes, label: label.into(), ..Grants::default() };
        let new = NewCredential {
            id,
            consumer: visitor.consumer.clone(),
            kind,
            grants: (grants != Grants::default()).then(|| Arc::new(grants)),
            ttl: Some(given.expires.0),
            keys_max: Some(given.max),
        };
        self.propose(visitor, request_id, Body::CreateCredentials([new].into())).await?;
        self.told(visitor, id, secret, None).await
    }

    async fn rotate(&self, visitor: &Visitor, id: CredentialId, given: &PortalKeys) -> Done {
        let request_id = Uuid::new_v4();
        let state = self.consensus.state();
        let old = own(&state, visitor, id)?;
        if !is_given(old, given, self.consensus.clock_us()) {
            return Err(NotDone::NotGiven);
        }
        let (secret, new_id, kind) = self.made(request_id, old.env())?;
        let rotate = RotateCredential { id, new_id, kind, overlap: OVERLAP.0, keys_max: Some(given.max) };
        self.propose(visitor, request_id, Body::RotateCredential(rotate)).await?;
        self.told(visitor, new_id, secret, Some(id)).await
    }

    /// A key whose owner was shut out while it was made ends, as nobody is shown it, and so does the one that it was to take
    /// the place of: who is shut out may have that one.
    async fn told(&self, visitor: &Visitor, id: CredentialId, secret: String, old: Option<CredentialId>) -> Done {
        if visitor.is_shut_out(&self.directory) {
            for id in [Some(id), old].into_iter().flatten() {
                self.propose(visitor, Uuid::new_v4(), Body::SetCredentialState { id, to: Decided::Revoked }).await?;
            }
            return Err(NotDone::ShutOut);
        }
        Ok(Reply::Made { id, secret })
    }

    /// Any key of the consumer, whoever made it: one that leaked must end.
    async fn revoke(&self, visitor: &Visitor, id: CredentialId) -> Done {
        own(&self.consensus.state(), visitor, id)?;
        self.propose(visitor, Uuid::new_v4(), Body::SetCredentialState { id, to: Decided::Revoked }).await?;
        Ok(Reply::Revoked)
    }

    fn made(&self, request_id: Uuid, env: &str) -> Result<(String, CredentialId, CredentialKind), NotDone> {
        let pepper = secrets::pepper(&self.consensus.state(), &self.consensus.keys());
        let pepper = pepper.ok().flatten().ok_or(NotDone::Unavailable)?;
        admin::own_key(&pepper, request_id, env).map_err(|_| NotDone::Unavailable)
    }

    async fn propose(&self, visitor: &Visitor, request_id: Uuid, body: Body) -> Result<(), NotDone> {
        let actor = Actor {
            name: actor_name(&visitor.consumer, visitor.subject()),
            source: visitor.client_ip.to_string(),
            rpc: format!("route {}", visitor.route),
            owner_scope: String::new(),
        };
        let draft = Draft { request_id: Some(request_id.into_bytes()), asked: None, actor: Arc::new(actor), body };
        let route = &visitor.route;
        match self.consensus.propose(draft, PROPOSE_MAX).await.map(|applied| (applied.index, applied.outcome)) {
            Ok((index, Ok(_))) => {
                self.consensus.await_published(index, PUBLISHED_WITHIN).await;
                Ok(())
            }
            Ok((_, Err(rejected))) => match rejected.reason {
                Reason::LimitReached => Err(NotDone::TooMany),
                Reason::NotFound => Err(NotDone::NotTheirs),
                _ => Err(NotDone::Refused(rejected.to_string())),
            },
            Err(error @ (ProposeError::OutcomeUnknown(_) | ProposeError::Stopped(_))) => {
                warn!(route, %error, "what a portal was asked for may not be done");
                Err(NotDone::Unknown)
            }
            Err(error) => {
                warn!(route, %error, "what a portal was asked for is not done");
                Err(NotDone::Unavailable)
            }
        }
    }

    async fn usage(&self, visitor: &Visitor, limits: &[Name], versions: &[Name]) -> OwnUsage {
        let (state, now_us) = (self.consensus.state(), self.consensus.clock_us());
        let good = keys_of(&state, &visitor.consumer).filter(|it| it.standing(now_us).is_good());
        let names: BTreeMap<String, String> = good.take(SHOWN_MAX).map(|it| (it.id.to_string(), called(it))).collect();
        let plan = plan_of(&state, &visitor.consumer);
        let question = |name: &Name| {
            let limit = usage::limit_named(&state, name)?;
            if !limit.plans.is_empty() && !plan.as_ref().is_some_and(|plan| limit.plans.contains(plan)) {
                return None;
            }
            let keys = match by(limit)? {
                By::Consumer => vec![visitor.consumer.to_string()],
                By::Key => names.keys().cloned().collect(),
            };
            let top = keys.len();
            (!keys.is_empty()).then(|| Question { limit: name.clone(), keys: Some(keys), top })
        };
        let questions: Vec<Question> = limits.iter().filter_map(question).collect();
        let mut shown = OwnUsage::default();
        if !questions.is_empty() {
            let found = Usage::ask(&self.consensus, questions, USAGE_WITHIN).await;
            for report in &found.limits {
                let is_by_key = matches!(by(&report.limit), Some(By::Key));
                shown.limits.extend(report.keys.iter().map(|it| LimitUse {
                    limit: report.limit.name.clone(),
                    key: is_by_key.then(|| names.get(&it.key).unwrap_or(&it.key).clone()),
                    used: it.used,
                    of: it.limit,
                    resets_in: it.resets_in_us.map(Duration::from_micros),
                }));
            }
            shown.unanswered = found.unanswered.len();
        }
        let mut sums: BTreeMap<&Name, (u64, u64)> = BTreeMap::new();
        let mut silent = 0;
        for (_, answer) in self.consensus.callers(USAGE_WITHIN).await {
            let Some(answer) = answer else {
                silent += 1;
                continue;
            };
            for it in answer.callers.iter().filter(|it| *it.consumer == *visitor.consumer) {
                let Some(version) = versions.iter().find(|version| ***version == *it.policy) else { continue };
                let sum = sums.entry(version).or_default();
                *sum = (sum.0 + it.count, sum.1.max(it.last_ms));
            }
        }
        shown.unanswered = shown.unanswered.max(silent);
        let calls = |(policy, (count, last_ms)): (&Name, (u64, u64))| Calls { policy: policy.clone(), count, last_ms };
        shown.calls = sums.into_iter().map(calls).collect();
        shown
    }
}

/// The person behind the consumer, where the provider names one.
fn actor_name(consumer: &Name, subject: Option<&str>) -> String {
    let mut name = format!("portal/{consumer}");
    if let Some(subject) = subject {
        name.push('/');
        for it in subject.chars().take(SUBJECT_CHARS_MAX) {
            match it.is_control() {
                true => name.extend(it.escape_default()),
                false => name.push(it),
            }
        }
    }
    name
}

/// Whose use a limit counts, where that is a consumer's own affair.
enum By {
    Consumer,
    Key,
}

fn by(limit: &Limit) -> Option<By> {
    match limit.per[..] {
        [LimitPart::Consumer] => Some(By::Consumer),
        [LimitPart::Credential] => Some(By::Key),
        _ => None,
    }
}

fn plan_of(state: &State, consumer: &Name) -> Option<String> {
    match &state.resources.get(&Key { kind: Kind::Consumer, name: consumer.clone() })?.resource {
        Resource::Consumer(it) => it.plan.clone(),
        _ => None,
    }
}

/// Of the first `LOOKED_AT_MAX` by their ids.
fn keys_of<'a>(state: &'a State, consumer: &'a Name) -> impl Iterator<Item = &'a Arc<Credential>> {
    let all = state.credentials.of(consumer).take(LOOKED_AT_MAX).filter_map(move |id| state.credentials.get(id));
    all.filter(|it| matches!(it.kind, CredentialKind::ApiKey { .. }))
}

/// That of another consumer is as good as none.
fn own<'a>(state: &'a State, visitor: &Visitor, id: CredentialId) -> Result<&'a Arc<Credential>, NotDone> {
    let found = state.credentials.get(id).filter(|it| it.consumer == visitor.consumer);
    found.filter(|it| matches!(it.kind, CredentialKind::ApiKey { .. })).ok_or(NotDone::NotTheirs)
}

/// Whether the portal could have given this key by now: an operator's may do more, or end later or never.
fn is_given(key: &Credential, given: &PortalKeys, now_us: u64) -> bool {
    let expires_us = u64::try_from(given.expires.0.as_micros()).unwrap_or(u64::MAX);
    let last_us = now_us.saturating_add(expires_us);
    let ends = key.ends_at_us.is_some_and(|end| end.get() <= last_us);
    ends && key.scopes().iter().all(|scope| given.scopes.iter().any(|it| **it == **scope))
}

/// How it begins.
fn prefix(it: &Credential) -> String {
    match &it.kind {
        CredentialKind::ApiKey { prefix, .. } => format!("qg_{}_{}", it.env(), String::from_utf8_lossy(prefix)),
        CredentialKind::Basic(user) => user.name.clone(),
    }
}

/// As its owner knows it.
fn called(it: &Credential) -> String {
    format!("{} {}…", it.label(), prefix(it)).trim_start().to_owned()
}

fn shown(it: &Credential, given: Option<&PortalKeys>, now_us: u64) -> OwnKey {
    let standing = it.standing(now_us);
    let ends = it.ends_at_us.filter(|_| standing.is_good());
    OwnKey {
        id: it.id,
        label: it.label().to_owned(),
        prefix: prefix(it),
        scopes: it.scopes().iter().map(|scope| scope.to_string()).collect(),
        standing,
        created_ms: it.created.get(),
        ends_in: ends.map(|end| Duration::from_micros(end.get().saturating_sub(now_us))),
        rotates: standing == Standing::Active && given.is_some_and(|given| is_given(it, given, now_us)),
    }
}

/// How often consumers asked within the last minute.
#[derive(Default)]
struct Pace(BTreeMap<Name, Counted>);

struct Counted {
    since: Instant,
    reads: u32,
    writes: u32,
}

impl Pace {
    fn take(&mut self, consumer: &Name, is_write: bool, now: Instant) -> Result<(), NotDone> {
        let is_over = |it: &Counted| now.saturating_duration_since(it.since) >= MINUTE;
        if self.0.len() >= CONSUMERS_MAX && !self.0.contains_key(consumer) {
            self.0.retain(|_, it| !is_over(it));
            if self.0.len() >= CONSUMERS_MAX {
                return Err(NotDone::TooOften(MINUTE.as_secs()));
            }
        }
        let counted = self.0.entry(consumer.clone()).or_insert(Counted { since: now, reads: 0, writes: 0 });
        if is_over(counted) {
            *counted = Counted { since: now, reads: 0, writes: 0 };
        }
        let (count, max) = match is_write {
            true => (&mut counted.writes, WRITES_MAX),
            false => (&mut counted.reads, READS_MAX),
        };
        if *count >= max {
            let left = MINUTE.saturating_sub(now.saturating_duration_since(counted.since));
            return Err(NotDone::TooOften(left.as_secs() + 1));
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::{
        command::{AddBans, NewBan},
        credential::CredentialState,
    };
    use quorumgate_proxy::identity::{AuthMethod, Caller, RevocationSubject, Scopes, TokenMarks};

    use super::*;
    use crate::admin::tests::fixture::Fixture;

    /// A cluster of one node with the consumer `acme`, and somebody who is signed in as that.
    async fn desk() -> (Fixture, Arc<Portal>, Visitor) {
        let fixture = Fixture::with_consumer().await;
        let (consensus, directory) = (fixture.consensus.clone(), fixture.directory.clone());
        let token = TokenMarks { subject: Some("ann".into()), ..TokenMarks::default() };
        let consumer: Name = "acme".parse().unwrap();
        let caller = Caller {
            consumer: Some(Arc::new(serde_json::from_value(serde_json::json!({ "name": "acme" })).unwrap())),
            credential: None,
            method: AuthMethod::OidcLogin,
            auth: "login".parse().unwrap(),
            scopes: Scopes::default(),
            groups: Arc::default(),
            claims: None,
            subject: RevocationSubject {
                consumer: Some(consumer.clone()),
                token: Some(Arc::new(token)),
                ..RevocationSubject::default()
            },
            expires: None,
        };
        let (route, client_ip) = ("portal".to_owned(), [127, 0, 0, 1].into());
        let visitor = Visitor { consumer, route, client_ip, caller: Arc::new(caller) };
        (fixture, Arc::new(Portal { consensus, directory, pace: Mutex::default() }), visitor)
    }

    async fn ban(portal: &Portal, visitor: &Visitor) {
        let ban = NewBan { subject: "consumer:acme".parse().unwrap(), ttl: Duration::from_secs(3_600) };
        let bans = Body::AddBans(AddBans { bans: [ban].into(), reason: "test".into() });
        portal.propose(visitor, Uuid::new_v4(), bans).await.unwrap();
        assert!(visitor.is_shut_out(&portal.directory));
    }

    #[tokio::test]
    async fn nothing_is_done_for_who_was_shut_out_while_the_question_waited() {
        let (_fixture, portal, visitor) = desk().await;
        let given = PortalKeys::default();
        let create = Wanted::Create { scopes: Vec::new(), label: "mine".into(), given: given.clone() };
        let Ok(Reply::Made { id, .. }) = portal.reply(&visitor, &create).await else { panic!("no key is made") };
        ban(&portal, &visitor).await;
        let rotate = Wanted::Rotate { id, given };
        for question in [create, rotate, Wanted::Revoke { id }, Wanted::Keys { given: None }] {
            assert_eq!(portal.reply(&visitor, &question).await, Err(NotDone::ShutOut), "{question:?}");
        }
        let keys = portal.keys(&visitor.consumer, None);
        assert_eq!(keys.iter().map(|it| (it.id, it.standing)).collect::<Vec<_>>(), [(id, Standing::Active)]);
    }

    #[tokio::test]
    async fn the_keys_of_who_is_shut_out_while_they_are_made_end() {
        let (_fixture, portal, visitor) = desk().await;
        let given = PortalKeys::default();
        let Ok(Reply::Made { id, .. }) = portal.create(&visitor, &[], "old", &given).await else {
            panic!("no key is made")
        };
        ban(&portal, &visitor).await;
        // Behind the look that comes first.
        assert_eq!(portal.rotate(&visitor, id, &given).await, Err(NotDone::ShutOut));
        assert_eq!(portal.create(&visitor, &[], "new", &given).await, Err(NotDone::ShutOut));
        let keys = portal.keys(&visitor.consumer, None);
        assert_eq!(keys.iter().map(|it| it.standing).collect::<Vec<_>>(), [Standing::Revoked; 3], "{keys:?}");
    }

    #[test]
    fn the_audit_trail_names_the_person() {
        let check = |subject: Option<&str>, expected: &str| {
            assert_eq!(actor_name(&"acme".parse().unwrap(), subject), expected);
        };
        check(None, "portal/acme");
        check(Some("alice"), "portal/acme/alice");
        check(Some("a\nb\u{1b}"), "portal/acme/a\\nb\\u{1b}");
        check(Some(&"é".repeat(SUBJECT_CHARS_MAX + 1)), &format!("portal/acme/{}", "é".repeat(SUBJECT_CHARS_MAX)));
    }

    #[test]
    fn a_consumer_writes_so_often_in_a_minute_and_not_more() {
        let mut pace = Pace::default();
        let (now, acme): (_, Name) = (Instant::now(), "acme".parse().unwrap());
        for _ in 0..WRITES_MAX {
            assert_eq!(pace.take(&acme, true, now), Ok(()));
        }
        assert_eq!(pace.take(&acme, true, now + MINUTE / 2), Err(NotDone::TooOften(31)));
        assert_eq!(pace.take(&acme, false, now), Ok(()), "to look is another matter");
        assert_eq!(pace.take(&"other".parse().unwrap(), true, now), Ok(()));
        assert_eq!(pace.take(&acme, true, now + MINUTE), Ok(()));
    }

    #[test]
    fn usage_calls_a_key_what_its_owner_calls_it() {
        let check = |label: &str, expected: &str| {
            let grants = Grants { label: label.into(), ..Grants::default() };
            let key = Credential {
                id: "00000000000000ab".parse().unwrap(),
                consumer: "acme".parse().unwrap(),
                kind: CredentialKind::ApiKey { hash_rest: [1; 24], prefix: *b"abcdefgh" },
                grants: Some(Arc::new(grants)),
                created: Default::default(),
                ends_at_us: None,
                state: CredentialState::Active,
                replaced_by: None,
            };
            assert_eq!(called(&key), expected);
        };
        check("mine", "mine qg_live_abcdefgh…");
        check("", "qg_live_abcdefgh…");
    }

    #[test]
    fn a_key_that_ends_later_than_the_portals_do_is_not_given_there() {
        let given = PortalKeys::default();
        let expires_us = given.expires.0.as_micros() as u64;
        let check = |ends_at_us: Option<u64>, expected: bool| {
            let key = Credential {
                id: "00000000000000ab".parse().unwrap(),
                consumer: "acme".parse().unwrap(),
                kind: CredentialKind::ApiKey { hash_rest: [1; 24], prefix: *b"abcdefgh" },
                grants: None,
                created: Default::default(),
                ends_at_us: ends_at_us.and_then(std::num::NonZeroU64::new),
                state: CredentialState::Active,
                replaced_by: None,
            };
            assert_eq!(is_given(&key, &given, 7), expected, "{ends_at_us:?}");
        };
        check(Some(7 + expires_us), true);
        check(Some(8 + expires_us), false);
        check(None, false);
    }

    #[test]
    fn the_paces_of_many_take_no_more_room() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for n in 0..CONSUMERS_MAX {
            pace.take(&format!("c{n}").parse().unwrap(), true, now).unwrap();
        }
        let more: Name = "more".parse().unwrap();
        assert!(pace.take(&more, true, now).is_err());
        assert_eq!(pace.take(&more, true, now + MINUTE), Ok(()));
        assert_eq!(pace.0.len(), 1);
    }
}
