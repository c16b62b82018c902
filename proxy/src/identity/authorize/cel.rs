//! Expressions in rules: the Common Expression Language, bounded when a rule is compiled so that no request can make one
//! cost much. Without the feature `cel` every expression is refused.

/// Nodes of one expression's tree.
pub const NODES_MAX: usize = 512;
/// Steps that one expression may take at most, by the sizes that its inputs may have.
pub const COST_MAX: u64 = 1_000_000;

#[cfg(feature = "cel")]
pub(super) use with::Expression;
#[cfg(feature = "cel")]
pub use with::Statement;
#[cfg(not(feature = "cel"))]
pub(super) use without::Expression;
#[cfg(not(feature = "cel"))]
pub use without::Statement;

#[cfg(not(feature = "cel"))]
mod without {
    use quorumgate_model::invalid::Invalid;

    use super::super::{Asked, Callers, condition::Template};

    /// There is none.
    #[derive(Debug)]
    pub(in super::super) enum Expression {}

    /// There is none.
    #[derive(Debug)]
    pub enum Statement {}

    fn none() -> Invalid {
        Invalid::field("").found("an expression").allowed("none: this build was made without CEL")
    }

    impl Statement {
        pub fn compile(_: &str) -> Result<Self, Invalid> {
            Err(none())
        }

        pub fn holds(&self, _: &str, _: &serde_json::Value) -> bool {
            match *self {}
        }
    }

    impl Expression {
        pub(in super::super) fn compile(_: &str) -> Result<Self, Invalid> {
            Err(none())
        }

        pub(in super::super) fn is_true(&self, _: &Asked<'_>, _: &Template, _: Callers<'_>) -> Result<bool, ()> {
            match *self {}
        }
    }
}

#[cfg(feature = "cel")]
#[path = "expression.rs"]
mod with;
