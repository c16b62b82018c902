//! Names of targets, asked of a name server of the test's own: looked up again when their records' time is over, kept while
//! nobody answers, and never at the cost of what is under way.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Notify,
    time::Instant,
};

use crate::{support::*, tls};

#[derive(Clone)]
enum Says {
    /// Addresses, and for how many seconds they hold.
    Addresses(Vec<Ipv4Addr>, u32),
    /// SERVFAIL.
    Failure,
    Nothing,
}

/// Answers each question for an A record, and notes when it came.
#[derive(Clone)]
struct NameServer {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl NameServer {
    async fn start(says: Says) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let it =
            Self { address: socket.local_addr().unwrap(), says: Arc::new(Mutex::new(says)), asked: Arc::default() };
        let own = it.clone();
        tokio::spawn(async move {
            let mut query = [0; 1_024];
            while let Ok((bytes, from)) = socket.recv_from(&mut query).await {
                if let Some(answer) = own.answer(&query[..bytes]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        it
    }

    /// RFC 1035 section 4: a header of 12 bytes, then the name in labels, the type and the class.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let labels = query[12..].iter().position(|byte| *byte == 0)? + 13;
        let question = &query[12..labels + 4];
        let is_a = query[labels..labels + 2] == [0, 1];
        if is_a {
            self.asked.lock().unwrap().push(Instant::now());
        }
        let (code, addresses, ttl) = match self.says.lock().unwrap().clone() {
            Says::Addresses(addresses, ttl) => (0, addresses, ttl),
            Says::Failure => (2, Vec::new(), 0),
            Says::Nothing => return None,
        };
        let addresses = if is_a { addresses } else { Vec::new() };
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
        answer.extend_from_slice(question);
        for address in addresses {
            answer.extend([0xc0, 12, 0, 1, 0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn asked(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits for this many more questions.
    async fn is_asked(&self, more: usize) {
        let wanted = self.asked().len() + more;
        until("the name server is asked", || (self.asked().len() >= wanted).then_some(())).await;
    }

    fn gateway(&self, port: u16) -> Gateway {
        let mut settings = settings();
        settings.name_servers = vec![self.address];
        Gateway::with(settings, words(port))
    }
}

fn words(port: u16) -> Value {
    json!({
        "upstreams": [{ "name": "u", "targets": [format!("backend.test:{port}")], "slow_start": "0s" }],
        "routes": [{ "name": "all", "match": { "path_prefix": "/" }, "upstream": "u" }],
    })
}

/// Two addresses and one port.
fn pair() -> ([Ipv4Addr; 2], u16) {
    let SocketAddr::V4(first) = tls::address() else { unreachable!("it is of IPv4") };
    let [a, b, c, d] = first.ip().octets();
    ([*first.ip(), Ipv4Addr::new(a, b ^ 0x20, c, d)], first.port())
}

/// Says its name to each request; what asks for `/slow` gets the second half of it only when it is told to.
async fn named(name: &'static str, address: Ipv4Addr, port: u16) -> Arc<Notify> {
    let (listener, go) = (TcpListener::bind((address, port)).await.unwrap(), Arc::new(Notify::new()));
    let told = go.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let go = told.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let slow = head.starts_with(b"GET /slow ");
                    head.clear();
                    let (first, second) = name.split_at(name.len() / 2);
                    let start = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{first}", name.len());
                    stream.write_all(start.as_bytes()).await.unwrap();
                    if slow {
                        go.notified().await;
                    }
                    stream.write_all(second.as_bytes()).await.unwrap();
                }
            });
        }
    });
    go
}

async fn answers(gateway: &Gateway) -> String {
    let answer = ask(gateway.address, "GET /", &[], "").await;
    assert_eq!(status(&answer), 200, "{answer}");
    body(&answer).to_owned()
}

#[tokio::test]
async fn a_name_is_looked_up_again_when_its_time_is_over_and_what_is_under_way_goes_on() {
    let ([first, second], port) = pair();
    let go = named("first", first, port).await;
    named("second", second, port).await;
    let server = NameServer::start(Says::Addresses(vec![first], 1)).await;
    let gateway = server.gateway(port);
    assert_eq!(answers(&gateway).await, "first");

    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"fi") {
        answer.push(soon("the first half", slow.read_u8()).await.unwrap());
    }
    server.says(Says::Addresses(vec![second], 1));
    let moved = async { while answers(&gateway).await != "second" {} };
    soon("the new address serves", moved).await;
    // All that was known of the old address is gone by now, and still its answer comes whole.
    go.notify_one();
    soon("the second half", slow.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.ends_with(b"first"), "{}", String::from_utf8_lossy(&answer));

    // Both at once are two targets.
    server.says(Says::Addresses(vec![first, second], 1));
    until("both are targets", || (gateway.proxy.upstreams().health("u")[0].addresses == 2).then_some(())).await;
}

#[tokio::test]
async fn the_time_of_the_records_decides_within_bounds() {
    let ([first, _], port) = pair();
    let server = NameServer::start(Says::Addresses(vec![first], 0)).await;
    let _gateway = server.gateway(port);
    server.is_asked(4).await;
    // No time at all is a second.
    let asked = server.asked();
    let gaps = asked.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.clone().all(|gap| gap >= Duration::from_millis(950)), "{:?}", gaps.collect::<Vec<_>>());

    let lasting = NameServer::start(Says::Addresses(vec![first], 3_600)).await;
    let gateway = lasting.gateway(port);
    until("the name is known", || (gateway.proxy.upstreams().health("u")[0].addresses == 1).then_some(())).await;
    server.is_asked(3).await;
    assert_eq!(lasting.asked().len(), 1, "an hour is not over");
}

#[tokio::test]
async fn addresses_are_kept_while_nobody_says_better() {
    let ([first, second], port) = pair();
    named("first", first, port).await;
    named("second", second, port).await;
    let server = NameServer::start(Says::Addresses(vec![first], 1)).await;
    let gateway = server.gateway(port);
    assert_eq!(answers(&gateway).await, "first");
    for says in [Says::Failure, Says::Nothing, Says::Addresses(Vec::new(), 1)] {
        server.says(says);
        server.is_asked(2).await;
        assert_eq!(answers(&gateway).await, "first");
    }
    server.says(Says::Addresses(vec![second], 1));
    let moved = async { while answers(&gateway).await != "second" {} };
    soon("it answers again", moved).await;
}

#[tokio::test]
async fn a_name_leads_to_no_metadata_service() {
    let ([first, second], port) = pair();
    named("first", first, port).await;
    named("second", second, port).await;
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let server = NameServer::start(Says::Addresses(vec![metadata, first], 1)).await;
    let gateway = server.gateway(port);
    assert_eq!(answers(&gateway).await, "first");
    assert_eq!(gateway.proxy.upstreams().health("u")[0].addresses, 1);
    // A name that is moved there stays where it was.
    server.says(Says::Addresses(vec![metadata], 1));
    server.is_asked(1).await;
    server.says(Says::Addresses(vec![second], 1));
    let moved = async {
        loop {
            match answers(&gateway).await.as_str() {
                "first" => {}
                other => return other.to_owned(),
            }
        }
    };
    assert_eq!(soon("the name to move", moved).await, "second");
}
