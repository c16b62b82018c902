//! The examples of a document, asked of an upstream: whether it answers as the document says.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use quorumgate_proxy::inspect::schema;
use serde_json::{Value as Json, json};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::{
    Notes, Server, base_path,
    document::{Document, members},
    operations::{self, Operation},
    schemas::Named,
};
use crate::cli::{
    args::{Global, VerifyContract},
    failure::{Failure, Outcome},
    output::Answer,
};

const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 16 << 20;
const SAFE: [&str; 2] = ["GET", "HEAD"];

/// What became of one example.
#[derive(Debug, PartialEq, Eq)]
enum Result {
    Passed,
    /// There is no example to ask with.
    Skipped(String),
    Failed(String),
}

/// One request that the document has an example for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    method: String,
    /// With its query.
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

pub async fn run(global: &Global, verb: &VerifyContract) -> Outcome {
    let document = Document::read(&verb.spec)?;
    let Some(authority) = verb.upstream.strip_prefix("http://").map(|it| it.trim_end_matches('/')) else {
        let found = &verb.upstream;
        return Err(Failure::usage(format!(
            "--upstream: found {found:?}; allowed: http://HOST:PORT, from where it can be reached so"
        )));
    };
    let server = Server::of(&document)?;
    let base = base_path(verb.base_path.as_deref().unwrap_or(&server.path))?;
    let mut notes = Notes { lossy: true, told: Vec::new() };
    let mut named = Named::new(&document);
    let mut contract = Vec::new();
    let operations = operations::all(&document, &mut notes)?;
    for it in &operations {
        contract.push(it.words(&document, &mut named, it.path, true, &mut notes)?);
    }
    let schemas = Json::Object(named.finish()?);
    let mut rows = Vec::new();
    for (it, words) in operations.iter().zip(&contract) {
        let result = match SAFE.contains(&it.method.as_str()) || verb.all_methods {
            false => Result::Skipped("it may change something: say --all-methods".into()),
            true => match asked(&document, it, words, &base, &verb.headers) {
                Err(why) => Result::Skipped(why),
                Ok(asked) => match ask(authority, &asked).await {
                    Err(error) => Result::Failed(format!("{error:#}")),
                    Ok((status, media, body)) => judged(&schemas, words, status, &media, &body),
                },
            },
        };
        rows.push((it.label.clone(), result));
    }
    print(global, &rows)
}

fn print(global: &Global, rows: &[(String, Result)]) -> Outcome {
    let said = |it: &Result| match it {
        Result::Passed => ("passed", String::new()),
        Result::Skipped(why) => ("skipped", why.clone()),
        Result::Failed(why) => ("failed", why.clone()),
    };
    let lines: Vec<String> = rows
        .iter()
        .map(|(label, it)| {
            let (word, why) = said(it);
            format!("{word}  {label}{}{why}", if why.is_empty() { "" } else { ": " })
        })
        .collect();
    let json: Vec<Json> = rows
        .iter()
        .map(|(label, it)| {
            let (word, why) = said(it);
            json!({ "operation": label, "result": word, "why": why })
        })
        .collect();
    let names = rows.iter().map(|(label, _)| label.clone()).collect();
    let answer =
        Answer { text: Some(lines.join("\n") + "\n"), json: json!({ "operations": json }), names, ..Answer::default() };
    answer.print(global.output)?;
    match rows.iter().any(|(_, it)| matches!(it, Result::Failed(_))) {
        true => Err(Failure::negative()),
        false => Ok(()),
    }
}

/// Err: what has no example.
fn asked(
    document: &Document,
    it: &Operation<'_>,
    words: &Json,
    base: &str,
    headers: &[String],
) -> std::result::Result<Asked, String> {
    let mut path = format!("{base}{}", it.path);
    let (mut query, mut fields) = (Vec::new(), Vec::new());
    for field in headers {
        let (name, value) = field.split_once(':').ok_or_else(|| format!("the header {field:?} has no colon"))?;
        fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    for parameter in it.parameters_of(document) {
        let name = parameter["name"].as_str().unwrap_or_default();
        let is_required = parameter["required"] == true || parameter["in"] == "path";
        let Some(value) = example(document, parameter) else {
            if is_required {
                return Err(format!("no example of {name}"));
            }
            continue;
        };
        let Some(text) = plain(&value) else { return Err(format!("the example of {name} is no plain value")) };
        let escaped = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
        match parameter["in"].as_str() {
            Some("path") => path = path.replace(&format!("{{{name}}}"), &escaped),
            Some("query") => query.push(format!("{name}={escaped}")),
            Some("header") => fields.push((name.to_owned(), text)),
            _ => {}
        }
    }
    if path.contains('{') {
        return Err("no example of a parameter of its path".into());
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let mut body = None;
    if words.get("body").is_some() {
        let content = it.words.get("requestBody").and_then(|it| document.resolve("", it).ok());
        let json = content.and_then(|(_, it)| members(it.get("content")).find(|(media, _)| media.contains("json")));
        let example = json.and_then(|(_, it)| example(document, it));
        match example {
            Some(it) => {
                fields.push(("content-type".into(), "application/json".into()));
                body = Some(it.to_string());
            }
            None if words["body"]["required"] == true => return Err("no example of its body".into()),
            None => {}
        }
    }
    Ok(Asked { method: it.method.clone(), path, headers: fields, body })
}

/// Of a parameter or a body: its own, or its schema's.
fn example(document: &Document, it: &Json) -> Option<Json> {
    let of = |it: &Json| {
        let named = || {
            let (_, first) = members(it.get("examples")).next()?;
            document.resolve("", first).ok()?.1.get("value").cloned()
        };
        let listed = || it.get("examples")?.as_array()?.first().cloned();
        it.get("example").cloned().or_else(named).or_else(listed)
    };
    let schema = || Some(document.resolve("", it.get("schema")?).ok()?.1);
    let of_schema = || {
        let schema = schema()?;
        let first = || schema.get("enum")?.as_array()?.first().cloned();
        of(schema).or_else(|| schema.get("default").cloned()).or_else(first)
    };
    of(it).or_else(of_schema)
}

fn plain(value: &Json) -> Option<String> {
    match value {
        Json::String(it) => Some(it.clone()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

async fn ask(authority: &str, asked: &Asked) -> anyhow::Result<(u16, String, Bytes)> {
    let asking = async {
        let target = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let stream = TcpStream::connect(&target).await.with_context(|| format!("connect to {target}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut running = JoinSet::new();
        running.spawn(async {
            // Its end shows in the answer.
            let _ = connection.await;
        });
        let mut request = Request::builder().method(asked.method.as_str()).uri(&asked.path).header("host", authority);
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(asked.body.clone().unwrap_or_default()));
        let (head, body) = sender.send_request(request.body(body)?).await?.into_parts();
        let media = head.headers.get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::Ok((head.status.as_u16(), media, body.to_bytes()))
    };
    timeout(ANSWER_TIME_MAX, asking).await.context("it took too long")?
}

fn judged(schemas: &Json, words: &Json, status: u16, media: &str, body: &[u8]) -> Result {
    let class = format!("{}XX", status / 100);
    let answers = words["responses"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |word: &str| answers.iter().find(|it| it["status"] == word);
    let Some(answer) = of(&status.to_string()).or_else(|| of(&class)).or_else(|| of("default")) else {
        return Result::Failed(format!("it answered {status}, which the document does not have"));
    };
    let content = answer["content"].as_array().map_or(&[][..], Vec::as_slice);
    if content.is_empty() || words["method"] == "HEAD" {
        return Result::Passed;
    }
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(content) = content.iter().find(|it| it["type"] == media.as_str() || it["type"] == "*/*") else {
        return Result::Failed(format!("it answered {status} with {media:?}, which the document does not have"));
    };
    let Some(schema) = content.get("schema").filter(|_| media.contains("json")) else { return Result::Passed };
    let value: Json = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return Result::Failed(format!("it answered {status} with what is no JSON: {error}")),
    };
    let root = json!({ "schemas": schemas, "answer": schema });
    let mut document = schema::Document::new(&root);
    let compiled = document.schema("/answer").and_then(|id| Ok((document.finish()?, id)));
    match compiled.map(|(schemas, id)| schemas.mistakes(id, &value, body.len())) {
        Ok(Some(mistakes)) if mistakes.is_empty() => Result::Passed,
        Ok(Some(mistakes)) => {
            Result::Failed(format!("it answered {status}, not as the schema says: {}", mistakes.join(", ")))
        }
        Ok(None) => Result::Skipped("its schema takes more work than the answer may cost".into()),
        Err(invalid) => Result::Skipped(format!("its schema cannot be checked: {invalid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r##"
openapi: 3.1.0
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      parameters:
        - { in: path, name: id, required: true, example: 7, schema: { type: integer } }
        - { in: query, name: fields, schema: { type: string, default: "a b" } }
      responses: { 200: { content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } } } }
    put:
      parameters: [{ in: path, name: id, required: true, schema: { enum: [9] } }]
      requestBody: { required: true, content: { application/json: { examples: { one: { value: { sku: a } } } } } }
  /blind/{id}:
    get: { parameters: [{ in: path, name: id, required: true, schema: { type: string } }] }
components: { schemas: { Order: { type: object, required: [sku] } } }
"##;

    #[test]
    fn examples_become_requests() {
        let document = Document::parse("x", SHOP).unwrap();
        let mut notes = Notes { lossy: true, told: Vec::new() };
        let mut named = Named::new(&document);
        let operations = operations::all(&document, &mut notes).unwrap();
        let mut made = Vec::new();
        for it in &operations {
            let words = it.words(&document, &mut named, it.path, true, &mut notes).unwrap();
            made.push(asked(&document, it, &words, "/v1", &["x-key: 1".into()]));
        }
        let key = ("x-key".to_owned(), "1".to_owned());
        let get = Asked {
            method: "GET".into(),
            path: "/v1/orders/7?fields=a%20b".into(),
            headers: vec![key.clone()],
            body: None,
        };
        let json = ("content-type".to_owned(), "application/json".to_owned());
        let put = Asked {
            method: "PUT".into(),
            path: "/v1/orders/9".into(),
            headers: vec![key, json],
            body: Some(r#"{"sku":"a"}"#.into()),
        };
        assert_eq!(made, [Ok(get), Ok(put), Err("no example of id".into())]);
    }

    #[tokio::test]
    async fn answers_are_held_against_the_document() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let schemas = json!({ "Order": { "required": ["sku"] } });
        let content = json!([{ "type": "application/json", "schema": { "$ref": "#/schemas/Order" } }]);
        let words =
            json!({ "method": "GET", "responses": [{ "status": "2XX", "content": content }, { "status": "404" }] });
        let request = Asked { method: "GET".into(), path: "/x".into(), headers: Vec::new(), body: None };
        for (head, body, expected) in [
            ("200 OK\r\ncontent-type: application/json; charset=utf-8", r#"{"sku": 1}"#, ""),
            ("201 Created\r\ncontent-type: application/json", "{}", "/sku: required"),
            ("200 OK\r\ncontent-type: application/json", "{", "no JSON"),
            ("200 OK\r\ncontent-type: text/html", "<p>", "text/html"),
            ("404 Not Found", "", ""),
            ("500 Oh", "", "it answered 500"),
        ] {
            let (answered, ()) = tokio::join!(ask(&authority, &request), async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 1024];
                let count = stream.read(&mut bytes).await.unwrap();
                assert!(bytes[..count].starts_with(b"GET /x HTTP/1.1\r\n"));
                let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            let (status, media, body) = answered.unwrap();
            match judged(&schemas, &words, status, &media, &body) {
                Result::Passed => assert_eq!(expected, "", "{head}"),
                Result::Failed(why) => assert!(!expected.is_empty() && why.contains(expected), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
