//! The verbs about credentials and revocations. A secret comes from a file or standard input, never as a flag.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorumgate_model::{resource::Name, units::Span};

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key, or a Basic user; a key's secret is shown once.
    Create(KeyCreate),
    /// List the keys, without their secrets.
    Ls {
        /// Of one consumer only.
        #[arg(long, value_name = "NAME")]
        consumer: Option<Name>,
        /// How many at most.
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one key.
    Get { id: String },
    /// Make a new key beside one; the old one is good until the overlap is over.
    Rotate {
        id: String,
        /// How long the old key stays good.
        #[arg(long, default_value = "24h", value_name = "D")]
        overlap: Span,
        /// Repeat a write whose outcome was unknown: it is not done twice, and shows the same secret.
        #[arg(long, value_name = "UUID")]
        request_id: Option<uuid::Uuid>,
        /// Print the secret and nothing else.
        #[arg(long, short)]
        quiet: bool,
    },
    /// End a key for good, at once on every node.
    Revoke { id: String },
    /// Shut a key out for a while; enable brings it back.
    Disable { id: String },
    /// Bring a disabled key back.
    Enable { id: String },
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    /// Whom it speaks for.
    pub consumer: Name,
    /// What it may do, with commas between.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub scopes: Vec<String>,
    /// How long it lasts; for ever otherwise.
    #[arg(long, value_name = "D")]
    pub expires: Option<Span>,
    /// From where it may be used, with commas between; from anywhere otherwise.
    #[arg(long, value_delimiter = ',', value_name = "NET,NET")]
    pub cidrs: Vec<String>,
    /// The environment in the key's text: qg_<ENV>_….
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
    /// Make a Basic user of this name instead of a key.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub basic_user: Option<String>,
    /// The Basic user's password; - reads standard input.
    #[arg(long, value_name = "F", requires = "basic_user")]
    pub password_file: Option<PathBuf>,
    /// A key that exists already, to be taken over; - reads standard input.
    #[arg(long, value_name = "F", conflicts_with = "basic_user")]
    pub key_file: Option<PathBuf>,
    /// Repeat a write whose outcome was unknown: it is not done twice, and shows the same secret.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
    /// Print the secret and nothing else.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make tokens, keys or certificates count no more, at once on every node.
    Revoke(Box<TokenRevoke>),
    /// List what is revoked.
    Ls {
        /// How many at most.
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Exit 1 if the token is revoked, as the asked node's proxy sees it.
    Check {
        /// The token or key; - reads standard input.
        token: String,
        /// By what the asked node knows, without a quorum.
        #[arg(long)]
        stale: bool,
    },
    /// Show what a token says, and what the asked node's proxy would answer to it.
    Inspect {
        /// The token or key; - reads standard input.
        token: String,
        /// By what the asked node knows, without a quorum.
        #[arg(long)]
        stale: bool,
    },
}

#[derive(Debug, Args)]
pub struct TokenRevoke {
    /// The issuer that the selector belongs to; any otherwise. A subject needs one.
    #[arg(long, value_name = "I")]
    pub issuer: Option<String>,
    #[command(flatten)]
    pub by: By,
    /// Spare what was issued at this time (RFC 3339, or now) or later.
    #[arg(long, value_name = "T")]
    pub issued_before: Option<String>,
    /// How long the entry lasts; by default as long as any token may live.
    #[arg(long, value_name = "D")]
    pub expires_in: Option<Span>,
    /// Why, for the list and the audit trail.
    #[arg(long, default_value = "", value_name = "R")]
    pub reason: String,
    /// What to wait for.
    #[arg(long, default_value = "all-live", value_name = "WHAT")]
    pub wait: Wait,
    /// Repeat a write whose outcome was unknown, without doing it twice.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// Every node that answers enforces it, or 5 s have passed.
    AllLive,
    /// It is written.
    Committed,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct By {
    /// One token by its id.
    #[arg(long, value_name = "J")]
    pub jti: Option<String>,
    /// One token by the SHA-256 of its text, in hex.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// All tokens of a subject; with --issuer and --issued-before.
    #[arg(long, value_name = "S", requires_all = ["issuer", "issued_before"])]
    pub subject: Option<String>,
    /// A session of the identity provider.
    #[arg(long, value_name = "S")]
    pub sid: Option<String>,
    /// All tokens of a client.
    #[arg(long, value_name = "C")]
    pub client: Option<String>,
    /// Everything that speaks for a consumer.
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// A stored credential by its id.
    #[arg(long, value_name = "ID")]
    pub credential: Option<String>,
    /// All that a key of the issuer has signed.
    #[arg(long, value_name = "KID")]
    pub kid: Option<String>,
    /// One certificate, a PEM file: by its issuer and serial number.
    #[arg(long, value_name = "F")]
    pub certificate: Option<PathBuf>,
    /// All certificates with the public key of this one, a PEM file.
    #[arg(long, value_name = "F")]
    pub certificate_key: Option<PathBuf>,
}
