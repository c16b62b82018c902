//! The verbs about who behaves unlike others.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum AnomalyVerb {
    /// List who was found, and who is near it, on all nodes together.
    Ls {
        /// Of this policy alone.
        #[arg(default_value = "", hide_default_value = true, value_name = "POLICY")]
        policy: String,
        /// How many at most, those who were found first.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        top: u32,
    },
}
