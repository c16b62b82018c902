//! `top`: what the asked node serves, redrawn while one looks.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use quorumgate_proto::admin::v1::{GetStatsRequest, GetStatsResponse, RouteStats};
use serde_json::{Value, json};

use crate::cli::{
    args::{Form, Global, Top},
    client::Client,
    failure::Outcome,
    output, shape,
};

const SHORTEST: Duration = Duration::from_millis(100);
/// Home, and away with what is below.
const REDRAW: &str = "\x1b[H\x1b[J";
const CLEAR: &str = "\x1b[2J";

pub async fn run(global: &Global, verb: Top) -> Outcome {
    let client = Client::connect(global).await?;
    let every = verb.every.0.max(SHORTEST);
    let draws = std::io::stdout().is_terminal() && matches!(global.output, Form::Table | Form::Wide);
    let mut before = look(&client).await?;
    let mut looks = 0;
    if draws {
        output::stdout(CLEAR)?;
    }
    while verb.count.is_none_or(|count| looks < count) {
        tokio::time::sleep(every).await;
        let now = look(&client).await?;
        let page = Page::between(&before, &now);
        match global.output {
            Form::Table | Form::Wide => {
                let text = page.text(verb.routes);
                output::stdout(&if draws { format!("{REDRAW}{text}") } else { text })?;
            }
            Form::Name => {
                page.routes.iter().take(verb.routes).try_for_each(|it| output::stdout(&format!("{}\n", it.route)))?
            }
            _ => output::stdout(&format!("{}\n", page.json(verb.routes)))?,
        }
        before = now;
        looks += 1;
    }
    Ok(())
}

async fn look(client: &Client) -> Outcome<GetStatsResponse> {
    Ok(client.observe().get_stats(client.ask(GetStatsRequest {})).await?.into_inner())
}

/// What happened between two looks.
struct Page {
    node: String,
    revision: u64,
    seconds: f64,
    in_flight: u64,
    connections: u64,
    received: u64,
    sent: u64,
    rejects: BTreeMap<String, u64>,
    /// The busiest first.
    routes: Vec<Row>,
}

/// What a node has counted since its start; rates are for who asks twice.
pub fn counted(answer: &GetStatsResponse) -> Value {
    let route = |it: &RouteStats| {
        json!({
            "route": it.route,
            "requests": it.requests,
            "client_errors": it.client_errors,
            "server_errors": it.server_errors,
            "durations": it.durations,
        })
    };
    json!({
        "node": answer.header.as_ref().map(|it| it.node.as_str()),
        "time": shape::time(answer.time.as_ref()),
        "in_flight": answer.in_flight,
        "connections_open": answer.connections_open,
        "received_bytes": answer.received_bytes,
        "sent_bytes": answer.sent_bytes,
        "rejects": answer.rejects.iter().collect::<BTreeMap<_, _>>(),
        "bounds_us": answer.bounds_us,
        "routes": answer.routes.iter().map(route).collect::<Vec<_>>(),
    })
}

struct Row {
    route: String,
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    /// Microseconds; None: there was none, or it is above the last bound.
    p50: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
}

impl Page {
    fn between(before: &GetStatsResponse, now: &GetStatsResponse) -> Self {
        let at =
            |it: &GetStatsResponse| it.time.as_ref().map_or(0.0, |it| it.seconds as f64 + f64::from(it.nanos) / 1e9);
        let header = now.header.clone().unwrap_or_default();
        let old: BTreeMap<&str, &RouteStats> = before.routes.iter().map(|it| (it.route.as_str(), it)).collect();
        let mut routes: Vec<_> =
            now.routes.iter().map(|it| Row::between(old.get(it.route.as_str()).copied(), it, &now.bounds_us)).collect();
        routes.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.route.cmp(&b.route)));
        let rejects = now.rejects.iter().map(|(reason, count)| {
            (reason.clone(), count.saturating_sub(before.rejects.get(reason).copied().unwrap_or_default()))
        });
        Self {
            node: header.node,
            revision: header.revision,
            seconds: (at(now) - at(before)).max(0.001),
            in_flight: now.in_flight,
            connections: now.connections_open,
            received: now.received_bytes.saturating_sub(before.received_bytes),
            sent: now.sent_bytes.saturating_sub(before.sent_bytes),
            rejects: rejects.filter(|(_, count)| *count > 0).collect(),
            routes,
        }
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    fn text(&self, routes: usize) -> String {
        let all: u64 = self.routes.iter().map(|it| it.requests).sum();
        let mut text = format!(
            "{}  revision {}  {:.0} requests/s  {} in flight  {} connections  in {:.2} MB/s  out {:.2} MB/s\n",
            self.node,
            self.revision,
            self.rate(all),
            self.in_flight,
            self.connections,
            self.rate(self.received) / 1e6,
            self.rate(self.sent) / 1e6,
        );
        let rejects: Vec<_> =
            self.rejects.iter().map(|(reason, count)| format!("{reason} {:.1}/s", self.rate(*count))).collect();
        if !rejects.is_empty() {
            text += &format!("refused: {}\n", rejects.join("  "));
        }
        let rows: Vec<Vec<String>> = self.routes.iter().take(routes).map(|it| it.cells(self)).collect();
        text += "\n";
        text + &output::table(
            &["route", "req/s", "4xx/s", "5xx/s", "p50", "p99", "p99.9"],
            rows.iter().map(Vec::as_slice),
        )
    }

    fn json(&self, routes: usize) -> Value {
        let route = |it: &Row| {
            json!({
                "route": it.route,
                "requests": it.requests,
                "client_errors": it.client_errors,
                "server_errors": it.server_errors,
                "p50_us": it.p50,
                "p99_us": it.p99,
                "p999_us": it.p999,
            })
        };
        json!({
            "node": self.node,
            "revision": self.revision,
            "seconds": self.seconds,
            "in_flight": self.in_flight,
            "connections_open": self.connections,
            "received_bytes": self.received,
            "sent_bytes": self.sent,
            "rejects": self.rejects,
            "routes": self.routes.iter().take(routes).map(route).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn between(before: Option<&RouteStats>, now: &RouteStats, bounds: &[u64]) -> Self {
        let since = |value: fn(&RouteStats) -> u64| value(now).saturating_sub(before.map_or(0, value));
        let old = |slot: usize| before.and_then(|it| it.durations.get(slot)).copied().unwrap_or_default();
        let counts: Vec<u64> =
            now.durations.iter().enumerate().map(|(slot, count)| count.saturating_sub(old(slot))).collect();
        Self {
            route: now.route.clone(),
            requests: since(|it| it.requests),
            client_errors: since(|it| it.client_errors),
            server_errors: since(|it| it.server_errors),
            p50: quantile(&counts, bounds, 500),
            p99: quantile(&counts, bounds, 990),
            p999: quantile(&counts, bounds, 999),
        }
    }

    fn cells(&self, page: &Page) -> Vec<String> {
        let rate = |count| format!("{:.1}", page.rate(count));
        let took =
            |it: Option<u64>| it.map_or_else(|| "-".to_owned(), |micros| format!("{:.1} ms", micros as f64 / 1e3));
        let (requests, client, server) = (rate(self.requests), rate(self.client_errors), rate(self.server_errors));
        vec![self.route.clone(), requests, client, server, took(self.p50), took(self.p99), took(self.p999)]
    }
}

/// Within its bucket the times are taken to be spread evenly, as Prometheus does.
fn quantile(counts: &[u64], bounds: &[u64], per_mille: u64) -> Option<u64> {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return None;
    }
    let wanted = (all * per_mille).div_ceil(1_000);
    let mut below = 0;
    for (slot, count) in counts.iter().enumerate() {
        if below + count >= wanted {
            let high = *bounds.get(slot)?;
            let low = if slot == 0 { 0 } else { bounds[slot - 1] };
            return Some(low + (high - low) * (wanted - below) / count);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let bounds = [1_000, 2_000, 4_000];
        assert_eq!(quantile(&[0, 0, 0, 0], &bounds, 990), None);
        assert_eq!(quantile(&[10, 0, 0, 0], &bounds, 500), Some(500));
        assert_eq!(quantile(&[990, 10, 0, 0], &bounds, 999), Some(1_900));
        assert_eq!(quantile(&[0, 0, 0, 5], &bounds, 500), None, "beyond the last bound nothing is known");
    }

    #[test]
    fn a_page_shows_what_happened_between_two_looks() {
        let stats = |seconds, requests, errors| GetStatsResponse {
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            routes: vec![RouteStats {
                route: "orders".into(),
                requests,
                server_errors: errors,
                durations: vec![requests, 0],
                ..Default::default()
            }],
            bounds_us: vec![1_000],
            ..Default::default()
        };
        let page = Page::between(&stats(10, 100, 1), &stats(12, 300, 3));
        assert!(page.text(5).contains("100 requests/s"), "{}", page.text(5));
        let json = page.json(5);
        assert_eq!(json["routes"][0]["requests"], 200);
        assert_eq!(json["routes"][0]["server_errors"], 2);
        assert_eq!(json["routes"][0]["p50_us"], 500);
    }
}
