//! Runs the claims in full on real processes and prints what it measured; exits 1 where a claim does not hold.

use std::{process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::{Parser, Subcommand};
use quorumgate_cluster_tests::{
    Cluster, Plan,
    scenarios::{
        self,
        chaos::{self, Plant},
        revocation::Fault,
    },
};

#[derive(Parser)]
struct Words {
    #[command(subcommand)]
    claim: Claim,
}

#[derive(Subcommand)]
enum Claim {
    /// A file of routes through a follower, then single changes: all nodes serve them.
    Spread {
        #[arg(long, default_value_t = 1_000)]
        routes: usize,
        #[arg(long, default_value_t = 200)]
        changes: usize,
        /// Loaded before anything is measured.
        #[arg(long, default_value_t = 0)]
        consumers: usize,
    },
    /// The leader is killed under load.
    KillLeader {
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        /// Requests a second over all nodes.
        #[arg(long, default_value_t = 2_000)]
        rate: u32,
    },
    /// All nodes are killed at once and started again.
    KillAll {
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// Two of three nodes die.
    LoseQuorum,
    /// Attacks are spread over three nodes, so that none sees much of them.
    Anomalies,
    /// A token is revoked on one node while clients hammer all of them.
    Revocation {
        #[arg(long, default_value_t = 300)]
        rounds: usize,
    },
    /// Tokens are revoked while nodes are cut off, stopped and killed: nobody is let in past the bound.
    RevocationBound {
        #[arg(long, default_value_t = 50)]
        rounds: usize,
        /// Chooses victims and pauses.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// WebSockets, event streams and gRPC calls are open on every node when their token is revoked.
    Streams {
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// Keys and revocations by the million through the API, while requests are measured.
    Bulk {
        #[arg(long, default_value_t = 1_000_000)]
        keys: usize,
        #[arg(long, default_value_t = 1_000_000)]
        revocations: usize,
        /// A part of them in each, after a time in which nothing is loaded.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Requests a second over all nodes.
        #[arg(long, default_value_t = 600)]
        rate: u32,
    },
    /// A node with thousands of routes is scraped each second, while requests are measured.
    Scrape {
        #[arg(long, default_value_t = 10_000)]
        routes: usize,
        /// Each of ten scrapes, behind as long a time without any.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Requests a second.
        #[arg(long, default_value_t = 600)]
        rate: u32,
    },
    /// Limits on a real cluster: load of several shapes, faults, tiny limits, permits, edits, a backup; an independent
    /// auditor looks at every admission.
    Limits {
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Of the limits under load; requests are half as many again.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// Of the limits under load, in seconds.
        #[arg(long, default_value_t = 30)]
        window: u64,
        /// One part alone: shapes, kill, cut, reserve, entries, tiny, flights, calendar, edits, operator or restored.
        #[arg(long)]
        only: Option<String>,
    },
    /// Configuration and certificates change and every node restarts, under load of several kinds: no request fails.
    Rolling {
        #[arg(long, default_value_t = 100)]
        changes: usize,
        #[arg(long, default_value_t = 20)]
        certificates: usize,
    },
    /// One of three targets is killed, hangs or resets at half load: no request that may be sent again fails.
    Targets {
        /// Requests a second; half of what the node can do if left out.
        #[arg(long)]
        rate: Option<u32>,
        /// With each fault.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Three nodes go from an older build to this one, one by one, under load.
    Upgrade {
        /// The older build's binary.
        #[arg(long)]
        old: std::path::PathBuf,
        /// Requests a second over all nodes.
        #[arg(long, default_value_t = 600)]
        rate: u32,
    },
    /// First packets of QUIC from addresses that nobody has proven end in a Retry, and the node keeps nothing of them.
    Initials {
        /// A second.
        #[arg(long, default_value_t = 50_000)]
        rate: u32,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Rounds of faults by a seed, under load of every kind; histories of clients must be linearizable.
    Chaos {
        /// 10 if neither this nor --minutes is given.
        #[arg(long)]
        rounds: Option<u64>,
        /// No round begins after them.
        #[arg(long)]
        minutes: Option<u64>,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The first round.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Of each cluster at its begin; otherwise 3, 3, 5, and so on.
        #[arg(long)]
        nodes: Option<usize>,
        /// A mistake on purpose, which has to be found out.
        #[arg(long, value_enum)]
        plant: Option<Planted>,
    },
    /// Five nodes in regions 80 to 200 ms apart: commit times and the loss of a region.
    Wan {
        #[arg(long, default_value_t = 50)]
        writes: usize,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Planted {
    StaleReads,
    LooseLimit,
    NeverRevoked,
}

fn main() -> ExitCode {
    let words = Words::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(prove(words.claim))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("× {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn prove(claim: Claim) -> anyhow::Result<()> {
    match claim {
        Claim::Spread { routes, changes, consumers } => {
            let cluster = Cluster::start(Plan::of(3)).await?;
            if consumers > 0 {
                let took = scenarios::configuration::consumers(&cluster, consumers).await?;
                println!("{consumers} consumers loaded in {took:.1?}");
            }
            let spread = scenarios::configuration::spread(&cluster, routes, changes).await?;
            println!("{routes} routes applied through a follower, active on 3/3: {:?}", spread.first_apply);
            println!(
                "{changes} single changes, active on 3/3: p50 {:?}, p99 {:?}",
                spread.changes[changes / 2],
                spread.p99()
            );
            ensure!(spread.first_apply < Duration::from_secs(1), "the first apply took longer than 1 s");
            ensure!(spread.p99() < Duration::from_millis(100), "the p99 of a change is above 100 ms");
        }
        Claim::KillLeader { rounds, rate } => {
            let mut cluster = Cluster::start(Plan::of(3)).await?;
            let failover = scenarios::faults::kill_leader(&mut cluster, rounds, rate).await?;
            let worst = failover.elections.iter().max().copied().unwrap_or_default();
            println!(
                "{rounds} leaders killed under {rate} requests/s: 0 failed on survivors of {} requests",
                failover.requests
            );
            println!(
                "{} acknowledged writes, none lost; state hashes equal; slowest new leader {worst:?}",
                failover.acked
            );
            ensure!(worst < Duration::from_secs(2), "a new leader took longer than 2 s");
        }
        Claim::KillAll { rounds } => {
            let mut cluster = Cluster::start(Plan::of(3)).await?;
            let acked = scenarios::faults::kill_all(&mut cluster, rounds).await?;
            println!(
                "{rounds} times all nodes killed at once: {acked} acknowledged writes, none lost; state hashes equal"
            );
        }
        Claim::Anomalies => {
            let cluster = Cluster::start(Plan::of(3)).await?;
            let found = scenarios::anomalies::find(&cluster).await?;
            for (who, took) in &found.banned {
                println!("{who}: banned on every node {took:?} after the last request of the attack");
                ensure!(*took <= Duration::from_secs(10), "{who} took {took:?}");
            }
            println!("a busy client was let in all the time: {} requests", found.busy_requests);
        }
        Claim::LoseQuorum => {
            let mut cluster = Cluster::start(Plan::of(3)).await?;
            let outage = scenarios::quorum::lose(&mut cluster).await?;
            println!(
                "without a quorum: open routes flow on, readyz stays 200, deny routes fresh until {:?}, then stale",
                outage.fresh_until
            );
        }
        Claim::Revocation { rounds } => {
            let cluster = Cluster::start(Plan::of(3)).await?;
            let propagation = scenarios::revocation::propagation(&cluster, rounds).await?;
            let (p50, p99) = (propagation.p50(), propagation.p99());
            println!("{rounds} tokens revoked on one node, refused by 3/3 after: p50 {p50:?}, p99 {p99:?}");
            ensure!(p99 <= Duration::from_millis(300), "the p99 is above 300 ms");
        }
        Claim::RevocationBound { rounds, seed } => {
            let clocks = quorumgate_cluster_tests::cluster::libfaketime();
            if clocks.is_none() {
                println!("rounds in which a clock steps are SKIPPED, since libfaketime is not installed");
            }
            let faults: Vec<_> = Fault::ALL.into_iter().filter(|it| clocks.is_some() || !it.is_of_clock()).collect();
            let plan = Plan { round_trip: Some(|_, _| Duration::from_millis(2)), clocks, ..Plan::of(3) };
            let mut cluster = Cluster::start(plan).await?;
            let bound = scenarios::revocation::bound(&mut cluster, &faults, rounds, seed).await?;
            println!("the faults, in turn: {faults:?}");
            println!(
                "{rounds} revocations under faults: of {} requests the latest that was let in was sent {:?} after; the bound is {:?}",
                bound.requests, bound.latest, bound.max_staleness
            );
        }
        Claim::Streams { rounds } => {
            let cluster = Cluster::start(Plan::of(3)).await?;
            let closed = scenarios::streams::close(&cluster, rounds).await?;
            println!(
                "{} streams ended after the call that revoked their token; slowest {:?}",
                closed.streams, closed.slowest
            );
            ensure!(closed.worst() <= Duration::from_secs(1), "a stream lived on for longer than 1 s");
        }
        Claim::Bulk { keys, revocations, runs, rate } => {
            let cluster = Cluster::start(Plan::of(3)).await?;
            let amounts = scenarios::bulk::Amounts { keys, revocations, runs: runs.max(1), rate };
            let bulk = scenarios::bulk::run(&cluster, amounts).await?;
            println!("{bulk}");
            ensure!(bulk.keys_took + bulk.revocations_took < Duration::from_secs(60), "the load took longer than 60 s");
            ensure!(bulk.slower() <= 1.10, "the p99 is more than 10 % longer while something is loaded");
        }
        Claim::Scrape { routes, runs, rate } => {
            let cluster = Cluster::start(Plan::of(1)).await?;
            let amounts = scenarios::scrape::Amounts { routes: routes.max(2), runs: runs.max(1), rate };
            let scrape = scenarios::scrape::run(&cluster, amounts).await?;
            println!("{scrape}");
            ensure!(scrape.median() < Duration::from_millis(200), "a scrape takes 200 ms or longer");
            ensure!(scrape.slower() <= 1.10, "the p99 is more than 10 % longer while somebody scrapes");
        }
        Claim::Limits { nodes, limit, window, only } => {
            limits(nodes, limit, Duration::from_secs(window), only.as_deref()).await?;
        }
        Claim::Rolling { changes, certificates } => {
            let mut cluster = Cluster::start(Plan::of(3)).await?;
            print!("{}", scenarios::rolling::roll(&mut cluster, changes, certificates).await?);
        }
        Claim::Targets { rate, seconds } => {
            let cluster = Cluster::start(Plan::of(1)).await?;
            for suffered in scenarios::targets::suffer(&cluster, rate, Duration::from_secs(seconds)).await? {
                println!("{suffered}");
            }
        }
        Claim::Upgrade { old, rate } => {
            let new = quorumgate_cluster_tests::cluster::binary()?;
            println!("{}", scenarios::upgrade::roll(&old, &new, rate).await?);
        }
        Claim::Initials { rate, seconds } => {
            let cluster = Cluster::start(Plan::of(1)).await?;
            let flood = scenarios::initials::flood(&cluster, rate, Duration::from_secs(seconds)).await?;
            println!("{flood}");
        }
        Claim::Chaos { rounds, minutes, seed, from, nodes, plant } => {
            let plant = plant.map(|plant| match plant {
                Planted::StaleReads => Plant::StaleReads,
                Planted::LooseLimit => Plant::LooseLimit,
                Planted::NeverRevoked => Plant::NeverRevoked,
            });
            let report = chaos::run(&chaos::Options { seed, from, rounds, minutes, nodes, plant }).await?;
            println!("{report}");
            ensure!(report.undecided.is_empty(), "undecided is not proven: {:?}", report.undecided);
        }
        Claim::Wan { writes } => {
            let wan = scenarios::wan::run(writes).await?;
            println!("{wan}");
            let commit_max = wan.quorum_rtt + Duration::from_millis(10);
            ensure!(wan.commit_p50 <= commit_max, "the median commit takes longer than {commit_max:?}");
            ensure!(wan.commit_p99 <= commit_max, "the p99 of a commit is above {commit_max:?}");
            ensure!(wan.region_loss <= wan.region_loss_max(), "writing again took too long");
        }
    }
    Ok(())
}

/// Each part on a cluster of its own; what does not hold is told at the end, after all the figures.
async fn limits(nodes: usize, limit: usize, window: Duration, only: Option<&str>) -> anyhow::Result<()> {
    use scenarios::limits::*;
    let mut broken = Vec::new();
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if wanted("shapes") {
        let cluster = Cluster::start(Plan::of(nodes)).await?;
        for (form, least) in [(Shape::Even, 0.98), (Shape::Skewed, 0.98), (Shape::Moving, 0.97)] {
            let used = shape(&cluster, form, limit, window, 4).await?;
            println!("{used}");
            hold(used.overshoot == 0, "a window was over the limit");
            hold(used.utilisation() >= least, "too little of the limit was used");
        }
    }
    if wanted("kill") {
        for leader in [false, true] {
            let mut cluster = Cluster::start(Plan::of(nodes)).await?;
            let killed = kill(&mut cluster, leader, limit, window).await?;
            println!("{killed}");
            hold(killed.overshoot == 0, "a window was over the limit after a kill");
            hold(killed.lost <= killed.lost_max, "a kill cost too much");
            hold(killed.soon_share() >= 0.98 && killed.later_share() >= 0.98, "a kill was felt for too long");
        }
    }
    if wanted("cut") {
        let plan = Plan { round_trip: Some(|_, _| Duration::from_millis(2)), ..Plan::of(nodes) };
        let cluster = Cluster::start(plan).await?;
        for leader in [false, true] {
            let cut = cut_off(&cluster, leader, false, limit, window).await?;
            println!("{cut}");
            hold(cut.overshoot == 0, "a window was over the limit after a cut");
        }
    }
    if wanted("reserve") {
        let plan = Plan { round_trip: Some(|_, _| Duration::from_millis(2)), ..Plan::of(nodes) };
        let cluster = Cluster::start(plan).await?;
        let cut = cut_off(&cluster, false, true, limit, window).await?;
        println!("with a reserve: {cut}");
        hold(cut.overshoot == 0, "a window was over the limit while a reserve was spent");
        hold(cut.meanwhile > 0, "nothing was spent of the reserve");
    }
    if wanted("entries") {
        let cluster = Cluster::start(Plan::of(nodes)).await?;
        let measured =
            entries(&cluster, limit, window, &[100.0, 1_000.0, 5_000.0, 20_000.0], Duration::from_secs(15)).await?;
        println!("{measured}");
        hold(measured.overshoot == 0, "a window was over the limit");
        hold(measured.at.iter().all(|(_, entries)| *entries <= 10.0), "too many log entries");
    }
    if wanted("tiny") {
        let cluster = Cluster::start(Plan::of(nodes)).await?;
        let tiny = tiny(&cluster, 5, Duration::from_secs(60)).await?;
        println!("5 a minute over {nodes} nodes, a client that goes round: {tiny:?}");
        hold(tiny.admitted == 5 && tiny.overshoot == 0, "not exactly 5");
    }
    if wanted("flights") {
        let mut cluster = Cluster::start(Plan::of(nodes)).await?;
        let flights = concurrency(&mut cluster, 10, Duration::from_secs(5)).await?;
        println!("10 in flight over {nodes} nodes: {flights:?}");
        hold(flights.most == 10, "not 10 in flight");
        hold(flights.meanwhile <= 10, "the permits of a dead node were lent too soon");
        hold(flights.back_after <= flights.back_max + Duration::from_secs(2), "permits came back late");
    }
    if wanted("calendar") {
        let mut cluster = Cluster::start(Plan::of(nodes)).await?;
        let counted = calendar(&mut cluster, limit).await?;
        println!("{counted}");
        hold(counted.overshoot == 0, "a minute was over its quota");
        hold(counted.minutes[2] >= limit * 99 / 100, "too little of a quiet minute's quota was used");
        hold(counted.around_reset[1] > 0, "a reset gave nothing");
    }
    if wanted("edits") {
        let cluster = Cluster::start(Plan::of(nodes)).await?;
        let edits = edits(&cluster, Duration::from_secs(60)).await?;
        println!("50, raised to 80, lowered to 40, rolled back to 80, within one window: {edits:?}");
        hold(edits.admitted == [50, 30, 0, 0], "an edit or a rollback changed what was used");
    }
    if wanted("operator") {
        let mut cluster = Cluster::start(Plan::of(3)).await?;
        println!("60 a minute, reset, 7 more: {:?}", operator(&mut cluster, Duration::from_secs(60)).await?);
    }
    if wanted("restored") {
        let mut cluster = Cluster::start(Plan::of(nodes)).await?;
        let restored = restored(&mut cluster, 200, Duration::from_secs(30)).await?;
        println!("a backup restored while its limit is used up: {restored:?}");
        hold(restored.overshoot == 0, "a window was over the limit after a restore");
        hold(restored.after > 0, "the restored cluster admits nothing");
    }
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}
