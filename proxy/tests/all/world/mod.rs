//! A gateway with consumers and credentials, which a test changes as the control plane would.
#![allow(dead_code)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quorumgate_model::{
    LEVEL,
    command::{
        Actor, AddBans, Body, Command, Decided, NewBan, NewCredential, NewRevocation, Revoke, RotateCredential, Stamp,
    },
    credential::{BasicUser, CredentialId, CredentialKind, Grants},
    resource::{Key, Kind},
    revocation::{SelectorKind, SelectorParts},
    ruleset::Ruleset,
    state::{ClusterFacts, State},
};
use quorumgate_proxy::{
    Proxy, Settings,
    freshness::boottime_ns,
    identity::{
        directory::{Directory, Opened},
        fetch::Fetcher,
        keeper::Keeper,
        keys::{key_hash, user_hash},
        schedule::Timing,
    },
    portal::desk::{NotDone, Question, Reply, Visitor},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Gateway, Heard, echo, settings, state};

pub const PEPPER: [u8; 32] = [7; 32];

pub struct World {
    pub gateway: Gateway,
    pub heard: Heard,
    directory: Arc<Directory>,
    control: Control,
}

/// What a node's control plane is to its proxy.
#[derive(Clone)]
struct Control {
    proxy: Arc<Proxy>,
    state: Arc<Mutex<State>>,
    opened: Arc<Mutex<Arc<Opened>>>,
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Control {
    /// What the publisher does after each entry.
    fn publish(&self) {
        let state = self.state.lock().unwrap();
        let opened = self.opened.lock().unwrap().clone();
        self.proxy.directory().publish(&state, opened);
        self.proxy.publish(Arc::new(Ruleset::compile(&state, Some(&self.proxy.ruleset()))));
    }

    fn apply(&self, body: Body) {
        let mut state = self.state.lock().unwrap();
        let stamp = Stamp { clock_us: boottime_ns() / 1_000, wall_ms: now_s() * 1_000 };
        let actor = Arc::new(Actor { name: "test".into(), ..Actor::default() });
        let command = Command { min_level: 0, request_id: None, asked: None, stamp, actor, body };
        let index = state.index + 1;
        let (applied, _) = state.apply(index, &command);
        applied.outcome.unwrap();
        drop(state);
        self.publish();
    }
}

impl World {
    /// With a consumer `acme` in the group `partners`, and an upstream `u` that says what it heard.
    pub async fn new(words: Value) -> Self {
        Self::with(settings(), words).await
    }

    pub async fn with(settings: Settings, words: Value) -> Self {
        Self::with_opened(settings, words, Opened::default()).await
    }

    /// With secrets by their fingerprints, the cluster's cookie key, and leave to call providers on this machine.
    pub async fn with_secrets(words: Value, secrets: &[(&str, &str)]) -> Self {
        let of_resources = secrets.iter().map(|(name, text)| (name.parse().unwrap(), text.as_bytes().into())).collect();
        let cookie_key = ("cookie-key".parse().unwrap(), Box::from([9; 32]));
        let opened = Opened { of_resources, secrets: [cookie_key].into(), ..Opened::default() };
        Self::with_opened(settings(), words, opened).await
    }

    async fn with_opened(settings: Settings, mut words: Value, opened: Opened) -> Self {
        let (target, heard) = echo().await;
        let defaults = json!({
            "upstreams": [{"name": "u", "targets": [target.to_string()]}],
            "consumers": [{"name": "acme", "groups": ["partners", "eu"]}, {"name": "other"}, {"name": "guest"}],
        });
        for (kind, list) in defaults.as_object().unwrap() {
            let lists = words.as_object_mut().unwrap();
            let all = lists.entry(kind).or_insert_with(|| json!([])).as_array_mut().unwrap();
            all.extend(list.as_array().unwrap().clone());
        }
        let mut state = state(words);
        // Only a cluster takes commands.
        state.cluster = Some(Arc::new(ClusterFacts {
            id: [1; 16],
            name: "test".into(),
            max_rtt: Duration::from_millis(100),
            ca_certificate: Vec::new(),
            sealed_ca_key: Vec::new(),
            level: LEVEL,
        }));
        let gateway = Gateway::with_rules(settings, Arc::new(Ruleset::compile(&state, None)));
        // Long enough for every test.
        gateway.freshness.extend(boottime_ns() + 600_000_000_000);
        let opened = Arc::new(Opened { pepper: Some(PEPPER), ..opened });
        let directory = gateway.proxy.directory();
        let keeper = Arc::new(Keeper::new(Fetcher::platform(), Timing::default(), Arc::new(|_, _| ())));
        directory.reach_out(Fetcher::platform(), keeper.clone());
        tokio::spawn(keeper.run(CancellationToken::new()));
        let (state, opened) = (Arc::new(Mutex::new(state)), Arc::new(Mutex::new(opened)));
        let control = Control { proxy: gateway.proxy.clone(), state, opened };
        control.publish();
        Self { gateway, heard, directory, control }
    }

    /// Agrees to all that the receivers hand over, from now on.
    pub fn agree(&self) {
        let mut handed = self.directory.handed().expect("nobody else does");
        let control = self.control.clone();
        tokio::spawn(async move {
            while let Some(handed) = handed.recv().await {
                let revoke = Revoke { entries: handed.entries.clone(), reason: handed.reason.clone() };
                control.apply(Body::Revoke(revoke));
                handed.agreed();
            }
        });
    }

    /// Answers what portals ask, from now on.
    pub fn answer(&self, reply: impl Fn(&Visitor, &Question) -> Result<Reply, NotDone> + Send + 'static) {
        let mut asked = self.directory.asked().expect("nobody else does");
        tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                let reply = reply(&asked.visitor, &asked.question);
                asked.answer(reply);
            }
        });
    }

    fn apply(&self, body: Body) {
        self.control.apply(body);
    }

    pub fn key(&self, consumer: &str, text: &str) -> CredentialId {
        self.key_with(consumer, text, Grants::default(), None)
    }

    pub fn key_with(&self, consumer: &str, text: &str, grants: Grants, ttl: Option<Duration>) -> CredentialId {
        let hash = key_hash(&PEPPER, text);
        let (id, kind) = CredentialKind::api_key(&hash, *b"abcdefgh").unwrap();
        let (consumer, grants) = (consumer.parse().unwrap(), Some(Arc::new(grants)));
        let new = NewCredential { id, consumer, kind, grants, ttl, keys_max: None };
        self.apply(Body::CreateCredentials([new].into()));
        id
    }

    /// `password_hash`: Argon2id in the PHC form.
    pub fn user(&self, consumer: &str, name: &str, password_hash: String) -> CredentialId {
        let id = CredentialId::of(&user_hash(&PEPPER, name)).unwrap();
        let kind = CredentialKind::Basic(Arc::new(BasicUser { name: name.into(), password_hash }));
        let new =
            NewCredential { id, consumer: consumer.parse().unwrap(), kind, grants: None, ttl: None, keys_max: None };
        self.apply(Body::CreateCredentials([new].into()));
        id
    }

    /// The new key is good at once, the old one until the overlap is over.
    pub fn rotate(&self, id: CredentialId, text: &str, overlap: Duration) {
        let hash = key_hash(&PEPPER, text);
        let (new_id, kind) = CredentialKind::api_key(&hash, *b"abcdefgh").unwrap();
        self.apply(Body::RotateCredential(RotateCredential { id, new_id, kind, overlap, keys_max: None }));
    }

    pub fn decide(&self, id: CredentialId, to: Decided) {
        self.apply(Body::SetCredentialState { id, to });
    }

    pub fn revoke(&self, kind: SelectorKind, issuer: &[u8], value: &[u8]) {
        self.revoke_before(kind, issuer, value, None);
    }

    pub fn revoke_before(&self, kind: SelectorKind, issuer: &[u8], value: &[u8], not_before_s: Option<u64>) {
        let selector = SelectorParts { kind, issuer, value }.checked().unwrap();
        let entry = NewRevocation { selector, ttl: Duration::from_secs(3600), not_before_s };
        self.apply(Body::Revoke(Revoke { entries: [entry].into(), reason: "test".into() }));
    }

    /// For an hour.
    pub fn ban(&self, subject: &str) {
        let ban = NewBan { subject: subject.parse().unwrap(), ttl: Duration::from_secs(3600) };
        self.apply(Body::AddBans(AddBans { bans: [ban].into(), reason: "test".into() }));
    }

    /// Puts resources into the state, in the words of the configuration file, without the checks of apply.
    pub fn put(&self, words: Value) {
        let mut state = self.control.state.lock().unwrap();
        for (key, stored) in crate::support::state(words).resources.iter() {
            state.resources.insert(key.clone(), stored.clone());
        }
        state.index += 1;
        drop(state);
        self.control.publish();
    }

    /// No secret inside of resources is open any more.
    pub fn close_secrets(&self) {
        *self.control.opened.lock().unwrap() = Arc::new(Opened { pepper: Some(PEPPER), ..Opened::default() });
        self.control.state.lock().unwrap().index += 1;
        self.control.publish();
    }

    /// What a new leader writes that goes on from what it had applied: as if no time had passed since then.
    pub fn turn_clock_back(&self) {
        let mut state = self.control.state.lock().unwrap();
        (state.index, state.clock_us) = (state.index + 1, state.clock_us + 1);
        drop(state);
        self.control.publish();
    }

    /// Takes a resource out of the state without the checks of apply.
    pub fn remove(&self, kind: Kind, name: &str) {
        let mut state = self.control.state.lock().unwrap();
        state.resources.remove(&Key { kind, name: name.parse().unwrap() });
        state.index += 1;
        drop(state);
        self.control.publish();
    }
}
