//! As much of an API server as a controller asks for: lists, watches with bookmarks and an end to what is remembered, and
//! patches of a status that fit the object's version.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_stream::wrappers::WatchStream;

const PATIENCE: Duration = Duration::from_secs(60);
pub const GATEWAY_API: &str = "/apis/gateway.networking.k8s.io/v1";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A clone is a handle to the same.
#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
    pub port: u16,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By list (`/api/v1/services`), then by `namespace/name`.
    lists: BTreeMap<String, BTreeMap<String, Value>>,
    events: Vec<(u64, String, Value)>,
    /// Watches from before it are told to begin anew.
    oldest: u64,
    /// Watches of an earlier one are cut.
    epoch: u64,
    watches: u64,
    gone: u64,
    conflicts: u64,
    /// How often a list is not known yet.
    lost: BTreeMap<String, u64>,
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
    pub async fn start(lists: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lists = lists.iter().map(|list| ((*list).to_owned(), BTreeMap::new())).collect();
        let state = State { version: 1, lists, ..State::default() };
        let it = Self { state: Arc::new(Mutex::new(state)), changes: watch::Sender::new(0), port };
        let server = it.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let answer = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        it
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Creates it, or changes its spec.
    pub fn put(&self, list: &str, mut object: Value) {
        let mut state = self.state();
        let key = key_of(&object);
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let known = state.lists[list].get(&key).cloned();
        let generation = known.as_ref().map_or(0, |it| it["metadata"]["generation"].as_i64().unwrap());
        object["metadata"]["generation"] = (generation + 1).into();
        if let Some(known) = &known {
            object["status"] = known["status"].clone();
        }
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        state.enter(list, key, kind, object);
        drop(state);
        self.changed();
    }

    pub fn delete(&self, list: &str, key: &str) {
        self.delete_unseen(list, key);
        self.changed();
    }

    /// No watch is told, unless something else happens.
    pub fn delete_unseen(&self, list: &str, key: &str) {
        let mut state = self.state();
        state.version += 1;
        let mut object = state.lists.get_mut(list).unwrap().remove(key).unwrap();
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let event = (state.version, list.to_owned(), json!({ "type": "DELETED", "object": object }));
        state.events.push(event);
    }

    /// Every watch that stands ends in the middle.
    pub fn cut(&self) {
        self.state().epoch += 1;
        self.changed();
    }

    /// And what has happened is forgotten.
    pub fn forget(&self) {
        let mut state = self.state();
        // Beyond what anybody has seen, so that nobody can go on.
        state.version += 1;
        state.oldest = state.version;
        state.events.clear();
        state.epoch += 1;
        drop(state);
        self.changed();
    }

    pub fn get(&self, list: &str, key: &str) -> Value {
        self.state().lists[list].get(key).cloned().unwrap_or_default()
    }

    pub fn watches(&self) -> u64 {
        self.state().watches
    }

    /// Watches that were told to begin anew.
    pub fn gone(&self) -> u64 {
        self.state().gone
    }

    /// The next times that it is asked for, the list is not known.
    pub fn lose(&self, list: &str, times: u64) {
        self.state().lost.insert(list.to_owned(), times);
    }

    /// Whether all lists are known.
    pub fn is_whole(&self) -> bool {
        self.state().lost.values().all(|times| *times == 0)
    }

    /// The next time, somebody else has written in between.
    pub fn conflict_once(&self) {
        self.state().conflicts += 1;
    }

    /// Waits for a state of the server: each change of it is looked at.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(self) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("{what}: not within {PATIENCE:?}; {:#?}", self.state().lists),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        if self.is_lost(&path) {
            self.changed();
            return told(StatusCode::NOT_FOUND, &json!({ "kind": "Status", "message": "not found" }));
        }
        match *request.method() {
            Method::GET if self.state().lists.contains_key(&path) => match query.contains("watch=true") {
                true => self.watch(&path, &query),
                false => self.list(&path),
            },
            Method::PATCH => {
                let patch = request.into_body().collect().await.unwrap().to_bytes();
                let answer = self.patch(&path, &serde_json::from_slice(&patch).unwrap());
                self.changed();
                answer
            }
            _ => told(StatusCode::NOT_FOUND, &json!({ "kind": "Status", "message": "not found" })),
        }
    }

    fn is_lost(&self, path: &str) -> bool {
        match self.state().lost.get_mut(path) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }

    fn list(&self, list: &str) -> Response<Body> {
        let state = self.state();
        let items: Vec<&Value> = state.lists[list].values().collect();
        told(StatusCode::OK, &json!({ "items": items, "metadata": { "resourceVersion": state.version.to_string() } }))
    }

    fn watch(&self, list: &str, query: &str) -> Response<Body> {
        let word = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let since: u64 = word("resourceVersion").unwrap().parse().unwrap();
        let epoch = {
            let mut state = self.state();
            state.watches += 1;
            if since < state.oldest {
                state.gone += 1;
                drop(state);
                self.changed();
                let error =
                    json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "message": "too old" } });
                return Response::new(Full::new(Bytes::from(format!("{error}\n"))).boxed_unsync());
            }
            state.epoch
        };
        self.changed();
        let (server, list, mut at) = (self.clone(), list.to_owned(), since);
        let lines = WatchStream::new(self.changes.subscribe()).map(move |_| {
            let state = server.state();
            if state.epoch != epoch {
                return None;
            }
            let mut text = String::new();
            for (version, of, event) in &state.events {
                if *version > at && *of == list {
                    text += &format!("{event}\n");
                }
            }
            if text.is_empty() && state.version > at {
                let meta = json!({ "resourceVersion": state.version.to_string() });
                text = format!("{}\n", json!({ "type": "BOOKMARK", "object": { "metadata": meta } }));
            }
            at = state.version;
            Some(text)
        });
        let frames = lines.take_while(|it| std::future::ready(it.is_some()));
        let frames = frames.map(|it| Ok::<_, Infallible>(Frame::data(Bytes::from(it.unwrap_or_default()))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn patch(&self, path: &str, patch: &Value) -> Response<Body> {
        let mut state = self.state();
        let Some((list, key)) = object_of(path) else { return told(StatusCode::NOT_FOUND, &json!({})) };
        let Some(mut object) = state.lists.get(&list).and_then(|it| it.get(&key)).cloned() else {
            return told(StatusCode::NOT_FOUND, &json!({ "message": "it is gone" }));
        };
        let conflicts = std::mem::take(&mut state.conflicts) > 0;
        if conflicts || object["metadata"]["resourceVersion"] != patch["metadata"]["resourceVersion"] {
            return told(StatusCode::CONFLICT, &json!({ "message": "the object has been modified" }));
        }
        for (field, value) in patch["status"].as_object().unwrap() {
            object["status"][field] = value.clone();
        }
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.enter(&list, key, "MODIFIED", object.clone());
        told(StatusCode::OK, &object)
    }
}

impl State {
    fn enter(&mut self, list: &str, key: String, kind: &str, object: Value) {
        let event = json!({ "type": kind, "object": object });
        self.events.push((self.version, list.to_owned(), event));
        self.lists.get_mut(list).unwrap().insert(key, object);
    }
}

fn key_of(object: &Value) -> String {
    let meta = &object["metadata"];
    match meta["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", meta["name"].as_str().unwrap()),
        None => meta["name"].as_str().unwrap().to_owned(),
    }
}

/// `…/namespaces/shop/httproutes/r/status` → the list and `shop/r`.
fn object_of(path: &str) -> Option<(String, String)> {
    let path = path.strip_suffix("/status")?;
    let (root, rest) = path.split_at(GATEWAY_API.len());
    let parts: Vec<&str> = rest.split('/').collect();
    match parts[..] {
        ["", "namespaces", namespace, plural, name] => {
            Some((format!("{root}/{plural}"), format!("{namespace}/{name}")))
        }
        ["", plural, name] => Some((format!("{root}/{plural}"), name.to_owned())),
        _ => None,
    }
}

fn told(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response
}
