//! The verbs about limits: the objects themselves, what is used of them, and what an operator gives and forgives.

use clap::{Args, Subcommand, ValueEnum};
use quorumgate_model::{resource::Name, units::Span};

use super::{ListObjects, RemoveObjects, SetObject};

#[derive(Debug, Subcommand)]
pub enum LimitVerb {
    /// List them.
    Ls(ListObjects),
    /// Show one.
    Get { name: Name },
    /// Write one, whole.
    Set(SetObject),
    /// Remove some.
    Rm(RemoveObjects),
    /// Show what is used, over all nodes, and who holds what.
    Usage(LimitUsage),
    /// Forget what was used, of one key or of all.
    Reset(LimitReset),
    /// Give one key more than the limit says, for a while.
    Grant(LimitGrant),
}

#[derive(Debug, Args)]
pub struct LimitUsage {
    /// One limit; all of them otherwise.
    pub name: Option<Name>,
    /// One key alone, with what every node holds of it.
    #[arg(long, value_name = "K", requires = "name")]
    pub key: Option<String>,
    /// Add up by this, over 1,000 keys at most.
    #[arg(long, value_name = "WHAT", requires = "name", conflicts_with = "key")]
    pub by: Option<UsageBy>,
    /// How many keys of each limit: those of which most is used.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub top: u32,
    /// Ask again every so often until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// How often --watch asks.
    #[arg(long, default_value = "1s", value_name = "D", requires = "watch")]
    pub every: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UsageBy {
    Region,
    Consumer,
    Node,
}

#[derive(Debug, Args)]
pub struct LimitReset {
    pub name: Name,
    /// One key; all of them otherwise. It is what `limit usage` shows.
    #[arg(long, value_name = "K")]
    pub key: Option<String>,
    /// Why; it is kept in the audit trail.
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
    /// Repeat a write whose outcome was unknown, without doing it twice.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
}

#[derive(Debug, Args)]
pub struct LimitGrant {
    pub name: Name,
    /// The key, as `limit usage` shows it; a limit per global has one alone, which is "".
    #[arg(long, default_value = "", hide_default_value = true, value_name = "K")]
    pub key: String,
    /// How much more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub amount: u64,
    /// For how long; one window of the limit otherwise.
    #[arg(long = "for", value_name = "D")]
    pub lasts: Option<Span>,
    /// Why; it is kept in the audit trail.
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
    /// Repeat a write whose outcome was unknown, without doing it twice.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
}
