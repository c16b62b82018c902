//! A quota by the calendar on real nodes: of no minute more than it says, whatever dies; a reset gives it once more.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Crowd, Metrics, apply, config, micros, wait_sessions};
use crate::Cluster;

const HOST: &str = "quota.test";
const NAME: &str = "quota";
const MINUTE: Duration = Duration::from_secs(60);
/// By how much the end of a minute that nodes agree on may be off from this machine's.
const EDGE: Duration = Duration::from_millis(300);
/// After the beginning of a minute.
const KILLED_AT: Duration = Duration::from_secs(15);
const BACK_AT: Duration = Duration::from_secs(35);
const RESET_AT: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub struct Counted {
    pub nodes: usize,
    pub limit: usize,
    /// Of a minute in which a node was killed and came back, of one in which an operator reset what was used when it was
    /// used up, and of a quiet one.
    pub minutes: [usize; 3],
    /// Beyond what a minute may have, those left out that its edges may count to another.
    pub overshoot: usize,
    /// Before the reset and after it, within its minute.
    pub around_reset: [usize; 2],
    /// What came back as lost with the killed node.
    pub burnt: usize,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, limit, minutes: [killed, reset, quiet], overshoot, around_reset: [before, after], burnt } =
            self;
        write!(
            f,
            "{nodes} nodes, {limit} a minute by the calendar: {killed} in a minute with a node killed ({burnt} burnt), {reset} \
             in one with a reset ({before} before it, {after} after), {quiet} in a quiet one; overshoot {overshoot}"
        )
    }
}

/// Clients on every node ask for one and a half times the quota. Takes up to five minutes.
pub async fn calendar(cluster: &mut Cluster, limit: usize) -> anyhow::Result<Counted> {
    let words = json!({ "kind": "calendar", "limit": limit, "every": "minute", "zone": "UTC" });
    apply(cluster, &config(NAME, words)).await?;
    wait_sessions(cluster).await?;
    let nodes = cluster.members.len();
    let victim = (cluster.leader().await? + 1) % nodes;
    let offered = limit as f64 / MINUTE.as_secs_f64() * 1.5;
    let even = vec![offered / nodes as f64; nodes];
    let addresses: Vec<_> = cluster.members.iter().map(|member| member.proxy).collect();
    // Some seconds of a minute to warm up in.
    tokio::time::sleep(next_minute()?.saturating_sub(Duration::from_secs(5))).await;
    let until_minute = next_minute()?;
    let crowd = Crowd::start(&addresses, HOST, &even);
    let begins = |minute: u32| until_minute + MINUTE * minute;
    let at = |minute: u32, after: Duration| (crowd.since + begins(minute) + after).into();

    tokio::time::sleep_until(at(0, KILLED_AT)).await;
    cluster.members[victim].kill();
    let others: Vec<f64> =
        (0..nodes).map(|node| if node == victim { 0.0 } else { offered / (nodes - 1) as f64 }).collect();
    crowd.set_rates(&others);
    tokio::time::sleep_until(at(0, BACK_AT)).await;
    let other = (0..nodes).find(|node| *node != victim).context("another node")?;
    let metrics = Metrics::of(cluster.members[other].telemetry).await?;
    let burnt = metrics.sum_where("quorumgate_ratelimit_quarantined_slots", &[NAME]) as usize;
    cluster.members[victim].run()?;
    cluster.members[victim].wait_ready().await?;
    crowd.set_rates(&even);

    tokio::time::sleep_until(at(1, RESET_AT)).await;
    let reset_from = crowd.now_us();
    cluster.members[other].cli(&["limit", "reset", NAME, "-m", "an outage of ours"])?;
    let reset_to = crowd.now_us();
    tokio::time::sleep_until(at(3, EDGE)).await;
    let admissions = crowd.stop().await?;

    let within = |from: u64, to: u64| admissions.iter().filter(|it| (from..to).contains(&it.answer_us)).count();
    let edge = micros(EDGE);
    let surely = |from: u64, to: u64| {
        admissions.iter().filter(|it| it.first_us >= from + edge && it.answer_us + edge < to).count()
    };
    let minute = |n: u32| (micros(begins(n)), micros(begins(n + 1)));
    let around_reset = [within(minute(1).0, reset_from), within(reset_from, minute(1).1)];
    let counted = [0, 2].map(|n| surely(minute(n).0, minute(n).1)).into_iter();
    // Those under way while the reset was may count to either side of it.
    let counted = counted.chain([surely(minute(1).0, reset_from + edge), surely(reset_to - edge, minute(1).1)]);
    ensure!(!admissions.is_empty(), "nothing was admitted");
    Ok(Counted {
        nodes,
        limit,
        minutes: [0, 1, 2].map(|n| within(minute(n).0, minute(n).1)),
        overshoot: counted.map(|it| it.saturating_sub(limit)).sum(),
        around_reset,
        burnt,
    })
}

/// Until the clock on the wall shows a whole minute.
fn next_minute() -> anyhow::Result<Duration> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let within = Duration::from_micros((unix.as_micros() % MINUTE.as_micros()) as u64);
    Ok(MINUTE - within)
}
