//! From the agreed state to what the proxy serves: compiles the ruleset after a change and swaps it in.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use quorumgate_model::{digest::Digest, ruleset::Ruleset, state::State};
use quorumgate_proxy::{
    Proxy,
    identity::directory::{Directory, Opened},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    consensus::{Consensus, Published},
    secrets::Opener,
};

/// Above this many changes at once the tables are made off the control threads: a first start, a snapshot.
const CHANGES_INLINE_MAX: usize = 10_000;

pub struct Publisher {
    pub consensus: Consensus,
    pub proxy: Arc<Proxy>,
}

impl Publisher {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut states = self.consensus.states();
        let mut opener = Opener::new(self.consensus.keyring().clone());
        let mut credentials = 0;
        let mut revoked: Option<Digest> = None;
        let mut purged = None;
        loop {
            // A burst of changes is one compilation: only the newest state counts.
            let state = states.borrow_and_update().clone();
            let opened = opener.open(&state);
            let now = state.credentials.len() + state.revocations.len();
            let many = now.abs_diff(std::mem::replace(&mut credentials, now)) > CHANGES_INLINE_MAX;
            // First what shuts out: it never waits for a compilation.
            publish_directory(self.proxy.directory(), state.clone(), opened.clone(), many).await?;
            self.proxy.follow_purges(&state.purges, purged.replace(state.purges.newest()));
            // Not those that were there at the start: nobody has waited for them here.
            if revoked.replace(state.revocations.hash()).is_some_and(|before| before != state.revocations.hash()) {
                let took = wall_ms().saturating_sub(state.wall_ms);
                self.consensus.propagation().observe(Duration::from_millis(took));
            }
            self.publish(state, opened).await?;
            match stop.run_until_cancelled(states.changed()).await {
                None => return Ok(()),
                Some(changed) => changed.context("the state machine is gone")?,
            }
        }
    }

    async fn publish(&self, state: Arc<State>, opened: Arc<Opened>) -> anyhow::Result<()> {
        let serving = self.proxy.ruleset();
        if serving.revision != state.revision || serving.index == 0 {
            let rules = compile(state.clone(), serving.clone()).await?;
            report_broken(&rules, &serving);
            report_places(&rules, &serving, &self.proxy.directory());
            self.proxy.limits().publish(&state);
            self.proxy.publish(rules);
            self.proxy.limits().prune(&state);
            info!(revision = state.revision, routes = self.proxy.ruleset().rules.len(), "configuration published");
        }
        publish_listeners(&self.proxy, &state, opened).await?;
        self.consensus.set_published(Published { index: state.index, revision: state.revision, at_ms: wall_ms() });
        Ok(())
    }
}

/// Keys and revocations, at once on every worker.
async fn publish_directory(
    directory: Arc<Directory>,
    state: Arc<State>,
    opened: Arc<Opened>,
    many: bool,
) -> anyhow::Result<()> {
    if !many {
        directory.publish(&state, opened);
        return Ok(());
    }
    tokio::task::spawn_blocking(move || directory.publish(&state, opened)).await.context("publishing credentials")
}

/// Behind the rules that their requests need. Off the control threads: keys are read and sockets opened.
pub async fn publish_listeners(proxy: &Proxy, state: &State, opened: Arc<Opened>) -> anyhow::Result<()> {
    let listeners = proxy.listeners();
    if !listeners.differ_from(&state.resources, &opened) {
        return Ok(());
    }
    let resources = state.resources.clone();
    let upstreams = proxy.upstreams();
    let published = tokio::task::spawn_blocking(move || {
        listeners.publish(&resources, &opened);
        upstreams.show(listeners.certificates());
    });
    published.await.context("publishing listeners and certificates")
}

/// Off the control threads: ten thousand routes from scratch take longer than a heartbeat may wait.
pub async fn compile(state: Arc<State>, previous: Arc<Ruleset>) -> anyhow::Result<Arc<Ruleset>> {
    let compiled = tokio::task::spawn_blocking(move || Ruleset::compile(&state, Some(&previous))).await;
    Ok(Arc::new(compiled.context("compiling the ruleset")?))
}

/// Says it once: a rule that was broken before is not told again.
fn report_broken(rules: &Ruleset, before: &Ruleset) {
    for (name, rule) in &rules.rules {
        let known = || before.rules.get(name).is_some_and(|it| Arc::ptr_eq(it, rule));
        if let Some(reason) = rule.broken.as_ref().filter(|_| !known()) {
            warn!(route = %name, reason, "this node cannot compile the route: it answers 500 broken_rule");
        }
    }
}

/// Says it once: policies ask where addresses are, and this node does not know.
fn report_places(rules: &Ruleset, before: &Ruleset, directory: &Directory) {
    let (asked, asked_before, has) = (rules.asks_places(), before.asks_places(), directory.geo.has());
    for (what, asked, before, has) in
        [("country", asked.0, asked_before.0, has.0), ("asn", asked.1, asked_before.1, has.1)]
    {
        if asked && !before && !has {
            warn!(
                file = what,
                "policies ask where addresses are, and proxy.geo has no such file: it counts as unknown"
            );
        }
    }
}

/// Milliseconds since 1970, for people.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
