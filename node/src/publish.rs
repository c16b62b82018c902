//! From the agreed state to the proxy's ruleset.
