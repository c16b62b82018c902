//! A leader that loses its quorum in the middle of writes: what was appended is unknown, what was not says so, and a repeat
//! under the same request id settles both.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use quorumgate_proto::admin::v1::{
    ListRevisionsRequest, NewRevocation, RevokeTokenRequest, Selector, WriteUpstreamRequest, selector::By,
};
use tokio::{sync::Notify, task::JoinSet};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::upstream;
use crate::{Admin, Cluster, cluster::until};

const WRITERS: usize = 32;
/// So many at most from each: the history must hold them all.
const WRITES: usize = 20;
/// After so many acknowledged writes the followers stop; the other writers are then on their way.
const BEFORE: usize = 100;
const DEADLINE: Duration = Duration::from_secs(2);
/// Of what is asked while the leader does not know yet that it is alone; it does after some two seconds.
const APPENDED_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Settled {
    pub acked: usize,
    /// DEADLINE_EXCEEDED, OUTCOME_UNKNOWN.
    pub unknown: usize,
    /// UNAVAILABLE, NO_QUORUM.
    pub not_appended: usize,
}

/// Stops both followers of three under writes, starts them again, and repeats what was not acknowledged.
pub async fn stop_followers(cluster: &mut Cluster) -> anyhow::Result<Settled> {
    let leader = cluster.leader().await?;
    let followers: Vec<_> = (0..cluster.members.len()).filter(|at| *at != leader).collect();
    let acked = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(Notify::new());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.members[leader].client().await?;
        let (acked, enough) = (acked.clone(), enough.clone());
        writers.spawn(async move {
            for n in 0..WRITES {
                let request = request(writer, n);
                match create(&client, request.clone()).await {
                    Ok(()) if acked.fetch_add(1, Ordering::Relaxed) + 1 == BEFORE => enough.notify_one(),
                    Ok(()) => {}
                    Err(refused) => return Some((request, refused)),
                }
            }
            None
        });
    }
    tokio::time::timeout(crate::cluster::PATIENCE, enough.notified()).await.context("too few writes")?;
    let mut later = Vec::new();
    for writer in WRITERS..2 * WRITERS {
        later.push((writer, cluster.members[leader].client().await?));
    }
    let revoker = cluster.members[leader].client().await?;
    for at in &followers {
        cluster.members[*at].signal(Signal::SIGSTOP)?;
    }
    // A revocation reads nothing before it is appended, as configuration does, which may find nobody to confirm that.
    let appended = revoke(&revoker, APPENDED_DEADLINE).await.err().context("a revocation without a quorum")?;
    let told = kind(REVOCATION, &appended)?;
    ensure!(told == Code::DeadlineExceeded, "what was appended was told as not appended: {appended:?}");
    // Those above may all have been waiting for the receipts of committed writes: these come while the leader does not
    // know yet that it is alone.
    for (writer, client) in later {
        let request = request(writer, 0);
        let acked = acked.clone();
        writers.spawn(async move {
            let refused = create(&client, request.clone()).await.err();
            acked.fetch_add(usize::from(refused.is_none()), Ordering::Relaxed);
            refused.map(|refused| (request, refused))
        });
    }
    let one = cluster.members[leader].cli_output(&["--timeout", "2s", "join-token", "create", "-q"])?;
    let (exit, stderr) = (one.status.code(), String::from_utf8_lossy(&one.stderr).into_owned());
    ensure!(exit == Some(7), "a write that was appended without a quorum exits {exit:?}: {stderr}");
    let repeatable = stderr.contains("request id") || stderr.contains("--request-id");
    ensure!(stderr.contains("create another one") && !repeatable, "nothing repeats it under an id: {stderr}");

    let mut failed = Vec::new();
    while let Some(ended) = writers.join_next().await {
        failed.extend(ended?);
    }
    let late = cluster.members[leader].cli_output(&["--timeout", "4s", "route", "rm", "any", "--yes"])?;
    ensure!(late.status.code() == Some(6), "a write that was not appended: {late:?}");

    for at in &followers {
        cluster.members[*at].signal(Signal::SIGCONT)?;
    }
    cluster.wait_voters(cluster.members.len()).await?;
    let mut settled = Settled { acked: acked.load(Ordering::Relaxed), unknown: 1, not_appended: 0 };
    let other = cluster.members[followers[0]].client().await?;
    until("the repeat of a revocation", async || Ok(revoke(&other, DEADLINE).await?)).await?;
    for (request, refused) in &failed {
        match kind(&request.request_id, refused)? {
            Code::DeadlineExceeded => settled.unknown += 1,
            _ => settled.not_appended += 1,
        }
        until("the repeat of a write", async || Ok(create(&other, request.clone()).await?)).await?;
    }
    let expected = settled.acked + failed.len();
    let made = revisions(&cluster.members[leader].client().await?).await?;
    ensure!(made.len() == expected, "{} writes of {expected} are in the history", made.len());
    ensure!(made.values().all(|times| *times == 1), "a write happened twice: {made:?}");
    Ok(settled)
}

/// Creates an object: a second time under another request id it would be refused, ALREADY_EXISTS.
fn request(writer: usize, n: usize) -> WriteUpstreamRequest {
    let mut made = upstream(([127, 0, 0, 1], 9).into());
    made.name = format!("u-{writer}-{n}");
    let request_id = format!("{writer:08x}-0000-4000-8000-{n:012x}");
    WriteUpstreamRequest { upstream: Some(made), message: request_id.clone(), request_id, ..Default::default() }
}

async fn create(client: &Admin, request: WriteUpstreamRequest) -> Result<(), Status> {
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    client.config().create_upstream(request).await.map(|_| ())
}

const REVOCATION: &str = "ffffffff-0000-4000-8000-000000000000";

async fn revoke(client: &Admin, deadline: Duration) -> Result<(), Status> {
    let selector = Some(Selector { by: Some(By::Jti("one".into())), issuer: "https://idp.test".into() });
    let revocation = Some(NewRevocation { selector, expires_in: None, issued_before: None });
    let request_id = REVOCATION.to_owned();
    let mut request = Request::new(RevokeTokenRequest { revocation, request_id, ..Default::default() });
    request.set_timeout(deadline);
    client.revocations().revoke_token(request).await.map(|_| ())
}

/// The two ways in which a write may fail, each with what it must say.
fn kind(request_id: &str, refused: &Status) -> anyhow::Result<Code> {
    // The client's own clock was faster than the answer: unknown all the more.
    if refused.code() == Code::Cancelled {
        return Ok(Code::DeadlineExceeded);
    }
    let details = refused.get_error_details();
    let info = details.error_info().with_context(|| format!("no reason: {refused:?}"))?;
    match (refused.code(), info.reason.as_str()) {
        (Code::DeadlineExceeded, "OUTCOME_UNKNOWN") => {
            let named = info.metadata.get("request_id");
            ensure!(named.is_some_and(|it| it == request_id), "the request to repeat is {named:?}, not {request_id}");
        }
        (Code::Unavailable, "NO_QUORUM") => {}
        _ => bail!("{refused:?}"),
    }
    Ok(refused.code())
}

/// How many revisions each message has.
async fn revisions(client: &Admin) -> anyhow::Result<BTreeMap<String, usize>> {
    let list = client.config().list_revisions(ListRevisionsRequest::default()).await?.into_inner();
    let mut made = BTreeMap::new();
    for revision in list.revisions {
        *made.entry(revision.message).or_default() += 1;
    }
    Ok(made)
}
