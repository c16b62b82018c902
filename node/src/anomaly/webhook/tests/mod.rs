//! Receivers on loopback, and what they are told.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{super::found, *};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A receiver that answers each message with the next of these statuses, and gives what it was sent.
async fn receiver(statuses: &'static [u16]) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, all) = mpsc::channel(64);
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
    tokio::spawn(async move {
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            heard.send(String::from_utf8(request).unwrap()).await.unwrap();
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nlocation: /other\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, all)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    field(head, "content-length").parse::<usize>().unwrap() == body.len()
}

fn field(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
}

fn hook(url: String, allow_private: bool) -> AnomalyWebhook {
    AnomalyWebhook { url, secret: "plain:x".parse().unwrap(), allow_private }
}

fn message(hook: &AnomalyWebhook) -> Message {
    let (new, verdict) = found::tests::walker();
    Message::new(hook, SECRET, "shop", &[(&new, &verdict)])
}

fn poster() -> (Webhooks, Poster) {
    let (webhooks, mut poster) = webhooks(Fetcher::platform());
    poster.sender.backoff = Duration::from_millis(1);
    (webhooks, poster)
}

fn counts(webhooks: &Webhooks) -> [u64; 3] {
    let it = &webhooks.counts;
    [&it.delivered, &it.failed, &it.dropped].map(|it| it.load(Relaxed))
}

#[tokio::test]
async fn a_message_is_signed_and_said_again_until_somebody_takes_it() {
    let (address, mut heard) = receiver(&[500, 429, 202]).await;
    let (webhooks, poster) = poster();
    poster.sender.deliver(message(&hook(format!("http://{address}/hook?a=b"), true))).await;
    assert_eq!((counts(&webhooks), webhooks.lost()), ([1, 0, 0], 0));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = heard.recv().await.unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
        let (id, at) = (field(head, "webhook-id"), field(head, "webhook-timestamp"));
        let tag = BASE64.decode(field(head, "webhook-signature").strip_prefix("v1,").unwrap().as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        hmac::verify(&key, format!("{id}.{at}.{body}").as_bytes(), &tag).expect("it is signed with the secret");
        assert!(wall_ms() / 1_000 - at.parse::<u64>().unwrap() <= 60);
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["type"], &body["data"]["cluster"]), (&json!("anomaly.found"), &json!("shop")));
        let expected = json!({
            "key": "walker", "feature": "objects", "value": 120, "over": 90, "nodes": 1, "action": "ban",
            "state": "banned", "since": "1970-01-01T00:00:01Z", "until": "1970-01-01T00:10:01Z",
        });
        assert_eq!((&body["data"]["policy"], &body["data"]["anomalies"]), (&json!("walks"), &json!([expected])));
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "whoever takes it twice can tell: {ids:?}");
}

#[tokio::test]
async fn attempts_end() {
    let cases: [(&'static [u16], usize); 3] = [(&[503; 10], ATTEMPTS_MAX as usize), (&[400; 10], 1), (&[302; 10], 1)];
    for (statuses, asked) in cases {
        let (address, mut heard) = receiver(statuses).await;
        let (webhooks, poster) = poster();
        poster.sender.deliver(message(&hook(format!("http://{address}/"), true))).await;
        assert_eq!((counts(&webhooks), webhooks.lost()), ([0, 1, 0], 1), "{statuses:?}");
        let mut count = 0;
        while heard.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, asked, "{statuses:?}");
    }
}

#[tokio::test]
async fn messages_go_where_they_may_go_alone() {
    let (address, mut heard) = receiver(&[200; 10]).await;
    for (url, allow_private) in
        [(format!("http://{address}/"), false), ("http://169.254.169.254/".into(), true), ("ftp://a/".into(), true)]
    {
        let (webhooks, poster) = poster();
        poster.sender.deliver(message(&hook(url.clone(), allow_private))).await;
        assert_eq!(counts(&webhooks), [0, 1, 0], "{url}");
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_receiver_that_is_silent_holds_up_nobody_else_and_the_queue_ends() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mut heard) = receiver(&[204; 10]).await;
    let (webhooks, poster) = poster();
    for _ in 0..AT_ONCE_MAX - 1 {
        webhooks.post(message(&hook(format!("http://{}/", silent.local_addr().unwrap()), true)));
    }
    webhooks.post(message(&hook(format!("http://{address}/"), true)));
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
    let running = tokio::spawn(poster.run(stop.clone()));
    assert!(heard.recv().await.unwrap().starts_with("POST / "));
    stop.cancel();
    running.await.unwrap().unwrap();

    let (webhooks, _poster) = self::poster();
    let nobody = hook("http://127.0.0.1:1/".into(), true);
    (0..QUEUE_MAX + 3).for_each(|_| webhooks.post(message(&nobody)));
    assert_eq!((counts(&webhooks), webhooks.lost()), ([0, 0, 3], 3));
    let mut text = String::new();
    webhooks.write_metrics(&mut text);
    assert!(text.contains("quorumgate_anomaly_webhook_messages_total{outcome=\"dropped\"} 3\n"), "{text}");
}
