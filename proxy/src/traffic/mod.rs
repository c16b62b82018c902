//! What becomes of traffic on the way, beyond going on: split over upstreams, shown to pages of other origins, copied to a
//! mirror, compressed, its values put into fields and paths. A route without any of it pays one look at an empty place.

pub(crate) mod accept;
pub(crate) mod bodies;
#[cfg(feature = "compression")]
pub mod compress;
mod cors;
pub(crate) mod mask;
pub(crate) mod mirror;
mod scene;
mod split;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header, request::Parts};
use quorumgate_model::{
    invalid::Invalid,
    resource::{Cache, Coding, Mirror, Name, Route},
    template::Template,
};

pub(crate) use self::mirror::Asker;
pub use self::split::split_key;
use self::{cors::Cors, scene::Scene};
pub(crate) use self::{scene::value, split::choose};
use crate::{body::ResponseBody, metrics::CacheResult, record::Record};

/// Which arm of a split answered.
const X_SPLIT_ARM: HeaderName = HeaderName::from_static("x-split-arm");

/// Of one route, made once.
pub(crate) struct Traffic {
    cors: Option<Cors>,
    pub(crate) mirror: Option<Mirror>,
    pub(crate) cache: Option<Cache>,
    #[cfg(feature = "compression")]
    compression: Option<quorumgate_model::resource::Compression>,
    /// Values of the request are put somewhere.
    fills: bool,
}

/// Of one exchange.
#[derive(Default)]
pub(crate) struct Passing {
    /// Of the page that asks.
    origin: Option<HeaderValue>,
    preflight: bool,
    arm: Option<Name>,
    pub(crate) cached: Option<CacheResult>,
    /// What the answer may be compressed by, the client's liking counted in.
    #[cfg_attr(not(feature = "compression"), allow(dead_code))]
    coding: Option<Coding>,
    scene: Option<Box<Scene>>,
}

/// What a 304 leaves out of the fields of the 200 in whose place it stands: those that say of what it would be.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "compression"), allow(dead_code))]
pub(crate) struct Unsaid(pub(crate) HeaderMap);

/// Whether this build can do what the route asks.
pub fn check(route: &Route) -> Result<(), Invalid> {
    match &route.compression {
        Some(_) if cfg!(not(feature = "compression")) => {
            Err(Invalid::field("compression").found("it").allowed("nothing: this build was made without compression"))
        }
        _ if cfg!(not(feature = "compression")) && route.body.decompressed_max.0 != 0 => {
            let invalid = Invalid::field("body.decompressed_max").found(route.body.decompressed_max);
            Err(invalid.allowed("0: this build was made without compression"))
        }
        _ => Ok(()),
    }
}

impl Traffic {
    /// None: the route asks for nothing of it.
    pub(crate) fn new(route: &Route) -> Option<Box<Self>> {
        let edits = [&route.rewrite.headers.request, &route.rewrite.headers.response];
        let mut values = edits.into_iter().flat_map(|it| it.set.values().chain(it.add.values()));
        let fills = values.any(|value| Template::is_one(value))
            || route.rewrite.path.is_some()
            || !route.rewrite.query.is_empty()
            || route.rewrite.body.request.is_some()
            || route.rewrite.body.response.is_some();
        let splits = matches!(route.action, quorumgate_model::resource::Action::Split(_));
        let asks = fills
            || splits
            || route.cors.is_some()
            || route.mirror.is_some()
            || route.compression.is_some()
            || route.cache.is_some();
        asks.then(|| {
            Box::new(Self {
                cors: route.cors.as_ref().map(|cors| Cors::new(cors, &route.matches.methods)),
                mirror: route.mirror.clone(),
                cache: route.cache.clone(),
                #[cfg(feature = "compression")]
                compression: route.compression.clone(),
                fills,
            })
        })
    }

    /// What is known of the request once its route is.
    pub(crate) fn enter(&self, parts: &Parts, host: &str, path: &str, tls: bool) -> Box<Passing> {
        let headers = &parts.headers;
        let asks_first = || {
            parts.method == Method::OPTIONS
                && headers.contains_key(header::ORIGIN)
                && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        };
        Box::new(Passing {
            origin: self.cors.as_ref().and_then(|_| headers.get(header::ORIGIN).cloned()),
            preflight: self.cors.is_some() && asks_first(),
            arm: None,
            cached: None,
            coding: self.coding(headers),
            scene: self.fills.then(|| Box::new(Scene::new(host, path, tls))),
        })
    }

    #[cfg(feature = "compression")]
    fn coding(&self, headers: &HeaderMap) -> Option<Coding> {
        let compression = self.compression.as_ref()?;
        accept::coding(headers, &compression.algorithms)
    }

    #[cfg(not(feature = "compression"))]
    fn coding(&self, _: &HeaderMap) -> Option<Coding> {
        None
    }
}

/// The answer to a page's question whether it may ask: never forwarded, and nobody needs to say who they are.
pub(crate) fn preflight(record: &Record) -> Option<Response<ResponseBody>> {
    let traffic = record.plan.as_ref()?.traffic.as_ref()?;
    let passing = record.traffic.as_ref().filter(|it| it.preflight)?;
    Some(traffic.cors.as_ref()?.preflight(passing.origin.as_ref()))
}

/// On the one exit: what the answer gets before the route's own edits.
pub(crate) fn decorate(record: &Record, headers: &mut HeaderMap) {
    let (Some(plan), Some(passing)) = (&record.plan, &record.traffic) else { return };
    if let Some(arm) = passing.arm.as_ref().and_then(|arm| HeaderValue::from_str(arm).ok()) {
        headers.insert(X_SPLIT_ARM, arm);
    }
    let cors = plan.traffic.as_ref().and_then(|it| it.cors.as_ref());
    if let Some(cors) = cors.filter(|_| !passing.preflight) {
        cors.decorate(headers, passing.origin.as_ref());
    }
}

/// On the one exit, behind the route's own edits.
#[cfg(feature = "compression")]
pub(crate) fn compress(record: &Record, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let compression = record.plan.as_ref().and_then(|it| it.traffic.as_ref()?.compression.as_ref());
    let (Some(passing), Some(compression)) = (&record.traffic, compression) else { return response };
    let coding = passing.coding.filter(|_| !record.conn.worker.is_overloaded());
    compress::answer(compression, coding, &record.method, response)
}

#[cfg(not(feature = "compression"))]
pub(crate) fn compress(_: &Record, response: Response<ResponseBody>) -> Response<ResponseBody> {
    response
}

/// The bytes are not those that the tag was of (RFC 9110 8.8.1).
pub(crate) fn weaken(headers: &mut HeaderMap) {
    let strong = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    if let Some(weak) = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()) {
        headers.insert(header::ETAG, weak);
    }
}

/// Names a field in Vary, unless it is there.
pub(crate) fn vary(headers: &mut HeaderMap, name: HeaderName) {
    let names = headers.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let mut names = names.map(<[u8]>::trim_ascii);
    if !names.any(|it| it == b"*" || it.eq_ignore_ascii_case(name.as_str().as_bytes())) {
        headers.append(header::VARY, HeaderValue::from(name));
    }
}

impl Passing {
    pub(crate) fn arm(&self) -> Option<&Name> {
        self.arm.as_ref()
    }
}
