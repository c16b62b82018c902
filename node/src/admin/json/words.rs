//! What a caller says: the words of the query, and configuration as the body.

use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use quorumgate_model::{
    invalid::Invalid,
    resource::{Kind, Resource},
    units::Span,
};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tonic::{Code, Status};

use crate::{
    admin::{MESSAGE_BYTES_MAX, failure},
    cli::config,
};

/// Empty, they would be as if they had not been said, and an unset variable of a script would write without its condition.
const NEVER_EMPTY: [&str; 3] = ["dry_run", "if_revision", "etag"];

/// The words of the query; one that the path does not know is refused, lest a misspelt `dry_run` writes.
pub struct Words(Vec<(String, String)>);

impl Words {
    pub fn of<T>(request: &Request<T>, known: &[&str]) -> Result<Self, Status> {
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        let pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "true")))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect();
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            return Err(failure::bad_field(name, &format!("unknown here; allowed: {}", known.join(", "))));
        }
        for name in NEVER_EMPTY {
            let mut values = pairs.iter().filter(|(it, _)| it == name).map(|(_, value)| value);
            let (first, second) = (values.next(), values.next());
            if first.is_some_and(String::is_empty) {
                return Err(failure::bad_field(name, "found nothing; allowed: a value, or to leave it out"));
            }
            if second.is_some() {
                return Err(failure::bad_field(name, "given twice; allowed: once"));
            }
        }
        Ok(Self(pairs))
    }

    pub fn text(&self, name: &str) -> String {
        self.given(name).map(str::to_owned).unwrap_or_default()
    }

    /// Of a word that may be given several times.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(it, _)| it == name).map(|(_, value)| value.clone()).collect()
    }

    fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let number = |text: &str| {
            text.parse().map_err(|_| failure::bad_field(name, &format!("found {text:?}; allowed: a whole number")))
        };
        self.given(name).map(number).transpose()
    }

    /// 0 where it is not said.
    pub fn count(&self, name: &str) -> Result<u32, Status> {
        Ok(self.number(name)?.unwrap_or_default().min(u64::from(u32::MAX)) as u32)
    }

    pub fn is(&self, name: &str) -> Result<bool, Status> {
        match self.given(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(failure::bad_field(name, &format!("found {text:?}; allowed: true or false"))),
        }
    }

    /// `2m`, as settings and files write lengths of time.
    pub fn span(&self, name: &str) -> Result<Option<prost_types::Duration>, Status> {
        let span = |text: &str| {
            let parsed: Result<Span, _> = text.parse();
            parsed
                .map(|span| prost_types::Duration {
                    seconds: span.0.as_secs() as i64,
                    nanos: span.0.subsec_nanos() as i32,
                })
                .map_err(|_| failure::bad_field(name, &format!("found {text:?}; allowed: 90s, 2m or 1h, say")))
        };
        self.given(name).map(span).transpose()
    }

    pub fn time(&self, name: &str) -> Result<Option<prost_types::Timestamp>, Status> {
        let Some(text) = self.given(name) else { return Ok(None) };
        let at = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| failure::bad_field(name, &format!("found {text:?}; allowed: 2026-01-31T12:00:00Z")))?;
        Ok(Some(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond() as i32 }))
    }
}

pub async fn body(request: Request<Incoming>) -> Result<Vec<u8>, Status> {
    let limited = Limited::new(request.into_body(), MESSAGE_BYTES_MAX);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let limit = MESSAGE_BYTES_MAX >> 20;
            Err(failure::status(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", format!("body; allowed: {limit} MiB")))
        }
        Err(error) => Err(failure::bad_field("body", &error.to_string())),
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Status> {
    serde_json::from_slice(body)
        .map_err(|error| failure::bad_field("body", &format!("{error}; allowed: a JSON object")))
}

/// `{"routes": […], "upstreams": […]}`. No word here names a file: the files would be this node's own.
pub fn resources(body: &[u8]) -> Result<Vec<Resource>, Status> {
    let mut resources = Vec::new();
    for (list, objects) in object(body)? {
        let kind = Kind::ALL.into_iter().find(|kind| kind.list() == list).ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.list()).collect();
            failure::bad_field(&list, &format!("allowed: {}", known.join(", ")))
        })?;
        let Value::Array(objects) = objects else { return Err(failure::bad_field(&list, "allowed: a list")) };
        for (at, words) in objects.into_iter().enumerate() {
            resources.push(parsed(kind, words, &format!("{list}[{at}]"))?);
        }
    }
    let mut keys: Vec<_> = resources.iter().map(Resource::key).collect();
    keys.sort();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(failure::bad_field(twice[0].kind.list(), &format!("{} is written twice", twice[0]))),
        None => Ok(resources),
    }
}

/// One object's words; its name may be left to the path.
pub fn resource(kind: Kind, name: &str, body: &[u8]) -> Result<Resource, Status> {
    let mut words = object(body)?;
    let written = words.entry("name").or_insert_with(|| name.into());
    if written.as_str() != Some(name) {
        return Err(failure::bad_field("name", &format!("found {written}; allowed: {name:?}, as in the path")));
    }
    parsed(kind, Value::Object(words), &format!("{}[0]", kind.list()))
}

fn parsed(kind: Kind, words: Value, place: &str) -> Result<Resource, Status> {
    config::resource(kind, words).map_err(|invalid: Invalid| failure::invalid(&invalid.under(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_names_a_file_is_refused() {
        let refused = |body: &str| resources(body.as_bytes()).unwrap_err();
        let file = r#"{"certificate_authorities": [{"name": "ca", "file": "/etc/passwd"}]}"#;
        assert_eq!(refused(file).code(), Code::InvalidArgument);
        assert!(refused(r#"{"routs": []}"#).message().contains("routes"));
        assert!(refused("[]").message().contains("a JSON object"));
        let twice = r#"{"consumers": [{"name": "a"}, {"name": "a"}]}"#;
        assert!(refused(twice).message().contains("written twice"));
    }

    #[test]
    fn an_object_has_the_name_of_its_path() {
        assert_eq!(&*resource(Kind::Consumer, "acme", b"{}").unwrap().key().name, "acme");
        let other = resource(Kind::Consumer, "acme", br#"{"name": "else"}"#).unwrap_err();
        assert!(other.message().contains("\"acme\""), "{other}");
    }

    #[test]
    fn the_query_is_read_as_forms_write_it() {
        let request = |query: &str| Request::get(format!("/x?{query}")).body(()).unwrap();
        let known = ["message", "dry_run", "revision", "since"];
        let words = Words::of(&request("message=a+b%21&dry_run&revision=7"), &known).unwrap();
        assert_eq!((words.text("message").as_str(), words.is("dry_run").unwrap()), ("a b!", true));
        assert_eq!(words.number("revision").unwrap(), Some(7));
        assert_eq!(words.time("since").unwrap(), None);
        let wrong = |query: &str| Words::of(&request(query), &known);
        assert!(wrong("revision=x").unwrap().number("revision").is_err());
        assert!(wrong("since=now").unwrap().time("since").is_err());
        assert!(wrong("dryrun").is_err());
        for refused in ["dry_run=", "dry_run=false&dry_run=true", "message=a&dry_run="] {
            let error = wrong(refused).err().expect(refused);
            assert_eq!(error.code(), Code::InvalidArgument, "{refused}");
            assert!(error.message().contains("dry_run"), "{error}");
        }
        assert_eq!(wrong("message=").unwrap().text("message"), "");
    }
}
