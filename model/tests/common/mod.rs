//! Small resources, nodes and commands for the tests of the model.
#![allow(dead_code)]

use std::{sync::Arc, time::Duration};

use quorumgate_model::{
    command::{
        Actor, AdminRole, AdmitNode, Body, Bootstrap, ChangeResources, Command, CreateAdminToken, CreateJoinToken,
        Decided, Expect, NewCredential, NewRevocation, NodeRecord, ResourceChange, Revoke, Role, RotateCredential,
        SetSecret, Stamp, Standing, StoreJwks,
    },
    credential::{BasicUser, CredentialId, CredentialKind, Grants},
    digest::Digest,
    resource::{Key, Resource},
    revocation::{Selector, SelectorKind, SelectorParts},
    state::State,
    timing::MAX_RTT_DEFAULT,
};
use serde_json::json;

pub fn upstream(name: &str, port: u16, owner: &str) -> Resource {
    let target = format!("127.0.0.1:{port}");
    let words = json!({ "name": name, "owner": owner, "targets": [target], "labels": { "b": "2", "a": "1" } });
    Resource::Upstream(Arc::new(serde_json::from_value(words).unwrap()))
}

pub fn route(name: &str, upstream: &str, path: &str, owner: &str) -> Resource {
    let words = json!({ "name": name, "owner": owner, "match": { "path_prefix": path }, "upstream": upstream });
    Resource::Route(Arc::new(serde_json::from_value(words).unwrap()))
}

pub fn consumer(name: &str) -> Resource {
    Resource::Consumer(Arc::new(serde_json::from_value(json!({ "name": name })).unwrap()))
}

pub fn auth(name: &str) -> Resource {
    let jwt = json!({ "issuer": "https://idp.test", "audience": ["a"], "jwks_url": "https://idp.test/jwks" });
    Resource::Auth(Arc::new(serde_json::from_value(json!({ "name": name, "jwt": jwt })).unwrap()))
}

/// Its hash is not one of a real key: the id follows from it, that is all.
pub fn api_key(text: &str) -> (CredentialId, CredentialKind) {
    let hash = Digest::of(text.as_bytes()).0;
    CredentialKind::api_key(&hash, *b"aBcDeF12").unwrap()
}

pub fn new_key(text: &str, consumer: &str) -> NewCredential {
    let (id, kind) = api_key(text);
    NewCredential { id, consumer: consumer.parse().unwrap(), kind, grants: None, ttl: None, keys_max: None }
}

pub fn selector(kind: SelectorKind, issuer: &str, value: &str) -> Selector {
    SelectorParts { kind, issuer: issuer.as_bytes(), value: value.as_bytes() }.checked().unwrap()
}

/// Commands of every kind that concerns credentials, and the state they lead to, with every such record in it.
pub fn credential_state() -> (State, Vec<Command>) {
    let create = |after: Resource| ResourceChange { key: after.key(), after: Some(after), expect: Expect::Anything };
    let changes = [create(consumer("acme")), create(auth("idp"))].into();
    let grants = Grants {
        env: "test".into(),
        scopes: ["orders:read".into(), "orders:write".into()].into(),
        cidrs: ["10.0.0.0/8".parse().unwrap()].into(),
        label: "".into(),
    };
    let user = BasicUser { name: "ann".into(), password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".into() };
    let basic = NewCredential {
        id: CredentialId::new(7).unwrap(),
        kind: CredentialKind::Basic(Arc::new(user)),
        ttl: Some(secs(60)),
        ..new_key("", "acme")
    };
    let rich = NewCredential { grants: Some(Arc::new(grants)), ttl: Some(secs(90)), ..new_key("rich", "acme") };
    let (rotated, (new_id, kind)) = (api_key("rich").0, api_key("new"));
    let subject = selector(SelectorKind::Subject, "https://idp.test", "ann");
    let jti = selector(SelectorKind::Jti, "", "t1");
    let bodies = [
        Body::Bootstrap(Arc::new(bootstrap())),
        Body::ChangeResources(ChangeResources { changes, ..Default::default() }),
        Body::SetSecret(SetSecret { name: "key-pepper".parse().unwrap(), sealed: b"sealed".as_slice().into() }),
        Body::CreateCredentials([basic, rich].into()),
        Body::RotateCredential(RotateCredential { id: rotated, new_id, kind, overlap: secs(30), keys_max: None }),
        Body::SetCredentialState { id: CredentialId::new(7).unwrap(), to: Decided::Revoked },
        Body::Revoke(Revoke {
            entries: [
                NewRevocation { selector: subject, ttl: secs(600), not_before_s: Some(1_700_000_000) },
                NewRevocation { selector: jti, ttl: secs(60), not_before_s: None },
            ]
            .into(),
            reason: "leaked".into(),
        }),
        Body::StoreJwks(StoreJwks {
            auth: "idp".parse().unwrap(),
            body: b"{\"keys\":[]}".as_slice().into(),
            fetched_wall_ms: 1_700_000_000_000,
        }),
    ];
    let mut state = State::default();
    let commands: Vec<_> = bodies.into_iter().map(command).collect();
    for (n, command) in commands.iter().enumerate() {
        let (applied, _) = state.apply(n as u64 + 1, command);
        applied.outcome.unwrap();
    }
    (state, commands)
}

pub fn key(text: &str) -> Key {
    let (kind, name) = text.split_once('/').unwrap();
    Key { kind: serde_json::from_value(json!(kind)).unwrap(), name: name.parse().unwrap() }
}

pub fn node(id: u64, name: &str, wanted_role: Role) -> NodeRecord {
    NodeRecord {
        id,
        name: name.parse().unwrap(),
        region: "eu".into(),
        peer_address: format!("{name}.test:7000"),
        incarnation: [1; 16],
        spki_sha256: Digest::of(name.as_bytes()).0,
        wanted_role,
        standing: Standing::Active,
        level: 1,
        version: "0.1.0".into(),
    }
}

pub fn bootstrap() -> Bootstrap {
    Bootstrap {
        cluster_id: [7; 16],
        cluster_name: "test".into(),
        max_rtt: MAX_RTT_DEFAULT,
        ca_certificate: b"certificate".to_vec(),
        sealed_ca_key: b"key".to_vec(),
        node: node(1, "n1", Role::Voter),
    }
}

pub fn command(body: Body) -> Command {
    Command {
        min_level: body.min_level(),
        request_id: None,
        asked: None,
        stamp: Stamp { clock_us: 1_000_000, wall_ms: 1_700_000_000_000 },
        actor: Arc::new(Actor {
            name: "ops".into(),
            source: "unix uid 0".into(),
            rpc: "Config/ApplyConfig".into(),
            owner_scope: String::new(),
        }),
        body,
    }
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A state in which every kind of snapshot record occurs, and the commands that led to it.
pub fn full_state() -> (State, Vec<Command>) {
    let changes = |sides: Vec<Option<Resource>>, keys: &[&str], trial| {
        let changes = sides.into_iter().zip(keys).map(|(after, text)| ResourceChange {
            key: key(text),
            after,
            expect: Expect::Anything,
        });
        let changes = changes.collect();
        Body::ChangeResources(ChangeResources { changes, message: "why".into(), trial, ..Default::default() })
    };
    let x = Some(upstream("x", 80, "team-a"));
    let bodies = [
        Body::Bootstrap(Arc::new(bootstrap())),
        changes(vec![x.clone(), Some(route("a", "x", "/a", ""))], &["upstream/x", "route/a"], None),
        changes(vec![Some(route("b", "nope", "/b", ""))], &["route/b"], None),
        Body::CreateJoinToken(CreateJoinToken {
            id: "t1".into(),
            secret_hash: Digest::of(b"s"),
            role: Role::Voter,
            ttl: secs(3600),
            uses: 3,
        }),
        Body::AdmitNode(AdmitNode {
            token_id: "t1".into(),
            token_secret_hash: Digest::of(b"s"),
            node: node(0, "n2", Role::Replica),
        }),
        Body::AdmitNode(AdmitNode {
            token_id: "t1".into(),
            token_secret_hash: Digest::of(b"s"),
            node: node(0, "n3", Role::Voter),
        }),
        Body::RemoveNode { id: 6 },
        Body::CreateAdminToken(CreateAdminToken {
            name: "ci".parse().unwrap(),
            secret_hash: Digest::of(b"ci"),
            role: AdminRole::Operator,
            owner: "team-a".into(),
            ttl: secs(60),
        }),
        changes(vec![Some(upstream("x", 81, "team-a")), None], &["upstream/x", "route/a"], Some(secs(30))),
    ];
    let mut state = State::default();
    let commands: Vec<_> = bodies.into_iter().map(command).collect();
    let commands: Vec<_> = commands
        .into_iter()
        .enumerate()
        .map(|(n, command)| Command { request_id: Some([n as u8; 16]), ..command })
        .collect();
    for (n, command) in commands.iter().enumerate() {
        state.apply(n as u64 + 1, command);
    }
    (state, commands)
}
