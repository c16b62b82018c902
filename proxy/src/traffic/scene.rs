//! The values of one request that texts of its route may name.

use std::borrow::Cow;

use quorumgate_model::template::Variable;

use crate::record::Record;

/// What is gone from the request's head by the time it is asked for.
pub(super) struct Scene {
    host: String,
    path: String,
    tls: bool,
}

impl Scene {
    pub(super) fn new(host: &str, path: &str, tls: bool) -> Self {
        Self { host: host.to_owned(), path: path.to_owned(), tls }
    }
}

/// Empty where the request has none.
pub(crate) fn value<'r>(record: &'r Record, variable: &Variable) -> Cow<'r, str> {
    let scene = record.traffic.as_ref().and_then(|it| it.scene.as_ref());
    match variable {
        Variable::ClientIp => record.client_ip.to_string().into(),
        Variable::RequestId => record.request_id.hyphenated().to_string().into(),
        Variable::Method => record.method.as_str().into(),
        Variable::Consumer => {
            let consumer = record.identity.as_ref().and_then(|it| it.callers().find_map(|it| it.consumer.as_ref()));
            consumer.map_or("", |consumer| &consumer.name).into()
        }
        Variable::Host => scene.map_or("", |it| &it.host).into(),
        Variable::Path => scene.map_or("", |it| &it.path).into(),
        Variable::Scheme => scene.map_or("", |it| if it.tls { "https" } else { "http" }).into(),
        Variable::Param(name) => {
            let (Some(plan), Some(scene)) = (&record.plan, scene) else { return "".into() };
            let mut params = plan.rule.params(&scene.path);
            params.find_map(|(param, value)| (param == name).then_some(value)).unwrap_or_default().into()
        }
    }
}
