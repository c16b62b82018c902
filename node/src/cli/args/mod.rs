//! The command line's grammar: every verb, its flags and their help texts.

mod ai;
mod anomalies;
mod apis;
mod approvals;
mod bans;
mod cache;
mod cluster;
mod config;
mod credentials;
mod daemon;
mod import;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod limits;
mod observe;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use quorumgate_model::{resource::Name, units::Span};

pub use ai::*;
pub use anomalies::*;
pub use apis::*;
pub use approvals::*;
pub use bans::*;
pub use cache::*;
pub use cluster::*;
pub use config::*;
pub use credentials::*;
pub use daemon::*;
pub use import::*;
#[cfg(feature = "kubernetes")]
pub use kubernetes::*;
pub use limits::*;
pub use observe::*;

const FIRST_MINUTES: &str = "\
The first five minutes:
  quorumgate demo                                                a cluster of three on this machine
  quorumgate init --name n1 --region eu --data-dir n1            prepare a cluster's first node
  quorumgate run --data-dir n1                                   run it
  quorumgate --endpoint unix:n1/admin.sock apply -f shop.yaml    give it routes
  quorumgate --endpoint unix:n1/admin.sock node ls               see who is there

Exit codes: 0 ok, 1 negative answer, 2 usage, 3 forbidden, 4 not found, 5 conflict, 6 no quorum or
not reachable, 7 deadline, 8 invalid configuration, 10 internal. The daemon exits 78 on bad settings.";

/// A distributed API gateway: every node is an HTTP proxy and a member of the cluster.
#[derive(Debug, Parser)]
#[command(name = "quorumgate", version = crate::VERSION, after_help = FIRST_MINUTES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the packages put a node's data.
pub const ENDPOINT_DEFAULT: &str = "unix:/var/lib/quorumgate/admin.sock";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The node to ask: unix:PATH or https://HOST:PORT.
    ///
    /// Left out, it is the current context's (`quorumgate context use`), or unix:/var/lib/quorumgate/admin.sock.
    #[arg(long, global = true, env = "QUORUMGATE_ENDPOINT", value_name = "E")]
    pub endpoint: Option<String>,
    /// A cluster that `quorumgate context set` has named.
    #[arg(long, global = true, env = "QUORUMGATE_CONTEXT", conflicts_with = "endpoint", value_name = "NAME")]
    pub context: Option<String>,
    /// How long one call may take.
    #[arg(long, global = true, default_value = "15s", value_name = "D")]
    pub timeout: Span,
    /// The cluster's CA certificate (PEM), for https endpoints.
    #[arg(long, global = true, env = "QUORUMGATE_CA", value_name = "F")]
    pub ca: Option<PathBuf>,
    /// A file with an admin token, for https endpoints; - reads standard input.
    #[arg(long, global = true, env = "QUORUMGATE_ADMIN_TOKEN_FILE", value_name = "F")]
    pub admin_token_file: Option<PathBuf>,
    /// A client certificate (PEM) instead of a token.
    #[arg(long, global = true, requires = "client_key", value_name = "F")]
    pub client_cert: Option<PathBuf>,
    /// The client certificate's key (PEM).
    #[arg(long, global = true, requires = "client_cert", value_name = "F")]
    pub client_key: Option<PathBuf>,
    /// How to print the answer.
    #[arg(long, short = 'o', global = true, default_value = "table", value_name = "FORM")]
    pub output: Form,
    /// Do not ask before something is removed.
    #[arg(long, global = true)]
    pub yes: bool,
}

impl Global {
    pub fn timeout(&self) -> Duration {
        self.timeout.0
    }

    pub fn endpoint(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    /// A table with more columns.
    Wide,
    Json,
    /// One JSON object a line.
    Jsonl,
    /// All columns of the table (RFC 4180), for lists.
    Csv,
    Yaml,
    /// Names alone, one a line.
    Name,
    /// For doctor and cluster health: a line with figures and an exit code of 0 to 3, as monitoring plugins have it.
    Nagios,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster of three on this machine and check what it promises.
    Demo(Demo),
    /// Prepare the first node of a new cluster.
    Init(Init),
    /// Enter a cluster with a join token.
    Join(Join),
    /// Run a node in the foreground.
    Run(Run),
    /// Tokens that let new nodes in.
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Tokens for people and scripts that administer the cluster.
    #[command(subcommand)]
    AdminToken(AdminToken),
    /// The nodes: list, drain, promote, remove.
    #[command(subcommand)]
    Node(Node),
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Write a configuration file to the cluster.
    Apply(Apply),
    /// Show what apply would change.
    Diff(Diff),
    /// Keep a change that was applied with --try.
    Confirm(Trial),
    /// Undo a change that was applied with --try.
    Abort(Trial),
    /// Print the cluster's configuration as a file.
    Export(Export),
    /// Make a configuration file from another document.
    #[command(subcommand)]
    Import(ImportVerb),
    /// Make a configuration file from the one of another gateway. What is not translated is told.
    Convert(Convert),
    /// Contracts: whether an upstream keeps one.
    #[command(subcommand)]
    Contract(ContractVerb),
    /// Check a file without a cluster.
    Validate(Files),
    /// Print files in their canonical form. Comments are lost.
    Fmt(Fmt),
    /// Print the file format as a JSON Schema for editors.
    Schema,
    /// The revisions so far.
    History(History),
    /// Restore an earlier revision, as a new one.
    Rollback(Rollback),
    /// Print each new revision as it arrives.
    Watch(Watch),
    /// Routes: which requests go where.
    #[command(subcommand)]
    Route(RouteVerb),
    /// Upstreams: the servers behind the gateway.
    #[command(subcommand)]
    Upstream(UpstreamVerb),
    /// Consumers: who may call.
    #[command(subcommand)]
    Consumer(ConsumerVerb),
    /// Auths: by what callers prove who they are.
    #[command(subcommand)]
    Auth(ObjectVerb),
    /// Certificate authorities: whose certificates clients may come with.
    #[command(subcommand)]
    CertificateAuthority(ObjectVerb),
    /// Limits: how much is admitted, and what is used.
    #[command(subcommand)]
    Limit(LimitVerb),
    /// APIs: their versions, and who still calls those that end.
    #[command(subcommand)]
    Api(ApiVerb),
    /// Models: what they were asked, and what it cost.
    #[command(subcommand)]
    Ai(AiVerb),
    /// Caches: what the nodes keep of answers.
    #[command(subcommand)]
    Cache(CacheVerb),
    /// Certificates: what the gateway shows to clients.
    #[command(subcommand)]
    Certificate(ObjectVerb),
    /// Listeners: what the nodes open for clients.
    #[command(subcommand)]
    Listener(ObjectVerb),
    /// Policies: which addresses come in.
    #[command(subcommand)]
    Policy(ObjectVerb),
    /// Tenants: which hosts and paths belong to whom, and how many objects.
    #[command(subcommand)]
    Tenant(ObjectVerb),
    /// Guardrails: what must be true of every object.
    #[command(subcommand)]
    Guardrail(ObjectVerb),
    /// API keys and Basic users.
    #[command(subcommand)]
    Key(Key),
    /// What is revoked: tokens, sessions, consumers, certificates.
    #[command(subcommand)]
    Token(Token),
    /// Changes of what is protected, which wait for somebody else's approval.
    #[command(subcommand)]
    Approval(ApprovalVerb),
    /// Who is shut out for a while: addresses, networks, consumers, credentials.
    #[command(subcommand)]
    Ban(BanVerb),
    /// Who behaves unlike others, on all nodes together.
    #[command(subcommand)]
    Anomaly(AnomalyVerb),
    /// Who changed what, who was refused, and whether that is what was written.
    #[command(subcommand)]
    Audit(Audit),
    /// Find what is wrong with the nodes, and what to do about it.
    Doctor,
    /// Say what a refusal means, or why a request was answered as it was.
    Explain(Explain),
    /// Show requests as they end, on the asked node.
    Tap(Tap),
    /// Show what the asked node serves, redrawn as it changes.
    Top(Top),
    /// Show the asked node's log, or change how much it logs.
    Logs(Logs),
    /// Follow a Kubernetes cluster: carry out what its Gateway API objects say, as their controller.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Kubernetes),
    /// The clusters that you go to, by name.
    #[command(subcommand)]
    Context(ContextVerb),
    /// Print a completion script for a shell.
    Completion { shell: clap_complete::Shell },
    /// Print the manual page, or write one for each command into a directory.
    Man {
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
pub enum ContextVerb {
    /// List the contexts.
    Ls,
    /// Keep --endpoint, --ca and the other global options under a name.
    Set { name: Name },
    /// Make one the current context.
    Use { name: Name },
    /// Forget a context.
    Rm { name: Name },
}
