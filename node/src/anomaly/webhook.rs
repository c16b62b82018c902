//! What webhooks of anomaly policies are told, and the task that posts it. Messages are signed as Standard Webhooks say
//! (standardwebhooks.com): HMAC-SHA256 of `id.timestamp.body`. A message is made once for what one round has found; it is lost when the
//! queue is full, or when nobody has taken it after a few attempts, and then it is counted.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{ANOMALY_SECRET, AnomalyWebhook, Name, Resource},
    units::Moment,
};
use quorumgate_proxy::{
    anomaly::Verdict,
    identity::{
        egress::Reach,
        fetch::{Ask, Endpoint, FetchError, Fetcher},
    },
};
use serde_json::json;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::found::Found;
use crate::{consensus::Consensus, publish::wall_ms, sealed};

/// Messages that wait.
const QUEUE_MAX: usize = 256;
/// Messages under way: one that nobody takes is so for half a minute, and its policy has another one every second.
const AT_ONCE_MAX: usize = 64;
const ATTEMPTS_MAX: u32 = 4;
/// Before the second attempt; twice as long before each one after it.
const BACKOFF: Duration = Duration::from_secs(1);
/// Callers in one message.
pub const CALLERS_MAX: usize = 100;
/// What a receiver answers, of which nothing is used.
const ANSWER_BYTES_MAX: usize = 64 << 10;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Since the start.
#[derive(Debug, Default)]
pub struct Counts {
    delivered: AtomicU64,
    /// Nobody took them.
    failed: AtomicU64,
    /// There was no room.
    dropped: AtomicU64,
}

/// Where messages go in.
#[derive(Clone)]
pub struct Webhooks {
    queue: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

/// Where they go out.
pub struct Poster {
    queue: mpsc::Receiver<Message>,
    sender: Sender,
}

struct Sender {
    fetcher: Fetcher,
    counts: Arc<Counts>,
    backoff: Duration,
}

/// Of one policy.
struct Message {
    policy: Name,
    id: String,
    url: String,
    reach: Reach,
    key: hmac::Key,
    body: Bytes,
}

pub fn webhooks(fetcher: Fetcher) -> (Webhooks, Poster) {
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let counts = Arc::<Counts>::default();
    let poster = Poster { queue, sender: Sender { fetcher, counts: counts.clone(), backoff: BACKOFF } };
    (Webhooks { queue: sender, counts }, poster)
}

impl Webhooks {
    /// What a round has found, to the webhooks of its policies.
    pub(super) fn tell(&self, consensus: &Consensus, new: &[Found], settled: &[Verdict]) {
        let mut all: BTreeMap<&Name, Vec<(&Found, &Verdict)>> = BTreeMap::new();
        for (it, verdict) in new.iter().zip(settled).filter(|(it, _)| it.words().webhook.is_some()) {
            all.entry(&it.policy.name).or_default().push((it, verdict));
        }
        if all.is_empty() {
            return;
        }
        let (keys, cluster) = (consensus.keys(), consensus.state().cluster.clone());
        let cluster = cluster.map(|it| it.name.clone()).unwrap_or_default();
        for found in all.values() {
            let Some((it, hook)) = found.first().and_then(|(it, _)| Some((it, it.words().webhook.as_ref()?))) else {
                continue;
            };
            let object = Resource::Policy(it.policy.clone()).key();
            let secret = match sealed::opened(&keys, &object, ANOMALY_SECRET, &hook.secret).context(ANOMALY_SECRET) {
                Ok(secret) => secret,
                Err(error) => {
                    warn!(policy = %it.policy.name, error = format!("{error:#}"), "a webhook is not told");
                    self.counts.failed.fetch_add(1, Relaxed);
                    continue;
                }
            };
            for callers in found.chunks(CALLERS_MAX) {
                self.post(Message::new(hook, &secret, &cluster, callers));
            }
        }
    }

    fn post(&self, message: Message) {
        if let Err(error) = self.queue.try_send(message) {
            self.counts.dropped.fetch_add(1, Relaxed);
            let message = error.into_inner();
            warn!(policy = %message.policy, id = message.id, "a webhook is not told: too many messages wait");
        }
    }

    /// Messages that nobody has taken, since the start.
    pub fn lost(&self) -> u64 {
        self.counts.failed.load(Relaxed) + self.counts.dropped.load(Relaxed)
    }

    pub fn write_metrics(&self, out: &mut String) {
        const NAME: &str = "quorumgate_anomaly_webhook_messages_total";
        let Counts { delivered, failed, dropped } = &*self.counts;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {NAME} Messages to webhooks, by what became of them.\n# TYPE {NAME} counter");
        for (outcome, count) in [("delivered", delivered), ("failed", failed), ("dropped", dropped)] {
            let _ = writeln!(out, "{NAME}{{outcome=\"{outcome}\"}} {}", count.load(Relaxed));
        }
    }
}

impl Message {
    fn new(hook: &AnomalyWebhook, secret: &[u8], cluster: &str, callers: &[(&Found, &Verdict)]) -> Self {
        let policy = callers.first().map(|(it, _)| it.policy.name.clone()).expect("a message is of somebody");
        let shown = |(it, verdict): &(&Found, &Verdict)| {
            json!({
                "key": it.key,
                "feature": it.finding.feature.word(),
                "value": it.finding.value,
                "over": it.finding.over,
                "nodes": it.nodes,
                "action": it.words().action.word(),
                "state": verdict.outcome.word(),
                "since": Moment(verdict.since_ms).to_string(),
                "until": Moment(verdict.ends_ms).to_string(),
            })
        };
        let data = json!({
            "cluster": cluster,
            "policy": policy.to_string(),
            "anomalies": callers.iter().map(shown).collect::<Vec<_>>(),
        });
        let body = json!({ "type": "anomaly.found", "timestamp": Moment(wall_ms()).to_string(), "data": data });
        let secret = if mutants::is(Mutant::WebhookUnsigned) { &b"anybody's"[..] } else { secret };
        Self {
            policy,
            id: format!("msg_{}", Uuid::new_v4().simple()),
            url: hook.url.clone(),
            reach: if hook.allow_private { Reach::Private } else { Reach::Public },
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            body: body.to_string().into(),
        }
    }

    /// As of that second: receivers refuse what is old, so that nobody can say it again.
    fn headers(&self, at_s: u64) -> Option<HeaderMap> {
        let signed = [self.id.as_bytes(), b".", at_s.to_string().as_bytes(), b".", &self.body].concat();
        let signature = BASE64.encode(hmac::sign(&self.key, &signed).as_ref());
        let fields = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (ID, self.id.clone()),
            (TIMESTAMP, at_s.to_string()),
            (SIGNATURE, format!("v1,{signature}")),
        ];
        fields.into_iter().map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
    }
}

impl Poster {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { mut queue, sender } = self;
        let mut under_way = FuturesUnordered::new();
        loop {
            let has_room = under_way.len() < AT_ONCE_MAX;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(message) = queue.recv(), if has_room => under_way.push(sender.deliver(message)),
                Some(()) = under_way.next() => {}
            }
        }
    }
}

impl Sender {
    async fn deliver(&self, message: Message) {
        let mut wait = self.backoff;
        let mut attempt = 1;
        let error = loop {
            let Err(error) = self.once(&message).await else {
                self.counts.delivered.fetch_add(1, Relaxed);
                return;
            };
            if attempt == ATTEMPTS_MAX || !may_pass(&error) {
                break error;
            }
            sleep(wait).await;
            (wait, attempt) = (wait * 2, attempt + 1);
        };
        self.counts.failed.fetch_add(1, Relaxed);
        warn!(policy = %message.policy, id = message.id, attempt, %error, "a webhook has not taken a message");
    }

    /// Any status that says success will do.
    async fn once(&self, message: &Message) -> Result<(), FetchError> {
        let endpoint = Endpoint::parse(&message.url)?;
        let headers = message.headers(wall_ms() / 1_000).ok_or(FetchError::Url)?;
        let ask = Ask {
            method: Method::POST,
            headers,
            body: message.body.clone(),
            reach: message.reach,
            bytes_max: ANSWER_BYTES_MAX,
        };
        match self.fetcher.fetch(&endpoint, &ask).await {
            Ok(_) | Err(FetchError::Status(200..=299) | FetchError::TooLarge(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether another attempt may end otherwise.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Status(status) => matches!(status, 408 | 429 | 500..),
        FetchError::Resolve(_) | FetchError::Connect(_) | FetchError::Tls(_) => true,
        FetchError::Http(_) | FetchError::Timeout(_) => true,
        FetchError::Url | FetchError::Address(_) | FetchError::Cleartext(_) | FetchError::Redirect => false,
        FetchError::NoRoots | FetchError::TooLarge(_) => false,
    }
}

#[cfg(test)]
mod tests;
