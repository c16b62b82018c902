//! Models over real sockets, with providers in this process that count what they charge for.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use quorumgate_model::{
    ledger::command::{Kind, Mode},
    resource::Every,
    state::State,
};
use quorumgate_proxy::{Settings, identity::directory::Opened, limits::Keys};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{limits, support::*};

/// What the gateway reckons with beside the bytes of a request.
const AROUND: u64 = 256;
const CHAT: &str = "/v1/chat/completions";
const KEY: &str = "sealed:0123456789abcdef";

/// A provider: answers with `say=N` tokens of its prompt, or as many as it may, and counts them.
#[derive(Clone, Default)]
struct Provider(Arc<Books>);

#[derive(Default)]
struct Books {
    /// Tokens that were read and made, of streams that were left too.
    charged: AtomicU64,
    asked: Mutex<Vec<(HeaderMap, Value)>>,
    /// What it says instead.
    fails: Mutex<Option<StatusCode>>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Provider {
    fn charged(&self) -> u64 {
        self.0.charged.load(Relaxed)
    }

    fn last(&self) -> (HeaderMap, Value) {
        self.0.asked.lock().unwrap().last().cloned().unwrap()
    }

    fn count(&self) -> usize {
        self.0.asked.lock().unwrap().len()
    }

    async fn listen(&self) -> SocketAddr {
        let this = self.clone();
        upstream(move |request| {
            let this = this.clone();
            async move { this.answer(request).await }
        })
        .await
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        self.0.asked.lock().unwrap().push((parts.headers, asked.clone()));
        if let Some(status) = *self.0.fails.lock().unwrap() {
            return whole(status, &json!({"error": {"message": "our-key is wrong"}}));
        }
        let path = parts.uri.path();
        let said = if asked["input"].is_null() { &asked["messages"][0]["content"] } else { &asked["input"] };
        let prompt = said.as_str().unwrap().to_owned();
        let number = |word: &str| prompt.split(' ').find_map(|it| it.strip_prefix(word)?.parse::<u64>().ok());
        let input = prompt.split(' ').count() as u64;
        let most = asked["max_tokens"].as_u64().or(asked["max_output_tokens"].as_u64()).unwrap_or(u64::MAX);
        let output = number("say=").unwrap_or(5).min(number("most=").unwrap_or(most));
        let is_anthropic = path.ends_with("/messages");
        self.0.charged.fetch_add(input, Relaxed);
        if path.ends_with("/embeddings") {
            let usage = json!({"prompt_tokens": input, "total_tokens": input});
            return whole(StatusCode::OK, &json!({"data": [{"embedding": [0.5]}], "usage": usage}));
        }
        if asked["stream"] != json!(true) {
            self.0.charged.fetch_add(output, Relaxed);
            let usage = match path.ends_with("/completions") {
                false => json!({"input_tokens": input, "output_tokens": output}),
                true => json!({"prompt_tokens": input, "completion_tokens": output}),
            };
            let said = vec!["word"; output as usize].join(" ");
            return whole(StatusCode::OK, &json!({"choices": [{"message": {"content": said}}], "usage": usage}));
        }
        let events = match is_anthropic {
            true => messages(input, output),
            false if path.ends_with("/responses") => response(input, output),
            false => completion(input, output, asked["stream_options"]["include_usage"] == json!(true)),
        };
        let events: Vec<_> = events.into_iter().take(number("cut=").map_or(usize::MAX, |it| it as usize)).collect();
        let stays_at = number("stay=");
        let (this, said) = (self.clone(), number("as=").map(|n| format!("n{n}")));
        let events = stream::unfold((events.into_iter(), 0), move |(mut events, made)| {
            let (this, said) = (this.clone(), said.clone());
            async move {
                if Some(made) == stays_at {
                    std::future::pending::<()>().await;
                }
                let (text, tokens) = events.next()?;
                this.0.charged.fetch_add(tokens, Relaxed);
                let text = said.map_or(text.clone(), |said| text.replace("word", &said));
                Some((Ok(Frame::data(Bytes::from(text))), (events, made + tokens)))
            }
        });
        let body = UnsyncBoxBody::new(StreamBody::new(events));
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    }
}

/// In one piece.
fn whole(status: StatusCode, json: &Value) -> Answer {
    let body = UnsyncBoxBody::new(Full::new(Bytes::from(json.to_string())));
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

/// Events as OpenAI frames them, with the tokens that each is charged for. They come in pieces that are no events.
fn completion(input: u64, output: u64, tells: bool) -> Vec<(String, u64)> {
    let mut events = Vec::new();
    let null = if tells { ",\"usage\":null" } else { "" };
    for _ in 0..output {
        events.push(("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":".to_owned(), 0));
        events.push((format!("\"word \"}}}}]{null}}}\n\n"), 1));
    }
    let usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
    if tells {
        events.push((format!("data: {{\"choices\":[],\"usage\":{usage}}}\n"), 0));
        events.push(("\ndata: [DO".to_owned(), 0));
    } else {
        events.push(("data: [DO".to_owned(), 0));
    }
    events.push(("NE]\n\n".to_owned(), 0));
    events
}

fn messages(input: u64, output: u64) -> Vec<(String, u64)> {
    let event = |kind: &str, mut data: Value, tokens: u64| {
        data["type"] = json!(kind);
        (format!("event: {kind}\ndata: {data}\n\n"), tokens)
    };
    let start = json!({"message": {"usage": {"input_tokens": input, "output_tokens": 1}}});
    let mut events = vec![event("message_start", start, 0)];
    events
        .extend((0..output).map(|_| event("content_block_delta", json!({"index": 0, "delta": {"text": "word "}}), 1)));
    events.push(event("message_delta", json!({"delta": {}, "usage": {"output_tokens": output}}), 0));
    events.push(event("message_stop", json!({}), 0));
    events
}

/// Events of the Responses API: its last one says what it has cost.
fn response(input: u64, output: u64) -> Vec<(String, u64)> {
    let event = |kind: &str, mut data: Value, tokens: u64| {
        data["type"] = json!(kind);
        (format!("event: {kind}\ndata: {data}\n\n"), tokens)
    };
    let piece = json!({"item_id": "i", "output_index": 0, "content_index": 0, "delta": "word "});
    let text = json!([{"content": [{"type": "output_text", "text": "word ".repeat(output as usize)}]}]);
    let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    let mut events = vec![event("response.created", json!({"response": {"status": "in_progress", "usage": null}}), 0)];
    events.extend((0..output).map(|_| event("response.output_text.delta", piece.clone(), 1)));
    events.push(event("response.completed", json!({"response": {"output": text, "usage": usage}}), 0));
    events
}

/// A route to models of one or two providers, each with its key.
struct World {
    gateway: Gateway,
    first: Provider,
    second: Provider,
}

async fn world(policy: Value, limit: Option<Value>) -> World {
    with_ledger(settings(), policy, limit, |_| ()).await
}

async fn with_ledger(settings: Settings, policy: Value, limit: Option<Value>, define: impl Fn(&mut State)) -> World {
    let (first, second) = (Provider::default(), Provider::default());
    let mut ai = json!({
        "provider": "openai",
        "max_tokens_default": 20,
        "max_tokens_max": 100,
        "models": [{"name": "small", "targets": [
            {"model": "first-1", "upstream": "first", "input_price": 2_000_000, "output_price": 10_000_000},
            {"model": "second-1", "upstream": "second", "priority": 1},
        ]}],
    });
    policy.as_object().unwrap().iter().for_each(|(name, value)| ai[name] = value.clone());
    let names: Vec<_> = limit.iter().map(|it| it["name"].clone()).collect();
    let key = |header: &str| json!({"header": header, "key": KEY});
    let words = json!({
        "consumers": [{"name": "acme"}],
        "auth": [
            {"name": "keys", "api_key": {}},
            {"name": "to-first", "upstream_key": key("authorization")},
            {"name": "to-second", "upstream_key": key("x-api-key")},
        ],
        "upstreams": [
            {"name": "first", "targets": [first.listen().await.to_string()], "auth": "to-first"},
            {"name": "second", "targets": [second.listen().await.to_string()], "auth": "to-second"},
        ],
        "limits": limit.iter().collect::<Vec<_>>(),
        "policies": [{"name": "chat", "ai": ai}],
        "routes": [{"name": "models", "match": {"path_prefix": "/v1"}, "upstream": "first", "policies": ["chat"],
                    "auth": {"any_of": ["keys"], "anonymous": "acme"}, "on_stale": "allow", "limits": names}],
    });
    let mut state = state(words);
    define(&mut state);
    let limits = Arc::<quorumgate_proxy::Limits>::default();
    limits.publish(&state);
    let rules = Arc::new(quorumgate_model::ruleset::Ruleset::compile(&state, None));
    let gateway = Gateway::with_limits(settings, rules, limits);
    let key = (KEY.strip_prefix("sealed:").unwrap().parse().unwrap(), b"our-key".as_slice().into());
    let opened = Opened { of_resources: BTreeMap::from([key]), ..Opened::default() };
    gateway.proxy.directory().publish(&state, Arc::new(opened));
    if !state.ledger.names.is_empty() {
        limits::lead_by(gateway.proxy.limits(), state.ledger.clone(), 3_600);
        limits::with_session(&gateway).await;
    }
    World { gateway, first, second }
}

fn local(budget: u64) -> Value {
    json!({"name": "tokens", "per": "consumer", "limit": budget, "window": "1h", "mode": "local",
           "cost": {"ai_tokens": "total"}})
}

fn request(prompt: &str, more: Value) -> String {
    let mut body = json!({"model": "small", "messages": [{"role": "user", "content": prompt}]});
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body.to_string()
}

impl World {
    async fn post(&self, path: &str, body: &str) -> String {
        let length = format!("content-length: {}", body.len());
        let fields = [
            &*length,
            "content-type: application/json",
            "authorization: Bearer clients-own",
            "api-key: clients-own",
            "x-goog-api-key: clients-own",
            "openai-organization: clients-own",
            "openai-project: clients-own",
            "cookie: clients=own",
            "idempotency-key: 7",
        ];
        ask(self.gateway.address, &format!("POST {path}"), &fields, body).await
    }

    async fn chat(&self, prompt: &str, more: Value) -> String {
        self.post(CHAT, &request(prompt, more)).await
    }

    /// Leaves once three words have come.
    async fn chat_and_leave(&self, prompt: &str, more: Value) {
        self.chat_and_leave_at(3, prompt, more).await;
    }

    async fn chat_and_leave_at(&self, words: usize, prompt: &str, more: Value) {
        let body = request(prompt, more);
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = TcpStream::connect(self.gateway.address).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while String::from_utf8_lossy(&heard).matches("word").count() < words {
            assert!(
                soon("words", stream.read_buf(&mut heard)).await.unwrap() > 0,
                "{}",
                String::from_utf8_lossy(&heard)
            );
        }
    }

    /// As the limit of mode `local` has it.
    fn used(&self) -> u64 {
        let usage = self.gateway.proxy.limits().usage("tokens", Keys::Top(9)).unwrap();
        usage.keys.iter().map(|it| it.used).sum()
    }

    async fn settled(&self, told: u64, estimated: u64) {
        for (settled, count) in [("told", told), ("estimated", estimated)] {
            let series = format!("quorumgate_ai_requests_total{{model=\"small\",settled=\"{settled}\"}}");
            self.gateway.metric_becomes(&series, count).await;
        }
    }
}

#[tokio::test]
async fn a_request_goes_on_with_the_providers_model_and_our_key() {
    let world = world(json!({"body_max": "1KiB"}), None).await;
    let answer = world.chat("a b c", json!({"temperature": 0.5, "max_completion_tokens": 5_000})).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let (headers, asked) = world.first.last();
    let expected = json!({"model": "first-1", "messages": [{"role": "user", "content": "a b c"}], "temperature": 0.5,
                          "max_tokens": 100});
    assert_eq!(asked, expected);
    assert_eq!(headers["authorization"], "Bearer our-key");
    assert_eq!(headers["accept-encoding"], "identity");
    for gone in ["api-key", "x-goog-api-key", "openai-organization", "openai-project", "cookie", "idempotency-key"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    world.settled(1, 0).await;
    let used = world.gateway.proxy.ai_usage();
    let row = &used[0];
    assert_eq!((used.len(), &*row.consumer, &*row.model, &*row.target), (1, "acme", "small", "first-1"));
    // 3 tokens at 2 and 5 at 10 millionths each.
    assert_eq!((row.requests, row.input_tokens, row.output_tokens, row.cost_micros), (1, 3, 5, 56));
    assert_eq!(world.gateway.metric("quorumgate_ai_tokens_total{model=\"small\",kind=\"output\"}"), 5);

    for (method, path, body, status, code) in [
        ("POST", CHAT, request("x", json!({"model": "other"})), 400, "validation_failed"),
        ("POST", CHAT, "{}".into(), 400, "validation_failed"),
        ("POST", CHAT, "x".repeat(2_000), 413, "content_too_large"),
        // What these cost nobody has reckoned.
        ("POST", "/v1/completions", request("x", json!({})), 400, "validation_failed"),
        ("POST", "/v1/responses", request("x", json!({})), 400, "validation_failed"),
        ("POST", "/v1/messages", request("x", json!({})), 400, "validation_failed"),
        ("GET", "/v1/models", String::new(), 405, "method_not_allowed"),
    ] {
        let length = format!("content-length: {}", body.len());
        let answer = ask(world.gateway.address, &format!("{method} {path}"), &[&length], &body).await;
        check_problem(&answer, status, code);
    }
    assert_eq!(world.first.count(), 1);
}

#[tokio::test]
async fn a_stream_is_counted_and_says_what_it_cost_to_those_who_ask() {
    let world = world(json!({}), Some(local(100_000))).await;
    let silent = world.chat("a b", json!({"stream": true})).await;
    assert_eq!(field(&silent, "content-type"), Some("text/event-stream"));
    assert_eq!(silent.matches("\"word \"").count(), 5, "{silent}");
    assert!(silent.contains("data: [DONE]\n\n") && !silent.contains("total_tokens"), "{silent}");
    assert_eq!(world.first.last().1["stream_options"], json!({"include_usage": true}));
    let told = world.chat("a b", json!({"stream": true, "stream_options": {"include_usage": true}})).await;
    assert!(told.contains("\"total_tokens\":7"), "{told}");
    world.settled(2, 0).await;
    assert_eq!((world.used(), world.first.charged()), (14, 14));
}

#[tokio::test]
async fn a_hundred_streams_at_once_stay_within_the_budget_to_the_token() {
    // Ten are left on their way. What the hundred say is more than is left then.
    const BUDGET: u64 = 10_000;
    const LEFT: u64 = 10;
    let calendar = json!({"name": "tokens", "kind": "calendar", "per": "consumer", "limit": BUDGET, "every": "hour",
                          "grant_wait": "20s", "cost": {"ai_tokens": "total"}});
    for is_local in [true, false] {
        let world = match is_local {
            true => world(json!({}), Some(local(BUDGET))).await,
            false => {
                let define = |state: &mut State| {
                    let kind = Kind::Calendar { limit: BUDGET, every: Every::Hour };
                    limits::define(state, "tokens", kind, Mode::Leased);
                };
                with_ledger(settings(), json!({}), Some(calendar.clone()), define).await
            }
        };
        let more = json!({"stream": true, "max_tokens": 100});
        // Of those that are left nobody says what they cost: all that was taken for them stays taken.
        let prompt = "a b stay=3 say=50";
        let of_left = LEFT * (request(prompt, more.clone()).len() as u64 + AROUND + 100);
        join_all((0..LEFT).map(|_| world.chat_and_leave(prompt, more.clone()))).await;
        world.settled(0, LEFT).await;
        let of_left_charged = world.first.charged();
        assert_eq!(of_left_charged, LEFT * (4 + 3));

        let prompts: Vec<_> = (0..100).map(|n| format!("a b c say={}", 20 + n % 90)).collect();
        let answers = join_all(prompts.iter().map(|prompt| world.chat(prompt, more.clone()))).await;
        let admitted = answers.iter().filter(|it| status(it) == 200).count() as u64;
        assert!(answers.iter().all(|it| matches!(status(it), 200 | 429)));
        assert!((5..100).contains(&admitted), "{admitted} of a hundred at once");
        world.settled(admitted, LEFT).await;
        let told = || world.first.charged() - of_left_charged;
        if is_local {
            assert_eq!(world.used(), told() + of_left, "the ledger agrees with the provider");
        }

        // What came back is there for others, and nothing else.
        let (mut more_admitted, mut refused) = (0, 0);
        while refused == 0 {
            match status(&world.chat("a b c say=100", more.clone()).await) {
                200 => more_admitted += 1,
                429 => refused += 1,
                other => panic!("{other}"),
            }
            world.settled(admitted + more_admitted, LEFT).await;
        }
        let total = told() + of_left;
        let reserve = request("a b c say=100", more).len() as u64 + AROUND + 100;
        assert!(total <= BUDGET, "{total}");
        assert!(BUDGET - total < reserve, "{total}: as much as was not spent can be");
        let rows = world.gateway.proxy.ai_usage();
        let tokens: u64 = rows.iter().map(|it| it.input_tokens + it.output_tokens).sum();
        assert_eq!((rows.len(), tokens), (1, total));
        let counts = (rows[0].requests, rows[0].estimated);
        assert_eq!(counts, (admitted + more_admitted + LEFT, LEFT));
    }
}

#[tokio::test]
async fn a_stream_without_its_last_word_is_not_believed() {
    let world = world(json!({}), Some(local(100_000))).await;
    // Two pieces for each of five words, then what it has cost, and not the end.
    let answer = world.chat("a b cut=12", json!({"stream": true})).await;
    assert!(status(&answer) == 200 && !answer.contains("[DONE]"), "{answer}");
    world.settled(0, 1).await;
    assert_eq!((world.used(), world.first.charged()), (3 + 20, 3 + 5), "its input was told");
}

#[tokio::test]
async fn a_mirror_gets_nothing_of_what_models_are_asked() {
    let (provider, mirror) = (Provider::default(), Provider::default());
    let models = json!([{"name": "small", "targets": [{"model": "m"}]}]);
    let words = json!({
        "upstreams": [{"name": "models", "targets": [provider.listen().await.to_string()]},
                      {"name": "shadow", "targets": [mirror.listen().await.to_string()]}],
        "policies": [{"name": "chat", "ai": {"provider": "openai", "models": models}}],
        "routes": [
            {"name": "chat", "match": {"path_prefix": "/v1"}, "upstream": "models", "policies": ["chat"],
             "mirror": {"upstream": "shadow"}},
            {"name": "plain", "match": {"path_prefix": "/plain"}, "upstream": "models", "mirror": {"upstream": "shadow"}},
        ],
    });
    let world = World { gateway: Gateway::start(words), first: provider, second: mirror };
    assert_eq!(status(&world.chat("a", json!({})).await), 200);
    // Where there are no models it gets what it is for, and nothing came before that.
    assert_eq!(status(&world.post("/plain", &request("the first", json!({}))).await), 200);
    until("the copy", || (world.second.count() > 0).then_some(())).await;
    assert_eq!(world.second.last().1["messages"][0]["content"], "the first");
    assert_eq!(world.second.count(), 1);
}

#[tokio::test]
async fn what_a_request_may_cost_is_taken_before_it_is_sent() {
    let body = request("a", json!({"max_tokens": 50}));
    let reserve = body.len() as u64 + AROUND + 50;
    let world = world(json!({}), Some(local(reserve))).await;
    // One token more than there is.
    let answer = world.chat("a", json!({"max_tokens": 51})).await;
    check_problem(&answer, 429, "rate_limited");
    assert_eq!((world.used(), world.first.count()), (0, 0));
    assert_eq!(status(&world.post(CHAT, &body).await), 200);
    world.settled(1, 0).await;
    assert_eq!(world.used(), 6);
    // By input or output alone.
    for (kind, cost) in [("input", body.len() as u64 + AROUND), ("output", 50)] {
        let limit = |budget: u64| {
            let mut limit = local(budget);
            limit["cost"] = json!({"ai_tokens": kind});
            Some(limit)
        };
        let enough = self::world(json!({}), limit(cost)).await;
        assert_eq!(status(&enough.post(CHAT, &body).await), 200, "{kind}");
        let short = self::world(json!({}), limit(cost - 1)).await;
        assert_eq!(status(&short.post(CHAT, &body).await), 429, "{kind}");
    }
}

#[tokio::test]
async fn a_limit_in_tokens_lets_nobody_through_where_nobody_counts_them() {
    let mut words = forward_all("127.0.0.1:9".parse().unwrap());
    words["limits"] = json!([local(100)]);
    words["routes"][0]["limits"] = json!(["tokens"]);
    let gateway = limits::gateway(&state(words));
    check_problem(&ask(gateway.address, "GET /", &[], "").await, 500, "broken_rule");
}

#[tokio::test]
async fn messages_of_anthropic_are_counted_by_their_own_events() {
    let world = world(json!({"provider": "anthropic"}), Some(local(100_000))).await;
    let answer = world.post("/v1/messages", &request("a b", json!({"stream": true}))).await;
    assert!(answer.contains("event: message_stop"), "{answer}");
    let answer = world.post("/v1/messages", &request("a b", json!({}))).await;
    assert_eq!(status(&answer), 200);
    assert_eq!(world.first.last().1["max_tokens"], 20);
    world.settled(2, 0).await;
    assert_eq!((world.used(), world.first.charged()), (14, 14));
}

/// For `/responses` and `/embeddings`.
fn input(prompt: &str, more: Value) -> String {
    let mut body = json!({"model": "small", "input": prompt});
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body.to_string()
}

#[tokio::test]
async fn responses_are_counted_by_their_last_event_and_embeddings_by_what_was_read() {
    let policy = json!({"prompt_deny": ["(?i)secret plan"], "response_deny": ["n1 n1 n1"]});
    let world = world(policy, Some(local(100_000))).await;
    let answer = world.post("/v1/responses", &input("a b", json!({"stream": true, "max_output_tokens": 3}))).await;
    assert!(answer.contains("event: response.completed") && answer.contains("\"total_tokens\":5"), "{answer}");
    let (headers, asked) = world.first.last();
    let expected = json!({"model": "first-1", "input": "a b", "stream": true, "max_output_tokens": 3});
    assert_eq!((&asked, headers["authorization"].as_bytes()), (&expected, &b"Bearer our-key"[..]));
    assert_eq!(status(&world.post("/v1/responses", &input("a b say=50", json!({}))).await), 200);
    assert_eq!(world.first.last().1["max_output_tokens"], 20);
    let answer = world.post("/v1/embeddings", &input("a b c d", json!({"dimensions": 8}))).await;
    assert!(status(&answer) == 200 && answer.contains("embedding"), "{answer}");
    assert_eq!(world.first.last().1, json!({"model": "first-1", "input": "a b c d", "dimensions": 8}));
    world.settled(3, 0).await;
    assert_eq!((world.used(), world.first.charged()), (5 + 23 + 4, 5 + 23 + 4));

    for path in ["/v1/responses", "/v1/embeddings"] {
        let denied = world.post(path, &input("the Secret Plan", json!({}))).await;
        assert_eq!(problem(&denied)["errors"][0]["pointer"], "/input", "{denied}");
        check_problem(&world.post(path, &input("a", json!({"model": "first-1"}))).await, 400, "validation_failed");
        // The next one is asked in the same way.
        *world.first.0.fails.lock().unwrap() = Some(StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(status(&world.post(path, &input("a", json!({}))).await), 200);
        assert_eq!(world.second.last().1["model"], "second-1");
        *world.first.0.fails.lock().unwrap() = None;
    }
    let cut = world.post("/v1/responses", &input("a as=1 say=20", json!({"stream": true}))).await;
    assert!(cut.contains("event: error\n") && !cut.contains("response.completed"), "{cut}");
    // A stream that breaks off costs what was reserved.
    world.settled(5, 1).await;
    let before = world.used();
    let body = input("a b cut=4", json!({"stream": true}));
    assert!(!world.post("/v1/responses", &body).await.contains("response.completed"));
    world.settled(5, 2).await;
    assert_eq!(world.used() - before, body.len() as u64 + AROUND + 20);
}

#[tokio::test]
async fn no_other_path_escapes_the_budget() {
    let world = world(json!({}), Some(local(100_000))).await;
    let body = request("a", json!({}));
    for path in [
        "/v1/completions",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/images/generations",
        "/v1/batches",
        "/v1/messages",
        "/v1/moderations",
        "/v1/chat/completions/",
        "/v1/Chat/Completions",
        "/v1/CHAT/COMPLETIONS",
        "/v1/chat/completions;v=1",
        "/v1/chat/completions%00",
        "/v1/chat%2Fcompletions",
        "/v1/responses/compact",
        "/v1/responses/r_1/cancel",
        "/v1/embeddings/x",
    ] {
        let answer = world.post(path, &body).await;
        assert!(matches!(status(&answer), 400 | 404), "{path}: {answer}");
    }
    for (line, code) in [
        ("GET /v1/chat/completions", 405),
        ("HEAD /v1/chat/completions", 405),
        ("PUT /v1/chat/completions", 405),
        ("DELETE /v1/responses", 405),
        ("GET /v1/realtime", 405),
        ("GET /v1/responses/r_1", 405),
    ] {
        let answer = ask(world.gateway.address, line, &[], "").await;
        assert_eq!(status(&answer), code, "{line}: {answer}");
    }
    let upgrade = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    assert_eq!(status(&ask(world.gateway.address, "GET /v1/realtime", &upgrade, "").await), 405);
    assert_eq!((world.first.count(), world.second.count(), world.used()), (0, 0, 0));

    // Spellings of a path that is counted are that path, for the provider too.
    for path in ["/v1/chat/%63ompletions", "/v1/x/../chat/completions", "/v1/chat/completions?a=b"] {
        assert_eq!(status(&world.post(path, &body).await), 200, "{path}");
    }
    // What servers may go by instead does not go on.
    let length = format!("content-length: {}", body.len());
    let others = [
        "x-original-url: /v1/completions",
        "x-rewrite-url: /v1/completions",
        "x-http-method-override: GET",
        "x-http-method: GET",
        "x-method-override: GET",
    ];
    let fields: Vec<_> = others.into_iter().chain([&*length]).collect();
    assert_eq!(status(&ask(world.gateway.address, &format!("POST {CHAT}"), &fields, &body).await), 200);
    let headers = world.first.last().0;
    assert!(others.iter().all(|it| !headers.contains_key(it.split(':').next().unwrap())), "{headers:?}");
    world.settled(4, 0).await;
    assert_eq!(world.used(), world.first.charged());
}

#[tokio::test]
async fn a_provider_that_makes_more_than_it_was_let_is_told_and_paid_for_by_the_next() {
    let world = world(json!({}), Some(local(1_000))).await;
    // 20 are reserved; it makes 900.
    assert_eq!(status(&world.chat("a b c say=900 most=900", json!({"stream": true})).await), 200);
    world.settled(1, 0).await;
    assert_eq!((world.used(), world.first.charged()), (905, 905));
    world.gateway.metric_becomes("quorumgate_ai_overruns_total{model=\"small\"}", 1).await;
    check_problem(&world.chat("a", json!({})).await, 429, "rate_limited");
    assert_eq!((world.used(), world.first.count()), (905, 1));
}

#[tokio::test]
async fn what_was_usual_lately_bounds_no_strict_request() {
    let one = Settings { workers: 1, ..settings() };
    let world = with_ledger(one, json!({}), Some(local(100_000)), |_| ()).await;
    for told in 1..=20 {
        assert_eq!(status(&world.chat("a say=5", json!({})).await), 200);
        world.settled(told, 0).await;
    }
    // Five are usual. It is let make a hundred all the same, and all of them were taken before.
    let body = request("a say=100", json!({"max_tokens": 100}));
    let reserve = body.len() as u64 + AROUND + 100;
    let short = self::world(json!({}), Some(local(reserve - 1))).await;
    assert_eq!(status(&short.post(CHAT, &body).await), 429);
    assert_eq!(status(&world.post(CHAT, &body).await), 200);
    assert_eq!(world.first.last().1["max_tokens"], 100);
    world.settled(21, 0).await;
    assert_eq!(world.used(), world.first.charged());
}

#[tokio::test]
async fn who_cannot_answer_is_followed_by_the_next_and_costs_nothing() {
    let world = world(json!({}), Some(local(100_000))).await;
    for fails in [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR] {
        *world.first.0.fails.lock().unwrap() = Some(fails);
        let answer = world.chat("a b c", json!({"stream": true})).await;
        assert_eq!(status(&answer), 200, "{fails}");
    }
    let (headers, asked) = world.second.last();
    assert_eq!((&asked["model"], headers.get("authorization")), (&json!("second-1"), None));
    assert_eq!(headers["x-api-key"], "our-key");
    world.settled(2, 0).await;
    assert_eq!((world.used(), world.second.charged()), (16, 16));
    // What came between may say so while the provider is at it: nobody else is asked, and all stays taken.
    let before = world.second.count();
    for (told, fails) in [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT].into_iter().enumerate() {
        *world.first.0.fails.lock().unwrap() = Some(fails);
        assert_eq!(status(&world.chat("a b c", json!({})).await), fails.as_u16());
        world.settled(2, told as u64 + 1).await;
    }
    let taken = 2 * (request("a b c", json!({})).len() as u64 + AROUND + 20);
    assert_eq!((world.second.count(), world.used()), (before, 16 + taken));
    // The last one's answer is the client's, and none of them is charged for.
    *world.first.0.fails.lock().unwrap() = Some(StatusCode::INTERNAL_SERVER_ERROR);
    *world.second.0.fails.lock().unwrap() = Some(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(&world.chat("a b c", json!({})).await), 503);
    // What is wrong with the request is wrong everywhere.
    *world.first.0.fails.lock().unwrap() = Some(StatusCode::BAD_REQUEST);
    let before = world.second.count();
    assert_eq!(status(&world.chat("a b c", json!({})).await), 400);
    assert_eq!(world.second.count(), before);
    // What it says of our key is between it and us.
    *world.first.0.fails.lock().unwrap() = Some(StatusCode::UNAUTHORIZED);
    let answer = world.chat("a b c", json!({})).await;
    check_problem(&answer, 502, "upstream_protocol_error");
    assert!(!answer.contains("our-key"), "{answer}");
    world.settled(5, 2).await;
    assert_eq!(world.used(), 16 + taken);
    let targets: Vec<_> = world.gateway.proxy.ai_usage().into_iter().map(|it| (it.target, it.requests)).collect();
    assert_eq!(targets, [("first-1".to_owned(), 4), ("second-1".to_owned(), 3)]);
}

#[tokio::test]
async fn who_cannot_be_reached_is_followed_by_the_next() {
    let nobody = "127.0.0.1:9";
    let second = Provider::default();
    let target = |upstream: &str, priority: u32| json!({"model": upstream, "upstream": upstream, "priority": priority});
    let models = json!([
        {"name": "small", "targets": [target("nobody", 0), target("second", 1)]},
        {"name": "none", "targets": [target("nobody", 0)]},
    ]);
    let words = json!({
        "upstreams": [{"name": "nobody", "targets": [nobody]},
                      {"name": "second", "targets": [second.listen().await.to_string()]}],
        "limits": [local(100_000)],
        "policies": [{"name": "chat", "ai": {"provider": "openai", "models": models}}],
        "routes": [{"name": "models", "upstream": "nobody", "policies": ["chat"], "limits": ["tokens"]}],
    });
    let gateway = limits::gateway(&state(words));
    let world = World { gateway, first: Provider::default(), second };
    assert_eq!(status(&world.chat("a b c", json!({})).await), 200);
    world.settled(1, 0).await;
    assert_eq!(world.used(), 8);
    let answer = world.chat("a", json!({"model": "none"})).await;
    check_problem(&answer, 503, "no_healthy_upstream");
    world.gateway.metric_becomes("quorumgate_ai_requests_total{model=\"none\",settled=\"told\"}", 1).await;
    assert_eq!(world.used(), 8, "what was never sent costs nothing");
}

#[tokio::test]
async fn neither_side_says_what_is_denied() {
    let policy = json!({"prompt_deny": ["(?i)secret plan"], "response_deny": ["n1 n1 n1"], "prompt_messages_max": 1});
    let world = world(policy, Some(local(100_000))).await;
    let denied = world.chat("tell me the Secret Plan", json!({})).await;
    check_problem(&denied, 400, "validation_failed");
    assert_eq!(problem(&denied)["errors"][0]["pointer"], "/messages/0/content");
    let messages = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    let many = world.chat("", json!({"messages": messages})).await;
    assert_eq!(problem(&many)["errors"][0]["rule"], "prompt_messages_max");
    assert_eq!((world.first.count(), world.used()), (0, 0));

    let fine = world.chat("a as=1 say=2", json!({"stream": true})).await;
    assert!(fine.contains("[DONE]") && fine.matches("n1").count() == 2, "{fine}");
    let cut = world.chat("a as=1 say=20", json!({"stream": true})).await;
    assert_eq!(cut.matches("n1").count(), 2, "{cut}");
    assert!(cut.contains("event: error\n") && !cut.contains("[DONE]"), "{cut}");
    world.settled(1, 1).await;
}

#[tokio::test]
async fn an_answer_that_may_not_be_said_is_not_given() {
    let world = world(json!({"response_deny": ["word word word"]}), Some(local(100_000))).await;
    assert_eq!(status(&world.chat("a say=2", json!({})).await), 200);
    check_problem(&world.chat("a say=3", json!({})).await, 502, "response_validation_failed");
    world.settled(2, 0).await;
    assert_eq!(world.used(), world.first.charged(), "the provider charges for it all the same");
}

#[tokio::test]
async fn what_is_not_strict_takes_what_is_usual_and_owes_the_rest() {
    let one = Settings { workers: 1, ..settings() };
    let world = with_ledger(one, json!({"strict": false}), Some(local(200)), |_| ()).await;
    for told in 1..=20 {
        assert_eq!(status(&world.chat("a say=5", json!({})).await), 200);
        world.settled(told, 0).await;
    }
    assert_eq!(world.used(), 140);
    // Of what it asks for there is less than half; what is usual is five. A hundred are made.
    assert_eq!(status(&world.chat("a say=100", json!({"max_tokens": 100})).await), 200);
    world.settled(21, 0).await;
    assert_eq!(world.used(), 200);
    check_problem(&world.chat("a say=1", json!({})).await, 429, "rate_limited");
}

#[tokio::test]
async fn who_leaves_pays_for_what_has_come_where_nothing_is_strict() {
    let one = Settings { workers: 1, ..settings() };
    let world = with_ledger(one, json!({"strict": false, "max_tokens_max": 1_000}), Some(local(2_000)), |_| ()).await;
    for told in 1..=20 {
        assert_eq!(status(&world.chat("a say=5", json!({})).await), 200);
        world.settled(told, 0).await;
    }
    assert_eq!(world.used(), 140);
    world.chat_and_leave_at(500, "a say=900 stay=600", json!({"stream": true, "max_tokens": 900})).await;
    world.settled(20, 1).await;
    assert!(world.used() >= 640, "{}", world.used());
}
