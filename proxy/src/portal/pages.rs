//! The pages of a portal, each from what it shows to its text. No scripts; one stylesheet; everything that is asked for has
//! a label.

use std::sync::Arc;

use quorumgate_model::{
    resource::{self, Auth, AuthKind, Combine, Kind, Name, PathPattern, PortalKeys, Resource, Resources, Route},
    state::LABEL_BYTES_MAX,
    units::{Moment, Span},
};

use super::{
    catalogue::{Catalogue, Entry, Now},
    desk::{OwnKey, OwnUsage},
    html::{Href, Html},
};

/// Of any page; what would be longer leaves off, and says so.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Routes that one version shows.
const ROUTES_MAX: usize = 200;
/// What browsers count (UTF-16) is never more than three bytes each: what the form lets in is taken.
pub(super) const LABEL_CHARS_MAX: usize = LABEL_BYTES_MAX / 3;

/// What is around every page.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    /// The path of the portal, without a slash at its end.
    pub(super) base: &'a str,
    pub(super) who: Who<'a>,
    /// Where people sign in here.
    pub(super) signs_in: bool,
    pub(super) sign_out: &'a str,
    pub(super) has_keys: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    Nobody,
    /// A browser's session of this consumer.
    Member(&'a Name),
    /// Known by something else, or as no consumer of its own.
    Other,
}

/// What became of what was asked for.
pub(super) struct Notice {
    pub(super) is_bad: bool,
    pub(super) text: String,
}

/// How a version is reached.
pub(super) struct Ways<'a> {
    pub(super) resources: &'a Resources,
    pub(super) entry: &'a Entry,
}

impl Ways<'_> {
    pub(super) fn auth(&self, name: &Name) -> Option<&Arc<Auth>> {
        let key = resource::Key { kind: Kind::Auth, name: name.clone() };
        match &self.resources.get(&key)?.resource {
            Resource::Auth(it) => Some(it),
            _ => None,
        }
    }
}

impl Frame<'_> {
    pub(super) fn page(&self, heading: &str, write: impl FnOnce(&mut Html)) -> String {
        let mut html = Html::new(PAGE_BYTES_MAX);
        html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">")
            .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")
            .tag("<title>", heading, " – ")
            .tag("", self.title, "</title><link rel=\"stylesheet\" href=\"")
            .tag("", Href::own(self.base, &["style.css"]).as_str(), "\"></head><body>")
            .raw("<a class=\"skip\" href=\"#main\">Skip to content</a>")
            .tag("<header><p>", self.title, "</p><nav aria-label=\"Portal\"><ul>");
        let mut entry = |pieces: &[&str], text: &str| {
            html.raw("<li>").link(&Href::own(self.base, pieces), text).raw("</li>");
        };
        entry(&[""], "APIs");
        match self.who {
            Who::Member(consumer) => {
                if self.has_keys {
                    entry(&["keys"], "My keys");
                }
                entry(&["usage"], "My usage");
                html.raw("<li>");
                if let Some(href) = Href::outside(self.sign_out) {
                    html.link(&href, "Sign out");
                }
                html.tag(" <span class=\"soft\">", consumer, "</span></li>");
            }
            Who::Nobody if self.signs_in => entry(&["sign-in"], "Sign in"),
            Who::Nobody | Who::Other => {}
        }
        html.tag("</ul></nav></header><main id=\"main\"><h1>", heading, "</h1>");
        write(&mut html);
        if html.is_full() {
            html.raw("<p class=\"box\">This page leaves off here: the rest would be too long.</p>");
        }
        html.raw("</main></body></html>\n");
        html.finish()
    }

    pub(super) fn message(&self, heading: &str, text: &str) -> String {
        self.page(heading, |html| {
            html.tag("<p>", text, "</p>");
        })
    }

    pub(super) fn catalogue(&self, catalogue: &Catalogue, now: Moment) -> String {
        self.page("APIs", |html| {
            if catalogue.0.is_empty() {
                html.raw("<p>No API is published yet.</p>");
            }
            for (api, versions) in &catalogue.0 {
                if html.is_full() {
                    break;
                }
                html.tag("<section><h2>", api, "</h2><ul>");
                for (version, entry) in versions {
                    html.raw("<li>").link(&self.to(api, version), version).raw(" ");
                    self.state(html, entry, now);
                    if !entry.policy.description.is_empty() {
                        html.tag("<div class=\"soft\">", &entry.policy.description, "</div>");
                    }
                    html.raw("</li>");
                }
                html.raw("</ul></section>");
            }
        })
    }

    fn to(&self, api: &str, version: &str) -> Href {
        Href::own(self.base, &["apis", api, version])
    }

    /// State, dates, successor.
    fn state(&self, html: &mut Html, entry: &Entry, now: Moment) {
        let (words, state) = (&entry.words, entry.now(now));
        html.raw("<span class=\"state ").raw(state.word()).raw("\">").raw(state.word()).raw("</span>");
        if let Some(at) = words.deprecated_at.filter(|_| state == Now::Deprecated) {
            html.tag(" <span>deprecated since ", at, "</span>");
        }
        if let Some(at) = words.sunset {
            html.tag(if state == Now::Retired { " <span>gone since " } else { " <span>ends at " }, at, "</span>");
        }
        if !words.successor.is_empty() {
            html.raw(" <span>successor: ")
                .link(&self.to(&words.api, &words.successor), &words.successor)
                .raw("</span>");
        }
    }

    pub(super) fn version(&self, ways: &Ways<'_>, now: Moment) -> String {
        let (entry, words) = (ways.entry, &ways.entry.words);
        let heading = format!("{} {}", words.api, words.version);
        self.page(&heading, |html| {
            html.raw("<p>");
            self.state(html, entry, now);
            html.raw("</p>");
            if !entry.policy.description.is_empty() {
                html.tag("<p class=\"text\">", &entry.policy.description, "</p>");
            }
            for (url, text) in [
                (&words.successor_url, "Where its successor is"),
                (&words.deprecation_url, "Why it is deprecated"),
                (&words.sunset_url, "What to know of its end"),
            ] {
                if let Some(href) = Href::outside(url) {
                    html.raw("<p>").link(&href, text).raw("</p>");
                }
            }
            if entry.now(now) == Now::Retired {
                html.raw("<p class=\"box bad\">This version is gone: it answers 410 to every request.</p>");
                return;
            }
            self.ways(html, ways);
            super::contract::write(html, self, entry);
        })
    }

    fn ways(&self, html: &mut Html, ways: &Ways<'_>) {
        html.raw("<div class=\"scroll\"><table><caption>Where it is</caption><thead><tr><th scope=\"col\">Hosts</th>")
            .raw("<th scope=\"col\">Path</th><th scope=\"col\">Methods</th><th scope=\"col\">Who may call</th></tr></thead><tbody>");
        for route in ways.entry.routes.iter().take(ROUTES_MAX) {
            let hosts: Vec<String> = route.matches.hosts.iter().map(ToString::to_string).collect();
            let any = |list: &[String]| if list.is_empty() { "any".to_owned() } else { list.join(", ") };
            html.tag("<tr><td>", any(&hosts), "</td><td><code>")
                .tag("", path(&route.matches.path), "</code></td><td>")
                .tag("", any(&route.matches.methods), "</td><td>")
                .tag("", callers(ways, route), "</td></tr>");
        }
        html.raw("</tbody></table></div>");
        if ways.entry.routes.len() > ROUTES_MAX {
            html.tag("<p>And ", ways.entry.routes.len() - ROUTES_MAX, " more.</p>");
        }
    }

    pub(super) fn keys(
        &self,
        keys: &[OwnKey],
        given: Option<&PortalKeys>,
        token: &str,
        notice: Option<&Notice>,
    ) -> String {
        self.page("My keys", |html| {
            told(html, notice);
            match keys.is_empty() {
                true => drop_line(html, "You have no keys yet."),
                false => self.key_table(html, keys, token),
            }
            if let Some(given) = given {
                self.key_form(html, given, token);
            }
        })
    }

    fn key_table(&self, html: &mut Html, keys: &[OwnKey], token: &str) {
        html.raw("<div class=\"scroll\"><table><caption>Keys of your consumer</caption><thead><tr><th scope=\"col\">Key</th>")
            .raw("<th scope=\"col\">Scopes</th><th scope=\"col\">State</th><th scope=\"col\">Made</th>")
            .raw("<th scope=\"col\">What to do</th></tr></thead><tbody>");
        for key in keys {
            if html.is_full() {
                break;
            }
            let name = if key.label.is_empty() { "without a name" } else { &key.label };
            html.tag("<tr><th scope=\"row\">", name, "<br><code>")
                .tag("", &key.prefix, "…</code></th><td>")
                .tag("", key.scopes.join(", "), "</td><td>")
                .tag("", key.standing.word(), "");
            if let Some(left) = key.ends_in {
                html.tag(", ends in ", coarse(left), "");
            }
            html.tag("</td><td>", Moment(key.created_ms), "</td><td>");
            let id = key.id.to_string();
            if key.rotates {
                self.button(html, &["keys", &id, "rotate"], token, "quiet", "Rotate", name);
            }
            if key.standing.is_good() {
                self.button(html, &["keys", &id, "revoke"], token, "danger", "Revoke", name);
            }
            html.raw("</td></tr>");
        }
        html.raw("</tbody></table></div>");
    }

    fn button(&self, html: &mut Html, to: &[&str], token: &str, class: &'static str, verb: &'static str, name: &str) {
        html.tag("<form method=\"post\" action=\"", Href::own(self.base, to).as_str(), "\">")
            .tag("<input type=\"hidden\" name=\"token\" value=\"", token, "\"><button class=\"")
            .raw(class)
            .raw("\" aria-label=\"")
            .raw(verb)
            .tag(" the key ", name, "\">")
            .raw(verb)
            .raw("</button></form>");
    }

    fn key_form(&self, html: &mut Html, given: &PortalKeys, token: &str) {
        html.tag("<h2>A new key</h2><form method=\"post\" action=\"", Href::own(self.base, &["keys"]).as_str(), "\">")
            .tag("<input type=\"hidden\" name=\"token\" value=\"", token, "\">")
            .raw("<label for=\"label\">Name, for you to tell it from others</label><input type=\"text\" id=\"label\" name=\"label\" ")
            .tag("autocomplete=\"off\" maxlength=\"", LABEL_CHARS_MAX, "\">");
        if !given.scopes.is_empty() {
            html.raw("<fieldset><legend>What it may do</legend>");
            for scope in &given.scopes {
                html.tag("<label><input type=\"checkbox\" name=\"scope:", scope, "\"> ").tag("", scope, "</label>");
            }
            html.raw("</fieldset>");
        }
        html.tag("<p class=\"soft\">It is good for ", given.expires, ". ")
            .tag("You may have ", given.max, " keys at a time. ")
            .raw("Its secret is shown once, on the next page.</p><button>Make a key</button></form>");
    }

    pub(super) fn secret(&self, secret: &str, beside: Option<Span>) -> String {
        self.page("Your new key", |html| {
            html.raw("<p class=\"box done\" role=\"status\">Copy it now: nobody can show it to you again.</p>").tag(
                "<pre id=\"secret\">",
                secret,
                "</pre>",
            );
            if let Some(overlap) = beside {
                html.tag(
                    "<p>The key that it replaces is good for another ",
                    overlap,
                    ". The new one ends when the old one was to end.</p>",
                );
            }
            html.raw("<p>").link(&Href::own(self.base, &["keys"]), "Back to my keys").raw("</p>");
        })
    }

    pub(super) fn usage(&self, usage: &OwnUsage, catalogue: &Catalogue) -> String {
        self.page("My usage", |html| {
            if usage.unanswered > 0 {
                html.tag("<p class=\"box bad\" role=\"status\">", usage.unanswered, " nodes did not answer: more may be used.</p>");
            }
            match usage.limits.is_empty() {
                true => drop_line(html, "No limit of these APIs counts your calls."),
                false => limits(html, usage),
            }
            html.raw("<h2>Calls of versions that will end</h2>");
            let calls = usage.calls.iter();
            let named = calls.filter_map(|it| Some((it, catalogue.entries().find(|entry| entry.policy.name == it.policy)?)));
            let named: Vec<_> = named.collect();
            if named.is_empty() {
                drop_line(html, "None since the nodes started. Only calls of versions that are on their way out are counted by consumer.");
                return;
            }
            html.raw("<div class=\"scroll\"><table><caption>Since the nodes started</caption><thead><tr><th scope=\"col\">Version</th>")
                .raw("<th scope=\"col\">Calls</th><th scope=\"col\">Last</th></tr></thead><tbody>");
            for (calls, entry) in named {
                let (api, version) = (&entry.words.api, &entry.words.version);
                html.raw("<tr><th scope=\"row\">")
                    .link(&self.to(api, version), format!("{api} {version}"))
                    .tag("</th><td>", calls.count, "</td><td>")
                    .tag("", Moment(calls.last_ms), "</td></tr>");
            }
            html.raw("</tbody></table></div>");
        })
    }
}

fn limits(html: &mut Html, usage: &OwnUsage) {
    html.raw("<div class=\"scroll\"><table><caption>Limits</caption><thead><tr><th scope=\"col\">Limit</th><th scope=\"col\">Counted by</th>")
        .raw("<th scope=\"col\">Used</th><th scope=\"col\">Of</th><th scope=\"col\">Free again in</th></tr></thead><tbody>");
    for it in &usage.limits {
        if html.is_full() {
            break;
        }
        html.tag("<tr><th scope=\"row\">", &it.limit, "</th><td>");
        match &it.key {
            None => html.raw("all of your calls"),
            Some(key) => html.tag("key <code>", key, "</code>"),
        };
        html.tag("</td><td>", it.used, "</td><td>").tag("", it.of, "</td><td>");
        match it.resets_in {
            Some(left) => html.text(coarse(left)),
            None => html.raw("–"),
        };
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
}

fn told(html: &mut Html, notice: Option<&Notice>) {
    if let Some(notice) = notice {
        html.raw(if notice.is_bad {
            "<p class=\"box bad\" role=\"alert\">"
        } else {
            "<p class=\"box done\" role=\"status\">"
        });
        html.tag("", &notice.text, "</p>");
    }
}

fn drop_line(html: &mut Html, text: &'static str) {
    html.raw("<p>").raw(text).raw("</p>");
}

/// In the largest unit of which there are two.
fn coarse(left: std::time::Duration) -> String {
    let s = left.as_secs();
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}

fn path(path: &PathPattern) -> String {
    match path {
        PathPattern::Any => "/…".to_owned(),
        PathPattern::Prefix(path) => format!("{path}…"),
        PathPattern::Exact(path) | PathPattern::Template(path) | PathPattern::Regex(path) => path.clone(),
    }
}

/// What a caller has to show.
fn callers(ways: &Ways<'_>, route: &Route) -> String {
    let Some(auth) = &route.auth else { return "anybody".to_owned() };
    let shown: Vec<String> = auth.names.iter().filter_map(|name| ways.auth(name)).map(|it| way(it)).collect();
    let between = if auth.combine == Combine::AllOf { " and " } else { " or " };
    let mut text = shown.join(between);
    if auth.anonymous.is_some() {
        text.push_str(", or nothing");
    }
    text
}

fn way(auth: &Auth) -> String {
    match &auth.kind {
        AuthKind::ApiKey(it) => format!("an API key in {}", it.header),
        AuthKind::Jwt(it) => format!("a token of {}", it.issuer),
        AuthKind::Mtls(_) => "a client certificate".to_owned(),
        AuthKind::Basic(_) => "user and password".to_owned(),
        AuthKind::Signature(_) => "a signature of the request (RFC 9421)".to_owned(),
        AuthKind::Introspection(_) => "a token".to_owned(),
        AuthKind::OidcLogin(_) => "a browser that is signed in".to_owned(),
        AuthKind::ClientCredentials(_) | AuthKind::UpstreamKey(_) => "nothing".to_owned(),
    }
}
