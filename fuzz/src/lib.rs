//! What must hold of every parser that meets bytes of others, whatever the bytes are: each target takes any input and
//! panics where a property does not hold. Their corpora are replayed as ordinary tests, every file and all that it begins with.

mod apply;
mod cel;
mod codecs;
mod configuration;
mod edge;
mod frames;
mod jwt;
mod openapi;
mod path;
mod peer;
mod proxy_header;
mod route;

/// One parser and what must hold of it.
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
}

pub const TARGETS: [Target; 12] = [
    Target { name: "apply", check: apply::check },
    Target { name: "cel", check: cel::check },
    Target { name: "codecs", check: codecs::check },
    Target { name: "configuration", check: configuration::check },
    Target { name: "edge", check: edge::check },
    Target { name: "frames", check: frames::check },
    Target { name: "jwt", check: jwt::check },
    Target { name: "openapi", check: openapi::check },
    Target { name: "path", check: path::check },
    Target { name: "peer", check: peer::check },
    Target { name: "proxy_header", check: proxy_header::check },
    Target { name: "route", check: route::check },
];

impl Target {
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    pub fn names() -> String {
        TARGETS.each_ref().map(|target| target.name).join(", ")
    }
}

/// Parts of `bytes` whose lengths follow from `cut`; 0: all at once.
fn parts(bytes: &[u8], cut: u8) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(if cut == 0 { bytes.len().max(1) } else { usize::from(cut) })
}
