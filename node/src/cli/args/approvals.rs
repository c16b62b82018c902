//! The verbs about changes that wait for an approval.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum ApprovalVerb {
    /// List the changes that wait.
    Ls,
    /// Show what one would change now.
    Get {
        /// As `approval ls` shows it.
        id: u64,
    },
    /// Carry one out that somebody else has asked for.
    Approve {
        /// As `approval ls` shows it.
        id: u64,
        /// Why, for the audit trail.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "R")]
        reason: String,
    },
    /// Refuse one, or take one's own back.
    Reject {
        /// As `approval ls` shows it.
        id: u64,
        /// Why, for the audit trail.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "R")]
        reason: String,
    },
}
