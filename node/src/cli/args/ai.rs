//! The verbs about models.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum AiVerb {
    /// Show who asked models for how many tokens, and what it cost: on all nodes since they started, of the last 35 days.
    Usage(AiUsage),
}

#[derive(Debug, Args)]
pub struct AiUsage {
    /// This consumer's alone.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CONSUMER")]
    pub consumer: String,
    /// Of this model alone, as clients ask for it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "MODEL")]
    pub model: String,
    /// Of this day alone (UTC), such as 2026-11-27.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "DAY")]
    pub day: String,
    /// How many rows, the last days first; at most 100000.
    #[arg(long, default_value_t = 10000)]
    pub top: u32,
}
