//! The verbs about versions of APIs.

use clap::{Args, Subcommand};
use quorumgate_model::resource::Name;

#[derive(Debug, Subcommand)]
pub enum ApiVerb {
    /// List the versions of all APIs.
    Ls,
    /// Show the versions of one API.
    Get { name: Name },
    /// Show who still calls versions that are deprecated or have an end, on all nodes since they started.
    Callers(ApiCallers),
}

#[derive(Debug, Args)]
pub struct ApiCallers {
    /// Of this API alone.
    pub name: Option<Name>,
    /// Of this version alone.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "VERSION")]
    pub version: String,
    /// This consumer's calls alone.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CONSUMER")]
    pub consumer: String,
    /// How many, the last calls first; at most 10000.
    #[arg(long, default_value_t = 1000)]
    pub top: u32,
}
