//! A node dies or is cut off under load that asks for more than the limit: nothing is admitted twice, and what the dead
//! held comes back as fast as is safe.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Crowd, Metrics, apply, auditor, config, micros, ok, wait_sessions};
use crate::{Cluster, cluster::until, scenarios::revocation};

const HOST: &str = "faults.test";
const NAME: &str = "faults";
/// Of clusters whose nodes are near each other (`node::leases`).
pub const SESSION: Duration = Duration::from_secs(5);
/// Beside what is in quarantine: within this after the session's end.
const BACK_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Killed {
    pub nodes: usize,
    pub leader: bool,
    pub limit: usize,
    pub window: Duration,
    pub overshoot: u64,
    /// Admitted in the window before.
    pub before: usize,
    /// Held by the victim as the ledger last knew.
    pub share: usize,
    /// In quarantine after the session's end.
    pub quarantined: usize,
    /// What the kill cost over all, against the rate before it.
    pub lost: i64,
    /// What it may cost: what the victim would use in h, which is h/W of its share.
    pub lost_max: i64,
    /// Admitted in the window that begins h + 2 s after.
    pub soon: usize,
    /// In the one that begins h + W after, and in one that lay the same before the kill: what was used in a burst comes back
    /// in one, and of a window that is cut across it a little more lies idle, whatever happens.
    pub later: usize,
    pub before_later: usize,
}

impl Killed {
    pub fn soon_share(&self) -> f64 {
        self.soon as f64 / (self.before.min(self.limit) - self.quarantined.min(self.before)).max(1) as f64
    }

    pub fn later_share(&self) -> f64 {
        self.later as f64 / self.before_later.max(1) as f64
    }
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.leader { "the leader" } else { "the one that held most" };
        write!(
            f,
            "{} nodes, {} in {:?}, {who} killed: overshoot {}; {} held, {} in quarantine; lost {} of at most {} {}; \
             of what is not in quarantine {:.1} % from h + 2 s on, {:.1} % from h + W on",
            self.nodes,
            self.limit,
            self.window,
            self.overshoot,
            self.share,
            self.quarantined,
            self.lost,
            self.lost_max,
            ok(self.lost <= self.lost_max),
            self.soon_share() * 100.0,
            self.later_share() * 100.0
        )
    }
}

/// Kills the leader, or the follower that holds most, while clients ask for one and a half times the limit; they go to
/// the others then. The node comes back at the end, and nothing may be over even then.
pub async fn kill(cluster: &mut Cluster, leader: bool, limit: usize, window: Duration) -> anyhow::Result<Killed> {
    let words = json!({ "limit": limit, "window": format!("{}ms", window.as_millis()) });
    apply(cluster, &config(NAME, words)).await?;
    wait_sessions(cluster).await?;
    let at_leader = cluster.leader().await?;
    let nodes = cluster.members.len();
    let victim = if leader { at_leader } else { (at_leader + 1) % nodes };
    let offered = limit as f64 / window.as_secs_f64() * 1.5;
    let addresses: Vec<_> = cluster.members.iter().map(|member| member.proxy).collect();
    // A follower holds most because most of the clients are there.
    let hot = |node: usize| {
        if leader {
            1.0 / nodes as f64
        } else if node == victim {
            0.5
        } else {
            0.5 / (nodes - 1) as f64
        }
    };
    let before: Vec<f64> = (0..nodes).map(|node| offered * hot(node)).collect();
    let crowd = Crowd::start(&addresses, HOST, &before);
    tokio::time::sleep_until((crowd.since + 3 * window).into()).await;

    let other = (0..nodes).find(|at| *at != victim).context("another node")?;
    let telemetry = cluster.members[other].telemetry;
    let held = Metrics::of(cluster.members[victim].telemetry).await?;
    let share = held.sum_where("quorumgate_ratelimit_node_held_slots", &[NAME]) as usize;
    cluster.members[victim].kill();
    let killed = crowd.now_us();
    let after: Vec<f64> =
        (0..nodes).map(|node| if node == victim { 0.0 } else { offered / (nodes - 1) as f64 }).collect();
    crowd.set_rates(&after);

    // Whole windows: slots that were used in a burst come back in one.
    let end = window * (SESSION + window * 2 + BACK_WITHIN).as_micros().div_ceil(window.as_micros()) as u32;
    let session_over = Duration::from_micros(killed) + SESSION + BACK_WITHIN;
    tokio::time::sleep_until((crowd.since + session_over).into()).await;
    let metrics = Metrics::of(telemetry).await?;
    let quarantined = metrics.sum_where("quorumgate_ratelimit_quarantined_slots", &[NAME]) as usize;
    tokio::time::sleep_until((crowd.since + Duration::from_micros(killed) + end).into()).await;
    let measured = crowd.now_us();
    cluster.members[victim].run()?;
    cluster.members[victim].wait_ready().await?;
    crowd.set_rates(&before);
    tokio::time::sleep(window).await;

    let admissions = crowd.stop().await?;
    let w = micros(window);
    let one = |from: u64| auditor::per_window(&admissions, from, w, 1)[0];
    let before = one(killed - w);
    let spent = admissions.iter().filter(|it| (killed..measured).contains(&it.answer_us)).count() as i64;
    let expected = (before as u128 * u128::from(measured - killed) / u128::from(w)) as i64;
    Ok(Killed {
        nodes,
        leader,
        limit,
        window,
        overshoot: auditor::audit(&admissions, w, limit).overshoot,
        before,
        share,
        quarantined,
        lost: expected - spent,
        lost_max: (share as f64 * SESSION.as_secs_f64() / window.as_secs_f64()) as i64,
        soon: one(killed + micros(SESSION + BACK_WITHIN)),
        later: one(killed + micros(SESSION + window)),
        before_later: one(killed - 2 * w + micros(SESSION) % w),
    })
}

#[derive(Debug)]
pub struct Cut {
    pub leader: bool,
    /// Admitted by the node that was cut off after its session's end, of what it keeps for that.
    pub meanwhile: u64,
    pub limit: usize,
    pub window: Duration,
    pub overshoot: u64,
    pub admitted: usize,
    /// From the cut to the node's first 503: its session is over.
    pub stopped_after: Duration,
    /// From the mending to its first admission.
    pub back_after: Duration,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in {:?}, {} cut off for longer than its session: overshoot {} of {} admitted; it refused with 503 after \
             {:.1} s, admitted {} between its session's end and the mending, and again {:.1} s after that",
            self.limit,
            self.window,
            if self.leader { "the leader" } else { "a follower" },
            self.overshoot,
            self.admitted,
            self.stopped_after.as_secs_f64(),
            self.meanwhile,
            self.back_after.as_secs_f64()
        )
    }
}

/// One node can reach nobody for a session and a half, and its clients stay with it. Wants a relay on the peers' path.
pub async fn cut_off(
    cluster: &Cluster,
    leader: bool,
    reserve: bool,
    limit: usize,
    window: Duration,
) -> anyhow::Result<Cut> {
    let on_no_quorum = if reserve { "reserve" } else { "deny" };
    let window_text = format!("{}ms", window.as_millis());
    let words = json!({ "limit": limit, "window": window_text, "on_no_quorum": on_no_quorum });
    apply(cluster, &config(NAME, words)).await?;
    wait_sessions(cluster).await?;
    let at_leader = cluster.leader().await?;
    let nodes = cluster.members.len();
    let victim = if leader { at_leader } else { (at_leader + 1) % nodes };
    let offered = limit as f64 / window.as_secs_f64() * 2.0;
    let addresses: Vec<_> = cluster.members.iter().map(|member| member.proxy).collect();
    let crowd = Crowd::start(&addresses, HOST, &vec![offered / nodes as f64; nodes]);
    tokio::time::sleep_until((crowd.since + window).into()).await;

    let there = || &crowd.tallies[victim];
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let unavailable = count(&there().unavailable);
    revocation::cut(cluster, victim, true, true)?;
    let cut = Instant::now();
    until("the node that is cut off to stop", async || {
        ensure!(count(&there().unavailable) > unavailable, "it still has a session");
        Ok(())
    })
    .await?;
    let stopped_after = cut.elapsed();
    // What is kept for this is spent bit by bit: some of it rests when the session ends.
    let over = if reserve { SESSION + window } else { SESSION * 3 / 2 };
    tokio::time::sleep_until((cut + SESSION + Duration::from_secs(1)).into()).await;
    let at_end = count(&there().admitted);
    tokio::time::sleep_until((cut + over).into()).await;
    revocation::cut(cluster, victim, false, false)?;
    let (mended, admitted) = (Instant::now(), count(&there().admitted));
    let meanwhile = admitted - at_end;
    until("the node that was cut off to admit again", async || {
        ensure!(count(&there().admitted) > admitted, "it admits nobody");
        Ok(())
    })
    .await?;
    let back_after = mended.elapsed();
    tokio::time::sleep(window).await;
    let admissions = crowd.stop().await?;
    let overshoot = auditor::audit(&admissions, micros(window), limit).overshoot;
    Ok(Cut { leader, meanwhile, limit, window, overshoot, admitted: admissions.len(), stopped_after, back_after })
}
