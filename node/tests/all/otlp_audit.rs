//! Audit trails at an OpenTelemetry collector: every entry, in its order, though the collector is away, says no, or the node is
//! killed.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prost::Message;
use quorumgate_model::units::Span;
use quorumgate_node::settings::Settings;
use quorumgate_proto::telemetry::v1::{self as otlp, any_value::Value};

use crate::{
    addresses::address,
    cli_node::{Node, SHOP},
    otlp::{read, word},
};

/// Longer than the longest pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(150);

/// Answers each request with the status that `answer` gives it, and hands on what it has taken.
struct Collector {
    address: SocketAddr,
    taken: Receiver<otlp::LogRecord>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Collector {
    fn start(address: SocketAddr, answer: impl Fn(usize, &[otlp::LogRecord]) -> u16 + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (sent, taken) = channel();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let serve = move || {
            let mut asked = 0;
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let Some((path, body)) = read(&stream) else { continue };
                assert_eq!(path, "/v1/logs");
                let request = otlp::LogsRequest::decode(&body[..]).unwrap();
                let records = request.resource_logs[0].scope_logs[0].log_records.clone();
                let resource = request.resource_logs[0].resource.clone().unwrap();
                assert_eq!(word(&resource.attributes, "service.name"), Some(&Value::StringValue("quorumgate".into())));
                let status = answer(asked, &records);
                asked += 1;
                if status == 200 {
                    // The test is over once nobody receives.
                    records.into_iter().for_each(|it| drop(sent.send(it)));
                }
                // A node that was killed does not read it.
                let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            }
        };
        Self { address, taken, stop, thread: std::thread::Builder::new().spawn(serve).unwrap() }
    }

    fn next(&self) -> otlp::LogRecord {
        self.taken.recv_timeout(PATIENCE).expect("an entry comes")
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).unwrap();
        self.thread.join().unwrap();
    }
}

fn text<'a>(record: &'a otlp::LogRecord, key: &str) -> &'a str {
    match word(&record.attributes, &format!("quorumgate.audit.{key}")) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?} in {record:?}"),
    }
}

fn number(record: &otlp::LogRecord, key: &str) -> u64 {
    match word(&record.attributes, &format!("quorumgate.audit.{key}")) {
        Some(Value::IntValue(number)) => *number as u64,
        other => panic!("{key}: {other:?} in {record:?}"),
    }
}

fn is_mutation(record: &otlp::LogRecord) -> bool {
    text(record, "chain") == "mutations"
}

fn metric(node: &Node, name: &str) -> f64 {
    let telemetry = Settings::read(&node.data()).unwrap().telemetry.listen;
    let mut stream = TcpStream::connect(telemetry).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n").unwrap();
    let mut scraped = String::new();
    stream.read_to_string(&mut scraped).unwrap();
    let line = scraped.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {scraped}")).parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test without a runtime polls a process")]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Killed, as by a power cut, and started again.
fn restarted(mut node: Node) -> Node {
    let (dir, admin) = (std::mem::replace(&mut node.dir, tempfile::tempdir().unwrap()), node.admin.clone());
    drop(node);
    Node::in_dir(dir, admin)
}

fn apply(node: &Node, message: &str) {
    let shop = SHOP.replace("/orders", &format!("/{message}"));
    node.json(&["apply", "-f", "-", "-m", message], &shop);
}

#[test]
fn a_collector_gets_each_entry_in_its_order_though_it_was_away_and_the_node_was_killed() {
    let place = address();
    let node = Node::start_with(|settings| {
        settings.telemetry.otlp_endpoint = Some(format!("http://{place}"));
        settings.telemetry.otlp_metrics_every = Span::secs(0);
        settings.telemetry.otlp_audit = true;
    });
    // Nobody listens yet.
    apply(&node, "first");
    let (endpoint, ca) = (format!("https://{}", node.admin), node.data().join("tls/ca.pem"));
    node.check(&["--endpoint", &endpoint, "--ca", ca.to_str().unwrap(), "node", "ls"], "", 3, &["error["]);
    wait_until("doctor says why nothing is taken", || {
        let found = node.json(&["doctor"], "");
        let finding = found["findings"].as_array().unwrap().iter().find(|it| it["check"] == "audit_export").cloned();
        finding.unwrap()["found"].as_str().unwrap().contains("entries wait: ")
    });
    assert!(metric(&node, "quorumgate_otlp_audit_waiting") > 0.0);

    // It comes, and is busy at first.
    let collector = Collector::start(place, |asked, _| if asked == 0 { 503 } else { 200 });
    let listed = node.json(&["audit", "ls"], "")["entries"].clone();
    let listed: Vec<_> = listed.as_array().unwrap().iter().rev().collect();
    let (mut mutations, mut denials) = (Vec::new(), Vec::new());
    while mutations.len() < listed.len() || denials.is_empty() {
        let record = collector.next();
        if is_mutation(&record) { mutations.push(record) } else { denials.push(record) }
    }
    for (record, entry) in mutations.iter().zip(&listed) {
        assert_eq!(number(record, "sequence"), entry["sequence"].as_u64().unwrap());
        for (key, field) in [("hash", "hash"), ("actor", "actor"), ("source", "source"), ("action", "rpc")] {
            assert_eq!(text(record, key), entry[field].as_str().unwrap(), "{key}: {entry}");
        }
        assert_eq!(word(&record.attributes, "log.record.uid"), Some(&Value::StringValue(text(record, "hash").into())));
        assert!(record.time_unix_nano > 0 && record.observed_time_unix_nano >= record.time_unix_nano);
    }
    for pair in mutations.windows(2) {
        assert_eq!(text(&pair[1], "previous"), text(&pair[0], "hash"), "the chain can be followed there");
    }
    let written = mutations.iter().rev().find(|it| text(it, "action") == "Config/ApplyConfig").unwrap();
    assert_eq!((text(written, "message"), written.event_name.as_str()), ("first", "quorumgate.audit.mutation"));
    assert!(number(written, "revision") > 0);
    let Some(Value::ArrayValue(objects)) = word(&written.attributes, "quorumgate.audit.objects") else {
        panic!("{written:?}")
    };
    let objects: BTreeSet<_> = objects.values.iter().map(|it| format!("{:?}", it.value)).collect();
    assert_eq!(objects.len(), 3, "{objects:?}");
    assert!(objects.iter().any(|it| it.contains("route/orders")), "{objects:?}");
    let denial = &denials[0];
    assert_eq!((text(denial, "result"), text(denial, "reason")), ("denied", "no_credentials"));
    assert_eq!((text(denial, "node"), number(denial, "count"), denial.severity_number), ("n1", 1, 13));

    // What was taken is not sent again by a node that is killed.
    wait_until("all is taken", || metric(&node, "quorumgate_otlp_audit_waiting") == 0.0);
    assert_eq!(metric(&node, "quorumgate_otlp_audit_sent_total"), (mutations.len() + denials.len()) as f64);
    let node = restarted(node);
    apply(&node, "second");
    let last = mutations.last().unwrap();
    let next = collector.next();
    assert_eq!(
        (number(&next, "sequence"), text(&next, "previous")),
        (number(last, "sequence") + 1, text(last, "hash"))
    );
    assert_eq!(text(&next, "message"), "second");

    // Away again; and what it comes back with does not take one of the entries for good.
    wait_until("all is taken", || metric(&node, "quorumgate_otlp_audit_waiting") == 0.0);
    collector.stop();
    ["poison", "third", "fourth"].iter().for_each(|it| apply(&node, it));
    let node = restarted(node);
    let collector = Collector::start(place, |asked, records| {
        // Not ready for anything: no reason to give up an entry.
        if asked < 6 {
            return 400;
        }
        let poison = Some(Value::StringValue("poison".into()));
        let is_poison = |it: &otlp::LogRecord| word(&it.attributes, "quorumgate.audit.message") == poison.as_ref();
        if records.iter().any(is_poison) { 400 } else { 200 }
    });
    let came = [collector.next(), collector.next()];
    assert_eq!(came.each_ref().map(|it| text(it, "message")), ["third", "fourth"]);
    let sequence = number(&next, "sequence");
    assert_eq!(came.each_ref().map(|it| number(it, "sequence")), [sequence + 2, sequence + 3]);
    wait_until("all is taken", || metric(&node, "quorumgate_otlp_audit_waiting") == 0.0);
    assert_eq!(metric(&node, "quorumgate_otlp_audit_lost_total"), 1.0);
    let doctor = node.run(&["doctor", "-o", "json"], "");
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("1 were lost since the start"), "{said}");
}
