//! One request as the conditions see it: the view, and the method that decides.

use std::borrow::Cow;

use super::View;

pub struct Request<'a> {
    pub view: &'a View<'a>,
    /// Of a preflight, the method that it asks for.
    pub method: Cow<'a, str>,
    /// A CORS preflight carries neither the headers nor the cookies of the request that it asks for: conditions on them
    /// count as met.
    pub preflight: bool,
    /// Without the dot of an absolute name: `a.test.` and `a.test` are one host.
    pub host: &'a str,
}

impl<'a> Request<'a> {
    pub fn new(view: &'a View<'a>) -> Self {
        let asked_for = match view.method {
            "OPTIONS" => preflight_method(view),
            _ => None,
        };
        Self {
            view,
            preflight: asked_for.is_some(),
            method: asked_for.map_or(Cow::Borrowed(view.method), Cow::Owned),
            host: view.host.strip_suffix('.').unwrap_or(view.host),
        }
    }
}

/// Fetch standard, "CORS-preflight request": OPTIONS with Origin and Access-Control-Request-Method.
fn preflight_method(view: &View<'_>) -> Option<String> {
    if !view.headers.has("origin") {
        return None;
    }
    let mut method = None;
    view.headers.any("access-control-request-method", &mut |value| {
        method = Some(value.to_owned());
        true
    });
    method
}
