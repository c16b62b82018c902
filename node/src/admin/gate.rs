//! Lets a request in: who calls, may they, and until when they wait.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{
    HeaderMap, Request, Response,
    header::{AUTHORIZATION, SET_COOKIE},
};
use hyper::body::Incoming;
use quorumgate_model::{
    command::{Actor, AdminRole},
    convert,
    mutants::{self, Mutant},
    resource::Key,
};
use quorumgate_proto::store::v1 as store;
use tonic::{Code, Status, body::Body, service::Routes};
use tonic_types::StatusExt;
use tower_service::Service;

use super::{
    access::{self, Access},
    desk::Desk,
    failure,
    identity::{self, Held, Identity, Peer, Unproven},
    json,
    people::{Door, People},
    ui,
};
use crate::{
    consensus::Consensus,
    denials::Denials,
    failures::{FAILURES_MAX, FAILURES_WITHIN, Failures},
};

/// For a call without a `grpc-timeout`.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
const DEADLINE_MAX: Duration = Duration::from_secs(300);
/// The answer leaves this long before the client gives up, at most; a tenth of a shorter deadline.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
const MIN_REVISION: &str = "quorumgate-min-revision";

/// One call's caller and its bounds; every service finds it in the request's extensions.
#[derive(Debug, Clone)]
pub struct Call {
    pub actor: Arc<Actor>,
    pub deadline: Instant,
    /// From `quorumgate-min-revision`: the gate lets it in once this node has applied this index, and serves it.
    pub min_revision: Option<u64>,
    /// What the caller has shown, where that may end before the call does.
    pub held: Option<Held>,
    pub role: AdminRole,
}

impl Call {
    /// The call that `Gate` let in with this request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let call = request.extensions().get::<Self>().cloned();
        call.ok_or_else(|| failure::status(Code::Internal, "INTERNAL", "the request did not pass the gate"))
    }

    /// For a call that viewers may only rehearse.
    pub fn may_write(&self) -> Result<(), Status> {
        match self.role {
            AdminRole::Operator | AdminRole::Admin => Ok(()),
            AdminRole::Viewer => Err(role_too_low(AdminRole::Operator, &self.actor.name, self.role, &self.actor.rpc)),
        }
    }

    /// For what binds all others: it is written by admins.
    pub fn may_govern(&self, key: &Key) -> Result<(), Status> {
        match self.role {
            AdminRole::Admin => Ok(()),
            _ => Err(role_too_low(AdminRole::Admin, &self.actor.name, self.role, &format!("writing {key}"))),
        }
    }

    /// What is left of the deadline.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

pub struct Gate {
    consensus: Consensus,
    routes: Routes,
    failures: Mutex<Failures>,
    /// Of who is known and may not, by name.
    known: Mutex<Failures<String>>,
    denials: Arc<Denials>,
    pub(super) people: Option<Arc<People>>,
}

impl Gate {
    pub fn new(consensus: Consensus, routes: Routes, denials: Arc<Denials>, people: Option<Arc<People>>) -> Self {
        Self { consensus, routes, failures: Mutex::default(), known: Mutex::default(), denials, people }
    }

    pub async fn handle(&self, peer: &Peer, mut request: Request<Incoming>) -> Response<Body> {
        if let Some(door) = Door::of(request.uri().path()) {
            return self.sign_in(peer, door, &request).await;
        }
        if ui::is_ours(request.uri().path()) {
            return ui::answer(&request);
        }
        if request.uri().path().starts_with(json::PREFIX) {
            return self.answer_json(peer, request).await.unwrap_or_else(|refused| json::refused(&refused));
        }
        let is_open = access::of(request.uri().path()) == Access::Open;
        let call = match self.admit(peer, request.uri().path(), request.headers()) {
            Ok(call) => call,
            Err(refused) => return refused.into_http(),
        };
        if let Err(late) = self.has_come(&call, is_open).await {
            self.accessed(&call.actor, Some(&late));
            return late.into_http();
        }
        let actor = call.actor.clone();
        request.extensions_mut().insert(call);
        let Ok(response) = self.routes.clone().call(request).await;
        let status = Status::from_header_map(response.headers());
        // What the service, or apply, did not allow this caller: an object of another owner, say.
        if let Some(refused) = status.as_ref().filter(|status| status.code() == Code::PermissionDenied) {
            self.note(peer, convert::actor_to(&actor), refused, self.stands_alone(&actor.name));
        } else if !is_open {
            self.accessed(&actor, status.as_ref());
        }
        match status {
            Some(bare) if bare.code() != Code::Ok && bare.details().is_empty() => failure::complete(bare).into_http(),
            _ => response,
        }
    }

    async fn answer_json(&self, peer: &Peer, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let (asked, rpc) = json::find(request.method(), request.uri().path())?;
        let (call, cookies) = match self.person(peer, &request).await {
            Some(proven) => {
                let (person, cookies) =
                    proven.map_or_else(|refused| (Err(refused), Vec::new()), |(it, cookies)| (Ok(it), cookies));
                (self.admit_as(peer, &rpc, request.headers(), person)?, cookies)
            }
            None => (self.admit(peer, &rpc, request.headers())?, Vec::new()),
        };
        let actor = call.actor.clone();
        if let Err(late) = self.has_come(&call, false).await {
            self.accessed(&actor, Some(&late));
            return Err(late);
        }
        let mut answered = json::answer(asked, request, json::Local { routes: self.routes.clone(), call }).await;
        if let Ok(response) = &mut answered {
            response.headers_mut().extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
        }
        if let Some(refused) = answered.as_ref().err().filter(|status| status.code() == Code::PermissionDenied) {
            self.note(peer, convert::actor_to(&actor), refused, self.stands_alone(&actor.name));
        } else {
            self.accessed(&actor, answered.as_ref().err());
        }
        answered
    }

    /// What `quorumgate-min-revision` waits for, whatever is called. Nobody unknown is waited with.
    async fn has_come(&self, call: &Call, is_open: bool) -> Result<(), Status> {
        match call.min_revision {
            Some(wanted) if !is_open => Desk { consensus: self.consensus.clone() }.served(call, wanted).await,
            _ => Ok(()),
        }
    }

    fn admit(&self, peer: &Peer, path: &str, headers: &HeaderMap) -> Result<Call, Status> {
        let authorization = headers.get(AUTHORIZATION).map(|field| field.as_bytes());
        let proven = identity::of(peer, authorization, &self.consensus.state(), self.consensus.clock_us());
        let unknown = |it: Unproven| failure::status(Code::Unauthenticated, it.reason(), it.message());
        self.admit_as(peer, path, headers, proven.map_err(unknown))
    }

    fn admit_as(
        &self,
        peer: &Peer,
        path: &str,
        headers: &HeaderMap,
        proven: Result<Identity, Status>,
    ) -> Result<Call, Status> {
        let needs = access::of(path);
        let caller = match (needs, proven) {
            (_, Ok(caller)) => caller,
            (Access::Open, Err(_)) => anonymous(),
            (_, Err(refused)) => return Err(self.refuse(peer, path, refused)),
        };
        let actor = Arc::new(identity::actor(&caller, peer, path));
        if let Err(refused) = permit(&caller, needs, path) {
            // Known, and no guess: told what it is each time, whatever others at its address tried.
            let alone = self.stands_alone(&caller.name);
            if alone {
                let (source, why) = (peer.source(), refused.message());
                tracing::info!(%source, rpc = path, caller = caller.name, why, "admin call refused");
            }
            self.note(peer, convert::actor_to(&actor), &refused, alone);
            return Err(refused);
        }
        let (deadline, min_revision) = (deadline(headers)?, min_revision(headers)?);
        Ok(Call { actor, deadline, min_revision, held: caller.held, role: caller.role })
    }

    pub(super) fn accessed(&self, actor: &Actor, failed: Option<&Status>) {
        let failed = failed.filter(|status| status.code() != Code::Ok);
        let reason = failed.map(|status| status.get_details_error_info().map_or("failed".into(), |it| it.reason));
        self.consensus.access().note(actor, &reason.map_or("ok".into(), |it| it.to_ascii_lowercase()));
    }

    /// Whether one more denial of a known caller is among the first within a minute.
    fn stands_alone(&self, name: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.count(name.to_owned(), Instant::now()) < FAILURES_MAX
    }

    fn note(&self, peer: &Peer, actor: store::Actor, refused: &Status, alone: bool) {
        let reason = refused.get_details_error_info().map(|it| it.reason).unwrap_or_default();
        self.denials.note(address(peer), &reason, actor, refused.message(), alone);
    }

    /// Counts, logs and notes that somebody is not known. Those who are known are never held up by the failures of others
    /// at their address.
    pub(super) fn refuse(&self, peer: &Peer, path: &str, refused: Status) -> Status {
        let (address, caller) = (address(peer), &anonymous());
        let count = self.failures.lock().unwrap_or_else(PoisonError::into_inner).count(address, Instant::now());
        let actor = convert::actor_to(&identity::actor(caller, peer, path));
        self.note(peer, actor, &refused, count < FAILURES_MAX);
        if count < FAILURES_MAX {
            let caller = &caller.name;
            let (source, why) = (peer.source(), refused.message());
            tracing::info!(%source, rpc = path, caller, why, "admin call refused");
            return refused;
        }
        if count == FAILURES_MAX {
            tracing::warn!(%address, "many admin calls refused; the next ones within a minute are not logged");
        }
        failure::too_many_failures(FAILURES_WITHIN)
    }
}

pub(super) fn address(peer: &Peer) -> IpAddr {
    match peer {
        Peer::Unix { .. } => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Peer::Tls { address, .. } => address.ip(),
    }
}

pub(super) fn anonymous() -> Identity {
    Identity { name: "anonymous".into(), role: AdminRole::Viewer, owner_scope: String::new(), held: None }
}

fn permit(caller: &Identity, needs: Access, path: &str) -> Result<(), Status> {
    let (role, whole) = match needs {
        Access::Open => return Ok(()),
        Access::Scoped(role) => (role, false),
        Access::Rehearsed(_) => (AdminRole::Viewer, false),
        Access::Whole(role) => (role, true),
    };
    if caller.role < role && !mutants::is(Mutant::RoleIgnored) {
        return Err(role_too_low(role, &caller.name, caller.role, path));
    }
    if whole && !caller.owner_scope.is_empty() && !mutants::is(Mutant::ScopeIgnored) {
        let message = format!(
            "{path} concerns the whole cluster; {} may write objects of the owner {:?} alone",
            caller.name, caller.owner_scope
        );
        return Err(failure::status(Code::PermissionDenied, "OWNER_FORBIDDEN", message));
    }
    Ok(())
}

fn role_too_low(needed: AdminRole, name: &str, role: AdminRole, path: &str) -> Status {
    let message = format!("{path} needs the role {}; {name} is {}", needed.word(), role.word());
    failure::status(Code::PermissionDenied, "ROLE_TOO_LOW", message)
}

fn deadline(headers: &HeaderMap) -> Result<Instant, Status> {
    let asked =
        match headers.get("grpc-timeout") {
            None => DEADLINE_DEFAULT,
            Some(field) => field.to_str().ok().and_then(timeout).ok_or_else(|| {
                failure::bad_field("grpc-timeout", "allowed: at most 8 digits and one of H M S m u n")
            })?,
        };
    let asked = asked.min(DEADLINE_MAX);
    Ok(Instant::now() + (asked - (asked / 10).min(ANSWER_WITHIN)))
}

/// `100m`: see "Timeout" in the gRPC over HTTP/2 protocol.
fn timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().last()?;
    let digits = &text[..unit_at];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

fn min_revision(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let Some(field) = headers.get(MIN_REVISION) else { return Ok(None) };
    let number = field.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| failure::bad_field(MIN_REVISION, "allowed: a revision or index, a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("3H"), Some(Duration::from_secs(10_800)));
        assert_eq!(timeout("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(timeout("50m"), Some(Duration::from_millis(50)));
        for wrong in ["", "S", "5", "-5S", "+5S", "999999999S", "5s", "5 S", "5é"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_scoped_token_writes_objects_and_nothing_else() {
        let scoped = Identity { name: "t".into(), role: AdminRole::Admin, owner_scope: "team".into(), held: None };
        assert!(permit(&scoped, Access::Scoped(AdminRole::Operator), "x").is_ok());
        let refused = permit(&scoped, Access::Whole(AdminRole::Operator), "x").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);

        let viewer = Identity { name: "v".into(), role: AdminRole::Viewer, owner_scope: String::new(), held: None };
        assert!(permit(&viewer, Access::Scoped(AdminRole::Viewer), "x").is_ok());
        assert!(permit(&viewer, Access::Scoped(AdminRole::Operator), "x").is_err());
    }
}
