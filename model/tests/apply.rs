//! What apply answers: each file of `apply/` is a story, a command a line, with what came of it below. `UPDATE=1`
//! writes what was found into the files.
#![allow(clippy::disallowed_methods, reason = "the wall is for the model; its tests read files")]

mod common;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use common::{api_key, auth, bootstrap, command, consumer, full_state, key, new_key, node, route, selector, upstream};
use quorumgate_model::{
    command::{
        AddBans, AdminRole, AdmitNode, Applied, Body, ChangeResources, Command, CreateAdminToken, CreateJoinToken,
        Decided, Expect, LiftBans, NewBan, NewCredential, NewRevocation, NoteChain, Reason, Refound, RefoundCause,
        ResourceChange, Revoke, Role, RotateCa, RotateCredential, RotateTicketKeys, SetSecret, Stamp, Standing,
        StoreJwks, TrialEnd, UpdateNode,
    },
    digest::Digest,
    resource::Resource,
    revocation::SelectorKind,
    state::{AuditHead, CaStage, ChainKind, Effects, State},
    units::Span,
};

/// One line: its verb, its bare words, and its `name=value` words.
struct Line<'a> {
    verb: &'a str,
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let mut all = line.split_whitespace();
        let verb = all.next().unwrap();
        let (options, words): (Vec<_>, Vec<_>) = all.partition(|word| word.contains('='));
        Self { verb, words, options: options.iter().map(|word| word.split_once('=').unwrap()).collect() }
    }

    fn option<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.options.get(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    }

    fn span(&self, name: &str) -> std::time::Duration {
        self.option::<Span>(name).unwrap().0
    }

    fn secret(&self) -> Digest {
        Digest::of(self.options.get("secret").copied().unwrap_or("s").as_bytes())
    }

    fn role(&self) -> Role {
        match self.options.get("role").copied() {
            None | Some("voter") => Role::Voter,
            Some("replica") => Role::Replica,
            Some(other) => panic!("role {other}"),
        }
    }

    fn new_key(&self, text: &str, consumer: &str) -> NewCredential {
        NewCredential { ttl: self.option::<Span>("ttl").map(|span| span.0), ..new_key(text, consumer) }
    }

    /// `jti:abc`
    fn new_revocation(&self, text: &str) -> NewRevocation {
        let (kind, value) = text.split_once(':').unwrap();
        let issuer = self.option::<String>("issuer").unwrap_or_default();
        NewRevocation {
            selector: selector(SelectorKind::from_word(kind).unwrap(), &issuer, value),
            ttl: self.span("ttl"),
            not_before_s: self.option("before"),
        }
    }

    fn body(&self, state: &State) -> Body {
        let word = |n: usize| self.words.get(n).copied().unwrap_or_default();
        let number = |n: usize| word(n).parse().unwrap_or(0);
        match self.verb {
            "bootstrap" => Body::Bootstrap(Arc::new(bootstrap())),
            "refound" => Body::Refound(Arc::new(Refound {
                cluster_id: [self.option("cluster").unwrap_or(9); 16],
                node: node(self.option("node").unwrap_or(state.index + 1), word(0), Role::Voter),
                cause: match self.options.contains_key("recovered") {
                    true => RefoundCause::Recovered,
                    false => RefoundCause::Restored,
                },
                reset_budgets: self.options.contains_key("reset-budgets"),
            })),
            "apply" => Body::ChangeResources(ChangeResources {
                changes: self.words.iter().map(|word| change(state, word)).collect(),
                expected_revision: self.option("if"),
                message: self.option("msg").unwrap_or_default(),
                trial: self.option::<Span>("trial").map(|span| span.0),
                rollback_of: self.option("rollback-of"),
                ..ChangeResources::default()
            }),
            "confirm" => Body::EndTrial { revision: number(0), end: TrialEnd::Confirm },
            "abort" => Body::EndTrial { revision: number(0), end: TrialEnd::Abort },
            "expire" => Body::EndTrial { revision: number(0), end: TrialEnd::Expire },
            "join-token" => Body::CreateJoinToken(CreateJoinToken {
                id: word(0).into(),
                secret_hash: self.secret(),
                role: self.role(),
                ttl: self.span("ttl"),
                uses: self.option("uses").unwrap_or(1),
            }),
            "rm-join-token" => Body::RemoveJoinToken { id: word(0).into() },
            "admit" => Body::AdmitNode(AdmitNode {
                token_id: self.option("token").unwrap(),
                token_secret_hash: self.secret(),
                node: node(0, word(0), self.role()),
            }),
            "update" => Body::UpdateNode(UpdateNode {
                id: number(0),
                standing: self.options.get("standing").map(|word| match *word {
                    "active" => Standing::Active,
                    "draining" => Standing::Draining,
                    "leaving" => Standing::Leaving,
                    other => panic!("standing {other}"),
                }),
                wanted_role: self.options.get("role").map(|_| self.role()),
                peer_address: self.option("address"),
                level: self.option("level"),
                version: self.option("version"),
            }),
            "remove" => Body::RemoveNode { id: number(0) },
            "admin-token" => Body::CreateAdminToken(CreateAdminToken {
                name: word(0).parse().unwrap(),
                secret_hash: self.secret(),
                role: AdminRole::from_word(word(1)).unwrap(),
                owner: self.option("owner").unwrap_or_default(),
                ttl: self.span("ttl"),
            }),
            "rm-admin-token" => Body::RemoveAdminToken { name: word(0).parse().unwrap() },
            "max-rtt" => Body::SetMaxRtt { max_rtt: word(0).parse::<Span>().unwrap().0 },
            "key" => Body::CreateCredentials(self.words[1..].iter().map(|text| self.new_key(text, word(0))).collect()),
            "rotate" => {
                let (new_id, kind) = api_key(word(1));
                let overlap = self.span("overlap");
                Body::RotateCredential(RotateCredential {
                    id: api_key(word(0)).0,
                    new_id,
                    kind,
                    overlap,
                    keys_max: None,
                })
            }
            "disable" => Body::SetCredentialState { id: api_key(word(0)).0, to: Decided::Disabled },
            "enable" => Body::SetCredentialState { id: api_key(word(0)).0, to: Decided::Active },
            "revoke-key" => Body::SetCredentialState { id: api_key(word(0)).0, to: Decided::Revoked },
            "revoke" => Body::Revoke(Revoke {
                entries: self.words.iter().map(|text| self.new_revocation(text)).collect(),
                reason: self.option("reason").unwrap_or_default(),
            }),
            "ban" => {
                let ban = |text: &&str| NewBan { subject: text.parse().unwrap(), ttl: self.span("ttl") };
                let bans = self.words.iter().map(ban).collect();
                Body::AddBans(AddBans { bans, reason: self.option("reason").unwrap_or_default() })
            }
            "lift" => {
                let subjects = self.words.iter().map(|text| text.parse().unwrap()).collect();
                Body::LiftBans(LiftBans { subjects, reason: String::new() })
            }
            "secret" => {
                Body::SetSecret(SetSecret { name: word(0).parse().unwrap(), sealed: word(1).as_bytes().into() })
            }
            "jwks" => Body::StoreJwks(StoreJwks {
                auth: word(0).parse().unwrap(),
                body: word(1).as_bytes().into(),
                fetched_wall_ms: 1,
            }),
            "tick" => Body::Tick,
            other => panic!("not understood: {other}"),
        }
    }
}

/// `+upstream/x` `+upstream/x:81` (its port) `+upstream/x@owner` `+route/a>x` (to upstream x) `+route/a>x:/path`
/// `-route/a`, each with `?missing`, `?etag` or `?stale` behind it.
fn change(state: &State, word: &str) -> ResourceChange {
    let (word, expect) = word.split_once('?').unwrap_or((word, ""));
    let (word, owner) = word.split_once('@').unwrap_or((word, ""));
    let (word, detail) = word.split_once(':').unwrap_or((word, ""));
    let (sign, word) = word.split_at(1);
    let (place, target) = word.split_once('>').unwrap_or((word, ""));
    let (kind, name) = place.split_once('/').unwrap();
    let path = if detail.is_empty() { format!("/{name}") } else { detail.to_owned() };
    let after = (sign == "+").then(|| match kind {
        "upstream" => upstream(name, detail.parse().unwrap_or(80), owner),
        "consumer" => consumer(name),
        "auth" => auth(name),
        _ => route(name, target, &path, owner),
    });
    let expect = match expect {
        "" => Expect::Anything,
        "missing" => Expect::Missing,
        "etag" => Expect::Etag(state.resources[&key(place)].etag),
        _ => Expect::Etag(Digest::default()),
    };
    ResourceChange { key: key(place), after, expect }
}

#[derive(Default)]
struct World {
    state: State,
    clock_us: u64,
    owner: String,
}

impl World {
    fn play(&mut self, text: &str) -> String {
        let mut found = String::new();
        for line in text.lines().filter(|line| !line.starts_with('>')) {
            found += &format!("{line}\n");
            let line = line.trim();
            match line.split_once(' ') {
                _ if line.is_empty() || line.starts_with('#') => {}
                Some(("clock", span)) => self.clock_us = span.parse::<Span>().unwrap().0.as_micros() as u64,
                Some(("owner", owner)) => self.owner = owner.trim_matches('-').to_owned(),
                _ => found += &self.take(&Line::parse(line)),
            }
        }
        found
    }

    fn take(&mut self, line: &Line<'_>) -> String {
        let mut command: Command = command(line.body(&self.state));
        command.request_id = line.option::<u8>("id").map(|id| [id; 16]);
        command.stamp.clock_us = self.clock_us;
        Arc::make_mut(&mut command.actor).owner_scope = self.owner.clone();
        let before = self.state.clone();
        let index = before.index + 1;
        let (applied, effects) = self.state.apply(index, &command);
        self.check(&before, &applied, &effects);
        shown(&applied, &effects)
    }

    /// What must hold after every command.
    fn check(&self, before: &State, applied: &Applied, effects: &Effects) {
        let after = &self.state;
        let changed = applied.index == after.index && matches!(&applied.outcome, Ok(outcome) if !outcome.noop);
        if !changed {
            let quiet = State {
                index: after.index,
                clock_us: after.clock_us,
                wall_ms: after.wall_ms,
                dedup: after.dedup.clone(),
                dedup_order: after.dedup_order.clone(),
                sweep: after.sweep,
                ..before.clone()
            };
            assert_eq!(*after, quiet, "a refusal, a repeat or a no-op left a trace");
        }
        match &effects.audit {
            Some(entry) => {
                assert_eq!((entry.sequence, entry.previous), (before.audit.count + 1, before.audit.hash));
                assert_eq!((after.audit.count, after.audit.hash), (entry.sequence, entry.hash()));
            }
            None => assert_eq!(after.audit, before.audit),
        }
    }
}

fn shown(applied: &Applied, effects: &Effects) -> String {
    let mut text = match &applied.outcome {
        Err(rejected) if rejected.field.is_empty() => format!("> {} {rejected}\n", rejected.reason.word()),
        Err(rejected) => format!("> {} [{}] {rejected}\n", rejected.reason.word(), rejected.field),
        Ok(outcome) => {
            let mut text = format!("> {}", applied.index);
            if let Some(id) = outcome.node_id {
                text += &format!(" node {id}");
            }
            if effects.diff.is_some() {
                text += &format!(" revision {}", applied.revision);
            }
            text + if outcome.noop { " no-op\n" } else { "\n" }
        }
    };
    if let Some(entry) = &effects.audit {
        text += &format!("> audit: {}\n", entry.summary);
    }
    text
}

#[test]
fn the_stories_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apply");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let found = World::default().play(&written);
        match std::env::var_os("UPDATE") {
            Some(_) => fs::write(&file, found).unwrap(),
            None => assert_eq!(found, written, "{}", file.display()),
        }
    }
}

#[test]
fn ticket_keys_rotate_once_and_the_oldest_goes() {
    let (mut state, _) = full_state();
    let rotate = |state: &mut State, byte: u8, newest: u64| {
        let body = Body::RotateTicketKeys(RotateTicketKeys { sealed: vec![byte].into(), newest });
        state.apply(state.index + 1, &common::command(body)).0
    };
    let mut newest = 0;
    for byte in 1..=6 {
        let applied = rotate(&mut state, byte, newest);
        applied.outcome.unwrap();
        newest = applied.index;
    }
    let kept = |state: &State| state.ticket_keys.iter().map(|key| key.sealed[0]).collect::<Vec<_>>();
    assert_eq!(kept(&state), [3, 4, 5, 6]);
    // Another leader has seen the one before it.
    assert_eq!(rotate(&mut state, 7, newest - 1).outcome.unwrap_err().reason, Reason::Conflict);
    assert_eq!(kept(&state), [3, 4, 5, 6]);
}

fn carried(state: &mut State, body: Body) -> Result<String, Reason> {
    let (applied, effects) = state.apply(state.index + 1, &command(body));
    let summary = effects.audit.map(|entry| entry.summary).unwrap_or_default();
    applied.outcome.map(|_| summary).map_err(|rejected| rejected.reason)
}

#[test]
fn a_ca_is_introduced_before_it_signs_and_the_old_one_goes_last() {
    let (mut state, _) = full_state();
    let old = state.cluster.as_ref().unwrap().ca_certificate.clone();
    let step = |state: &mut State, step: RotateCa| carried(state, Body::RotateCa(step));
    let introduce = || RotateCa::Introduce { certificate: vec![9].into(), sealed_key: vec![8].into() };
    assert_eq!(step(&mut state, RotateCa::Replace), Err(Reason::NotFound));
    assert_eq!(step(&mut state, RotateCa::End), Err(Reason::NotFound));
    let empty = RotateCa::Introduce { certificate: [].into(), sealed_key: vec![8].into() };
    assert_eq!(step(&mut state, empty), Err(Reason::Invalid));
    step(&mut state, introduce()).unwrap();
    assert_eq!(state.cluster.as_ref().unwrap().ca_certificate, old, "it does not sign yet");
    assert_eq!(step(&mut state, introduce()), Err(Reason::AlreadyExists));
    step(&mut state, RotateCa::Replace).unwrap();
    assert_eq!(step(&mut state, RotateCa::Replace), Err(Reason::NotFound));
    let other = state.other_ca.clone().unwrap();
    assert_eq!((other.stage, &other.certificate), (CaStage::Replaced, &old));
    assert_eq!(state.cluster.as_ref().unwrap().sealed_ca_key, [8]);
    assert_eq!(step(&mut state, RotateCa::End).unwrap(), "the old CA is trusted no more");
    assert_eq!(state.other_ca, None);
}

#[test]
fn a_nodes_own_chain_never_gets_shorter() {
    let (mut state, _) = full_state();
    let node = *state.nodes.keys().next().unwrap();
    let note = |state: &mut State, node, count| {
        let head = AuditHead { count, hash: Digest::of(&[count as u8]) };
        carried(state, Body::NoteChain(NoteChain { node, kind: ChainKind::Denials, head }))
    };
    assert_eq!(note(&mut state, node, 5).unwrap(), "", "nothing is said in the audit trail");
    assert_eq!(note(&mut state, node, 4), Err(Reason::Conflict));
    assert_eq!(note(&mut state, 999, 1), Err(Reason::NotFound));
    assert_eq!(state.chain(node, ChainKind::Denials).unwrap().count, 5);
    assert_eq!(state.chain(node, ChainKind::Access), None);
}

/// A leader whose clock is behind that of the one before it takes nothing back.
#[test]
fn the_log_clock_never_goes_back() {
    let (mut state, _) = full_state();
    let (clock_us, wall_ms) = (state.clock_us + 1_000, state.wall_ms + 1_000);
    for behind in [0, 1, 999] {
        let mut tick = command(Body::Tick);
        tick.stamp = Stamp { clock_us: clock_us - behind, wall_ms: wall_ms - behind };
        state.apply(state.index + 1, &tick).0.outcome.unwrap();
        assert_eq!((state.clock_us, state.wall_ms), (clock_us, wall_ms));
    }
}

/// By its key others know whom to shut out, for as long as its certificate may live.
#[test]
fn a_removed_node_is_remembered_with_its_key() {
    let (mut state, _) = full_state();
    let (id, node) = state.nodes.iter().next_back().map(|(id, node)| (*id, node.clone())).unwrap();
    carried(&mut state, Body::RemoveNode { id }).unwrap();
    let removed = state.removed.get(&id).map(|it| (it.name.clone(), it.spki_sha256));
    assert_eq!(removed, Some((node.name.clone(), node.spki_sha256)));
}

#[test]
fn builds_below_what_is_in_use_are_not_let_in() {
    let (mut state, _) = full_state();
    assert_eq!(state.cluster.as_ref().unwrap().level, 1);
    let introduce = RotateCa::Introduce { certificate: vec![9].into(), sealed_key: vec![8].into() };
    carried(&mut state, Body::RotateCa(introduce)).unwrap();
    assert_eq!(state.cluster.as_ref().unwrap().level, 2);
    let secret = Digest::of(b"s");
    let token = CreateJoinToken { id: "t9".into(), secret_hash: secret, role: Role::Voter, ttl: LONG, uses: 2 };
    carried(&mut state, Body::CreateJoinToken(token)).unwrap();
    let admit = |level| {
        let node = quorumgate_model::command::NodeRecord { level, ..node(0, "n77", Role::Voter) };
        Body::AdmitNode(AdmitNode { token_id: "t9".into(), token_secret_hash: secret, node })
    };
    assert_eq!(carried(&mut state, admit(1)), Err(Reason::Invalid));
    carried(&mut state, admit(2)).unwrap();
}

const LONG: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
fn a_change_that_was_not_held_against_the_guardrails_of_now_is_refused() {
    let (mut state, _) = full_state();
    if let Some(trial) = state.trial.as_ref().map(|trial| trial.revision) {
        carried(&mut state, Body::EndTrial { revision: trial, end: TrialEnd::Abort }).unwrap();
    }
    let words = serde_json::json!({ "name": "g", "require": "true", "message": "why" });
    let guardrail = quorumgate_model::resource::Kind::Guardrail.parse(words).unwrap();
    let write = |after: Resource, guardrails, findings: &[String]| {
        let changes = [ResourceChange { key: after.key(), after: Some(after), expect: Expect::Anything }].into();
        Body::ChangeResources(ChangeResources { changes, guardrails, findings: findings.into(), ..Default::default() })
    };
    carried(&mut state, write(guardrail.clone(), None, &[])).unwrap();
    let held = state.guardrails();
    assert!(held.is_some() && state.cluster.as_ref().unwrap().level >= 3);
    let new = |guardrails| write(upstream("new", 80, ""), guardrails, &["guardrail g (warn): upstream/new".into()]);
    // As an older build sends it, or a node that has not seen the guardrail yet.
    assert_eq!(carried(&mut state, new(None)), Err(Reason::Conflict));
    assert_eq!(carried(&mut state, new(Some(Digest::of(b"others")))), Err(Reason::Conflict));
    let summary = carried(&mut state, new(held)).unwrap();
    assert_eq!(summary, "1 created; upstream/new; guardrail g (warn): upstream/new");
    let many = vec![String::new(); quorumgate_model::command::FINDINGS_MAX + 1];
    assert_eq!(carried(&mut state, write(upstream("more", 80, ""), held, &many)), Err(Reason::Invalid));
    let key = guardrail.key();
    let gone = ChangeResources {
        changes: [ResourceChange { key, after: None, expect: Expect::Anything }].into(),
        guardrails: held,
        ..Default::default()
    };
    carried(&mut state, Body::ChangeResources(gone)).unwrap();
    assert_eq!(state.guardrails(), None);
}
