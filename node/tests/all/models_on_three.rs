//! Budgets of models over three members: each serves clients of its own, all ask one provider, which counts.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use quorumgate_model::{
    command::{Body, ChangeResources, Expect, ResourceChange},
    resource::{Kind, Name},
    ruleset::Ruleset,
};
use quorumgate_node::{
    consensus::Consensus,
    leases::{Leases, Timekeeper},
    publish::Publisher,
    tasks::{Ended, Tasks},
    usage::{self, Question, Usage},
};
use quorumgate_proxy::{AccessLog, ClientLimits, Limits, Listener, Proxy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::members::{Member, SOON, three};

/// What the gateway reckons with beside the bytes of a request.
const AROUND: u64 = 256;
const MAX_TOKENS: u64 = 100;
const BUDGET: u64 = 10_000;
/// Streams that are left on their way, of each budget.
const LEFT: u64 = 9;

/// Answers by streams of Server-Sent Events with `say=N` words, one token each, and counts them.
#[derive(Default)]
struct Provider {
    /// Of streams that said their last word.
    told: AtomicU64,
    streams: AtomicU64,
    /// Of all, also of those that were left.
    made: AtomicU64,
}

impl Provider {
    async fn listen(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        #[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move {
                    // A gateway that goes away is what some of these are for.
                    let _ = this.serve(stream).await;
                });
            }
        });
        address
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut heard = Vec::new();
        loop {
            let Some(asked) = request(&mut stream, &mut heard).await? else { return Ok(()) };
            assert_eq!((&asked["model"], &asked["max_tokens"]), (&json!("theirs"), &json!(MAX_TOKENS)));
            assert_eq!(asked["stream_options"]["include_usage"], true);
            let prompt = asked["messages"][0]["content"].as_str().unwrap();
            let number = |word: &str| prompt.split(' ').find_map(|it| it.strip_prefix(word)?.parse::<u64>().ok());
            let input = prompt.split(' ').count() as u64;
            let output = number("say=").unwrap().min(MAX_TOKENS);
            self.made.fetch_add(input, Relaxed);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            for word in 0..output {
                if Some(word) == number("stay=") {
                    // Until the other side is gone.
                    stream.read_u8().await?;
                }
                self.made.fetch_add(1, Relaxed);
                chunk(
                    &mut stream,
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}],\"usage\":null}\n\n",
                )
                .await?;
            }
            let usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
            self.told.fetch_add(input + output, Relaxed);
            self.streams.fetch_add(1, Relaxed);
            chunk(&mut stream, &format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n")).await?;
            stream.write_all(b"0\r\n\r\n").await?;
        }
    }
}

/// The next one's body; None: there is no next one.
async fn request(stream: &mut TcpStream, heard: &mut Vec<u8>) -> std::io::Result<Option<Value>> {
    loop {
        if let Some(end) = heard.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&heard[..end]).to_lowercase();
            let length =
                head.lines().find_map(|it| it.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap();
            let all = end + 4 + length;
            if heard.len() >= all {
                let body = serde_json::from_slice(&heard[end + 4..all]).unwrap();
                heard.drain(..all);
                return Ok(Some(body));
            }
        }
        if stream.read_buf(heard).await? == 0 {
            return Ok(None);
        }
    }
}

async fn chunk(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}

/// A member with its proxy, as boot would run them.
struct Serving {
    consensus: Consensus,
    proxy: Arc<Proxy>,
    tasks: Tasks,
    _endings: tokio::sync::mpsc::UnboundedReceiver<Ended>,
}

impl Serving {
    fn start(member: &Member, name: &str) -> Self {
        let settings = quorumgate_proxy::Settings {
            node: name.into(),
            region: "here".into(),
            listeners: vec![Listener { address: "127.0.0.1:0".parse().unwrap(), tls: None, merge_slashes: true }],
            workers: 1,
            access_log: AccessLog { default_on: false, path: None },
            trusted_proxies: Vec::new(),
            trusted_field: Default::default(),
            name_servers: Vec::new(),
            redaction: Default::default(),
            limits: ClientLimits::default(),
        };
        let (consensus, limits) = (member.consensus.clone(), Arc::<Limits>::default());
        let rules = Arc::new(Ruleset::default());
        let proxy = Proxy::start_with(settings, rules, member.freshness.clone(), Arc::default(), limits).unwrap();
        let proxy = Arc::new(proxy);
        consensus.answer_spent_with(usage::spent(proxy.limits()));
        let (tasks, endings) = Tasks::new();
        let leases = Leases { consensus: consensus.clone(), limits: proxy.limits(), workers: proxy.workers() };
        tasks.start("leases", leases.run(tasks.stop()));
        tasks.start("ledger", Timekeeper { consensus: consensus.clone() }.run(tasks.stop()));
        let publisher = Publisher { consensus: consensus.clone(), proxy: proxy.clone() };
        tasks.start("publish", publisher.run(tasks.stop()));
        Self { consensus, proxy, tasks, _endings: endings }
    }

    /// Once it serves what the cluster has agreed on, and may spend of its budgets.
    async fn follows(&self, revision: u64) {
        let ends = Instant::now() + SOON;
        while self.proxy.ruleset().revision < revision || self.proxy.limits().spends_until_us() == 0 {
            assert!(Instant::now() < ends, "it does not serve revision {revision}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn connect(&self, route: &str, prompt: &str) -> TcpStream {
        let body = body(prompt);
        let length = body.len();
        let head = format!("POST /{route}/v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {length}");
        let mut stream = TcpStream::connect(self.proxy.addresses()[0]).await.unwrap();
        stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    /// The status, once the answer is there to its end.
    async fn chat(&self, route: &str, prompt: &str) -> u16 {
        let mut stream = self.connect(route, prompt).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let status = answer[9..12].parse().unwrap();
        // Where another node has what is left of it for a moment, nobody can say when it comes back.
        assert!(matches!(status, 200 | 429 | 503), "{answer}");
        assert_eq!(status == 200, answer.contains("data: [DONE]"), "{answer}");
        status
    }

    /// Leaves once three words have come.
    async fn chat_and_leave(&self, route: &str) {
        let mut stream = self.connect(route, &leaver()).await;
        let mut heard = Vec::new();
        while String::from_utf8_lossy(&heard).matches("word").count() < 3 {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
        }
    }

    /// Of a whole limit, as any node tells it.
    async fn used(&self, limit: &str) -> u64 {
        let limit: Name = limit.parse().unwrap();
        let usage = Usage::ask(&self.consensus, vec![Question { limit, keys: None, top: 9 }], SOON).await;
        assert!(usage.unanswered.is_empty(), "{:?}", usage.unanswered);
        usage.limits[0].keys.iter().map(|it| it.used).sum()
    }
}

fn body(prompt: &str) -> String {
    let messages = json!([{"role": "user", "content": prompt}]);
    json!({"model": "small", "messages": messages, "stream": true, "max_tokens": 5_000}).to_string()
}

fn leaver() -> String {
    "a b stay=3 say=50".to_owned()
}

fn reserve(prompt: &str) -> u64 {
    body(prompt).len() as u64 + AROUND + MAX_TOKENS
}

fn change(provider: SocketAddr, limits: &[Value]) -> Body {
    let models = json!([{"name": "small", "targets": [{"model": "theirs"}]}]);
    let policy = json!({"name": "chat", "ai": {"provider": "openai", "max_tokens_max": MAX_TOKENS,
                        "max_tokens_default": MAX_TOKENS, "models": models}});
    let upstream = json!({"name": "provider", "targets": [provider.to_string()]});
    let mut all = vec![(Kind::Upstream, upstream), (Kind::Policy, policy)];
    for limit in limits {
        let name = limit["name"].as_str().unwrap();
        all.push((Kind::Limit, limit.clone()));
        all.push((
            Kind::Route,
            json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": "provider",
                                      "policies": ["chat"], "limits": [name]}),
        ));
    }
    let upsert = |(kind, words): (Kind, Value)| {
        let resource = kind.parse(words).unwrap();
        ResourceChange { key: resource.key(), after: Some(resource), expect: Expect::Anything }
    };
    let changes = all.into_iter().map(upsert).collect::<Vec<_>>().into();
    Body::ChangeResources(ChangeResources { changes, ..ChangeResources::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_over_three_nodes_stay_within_one_budget_to_the_token() {
    let (_homes, members) = three().await;
    let names = ["n1", "n2", "n3"];
    let nodes: Vec<_> = members.iter().zip(names).map(|(member, name)| Serving::start(member, name)).collect();
    let provider = Arc::<Provider>::default();
    let address = provider.listen().await;
    let limit = |name: &str, more: Value| {
        let mut it = json!({"name": name, "per": "global", "limit": BUDGET, "grant_wait": "5s",
                            "cost": {"ai_tokens": "total"}});
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        it
    };
    // A month, so that none begins anew on the way.
    let limits = [
        limit("leased", json!({"kind": "calendar", "every": "month"})),
        limit("exact", json!({"kind": "calendar", "every": "month", "mode": "exact"})),
        // What was reserved rests until the window is over once the ledger knows of it: too much is counted, never too little.
        limit("resting", json!({"kind": "sliding", "window": "1h", "mode": "exact"})),
    ];
    members[0].propose(change(address, &limits)).await.unwrap().outcome.unwrap();
    let revision = members[0].consensus.state().revision;
    for node in &nodes {
        node.follows(revision).await;
    }

    let mut all = 0;
    for limit in &limits {
        let name = limit["name"].as_str().unwrap();
        let told = || provider.told.load(Relaxed);
        let made = || provider.made.load(Relaxed);
        let (told_before, made_before) = (told(), made());
        // Of those that are left nobody says what they cost: all that was taken for them stays taken.
        join_all((0..LEFT as usize).map(|n| nodes[n % 3].chat_and_leave(name))).await;
        let of_left = LEFT * reserve(&leaver());
        settles(&nodes, name, of_left..=of_left).await;
        let used = |total| if name == "resting" { total..=BUDGET } else { total..=total };
        let made_of_left = made() - made_before;
        assert_eq!(made_of_left, LEFT * (4 + 3));

        let prompts: Vec<_> = (0..100).map(|n| format!("a b c say={}", 20 + n % 90)).collect();
        let asked = prompts.iter().enumerate().map(|(n, prompt)| nodes[n % 3].chat(name, prompt));
        let statuses = join_all(asked).await;
        let admitted = statuses.iter().filter(|it| **it == 200).count();
        // What they say is more than is left, and what they reserve at once many times as much.
        assert!((5..100).contains(&admitted), "{name}: {admitted} of a hundred at once");
        settles(&nodes, name, used(told() - told_before + of_left)).await;

        // Until nobody gets anything on any node: then all is spent, and no more than that.
        let (mut more, mut refused) = (0, 0);
        while refused < nodes.len() {
            match nodes[(more + refused) % 3].chat(name, "a b c say=100").await {
                200 => (more, refused) = (more + 1, 0),
                _ => refused += 1,
            }
            assert!(more < 1_000, "{name}: there is no end");
        }
        let total = told() - told_before + of_left;
        settles(&nodes, name, used(total)).await;
        assert!(total <= BUDGET, "{name}: {total} of {BUDGET}");
        assert_eq!(made() - made_before, told() - told_before + made_of_left, "nothing else was made");
        let spent: u64 =
            nodes.iter().flat_map(|it| it.proxy.ai_usage()).map(|it| it.input_tokens + it.output_tokens).sum();
        all += total;
        assert_eq!(spent, all, "{name}: the books of the nodes agree with the provider too");
    }
    for node in &nodes {
        assert!(node.tasks.shut_down(SOON).await, "a task did not stop");
    }
    for member in members {
        member.stop().await;
    }
}

/// Until the ledger and the nodes say together, on each node, that so much was used: neither less nor more.
async fn settles(nodes: &[Serving], limit: &str, expected: RangeInclusive<u64>) {
    for node in nodes {
        let ends = Instant::now() + SOON;
        loop {
            let used = node.used(limit).await;
            if expected.contains(&used) {
                break;
            }
            assert!(Instant::now() < ends, "{limit}: {used} used; expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
