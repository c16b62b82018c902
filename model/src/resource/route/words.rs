//! The flat words of a route in a file, where one of several fields may be given.

use serde::{Deserialize, Serialize};

use super::Route;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteWords {}

impl TryFrom<RouteWords> for Route {
    type Error = crate::invalid::Invalid;

    fn try_from(_words: RouteWords) -> Result<Self, Self::Error> {
        todo!("H1")
    }
}

impl From<Route> for RouteWords {
    fn from(_route: Route) -> Self {
        todo!("H1")
    }
}
