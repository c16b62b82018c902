//! The developer portal: a catalogue of APIs for everybody whom its route lets in, and for people who are signed in there
//! the keys and the usage of their consumer. What it shows of APIs is in memory; the rest is asked of the control plane.

mod answer;
mod catalogue;
mod contract;
pub mod desk;
mod document;
mod html;
mod made;
mod pages;
mod schema;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use quorumgate_model::{
    credential::CredentialId,
    resource::{
        Key, Kind as ResourceKind, Name, PathPattern, Policy, PolicyKind, PortalKeys, PortalPolicy, Resource, Resources,
    },
    state::LABEL_BYTES_MAX,
    units::Span,
};
use tokio::time::timeout;

use self::{
    answer::{bare, page, see_other, style, to},
    desk::{NotDone, Question, Reply, Visitor},
    html::Href,
    made::{Made, now, portal},
    pages::{Frame, Notice},
};
use crate::{
    body::ResponseBody,
    identity::{
        AuthMethod, Caller, Identity, TokenMarks,
        auths::Kind,
        directory::Directory,
        login::{Login, Whence},
    },
    plan::Plan,
    record::Record,
    refusal::Refusal,
};

/// A form of a portal, with room.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 10;
/// Pages that are made at a time, on the whole node: a large one takes a core for some milliseconds.
pub(crate) const RENDERS_AT_ONCE_MAX: usize = 2;
/// How long a page waits for others.
const RENDERED_WITHIN: Duration = Duration::from_secs(5);
/// How long a rotated key stays good.
pub const OVERLAP: Span = Span::secs(24 * 3_600);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

type Answer = Result<Response<ResponseBody>, Refusal>;
/// Names and values of what was sent.
type Form = BTreeMap<String, String>;

/// One request to a portal.
pub(crate) struct Visit<'a> {
    directory: Arc<Directory>,
    made: Made,
    login: Arc<Login>,
    parts: &'a Parts,
    whence: Whence<'a>,
    session: Session,
    route: Name,
    client_ip: std::net::IpAddr,
}

/// One of the node's turns to make pages, until what is made is made: whoever waits for it may go before.
struct Turn(Arc<Directory>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.renders.add_permits(1);
    }
}

/// Who is there.
enum Session {
    Nobody,
    Member {
        consumer: Name,
        marks: Arc<TokenMarks>,
        caller: Arc<Caller>,
    },
    /// A key, a token, or a session that is of no consumer of its own, or of none of its login's owner: whoever has it may
    /// look, no more.
    Other,
}

/// What is asked for, below the portal's path.
enum Place {
    Catalogue,
    Style,
    SignIn,
    Version { api: String, version: String },
    Document { api: String, version: String },
    Keys,
    Rotate(CredentialId),
    Revoke(CredentialId),
    Usage,
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        let pieces: Vec<&str> = path.split('/').skip(1).collect();
        Some(match pieces[..] {
            [] | [""] => Self::Catalogue,
            ["style.css"] => Self::Style,
            ["sign-in"] => Self::SignIn,
            ["apis", api, version] => Self::Version { api: api.into(), version: version.into() },
            ["apis", api, version, "openapi.json"] => Self::Document { api: api.into(), version: version.into() },
            ["keys"] => Self::Keys,
            ["keys", id, "rotate"] => Self::Rotate(id.parse().ok()?),
            ["keys", id, "revoke"] => Self::Revoke(id.parse().ok()?),
            ["usage"] => Self::Usage,
            _ => return None,
        })
    }

    fn takes(&self, method: &Method) -> bool {
        match self {
            Self::Keys => matches!(*method, Method::GET | Method::HEAD | Method::POST),
            Self::Rotate(_) | Self::Revoke(_) => *method == Method::POST,
            _ => matches!(*method, Method::GET | Method::HEAD),
        }
    }

    fn methods(&self) -> Vec<String> {
        [Method::GET, Method::HEAD, Method::POST].iter().filter(|it| self.takes(it)).map(Method::to_string).collect()
    }
}

impl<'a> Visit<'a> {
    pub(crate) fn new(
        record: &Record,
        plan: &Plan,
        auth: &Name,
        parts: &'a Parts,
        whence: Whence<'a>,
    ) -> Result<Self, Refusal> {
        let directory = record.conn.worker.shared.directory.clone();
        let facts = directory.facts();
        let route = &plan.rule.route;
        let policy =
            route.policies.iter().find_map(|name| policy(&facts.resources, name)).ok_or(Refusal::BrokenRule)?;
        let by = facts.auths.find(auth).ok_or(Refusal::BrokenRule)?;
        let Kind::OidcLogin(login) = &by.kind else { return Err(Refusal::BrokenRule) };
        let base = match &route.matches.path {
            PathPattern::Prefix(path) => path.trim_end_matches('/').to_owned(),
            _ => String::new(),
        };
        let anonymous = route.auth.as_ref().and_then(|it| it.anonymous.as_ref());
        let session = session(record.identity.as_deref(), auth, &by.auth.owner, anonymous);
        let made = Made {
            resources: facts.resources.clone(),
            policy,
            base,
            consumer: session.consumer().cloned(),
            is_other: matches!(session, Session::Other),
            signs_in: route.auth.as_ref().is_some_and(|it| it.names.contains(auth)),
            sign_out: login.logout_path().to_owned(),
        };
        let (login, route, client_ip) = (login.clone(), route.name.clone(), record.client_ip);
        Ok(Self { directory, made, login, parts, whence, session, route, client_ip })
    }

    /// The body of a POST is read before.
    pub(crate) async fn answer(&self, body: &[u8], now_s: u64) -> Answer {
        let Some(place) = Place::of(self.whence.path.strip_prefix(&*self.made.base).unwrap_or(self.whence.path)) else {
            return Ok(self.not_found());
        };
        if !place.takes(&self.parts.method) {
            return Err(Refusal::MethodNotAllowed(place.methods()));
        }
        let posts = self.parts.method == Method::POST;
        match place {
            Place::Style => Ok(style()),
            Place::SignIn => self.sign_in(now_s).await,
            Place::Catalogue => self.rendered(|made| Some(made.frame().catalogue(&made.catalogue(), now()))).await,
            Place::Version { api, version } => self.rendered(move |made| made.version(&api, &version)).await,
            Place::Document { api, version } => self.document(api, version).await,
            Place::Keys if posts => self.create(body).await,
            Place::Keys => self.keys(StatusCode::OK, self.done()).await,
            Place::Rotate(id) => self.rotate(id, body).await,
            Place::Revoke(id) => self.revoke(id, body).await,
            Place::Usage => self.usage().await,
        }
    }

    fn portal(&self) -> &PortalPolicy {
        portal(&self.made.policy)
    }

    fn given(&self) -> Option<&PortalKeys> {
        self.portal().keys.as_ref()
    }

    fn frame(&self) -> Frame<'_> {
        self.made.frame()
    }

    fn not_found(&self) -> Response<ResponseBody> {
        page(StatusCode::NOT_FOUND, self.frame().message("Not found", "There is no such page here."))
    }

    /// A page that is made of resources: apart from the requests of this worker.
    async fn rendered(&self, make: impl FnOnce(&Made) -> Option<String> + Send + 'static) -> Answer {
        Ok(match self.made(make).await? {
            Some(text) => page(StatusCode::OK, text),
            None => self.not_found(),
        })
    }

    async fn made<T: Send + 'static>(&self, make: impl FnOnce(&Made) -> T + Send + 'static) -> Result<T, Refusal> {
        let made = self.made.clone();
        let directory = self.directory.clone();
        let rendering = async move {
            directory.renders.acquire().await.ok()?.forget();
            let turn = Turn(directory);
            let making = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                make(&made)
            });
            making.await.ok()
        };
        timeout(RENDERED_WITHIN, rendering).await.ok().flatten().ok_or(Refusal::Overloaded)
    }

    async fn document(&self, api: String, version: String) -> Answer {
        let Some(text) = self.made(move |made| made.document(&api, &version)).await? else {
            return Ok(self.not_found());
        };
        let mut response = bare(StatusCode::OK, text);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"openapi.json\""));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(response)
    }

    async fn sign_in(&self, now_s: u64) -> Answer {
        if matches!(self.session, Session::Nobody) && self.made.signs_in {
            let begun = self.login.begin(self.whence, None, now_s).await;
            return begun.map_err(|failure| Refusal::Unauthenticated(failure, Vec::new()));
        }
        Ok(see_other(&Href::own(&self.made.base, &[""])))
    }

    /// Who may ask for what is theirs.
    fn member(&self) -> Result<(Visitor, &TokenMarks), Box<Response<ResponseBody>>> {
        match &self.session {
            Session::Member { consumer, marks, caller } => {
                let visitor = Visitor {
                    consumer: consumer.clone(),
                    route: self.route.to_string(),
                    client_ip: self.client_ip,
                    caller: caller.clone(),
                };
                Ok((visitor, marks.as_ref()))
            }
            Session::Nobody => Err(self.forbidden("Sign in to see what is yours.")),
            Session::Other => Err(self.forbidden("Only somebody who is signed in by a browser sees and changes keys.")),
        }
    }

    fn forbidden(&self, why: &str) -> Box<Response<ResponseBody>> {
        Box::new(page(StatusCode::FORBIDDEN, self.frame().message("Not for you", why)))
    }

    /// What a redirect tells the page that it leads to.
    fn done(&self) -> Option<Notice> {
        let query = self.parts.uri.query().unwrap_or_default();
        (query == "done=revoked").then(|| Notice { is_bad: false, text: "The key is revoked, on all nodes.".into() })
    }

    async fn keys(&self, status: StatusCode, notice: Option<Notice>) -> Answer {
        let (visitor, marks) = match self.member() {
            Ok(member) => member,
            Err(answer) => return Ok(*answer),
        };
        let token = self.token(marks);
        match self.directory.ask(visitor, Question::Keys { given: self.given().cloned() }).await {
            Ok(Reply::Keys(keys)) => Ok(page(status, self.frame().keys(&keys, self.given(), &token, notice.as_ref()))),
            Ok(_) => Err(Refusal::BrokenRule),
            Err(failed) => Ok(self.failed(&failed)),
        }
    }

    /// Bound to the session, and to what it is the session of.
    fn token(&self, marks: &TokenMarks) -> String {
        let consumer = self.session.consumer().map_or("", |it| &**it);
        self.login
            .form_token(&[&marks.sha256[..], consumer.as_bytes(), self.made.policy.name.as_bytes()])
            .to_hex()
            .to_string()
    }

    /// The form, if it came from a page of this very site that this very session was shown.
    fn form(&self, body: &[u8]) -> Result<(Visitor, Form), Box<Response<ResponseBody>>> {
        let (visitor, marks) = self.member()?;
        let is_here = self.whence.url("").is_ok_and(|origin| is_same_origin(&self.parts.headers, &origin));
        let kind = self.parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let text = std::str::from_utf8(body).ok().filter(|_| is_form && body.len() <= BODY_BYTES_MAX);
        let form = text.and_then(crate::identity::form::decode);
        let shown = form.as_ref().and_then(|form| blake3::Hash::from_hex(form.get("token")?).ok());
        let expected =
            self.login.form_token(&[&marks.sha256[..], visitor.consumer.as_bytes(), self.made.policy.name.as_bytes()]);
        // `Hash` compares in constant time.
        match (form, shown) {
            (Some(form), Some(shown)) if is_here && shown == expected => Ok((visitor, form)),
            _ => Err(self.forbidden(
                "This form did not come from a page of this portal that you were shown. Go back and try again.",
            )),
        }
    }

    async fn create(&self, body: &[u8]) -> Answer {
        let (visitor, form) = match self.form(body) {
            Ok(form) => form,
            Err(answer) => return Ok(*answer),
        };
        let Some(given) = self.given() else { return Ok(self.not_found()) };
        let wrong = |text: &str| self.keys(StatusCode::BAD_REQUEST, Some(Notice { is_bad: true, text: text.into() }));
        let (mut scopes, mut label) = (Vec::new(), String::new());
        for (name, value) in form {
            match (name.strip_prefix("scope:"), &*name) {
                (Some(scope), _) if given.scopes.iter().any(|it| it == scope) => scopes.push(scope.to_owned()),
                (None, "label") => label = value.trim().to_owned(),
                (None, "token") => {}
                _ => return wrong("The form asks for something that is not given here.").await,
            }
        }
        if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
            return wrong("The name is too long, or has characters that are none of a name.").await;
        }
        let question = Question::Create { scopes, label, given: given.clone() };
        match self.directory.ask(visitor, question).await {
            Ok(Reply::Made { secret, .. }) => Ok(page(StatusCode::OK, self.frame().secret(&secret, None))),
            Ok(_) => Err(Refusal::BrokenRule),
            Err(failed) => Ok(self.failed(&failed)),
        }
    }

    async fn rotate(&self, id: CredentialId, body: &[u8]) -> Answer {
        let (visitor, _) = match self.form(body) {
            Ok(form) => form,
            Err(answer) => return Ok(*answer),
        };
        let Some(given) = self.given() else { return Ok(self.not_found()) };
        match self.directory.ask(visitor, Question::Rotate { id, given: given.clone() }).await {
            Ok(Reply::Made { secret, .. }) => Ok(page(StatusCode::OK, self.frame().secret(&secret, Some(OVERLAP)))),
            Ok(_) => Err(Refusal::BrokenRule),
            Err(failed) => Ok(self.failed(&failed)),
        }
    }

    async fn revoke(&self, id: CredentialId, body: &[u8]) -> Answer {
        let (visitor, _) = match self.form(body) {
            Ok(form) => form,
            Err(answer) => return Ok(*answer),
        };
        match self.directory.ask(visitor, Question::Revoke { id }).await {
            Ok(Reply::Revoked) => {
                let keys = Href::own(&self.made.base, &["keys"]);
                let location = HeaderValue::try_from(format!("{}?done=revoked", keys.as_str()));
                Ok(location.map_or_else(|_| see_other(&keys), to))
            }
            Ok(_) => Err(Refusal::BrokenRule),
            Err(failed) => Ok(self.failed(&failed)),
        }
    }

    async fn usage(&self) -> Answer {
        let (visitor, _) = match self.member() {
            Ok(member) => member,
            Err(answer) => return Ok(*answer),
        };
        let (limits, versions) = self.made(Made::counted).await?;
        match self.directory.ask(visitor, Question::Usage { limits, versions }).await {
            Ok(Reply::Usage(usage)) => {
                self.rendered(move |made| Some(made.frame().usage(&usage, &made.catalogue()))).await
            }
            Ok(_) => Err(Refusal::BrokenRule),
            Err(failed) => Ok(self.failed(&failed)),
        }
    }

    fn failed(&self, failed: &NotDone) -> Response<ResponseBody> {
        let (status, text) = match failed {
            NotDone::ShutOut => {
                (StatusCode::FORBIDDEN, "You were signed out or shut out while this waited.".to_owned())
            }
            NotDone::NotTheirs => (StatusCode::NOT_FOUND, "You have no such key.".to_owned()),
            NotDone::NotGiven => {
                let text = "This key is not one of those that this portal gives: ask who gave it to you for another.";
                (StatusCode::FORBIDDEN, text.to_owned())
            }
            NotDone::TooMany => {
                let text = "You have as many keys as you may have. Revoke one that you do not need any more.";
                (StatusCode::CONFLICT, text.to_owned())
            }
            NotDone::TooOften(seconds) => {
                (StatusCode::TOO_MANY_REQUESTS, format!("Too often: try again in {seconds} seconds."))
            }
            NotDone::Refused(why) => (StatusCode::CONFLICT, format!("It was refused: {why}")),
            NotDone::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed. Try again in a moment.".to_owned())
            }
            NotDone::Unknown => {
                let text = "It is not known whether it was done. Look at your keys: one whose secret you were not shown is of no use, revoke it.";
                (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
            }
        };
        let mut response = page(status, self.frame().message("Not done", &text));
        let wait = match failed {
            NotDone::TooOften(seconds) => Some((*seconds).max(1)),
            NotDone::Unavailable | NotDone::Unknown => Some(1),
            _ => None,
        };
        if let Some(wait) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }
}

impl Session {
    fn consumer(&self) -> Option<&Name> {
        match self {
            Self::Member { consumer, .. } => Some(consumer),
            Self::Nobody | Self::Other => None,
        }
    }
}

/// A leaked key must not make others: a session of the portal's own login alone counts, and nothing shown beside it. A login
/// that has an owner speaks for the consumers of that owner: its provider could name any.
fn session(identity: Option<&Identity>, auth: &Name, owner: &str, anonymous: Option<&Name>) -> Session {
    let Some(identity) = identity else { return Session::Nobody };
    let caller = &identity.caller;
    if caller.method == AuthMethod::Anonymous {
        return Session::Nobody;
    }
    let is_session = caller.method == AuthMethod::OidcLogin && caller.auth == *auth && identity.also.is_empty();
    match (&caller.consumer, &caller.subject.token) {
        (Some(consumer), Some(marks))
            if is_session && anonymous != Some(&consumer.name) && (owner.is_empty() || consumer.owner == owner) =>
        {
            Session::Member { consumer: consumer.name.clone(), marks: marks.clone(), caller: Arc::new(caller.clone()) }
        }
        _ => Session::Other,
    }
}

/// By what browsers say of where a request comes from; one that says nothing is none of a browser.
fn is_same_origin(headers: &HeaderMap, origin: &str) -> bool {
    let one = |name: HeaderName| {
        let mut all = headers.get_all(name).iter();
        (all.next(), all.next().is_some())
    };
    let ((site, sites), (from, froms)) = (one(SEC_FETCH_SITE), one(header::ORIGIN));
    let is_site = site.is_none_or(|it| it.as_bytes() == b"same-origin");
    let is_from = from.is_none_or(|it| it.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
    !sites && !froms && is_site && is_from && (site.is_some() || from.is_some())
}

fn policy(resources: &Resources, name: &Name) -> Option<Arc<Policy>> {
    let key = Key { kind: ResourceKind::Policy, name: name.clone() };
    match &resources.get(&key)?.resource {
        Resource::Policy(policy) if matches!(policy.kind, PolicyKind::Portal(_)) => Some(policy.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_comes_from_the_same_origin() {
        let check = |fields: &[(HeaderName, &str)], expected: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name.clone(), value.parse().unwrap());
            }
            assert_eq!(is_same_origin(&headers, "https://dev.test"), expected, "{fields:?}");
        };
        let (site, origin) = (SEC_FETCH_SITE, header::ORIGIN);
        check(&[(origin.clone(), "https://dev.test")], true);
        check(&[(site.clone(), "same-origin")], true);
        check(&[(site.clone(), "same-origin"), (origin.clone(), "https://dev.test")], true);
        check(&[], false);
        for wrong in
            ["http://dev.test", "https://dev.test:8443", "https://evil.test", "null", "https://dev.test.evil.test"]
        {
            check(&[(origin.clone(), wrong)], false);
            check(&[(site.clone(), "same-origin"), (origin.clone(), wrong)], false);
        }
        for wrong in ["same-site", "cross-site", "none"] {
            check(&[(site.clone(), wrong)], false);
            check(&[(site.clone(), wrong), (origin.clone(), "https://dev.test")], false);
        }
        check(&[(origin.clone(), "https://dev.test"), (origin, "https://evil.test")], false);
    }

    #[test]
    fn every_page_has_its_place() {
        let check = |path: &str, expected: bool| assert_eq!(Place::of(path).is_some(), expected, "{path}");
        for path in ["", "/", "/style.css", "/sign-in", "/apis/a/v1", "/apis/a/v1/openapi.json", "/keys", "/usage"] {
            check(path, true);
        }
        check("/keys/00000000000000ab/rotate", true);
        for path in ["/keys/x/rotate", "/keys/00000000000000ab", "/apis", "/apis/a", "/x", "//"] {
            check(path, false);
        }
    }
}
