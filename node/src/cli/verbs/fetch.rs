//! Objects of a kind by the typed calls, and the JSON that is shown of them: for the command line and for the JSON API.

use bytes::Bytes;
use quorumgate_model::resource::{Kind, Resource};
use quorumgate_proto::admin::v1::{self as admin, config_client::ConfigClient};
use quorumgate_proxy::tls;
use serde_json::Value;
use tonic::{
    Request, Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as AnswerBody, StdError},
};

use crate::cli::{config::canonical, failure::Outcome, shape};

/// All of a kind; the other lists stay empty.
pub async fn list<T>(
    config: &mut ConfigClient<T>,
    kind: Kind,
    request: Request<admin::ListObjectsRequest>,
) -> Result<admin::ConfigSet, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: AnswerBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as AnswerBody>::Error: Into<StdError> + Send,
{
    let mut set = admin::ConfigSet::default();
    match kind {
        Kind::Upstream => set.upstreams = config.list_upstreams(request).await?.into_inner().upstreams,
        Kind::Route => set.routes = config.list_routes(request).await?.into_inner().routes,
        Kind::Consumer => set.consumers = config.list_consumers(request).await?.into_inner().consumers,
        Kind::Auth => set.auth = config.list_auths(request).await?.into_inner().auth,
        Kind::CertificateAuthority => {
            let answer = config.list_certificate_authorities(request).await?.into_inner();
            set.certificate_authorities = answer.certificate_authorities;
        }
        Kind::Limit => set.limits = config.list_limits(request).await?.into_inner().limits,
        Kind::Certificate => {
            set.certificates = config.list_certificates(request).await?.into_inner().certificates;
        }
        Kind::Listener => set.listeners = config.list_listeners(request).await?.into_inner().listeners,
        Kind::Policy => set.policies = config.list_policies(request).await?.into_inner().policies,
        Kind::Tenant => set.tenants = config.list_tenants(request).await?.into_inner().tenants,
        Kind::Guardrail => set.guardrails = config.list_guardrails(request).await?.into_inner().guardrails,
    }
    Ok(set)
}

/// One object and its etag.
pub async fn one<T>(
    config: &mut ConfigClient<T>,
    kind: Kind,
    request: Request<admin::GetObjectRequest>,
) -> Result<(admin::Resource, String), Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: AnswerBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as AnswerBody>::Error: Into<StdError> + Send,
{
    use admin::resource::Kind as Message;
    macro_rules! got {
        ($call:ident, $field:ident, $kind:ident) => {{
            let answer = config.$call(request).await?.into_inner();
            (answer.$field.map(Message::$kind), answer.etag)
        }};
    }
    let (kind, etag) = match kind {
        Kind::Upstream => got!(get_upstream, upstream, Upstream),
        Kind::Route => got!(get_route, route, Route),
        Kind::Consumer => got!(get_consumer, consumer, Consumer),
        Kind::Auth => got!(get_auth, auth, Auth),
        Kind::CertificateAuthority => got!(get_certificate_authority, certificate_authority, CertificateAuthority),
        Kind::Limit => got!(get_limit, limit, Limit),
        Kind::Certificate => got!(get_certificate, certificate, Certificate),
        Kind::Listener => got!(get_listener, listener, Listener),
        Kind::Policy => got!(get_policy, policy, Policy),
        Kind::Tenant => got!(get_tenant, tenant, Tenant),
        Kind::Guardrail => got!(get_guardrail, guardrail, Guardrail),
    };
    Ok((admin::Resource { kind }, etag))
}

/// The words of an object, and what can be read out of them.
pub fn shown(resource: &Resource) -> Outcome<Value> {
    let mut words = canonical::complete(resource)?;
    if let Resource::Certificate(it) = resource {
        words["not_after"] = match tls::chain_not_after(it) {
            Some(seconds) => shape::time(Some(&prost_types::Timestamp { seconds, nanos: 0 })),
            None => Value::Null,
        };
    }
    Ok(words)
}
