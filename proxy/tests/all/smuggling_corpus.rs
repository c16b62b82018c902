//! The corpus of `tests/smuggling.txt` between this gateway and three kinds of upstream: what one of them takes for a
//! request, with its method, target and body, is what the other one does.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::support::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const CORPUS: &str = include_str!("../smuggling.txt");
const CASES_MIN: usize = 120;
const END: &str = "GET /end HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

struct Case {
    name: &'static str,
    expected: Vec<Expected>,
    bytes: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Refused(u16),
    RefusedAndOn(u16),
    /// As the upstream has to see it: method, target, bytes of the body.
    Served(String),
    Aborted,
    /// Refused, or just not answered: what comes before it knows already that the connection is to end.
    Cut,
    /// The client's request ends the connection.
    End,
}

fn corpus() -> Vec<Case> {
    let cases = CORPUS.split("\n== ").skip(1).map(|text| {
        let (name, text) = text.split_once("\n-> ").unwrap();
        let (expected, text) = text.split_once('\n').unwrap();
        let text = text.trim_end_matches('\n').strip_suffix("--").unwrap();
        let expected = expected.split(", ").map(|it| match it {
            "abort" => Expected::Aborted,
            "cut" => Expected::Cut,
            "end" => Expected::End,
            status if status.len() == 3 => Expected::Refused(status.parse().unwrap()),
            status if status.len() == 4 && status.ends_with('+') => {
                Expected::RefusedAndOn(status[..3].parse().unwrap())
            }
            served => Expected::Served(served.into()),
        });
        Case { name, expected: expected.collect(), bytes: bytes(text) }
    });
    cases.collect()
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.split_terminator('\n') {
        let (line, end) = match line.strip_suffix('\\').filter(|line| !line.ends_with('\\')) {
            Some(line) => (line, ""),
            None => (line, "\r\n"),
        };
        let mut rest = line.chars();
        while let Some(it) = rest.next() {
            if it != '\\' {
                bytes.extend_from_slice(it.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            match rest.next().unwrap() {
                'r' => bytes.push(b'\r'),
                'n' => bytes.push(b'\n'),
                't' => bytes.push(b'\t'),
                '\\' => bytes.push(b'\\'),
                'x' => {
                    let hex: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&hex, 16).unwrap());
                }
                '{' => {
                    let run: String = rest.by_ref().take_while(|it| *it != '}').collect();
                    let (what, times) = run.split_once('*').unwrap();
                    bytes.extend(what.repeat(times.parse().unwrap()).bytes());
                }
                other => panic!("no escape {other} in {line}"),
            }
        }
        bytes.extend_from_slice(end.as_bytes());
    }
    bytes
}

/// What an upstream took for whole requests.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn add(&self, request: String) {
        self.0.lock().unwrap().push(request);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A library's server, which reads strictly.
async fn strict(seen: Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let saw = format!("{} {} {}", head.method, head.uri, body.len());
                    seen.add(saw.clone());
                    Ok::<_, hyper::Error>(
                        Response::builder().header("x-saw", saw).body(Full::new(Bytes::new())).unwrap(),
                    )
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Reads bytes, and takes note of whatever is not the one way to say it.
async fn capturing(seen: Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut stream = tokio::io::BufReader::new(stream);
                while let Some(saw) = capture(&mut stream).await {
                    seen.add(saw.clone());
                    let answer = format!("HTTP/1.1 200 OK\r\nx-saw: {saw}\r\ncontent-length: 0\r\n\r\n");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// None: the connection ends before the request does.
async fn capture(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let head = line_end(stream, b"\r\n\r\n").await?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let lines: Vec<&str> = text.trim_end_matches("\r\n").split("\r\n").collect();
    let clean = lines.iter().all(|line| {
        let is_plain = !line.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) && !line.starts_with([' ', '\t']);
        is_plain && (line == &lines[0] || line.split_once(':').is_some_and(|(name, _)| !name.ends_with([' ', '\t'])))
    });
    let values = |name: &str| -> Vec<&str> {
        let fields = lines[1..].iter().filter_map(|line| line.split_once(':'));
        fields.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    };
    let request_line: Vec<&str> = lines[0].split(' ').collect();
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => 0,
        ([length], []) => {
            let length = length.parse().ok().filter(|_| length.bytes().all(|b| b.is_ascii_digit()))?;
            stream.read_exact(&mut vec![0; length]).await.ok()?;
            length
        }
        ([], ["chunked"]) => chunked(stream).await?,
        other => return Some(format!("framed in two ways: {other:?}")),
    };
    match (clean, values("host").len(), &request_line[..]) {
        (true, 1, [method, target, "HTTP/1.1"]) => Some(format!("{method} {target} {body}")),
        _ => Some(format!("not as it must be: {text:?}")),
    }
}

async fn chunked(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<usize> {
    let mut whole = 0;
    loop {
        let line = line_end(stream, b"\r\n").await?;
        let size = usize::from_str_radix(std::str::from_utf8(&line[..line.len() - 2]).ok()?, 16).ok()?;
        if size == 0 {
            // Trailers, of which the gateway passes on what the request announced.
            while line_end(stream, b"\r\n").await? != b"\r\n" {}
            return Some(whole);
        }
        whole += size;
        stream.read_exact(&mut vec![0; size + 2]).await.ok()?;
    }
}

async fn line_end(stream: &mut (impl AsyncReadExt + Unpin), end: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(bytes)
}

/// The answers on one connection, each its status and what its upstream saw.
async fn answers(gateway: SocketAddr, bytes: &[u8]) -> Vec<(u16, Option<String>)> {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    // The gateway may have closed by then.
    let _ = stream.write_all(&[bytes, END.as_bytes()].concat()).await;
    let mut all = Vec::new();
    let _ = soon("the gateway closes the connection", stream.read_to_end(&mut all)).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    let mut answers = Vec::new();
    for answer in all.replace("HTTP/1.0 ", "HTTP/1.1 ").split("HTTP/1.1 ").skip(1) {
        let head = answer.split("\r\n\r\n").next().unwrap();
        let saw = head.lines().find_map(|line| line.strip_prefix("x-saw: ")).map(str::to_string);
        // A refusal may name a version too.
        let status: Option<u16> = head.get(..3).and_then(|status| status.parse().ok());
        if let Some(status) = status.filter(|status| *status != 100) {
            answers.push((status, saw));
        }
    }
    answers
}

/// `seen`: takes what the upstream saw since it was last asked, told how many requests were answered.
async fn check(upstream: &str, target: SocketAddr, seen: impl AsyncFn(usize) -> Vec<String>) {
    let gateway = Gateway::start(forward_all(target));
    let mut wrong = Vec::new();
    for case in corpus() {
        let answers = answers(gateway.address, &case.bytes).await;
        let served = answers.iter().filter(|(_, saw)| saw.is_some()).count();
        // Their order is that of the answers: an upstream may tell of a request after the next one.
        let mut saw = seen(served).await;
        saw.sort();
        let mut want: Vec<(u16, Option<String>)> = Vec::new();
        for expected in &case.expected {
            match expected {
                Expected::Refused(status) | Expected::RefusedAndOn(status) => want.push((*status, None)),
                Expected::Served(what) => want.push((200, Some(what.clone()))),
                Expected::Aborted | Expected::Cut | Expected::End => (),
            }
        }
        let ends = matches!(
            case.expected.last(),
            Some(Expected::Refused(_) | Expected::Aborted | Expected::Cut | Expected::End)
        );
        if !ends {
            want.push((200, Some("GET /end 0".into())));
        }
        let as_expected = match case.expected[..] {
            // Whether the answer comes before the end of the connection is a matter of time.
            [Expected::Aborted] => answers.iter().all(|(status, saw)| *status >= 400 && saw.is_none()),
            [.., Expected::Cut] if answers.len() > want.len() => {
                answers[..want.len()] == want && answers[want.len()..] == [(400, None)]
            }
            _ => answers == want,
        };
        let mut of_upstream: Vec<String> = want.into_iter().filter_map(|(_, saw)| saw).collect();
        of_upstream.sort();
        if !as_expected || saw != of_upstream {
            wrong.push(format!("{}: answered {answers:?}, the upstream saw {saw:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "with {upstream}:\n{}", wrong.join("\n"));
}

#[test]
fn the_corpus_is_large_and_says_each_case_once() {
    let cases = corpus();
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert!(cases.len() >= CASES_MIN && names.len() == cases.len(), "{} cases, {} names", cases.len(), names.len());
}

#[tokio::test]
async fn a_strict_upstream_sees_what_the_gateway_sees() {
    let seen = Seen::default();
    check("a library's server", strict(seen.clone()).await, async |_| seen.take()).await;
}

#[tokio::test]
async fn an_upstream_that_looks_at_bytes_sees_what_the_gateway_sees() {
    let seen = Seen::default();
    check("bytes", capturing(seen.clone()).await, async |_| seen.take()).await;
}

struct Nginx {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// None: it is not installed.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = folder.path().display();
        // The first server reads each request to its end before the second one, which tells of it, hears of it.
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at}; \
             uwsgi_temp_path {at}; scgi_temp_path {at}; map $content_length $bytes {{ default $content_length; '' 0; }} \
             log_format saw '$request_method $request_uri $bytes'; \
             server {{ listen {address}; location / {{ proxy_pass http://unix:{at}/second.sock; }} }} \
             server {{ listen unix:{at}/second.sock; location / {{ access_log {at}/saw.log saw; \
             add_header x-saw '$request_method $request_uri $bytes' always; return 200; }} }} }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        std::fs::write(folder.path().join("saw.log"), "").unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let nginx =
            std::env::split_paths(&format!("{path}:/usr/sbin")).map(|it| it.join("nginx")).find(|it| it.exists())?;
        let conf = folder.path().join("nginx.conf");
        let process = Command::new(nginx)
            .args(["-p", &at.to_string(), "-c", &conf.display().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { process, address, folder };
        until("nginx listens", || std::net::TcpStream::connect(address).ok()).await;
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn nginx_sees_what_the_gateway_sees() {
    let Some(nginx) = Nginx::start().await else {
        println!("nginx is not installed: nothing was compared with it");
        return;
    };
    let log = nginx.folder.path().join("saw.log");
    let read = std::cell::Cell::new(0);
    // It writes a line once the request has ended for it, which may be after the answer.
    let seen = async |served: usize| {
        let lines = until("nginx has told of all that it answered", || {
            let text = std::fs::read_to_string(&log).unwrap();
            let whole = text[read.get()..].rfind('\n').map_or(0, |end| end + 1);
            let lines: Vec<String> = text[read.get()..][..whole].lines().map(str::to_string).collect();
            (lines.len() >= served).then_some((lines, whole))
        });
        let (lines, whole) = lines.await;
        read.set(read.get() + whole);
        lines
    };
    check("nginx", nginx.address, seen).await;
}
