//! The verbs about what the gateway does: files, revisions, routes and upstreams.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use quorumgate_model::{resource::Name, units::Span};

#[derive(Debug, Clone, Args)]
pub struct Files {
    /// A YAML or JSON file, a directory of them, or - for standard input.
    #[arg(long = "file", short = 'f', required = true, value_name = "F", num_args = 1..)]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct WriteNote {
    /// Why; it is kept in the history.
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
    /// Refuse unless the cluster is at this revision.
    #[arg(long, value_name = "N")]
    pub if_revision: Option<u64>,
    /// Repeat a write whose outcome was unknown, without doing it twice.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
}

#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// Also delete what the files leave out, of the owner that --owner names.
    #[arg(long, requires = "owner")]
    pub prune: bool,
    /// Whose objects --prune may delete.
    #[arg(long, requires = "prune", value_name = "X")]
    pub owner: Option<String>,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub files: Files,
    /// Check and show the changes, write nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub prune: Prune,
    /// Undo the change after this time unless it is confirmed.
    #[arg(long = "try", value_name = "D")]
    pub trial: Option<Span>,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    pub files: Files,
    /// Exit 1 when something differs.
    #[arg(long)]
    pub exit_code: bool,
    #[command(flatten)]
    pub prune: Prune,
}

#[derive(Debug, Args)]
pub struct Trial {
    /// The trial's revision; the open one otherwise.
    pub revision: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// An earlier revision.
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// Answer from the asked node alone, even without a quorum.
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Args)]
pub struct Fmt {
    #[command(flatten)]
    pub files: Files,
    /// Rewrite the files instead of printing.
    #[arg(long, short, conflicts_with = "check")]
    pub write: bool,
    /// Exit 1 if a file is not in its canonical form; print nothing.
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct History {
    #[command(subcommand)]
    pub verb: Option<HistoryVerb>,
    #[command(flatten)]
    pub list: HistoryList,
}

#[derive(Debug, Args)]
pub struct HistoryList {
    /// How many at most; 0 is all that are kept.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
    /// Answer from the asked node alone, even without a quorum.
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Subcommand)]
pub enum HistoryVerb {
    /// List the revisions, newest first.
    Ls(HistoryList),
    /// Show what one revision changed.
    Show { revision: u64 },
    /// Show what differs between two revisions.
    Diff {
        from: u64,
        /// The newest if left out.
        to: Option<u64>,
    },
}

#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false)]
pub struct RollbackTarget {
    /// The revision to restore.
    pub revision: Option<u64>,
    /// Restore the one before the newest.
    #[arg(long)]
    pub previous: bool,
}

#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    pub target: RollbackTarget,
    /// Show the changes, write nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Begin after this revision; from now on if left out.
    #[arg(long, value_name = "N")]
    pub since: Option<u64>,
}

#[derive(Debug, Args)]
pub struct ListObjects {
    /// Only objects of this owner.
    #[arg(long, value_name = "X")]
    pub owner: Option<String>,
    /// Answer from the asked node alone, even without a quorum.
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Args)]
pub struct RemoveObjects {
    #[arg(required = true)]
    pub names: Vec<Name>,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Subcommand)]
pub enum RouteVerb {
    /// List the routes.
    Ls(ListObjects),
    /// Show one route.
    Get { name: Name },
    /// Write one route, whole.
    Set(SetRoute),
    /// Remove routes.
    Rm(RemoveObjects),
    /// Say which route takes a request, which it beats, and why.
    Match(MatchRequest),
}

#[derive(Debug, Subcommand)]
pub enum UpstreamVerb {
    /// List the upstreams.
    Ls(ListObjects),
    /// Show one upstream.
    Get { name: Name },
    /// Show what the asked node knows of its servers: which are up, ejected, busy; and its breaker.
    Health { name: Name },
    /// Write one upstream, whole.
    Set(SetUpstream),
    /// Remove upstreams.
    Rm(RemoveObjects),
}

#[derive(Debug, Subcommand)]
pub enum ConsumerVerb {
    /// List the consumers.
    Ls(ListObjects),
    /// Show one consumer.
    Get { name: Name },
    /// Write one consumer, whole.
    Set(SetConsumer),
    /// Remove consumers, and their credentials with them.
    Rm(RemoveObjects),
}

/// Of kinds with too many words for flags.
#[derive(Debug, Subcommand)]
pub enum ObjectVerb {
    /// List them.
    Ls(ListObjects),
    /// Show one.
    Get { name: Name },
    /// Write one, whole.
    Set(SetObject),
    /// Remove some.
    Rm(RemoveObjects),
}

#[derive(Debug, Args)]
pub struct SetConsumer {
    pub name: Name,
    /// A group it is in; may be repeated.
    #[arg(long = "group", value_name = "G")]
    pub groups: Vec<String>,
    /// A word that limits may select by.
    #[arg(long, value_name = "P")]
    pub plan: Option<String>,
    /// The consumer's words as YAML or JSON from a file or - (standard input), instead of flags.
    #[arg(long, short, value_name = "F", conflicts_with_all = ["groups", "plan"])]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Args)]
pub struct SetObject {
    pub name: Name,
    /// Its words as YAML or JSON from a file or - (standard input).
    #[arg(long, short, value_name = "F")]
    pub file: PathBuf,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Args)]
pub struct SetRoute {
    pub name: Name,
    /// A host it takes, such as api.shop.test or *.shop.test; may be repeated.
    #[arg(long = "host", value_name = "H")]
    pub hosts: Vec<String>,
    #[command(flatten)]
    pub path: SetPath,
    /// A method it takes; may be repeated.
    #[arg(long = "method", value_name = "M")]
    pub methods: Vec<String>,
    /// The upstream that answers.
    #[arg(long, value_name = "U", required_unless_present = "file")]
    pub upstream: Option<String>,
    /// The route's words as YAML or JSON from a file or - (standard input), instead of flags.
    #[arg(long, short, value_name = "F", conflicts_with_all = ["hosts", "methods", "upstream", "path"])]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Args)]
#[group(id = "path", multiple = false)]
pub struct SetPath {
    /// Paths below this one.
    #[arg(long, value_name = "P")]
    pub path_prefix: Option<String>,
    /// This path alone.
    #[arg(long, value_name = "P")]
    pub path_exact: Option<String>,
    /// Paths of this form, such as /orders/{id}.
    #[arg(long, value_name = "P")]
    pub path_template: Option<String>,
    /// Paths that match this regular expression.
    #[arg(long, value_name = "R")]
    pub path_regex: Option<String>,
}

#[derive(Debug, Args)]
pub struct SetUpstream {
    pub name: Name,
    /// A server, host:port; may be repeated.
    #[arg(long = "target", value_name = "T", required_unless_present = "file")]
    pub targets: Vec<String>,
    /// http1 or http2.
    #[arg(long, value_name = "P")]
    pub protocol: Option<String>,
    /// p2c_ewma, round_robin, least_requests or random.
    #[arg(long, value_name = "B")]
    pub balance: Option<String>,
    /// Check the targets' health at this path.
    #[arg(long, value_name = "P")]
    pub health_path: Option<String>,
    /// The upstream's words as YAML or JSON from a file or - (standard input), instead of flags.
    #[arg(long, short, value_name = "F", conflicts_with_all = ["targets", "protocol", "balance", "health_path"])]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub note: WriteNote,
}

#[derive(Debug, Args)]
pub struct MatchRequest {
    pub method: String,
    /// Absolute, such as http://api.shop.test/orders?beta=1.
    pub url: String,
    /// A header field, name:value; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "K:V")]
    pub headers: Vec<String>,
    /// The client's address.
    #[arg(long, value_name = "IP")]
    pub client_ip: Option<IpAddr>,
    /// The listener that it comes in by; left out, one of the node's own settings.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<Name>,
    /// Take the request as this consumer's.
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<Name>,
    /// Take the caller to have this scope; may be repeated.
    #[arg(long = "scope", value_name = "S")]
    pub scopes: Vec<String>,
    /// Take the caller's token to have these claims, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "", hide_default_value = true)]
    pub claims: String,
}
