//! The services Key and Revocation: stored credentials, and what no longer counts.

mod keys;
mod reports;
mod revocations;
mod selectors;
mod text;
mod token;

pub use keys::own as own_key;

use std::sync::Arc;

use quorumgate_model::{
    command::{Applied, Body},
    digest::Digest,
    resource::{Key, Kind, Name, Resource, Resources},
};
use quorumgate_proto::admin::v1::{self as admin, WaitFor};
use quorumgate_proxy::identity::directory::Directory;
use tonic::{Response, Status};
use uuid::Uuid;

use super::{
    desk::{self, Desk, Written},
    failure,
    gate::Call,
};
use crate::{consensus::Consensus, secrets};

/// How many objects one page shows unless asked, and at most.
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 10_000;

type Answer<T> = Result<Response<T>, Status>;

/// Serves both.
#[derive(Clone)]
pub struct Service {
    desk: Desk,
    /// What this node's proxy looks up.
    directory: Arc<Directory>,
}

/// A write with the nodes that serve it.
struct Told {
    written: Written,
    nodes: Vec<admin::NodeReceipt>,
}

impl Service {
    pub fn new(consensus: Consensus, directory: Arc<Directory>) -> Self {
        Self { desk: Desk { consensus }, directory }
    }

    /// Proposes, and waits for what was asked for.
    async fn write(&self, call: &Call, request_id: Uuid, asked: Digest, body: Body, wait: i32) -> Result<Told, Status> {
        let wait = wait_for(wait)?;
        let applied: Applied = self.desk.propose_asked(call, request_id, Some(asked), body).await?;
        let written = desk::written(&applied)?;
        let nodes = match wait {
            // Its own number alone: whoever writes millions waits for the last one.
            WaitFor::Committed => Vec::new(),
            WaitFor::Unspecified | WaitFor::AllLive => self.desk.receipts(call, written.index).await,
        };
        let nodes = nodes.iter().map(|it| desk::receipt(it, it.published_index)).collect();
        Ok(Told { written, nodes })
    }

    fn pepper(&self) -> Result<[u8; 32], Status> {
        let consensus = &self.desk.consensus;
        match secrets::pepper(&consensus.state(), &consensus.keys()) {
            Ok(Some(pepper)) => Ok(pepper),
            Ok(None) => Err(failure::status(
                tonic::Code::Unavailable,
                "NOT_BOOTSTRAPPED",
                "the cluster has not made its key pepper yet; ask again",
            )),
            Err(error) => Err(internal(error)),
        }
    }
}

pub fn wait_for(wait: i32) -> Result<WaitFor, Status> {
    WaitFor::try_from(wait)
        .map_err(|_| failure::bad_field("wait", &format!("found {wait}; allowed: ALL_LIVE or COMMITTED")))
}

pub fn page(limit: u32) -> Result<usize, Status> {
    match limit {
        0 => Ok(PAGE_DEFAULT as usize),
        1..=PAGE_MAX => Ok(limit as usize),
        _ => Err(failure::bad_field("limit", &format!("found {limit}; allowed: 1 to {PAGE_MAX}"))),
    }
}

/// In the order of their names.
fn of_kind(resources: &Resources, kind: Kind) -> impl Iterator<Item = &Resource> {
    let first: Name = "0".parse().expect("the first of all names");
    let all = resources.range(Key { kind, name: first }..);
    all.take_while(move |(key, _)| key.kind == kind).map(|(_, stored)| &stored.resource)
}

fn internal(error: anyhow::Error) -> Status {
    failure::status(tonic::Code::Internal, "INTERNAL", format!("{error:#}"))
}
