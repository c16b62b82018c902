//! One exchange's upstream call.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use quorumgate_model::ruleset::Rule;
use tokio::time::Instant;

use super::{Failure, Registry};
use crate::body::{RequestBody, ResponseBody};

/// One per worker thread, made and used inside its `LocalSet` or `LocalRuntime`: connections and what they learn.
pub struct Pools {
    _registry: Arc<Registry>,
}

/// What `send` needs to know beside the request.
pub struct Call<'a> {
    pub rule: &'a Arc<Rule>,
    pub upstream: &'a str,
    /// When the client stops waiting, on top of the route's and upstream's `total`.
    pub deadline: Option<Instant>,
    pub trail: &'a mut Trail,
}

/// What happened on the way, for the access log; filled in even if the call fails or is dropped.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    pub attempts: u32,
    /// The configured `host:port` of the last target tried.
    pub target: Option<Arc<str>>,
    /// None: a pooled connection.
    pub connect: Option<Duration>,
    /// From the call to the response head.
    pub header: Option<Duration>,
}

impl Pools {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { _registry: registry }
    }

    /// The request is in origin-form or absolute-form, its hop-by-hop fields are already gone, and it has a Host.
    /// `rewrite.host: target` is done here, since only here the target is known.
    pub async fn send(
        &self,
        _call: Call<'_>,
        _request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        todo!("H5")
    }
}
