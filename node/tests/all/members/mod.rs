//! Members in one process over real QUIC on loopback, for the tests beside.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use quorumgate_model::{
    NodeId,
    command::{Actor, Applied, Body, CreateJoinToken, Role},
};
use quorumgate_node::{
    consensus::{Consensus, Draft, ProposeError, Published, StartOptions},
    init::init,
    join::{JoinToken, join},
    settings::Settings,
    tasks::{Ended, Tasks},
};
use quorumgate_proxy::Freshness;
use quorumgate_raft_store::Options;
use tempfile::TempDir;

use crate::addresses::address;

pub const SOON: Duration = Duration::from_secs(10);
pub const MAX_RTT: Duration = Duration::from_millis(5);

/// A member that runs, as boot would run it, but for the proxy: what is applied counts as published.
pub struct Member {
    pub consensus: Consensus,
    tasks: Tasks,
    pub freshness: Arc<Freshness>,
    _endings: tokio::sync::mpsc::UnboundedReceiver<Ended>,
}

pub struct Home {
    pub dir: TempDir,
    pub settings: Settings,
}

impl Home {
    pub fn new(name: &str) -> Self {
        let text = format!(
            r#"
            [node]
            name = "{name}"
            region = "here"
            [proxy]
            listeners = [{{ address = "127.0.0.1:0" }}]
            [peer]
            listen = "{}"
            [admin]
            listen = "127.0.0.1:0"
            [telemetry]
            listen = "127.0.0.1:0"
            "#,
            address()
        );
        Self { dir: tempfile::tempdir().unwrap(), settings: toml::from_str(&text).unwrap() }
    }

    pub fn founder(name: &str) -> Self {
        let home = Self::new(name);
        init(home.path(), &home.settings, MAX_RTT).unwrap();
        home
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn address(&self) -> SocketAddr {
        self.settings.peer.listen
    }

    pub async fn join(&self, seed: &Home, token: &JoinToken) -> anyhow::Result<NodeId> {
        join(&[seed.address().to_string()], token, self.path(), &self.settings, None).await
    }

    pub async fn run(&self) -> Member {
        self.run_with(Options::default()).await
    }

    pub async fn run_with(&self, options: Options) -> Member {
        let (tasks, endings) = Tasks::new();
        let freshness = Arc::new(Freshness::default());
        let opened = quorumgate_raft_store::open(self.path(), options).unwrap();
        let options = StartOptions {
            dir: self.path().to_owned(),
            settings: self.settings.clone(),
            opened,
            tasks: tasks.clone(),
            freshness: freshness.clone(),
        };
        let consensus = Consensus::start(options).await.unwrap();
        let publisher = consensus.clone();
        let stop = tasks.stop();
        tasks.start("publish", async move {
            let mut states = publisher.states();
            loop {
                let state = states.borrow_and_update().clone();
                let published = Published { index: state.index, revision: state.revision, at_ms: state.wall_ms };
                publisher.set_published(published);
                let Some(Ok(())) = stop.run_until_cancelled(states.changed()).await else { return Ok(()) };
            }
        });
        Member { consensus, tasks, freshness, _endings: endings }
    }
}

impl Member {
    /// As a crash, as far as one process can: no hand-over, the sockets go.
    pub async fn kill(self) {
        self.consensus.abandon().await;
        assert!(self.tasks.shut_down(SOON).await, "a task did not stop");
    }

    pub async fn stop(self) {
        self.consensus.shut_down(Duration::from_secs(3)).await;
        assert!(self.tasks.shut_down(SOON).await, "a task did not stop");
    }

    pub async fn propose(&self, body: Body) -> Result<Applied, ProposeError> {
        self.consensus.propose(Draft { request_id: None, asked: None, actor: actor(), body }, SOON).await
    }

    pub async fn token(&self, role: Role, ttl: Duration) -> JoinToken {
        let ca = self.founded().await;
        let token = JoinToken::generate(&ca).unwrap();
        let body = CreateJoinToken { id: token.id.clone(), secret_hash: token.secret_hash(), role, ttl, uses: 1 };
        self.propose(Body::CreateJoinToken(body)).await.unwrap().outcome.unwrap();
        token
    }

    /// The CA, once the state has it.
    pub async fn founded(&self) -> Vec<u8> {
        let mut states = self.consensus.states();
        let state = tokio::time::timeout(SOON, states.wait_for(|state| state.cluster.is_some())).await;
        let state = state.expect("the cluster was not founded in time").unwrap();
        state.cluster.as_ref().unwrap().ca_certificate.clone()
    }

    pub async fn sees(&self, what: &str, is: impl Fn(&Consensus) -> bool) {
        let ends = Instant::now() + SOON;
        while !is(&self.consensus) {
            assert!(Instant::now() < ends, "not in time: {what}; view {:?}", self.consensus.view());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn sees_voters(&self, voters: usize) {
        self.sees(&format!("{voters} voters"), |it| it.view().voters.len() == voters).await;
    }
}

pub fn actor() -> Arc<Actor> {
    Arc::new(Actor { name: "test".into(), ..Default::default() })
}

/// Three voters, founded and joined.
pub async fn three() -> (Vec<Home>, Vec<Member>) {
    three_with(Options::default()).await
}

pub async fn three_with(options: Options) -> (Vec<Home>, Vec<Member>) {
    let homes = vec![Home::founder("n1"), Home::new("n2"), Home::new("n3")];
    let mut members = vec![homes[0].run_with(options.clone()).await];
    for home in &homes[1..] {
        let token = members[0].token(Role::Voter, Duration::from_secs(60)).await;
        home.join(&homes[0], &token).await.unwrap();
        members.push(home.run_with(options.clone()).await);
    }
    for member in &members {
        member.sees_voters(3).await;
    }
    (homes, members)
}

pub fn leader(members: &[Member]) -> usize {
    let leads = |member: &Member| member.consensus.view().leader == Some(member.consensus.view().id);
    members.iter().position(leads).expect("a leader")
}
