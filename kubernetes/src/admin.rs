//! The gateway's side: a translation as one ApplyConfig, and what its answer means.

use std::collections::BTreeMap;

use quorumgate_proto::admin::v1::{
    self as admin, ApplyConfigRequest, ConfigSet, GetConfigRequest, WriteResponse, config_client::ConfigClient,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    OWNER,
    status::Progress,
    translate::{Origin, Translation},
};

/// A node of the gateway's cluster, over a channel that finds it again when it was away.
pub struct Admin {
    pub client: ConfigClient<Channel>,
    /// As the `authorization` of every call.
    pub authorization: Option<MetadataValue<Ascii>>,
    pub timeout: std::time::Duration,
}

/// Objects of ours that somebody else's refer to: they stay as they are, whatever is pruned. By list and name.
pub type Kept = BTreeMap<(String, String), admin::Resource>;

#[derive(Debug)]
pub enum Outcome {
    Applied {
        revision: u64,
        progress: Progress,
    },
    /// Not taken because of these; the others may be.
    Refused(Vec<(Origin, String)>),
    /// Objects that are to go are in use: by list and name.
    InUse(Vec<(String, String)>),
    /// For a reason that has to do with no object; the controller tries again.
    Failed(Status),
}

impl Admin {
    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Everything of the owner, at once: what is not in it goes.
    pub async fn apply(&mut self, translation: &Translation, kept: &Kept) -> Outcome {
        let mut config = translation.config();
        kept.values().cloned().for_each(|object| put(&mut config, object));
        let request = ApplyConfigRequest {
            config: Some(config),
            prune: true,
            owner: OWNER.to_owned(),
            request_id: Uuid::new_v4().to_string(),
            message: "Kubernetes".to_owned(),
            ..ApplyConfigRequest::default()
        };
        let request = self.ask(request);
        match self.client.apply_config(request).await {
            Ok(answer) => applied(&answer.into_inner()),
            Err(status) => refused(translation, status),
        }
    }

    /// The objects that are to be kept, as they are there.
    pub async fn stored(&mut self, wanted: &[(String, String)]) -> Result<Kept, Status> {
        let request = self.ask(GetConfigRequest::default());
        let config = self.client.get_config(request).await?.into_inner().config.unwrap_or_default();
        let mut kept = Kept::new();
        for object in objects(config) {
            let key = (crate::translate::list_of(&object).to_owned(), crate::translate::name_of(&object).to_owned());
            if wanted.contains(&key) {
                kept.insert(key, object);
            }
        }
        Ok(kept)
    }
}

fn applied(answer: &WriteResponse) -> Outcome {
    let behind = answer.nodes.iter().filter(|it| it.unreachable || it.applied_revision < answer.revision);
    let behind: Vec<&str> = behind.map(|it| it.name.as_str()).collect();
    let progress = match (behind.is_empty(), answer.nodes.is_empty()) {
        (_, true) => Progress::Waiting(format!("no node says that it serves revision {}", answer.revision)),
        (true, _) => Progress::Everywhere,
        (false, _) => Progress::Waiting(format!("revision {} is not yet on {}", answer.revision, behind.join(", "))),
    };
    Outcome::Applied { revision: answer.revision, progress }
}

/// Whose words were refused, where the answer says it.
fn refused(translation: &Translation, status: Status) -> Outcome {
    let about_objects = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
    );
    let details = status.get_error_details();
    let violations = details.bad_request().filter(|_| about_objects).map(|it| it.field_violations.as_slice());
    let (mut origins, mut used) = (Vec::new(), Vec::new());
    for violation in violations.unwrap_or_default() {
        let why = match violation.description.is_empty() {
            true => status.message().to_owned(),
            false => violation.description.clone(),
        };
        match translation.origin_of(&violation.field) {
            Some(origin) => {
                origins.push((origin.clone(), format!("the gateway refuses it: {}: {why}", violation.field)))
            }
            None => {
                if let Some((list, name)) = violation.field.split_once('/') {
                    used.push((list.to_owned(), name.to_owned()));
                }
            }
        }
    }
    match (origins.is_empty(), used.is_empty()) {
        (false, _) => Outcome::Refused(origins),
        (true, false) => Outcome::InUse(used),
        (true, true) => Outcome::Failed(status),
    }
}

fn objects(config: ConfigSet) -> impl Iterator<Item = admin::Resource> {
    use admin::resource::Kind;
    let kinds = config.upstreams.into_iter().map(Kind::Upstream);
    let kinds = kinds.chain(config.routes.into_iter().map(Kind::Route));
    let kinds = kinds.chain(config.certificate_authorities.into_iter().map(Kind::CertificateAuthority));
    let kinds = kinds.chain(config.certificates.into_iter().map(Kind::Certificate));
    let kinds = kinds.chain(config.listeners.into_iter().map(Kind::Listener));
    kinds.map(|kind| admin::Resource { kind: Some(kind) })
}

/// One that the configuration has already stays as it is there.
fn put(config: &mut ConfigSet, object: admin::Resource) {
    use admin::resource::Kind;
    macro_rules! push {
        ($list:ident, $it:ident) => {
            if config.$list.iter().all(|known| known.name != $it.name) {
                config.$list.push($it);
            }
        };
    }
    match object.kind {
        Some(Kind::Upstream(it)) => push!(upstreams, it),
        Some(Kind::Route(it)) => push!(routes, it),
        Some(Kind::CertificateAuthority(it)) => push!(certificate_authorities, it),
        Some(Kind::Certificate(it)) => push!(certificates, it),
        Some(Kind::Listener(it)) => push!(listeners, it),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_proto::admin::v1::{NodeReceipt, Upstream};
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::api::{Id, Kind};

    fn translation() -> Translation {
        let named = |name: &str| admin::Upstream { name: name.into(), ..Upstream::default() };
        let upstream = |name: &str| admin::Resource { kind: Some(admin::resource::Kind::Upstream(named(name))) };
        let route = admin::Route { name: "a.b".into(), ..admin::Route::default() };
        let route = admin::Resource { kind: Some(admin::resource::Kind::Route(route)) };
        Translation {
            objects: vec![
                (Origin::Service(Id::new("n", "one")), upstream("a")),
                (Origin::Service(Id::new("n", "two")), upstream("a.b")),
                (Origin::Route(Kind::HttpRoute, Id::new("n", "r")), route),
            ],
            told: Vec::new(),
        }
    }

    fn status(code: Code, field: &str) -> Status {
        let details = ErrorDetails::with_bad_request_violation(field, "found 1; allowed: 2");
        Status::with_error_details(code, "no", details)
    }

    #[test]
    fn a_refusal_goes_back_to_whom_it_concerns() {
        let check =
            |field: &str, expected: Option<Origin>| match refused(&translation(), status(Code::InvalidArgument, field))
            {
                Outcome::Refused(origins) => assert_eq!(Some(origins[0].0.clone()), expected, "{field}"),
                other => assert!(expected.is_none(), "{field}: {other:?}"),
            };
        check("upstreams[0].targets", Some(Origin::Service(Id::new("n", "one"))));
        check("upstreams[1]", Some(Origin::Service(Id::new("n", "two"))));
        check("routes[0].match.hosts[3]", Some(Origin::Route(Kind::HttpRoute, Id::new("n", "r"))));
        check("routes/a.b.match", Some(Origin::Route(Kind::HttpRoute, Id::new("n", "r"))));
        check("upstreams/a.b.targets[0]", Some(Origin::Service(Id::new("n", "two"))));
        check("upstreams/a.targets[0]", Some(Origin::Service(Id::new("n", "one"))));
        check("routes[9]", None);
        check("config", None);
        check("", None);
    }

    #[test]
    fn what_is_in_use_is_named_and_what_concerns_no_object_is_a_failure() {
        let in_use = refused(&translation(), status(Code::InvalidArgument, "upstreams/old"));
        assert!(matches!(in_use, Outcome::InUse(it) if it == [("upstreams".to_owned(), "old".to_owned())]));
        let failed = refused(&translation(), status(Code::Unavailable, "upstreams[0]"));
        assert!(matches!(failed, Outcome::Failed(_)), "no quorum is nobody's fault");
        assert!(matches!(refused(&translation(), Status::aborted("a trial is open")), Outcome::Failed(_)));
    }

    #[test]
    fn it_is_everywhere_once_every_node_says_so() {
        let node = |name: &str, applied_revision, unreachable| NodeReceipt {
            name: name.into(),
            applied_revision,
            unreachable,
            ..NodeReceipt::default()
        };
        let check = |nodes: Vec<NodeReceipt>, expected: Progress| {
            let answer = WriteResponse { revision: 7, nodes, ..WriteResponse::default() };
            let Outcome::Applied { progress, .. } = applied(&answer) else { panic!() };
            assert_eq!(progress, expected);
        };
        check(vec![node("a", 7, false), node("b", 9, false)], Progress::Everywhere);
        let waiting = |text: &str| Progress::Waiting(text.into());
        check(vec![node("a", 7, false), node("b", 6, false)], waiting("revision 7 is not yet on b"));
        check(vec![node("a", 7, true), node("b", 6, false)], waiting("revision 7 is not yet on a, b"));
        check(Vec::new(), waiting("no node says that it serves revision 7"));
    }
}
