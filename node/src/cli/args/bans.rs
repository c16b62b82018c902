//! The verbs about who is shut out.

use clap::Subcommand;
use quorumgate_model::units::Span;

use super::Wait;

#[derive(Debug, Subcommand)]
pub enum BanVerb {
    /// Shut somebody out for a while, at once on every node.
    Add {
        /// An address, a network, consumer:NAME or credential:ID.
        #[arg(required = true, value_name = "SUBJECT")]
        subjects: Vec<String>,
        /// For how long.
        #[arg(long = "for", value_name = "D")]
        expires_in: Span,
        /// Why, for the list and the audit trail.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "R")]
        reason: String,
        /// What to wait for.
        #[arg(long, default_value = "all-live", value_name = "WHAT")]
        wait: Wait,
        /// Repeat a write whose outcome was unknown, without doing it twice.
        #[arg(long, value_name = "UUID")]
        request_id: Option<uuid::Uuid>,
    },
    /// List who is shut out, why and for how long.
    Ls {
        /// How many at most.
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Let somebody in again.
    Rm {
        /// As `ban ls` shows it.
        #[arg(required = true, value_name = "SUBJECT")]
        subjects: Vec<String>,
        /// Why, for the audit trail.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "R")]
        reason: String,
        /// What to wait for.
        #[arg(long, default_value = "all-live", value_name = "WHAT")]
        wait: Wait,
        /// Repeat a write whose outcome was unknown, without doing it twice.
        #[arg(long, value_name = "UUID")]
        request_id: Option<uuid::Uuid>,
    },
}
