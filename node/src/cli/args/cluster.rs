//! The verbs about nodes, tokens and the cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use quorumgate_model::{resource::Name, units::Span};

use super::{NewNode, NodeRole};

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
    Rm(RemoveNode),
}

#[derive(Debug, Args)]
pub struct NodeName {
    /// The node's name or id.
    pub node: String,
}

#[derive(Debug, Args)]
pub struct RemoveNode {
    #[command(flatten)]
    pub name: NodeName,
    /// Also one that is alive, which `node leave` would let hand over.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct RotateCa {
    /// Show how far it is, and change nothing.
    #[arg(long, conflicts_with = "abandon")]
    pub status: bool,
    /// Give up a new CA that does not sign yet.
    #[arg(long)]
    pub abandon: bool,
    /// How long nodes may take to carry out the steps.
    #[arg(long, default_value = "60s", value_name = "D")]
    pub within: Span,
}

#[derive(Debug, Args)]
pub struct RotateSealingKey {
    /// Show how far it is, and change nothing.
    #[arg(long, conflicts_with = "abandon")]
    pub status: bool,
    /// Give up a new key that does not seal yet.
    #[arg(long)]
    pub abandon: bool,
    /// How long to wait for the end. It goes on without anybody who waits.
    #[arg(long, default_value = "60s", value_name = "D")]
    pub within: Span,
}

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the cluster as the asked node sees it.
    Status,
    /// Exit 1 unless the cluster is healthy. With -o nagios, exit 0 to 3 as a plugin.
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
    /// Give the cluster a new CA while it serves. What was begun is gone on with.
    RotateCa(RotateCa),
    /// Seal the cluster's secrets under a new key while it serves. What was begun goes on by itself.
    RotateSealingKey(RotateSealingKey),
    /// Save the cluster to a file, or look into one.
    #[command(subcommand)]
    Backup(Backup),
    /// Prepare the first node of a new cluster from a backup.
    Restore(Box<Restore>),
    /// Make a new cluster of one stopped node, after its quorum was lost for good.
    Recover(Recover),
    /// Compare the state of all nodes, by its hash at one index.
    Verify {
        /// Ask these nodes themselves, and --endpoint, instead of all through one.
        #[arg(long = "with", value_name = "E")]
        others: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Write the cluster's whole state to a file. It holds the cluster's key: keep it like one.
    Save {
        file: PathBuf,
        /// A file with a passphrase that the key in the backup is sealed under; - reads standard input.
        #[arg(long, value_name = "F")]
        passphrase_file: Option<PathBuf>,
        /// What the asked node holds, without asking the others: for a cluster without a quorum.
        #[arg(long)]
        stale: bool,
    },
    /// Check a backup from end to end, and say what it holds.
    Inspect { file: PathBuf },
}

/// After a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Budgets {
    Spent,
    Reset,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup.
    pub file: PathBuf,
    #[command(flatten)]
    pub node: NewNode,
    /// Go on with revisions that no client of the old cluster can have seen.
    #[arg(long)]
    pub bump_revision: bool,
    /// What is taken to be left of calendar budgets whose period has begun: nothing, since it is unknown what was spent after
    /// the backup, or all.
    #[arg(long, value_enum, default_value_t = Budgets::Spent, value_name = "B")]
    pub budgets: Budgets,
    /// The passphrase that the backup's key is sealed under; - reads standard input.
    #[arg(long, value_name = "F")]
    pub passphrase_file: Option<PathBuf>,
    /// Run the node at once.
    #[arg(long)]
    pub run: bool,
}

#[derive(Debug, Args)]
pub struct Recover {
    /// Say that the other voters are lost for good: what only they held is lost with them.
    #[arg(long, required = true)]
    pub force_new_cluster: bool,
    /// The directory of this node, which must be stopped.
    #[arg(long, value_name = "D")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ClusterSet {
    /// The longest round trip between two voters; every consensus timer follows from it.
    MaxRtt { max_rtt: Span },
}
