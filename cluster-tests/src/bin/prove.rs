//! Runs the claims in full on real processes and prints what it measured; exits 1 where a claim does not hold.

use std::{process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::{Parser, Subcommand};
use quorumgate_cluster_tests::{Cluster, Plan, scenarios};

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
    /// Keys and revocations by the million through the API.
    Bulk {
        #[arg(long, default_value_t = 1_000_000)]
        keys: usize,
        #[arg(long, default_value_t = 1_000_000)]
        revocations: usize,
    },
    /// Five nodes in regions 80 to 200 ms apart: commit times and the loss of a region.
    Wan {
        #[arg(long, default_value_t = 50)]
        writes: usize,
    },
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
        Claim::Spread { routes, changes } => {
            let cluster = Cluster::start(Plan::of(3)).await?;
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
        Claim::LoseQuorum => {
            let mut cluster = Cluster::start(Plan::of(3)).await?;
            let outage = scenarios::quorum::lose(&mut cluster).await?;
            println!(
                "without a quorum: open routes flow on, readyz stays 200, deny routes stale after {:?}",
                outage.stale_after
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
            let plan = Plan { round_trip: Some(|_, _| Duration::from_millis(2)), ..Plan::of(3) };
            let mut cluster = Cluster::start(plan).await?;
            let bound = scenarios::revocation::bound(&mut cluster, rounds, seed).await?;
            println!(
                "{rounds} revocations under faults: of {} requests the latest that was let in was sent {:?} after; the bound is {:?}",
                bound.requests, bound.latest, bound.max_staleness
            );
        }
        Claim::Bulk { keys, revocations } => {
            let cluster = Cluster::start(Plan::of(3)).await?;
            let bulk = scenarios::bulk::run(&cluster, keys, revocations).await?;
            println!("{bulk}");
            ensure!(bulk.keys_took + bulk.revocations_took < Duration::from_secs(60), "the load took longer than 60 s");
        }
        Claim::Wan { writes } => {
            let wan = scenarios::wan::run(writes).await?;
            println!("{wan}");
            let commit_max = wan.quorum_rtt + Duration::from_millis(10);
            ensure!(wan.commit_p50 <= commit_max, "the median commit takes longer than {commit_max:?}");
            ensure!(wan.commit_p99 <= commit_max, "the p99 of a commit is above {commit_max:?}");
            ensure!(wan.region_loss <= scenarios::wan::REGION_LOSS_MAX, "writing again took too long");
        }
    }
    Ok(())
}
