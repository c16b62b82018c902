//! The verbs about nodes, tokens and the cluster.

use clap::{Args, Subcommand, ValueEnum};
use quorumgate_model::{resource::Name, units::Span};

use super::NodeRole;

#[derive(Debug, Subcommand)]
pub enum JoinToken {
    /// Make a token; it is shown once.
    Create {
        /// What the new node may become.
        #[arg(long, default_value = "voter")]
        role: NodeRole,
        /// How long it lasts.
        #[arg(long, default_value = "1h", value_name = "D")]
        ttl: Span,
        /// How many nodes may use it.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// Print the token and nothing else.
        #[arg(long, short)]
        quiet: bool,
    },
    /// List the tokens, without their secrets.
    Ls,
    /// Remove a token.
    Rm { id: String },
}

#[derive(Debug, Subcommand)]
pub enum AdminToken {
    /// Make a token; it is shown once.
    Create {
        name: Name,
        /// What its holder may do.
        #[arg(long)]
        role: AdminRole,
        /// Only objects of this owner may be written.
        #[arg(long, value_name = "L")]
        owner: Option<String>,
        /// How long it lasts.
        #[arg(long, default_value = "90d", value_name = "D")]
        ttl: Span,
        /// Print the token and nothing else.
        #[arg(long, short)]
        quiet: bool,
    },
    /// List the tokens, without their secrets.
    Ls,
    /// Remove a token.
    Rm { name: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AdminRole {
    /// May read.
    Viewer,
    /// May change the configuration.
    Operator,
    /// May do everything.
    Admin,
}

impl AdminRole {
    pub fn word(self) -> &'static str {
        match self {
            AdminRole::Viewer => "viewer",
            AdminRole::Operator => "operator",
            AdminRole::Admin => "admin",
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the nodes.
    Ls,
    /// Show one node.
    Get(NodeName),
    /// Show until when the nodes' certificates are good. They are renewed by themselves.
    Certs,
    /// Take a node out of traffic for a while; undrain brings it back.
    Drain(NodeName),
    /// Bring a drained node back.
    Undrain(NodeName),
    /// Let a live node hand over and go away for good.
    Leave(NodeName),
    /// Make a replica a voter.
    Promote(NodeName),
    /// Make a voter a replica.
    Demote(NodeName),
    /// Remove a dead node and shut its certificate out.
    Rm(NodeName),
}

#[derive(Debug, Args)]
pub struct NodeName {
    /// The node's name or id.
    pub node: String,
}

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the cluster as the asked node sees it.
    Status,
    /// Exit 1 unless the cluster is healthy.
    Health,
    /// Change a setting of the whole cluster.
    #[command(subcommand)]
    Set(ClusterSet),
    /// Move leadership to another voter.
    TransferLeader {
        /// The voter to lead; the leader picks one otherwise.
        #[arg(long, value_name = "N")]
        to: Option<String>,
    },
    /// Compare the state of the nodes by its hash.
    Verify {
        /// Further nodes to ask, beside --endpoint.
        #[arg(long = "with", value_name = "E")]
        others: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ClusterSet {
    /// The longest round trip between two voters; every consensus timer follows from it.
    MaxRtt { max_rtt: Span },
}

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List the changes, newest first.
    Ls {
        /// How many at most.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
}
