//! The verbs of somebody on call.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorumgate_model::units::Span;
use uuid::Uuid;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Explain {
    #[command(subcommand)]
    pub what: Option<ExplainWhat>,
    /// A code of a refusal, such as rate_limited; all codes when it is left out. Asks no node.
    pub code: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum ExplainWhat {
    /// Show why one of the last requests was answered as it was, whichever node served it.
    Request {
        /// As x-request-id of the answer, and request_id of a problem, have it.
        id: Uuid,
    },
}

#[derive(Debug, Args)]
pub struct Tap {
    /// Only of this route.
    #[arg(long, value_name = "R")]
    pub route: Option<String>,
    /// Only these: 404, 5xx, 400-499.
    #[arg(long, value_name = "S")]
    pub status: Option<String>,
    /// Only those that were refused with this code.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Only of this consumer.
    #[arg(long, value_name = "C")]
    pub consumer: Option<String>,
    /// Of those, one in so many.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub one_in: u32,
    /// End after so many.
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Top {
    /// How often to look.
    #[arg(long, value_name = "D", default_value = "1s")]
    pub every: Span,
    /// End after so many looks.
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Routes shown.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub routes: usize,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Logs {
    #[command(subcommand)]
    pub what: Option<LogsWhat>,
    /// Go on with the lines that come.
    #[arg(long, short)]
    pub follow: bool,
    /// Lines of the past to begin with.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub lines: u32,
}

#[derive(Debug, Subcommand)]
pub enum LogsWhat {
    /// Show how much the node logs, or change it until it restarts.
    Level {
        /// A level, such as debug, or a filter, such as info,quorumgate_node=debug.
        filter: Option<String>,
        /// Go back after this time.
        #[arg(long = "for", value_name = "D", requires = "filter")]
        hold: Option<Span>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List the changes, newest first.
    Ls(AuditLs),
    /// Check that the audit trail is what was written; exit 1 and name the entries that are not.
    Verify,
    /// Make who an actor was unknowable in the trails of accesses of all nodes: what it has done so far is nobody's.
    Erase {
        /// As entries have it: token/alice.
        actor: String,
    },
    /// Write the trail to a file, a JSON object a line; the next time what has come since.
    Export(AuditExport),
}

#[derive(Debug, Args)]
pub struct AuditExport {
    /// Where to: it is added to.
    pub file: PathBuf,
    /// The calls that the asked node has refused, from its own chain.
    #[arg(long)]
    pub denials: bool,
    /// The calls that the asked node has let in, from its own chain.
    #[arg(long, conflicts_with_all = ["denials", "follow"])]
    pub access: bool,
    /// Go on with entries as they are made.
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct AuditLs {
    /// How many at most.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Go on with entries as they are made, oldest first: of --actor and --rpc, if given.
    #[arg(long, short)]
    pub follow: bool,
    /// Only by this actor: alice, token/alice.
    #[arg(long, value_name = "A")]
    pub actor: Option<String>,
    /// Only of calls that have this in their name: ApplyConfig.
    #[arg(long, value_name = "RPC")]
    pub rpc: Option<String>,
    /// Only what changed this object: route/orders.
    #[arg(long, value_name = "KIND/NAME", conflicts_with = "follow")]
    pub object: Option<String>,
    /// Only from this time on: 1h (ago), or 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
    /// Only up to this time.
    #[arg(long, value_name = "T", conflicts_with = "follow")]
    pub until: Option<String>,
    /// The calls that the asked node has refused, from its own chain.
    #[arg(long, conflicts_with_all = ["object", "diff"])]
    pub denials: bool,
    /// The calls that the asked node has let in, reads too, from its own chain.
    #[arg(long, conflicts_with_all = ["object", "diff", "denials", "follow"])]
    pub access: bool,
    /// Show what each entry changed, before and after.
    #[arg(long, conflicts_with = "follow")]
    pub diff: bool,
}
