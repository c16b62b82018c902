//! The verb about what nodes keep of answers.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum CacheVerb {
    /// Let go of answers, on every node.
    Purge(CachePurge),
}

#[derive(Debug, Args)]
pub struct CachePurge {
    /// One URL, such as https://api.acme.test/orders?x=1; its scheme and port count for nothing. May be repeated.
    #[arg(long = "key", value_name = "URL", required_unless_present_any = ["prefixes", "tags", "all"])]
    pub keys: Vec<String>,
    /// What URLs begin with, such as api.acme.test/orders/. May be repeated.
    #[arg(long = "prefix", value_name = "URL")]
    pub prefixes: Vec<String>,
    /// A word of the answers' Cache-Tag or Surrogate-Key. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Everything.
    #[arg(long)]
    pub all: bool,
    /// Why; it is kept in the audit trail.
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
    /// Repeat a write whose outcome was unknown, without doing it twice.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
}
