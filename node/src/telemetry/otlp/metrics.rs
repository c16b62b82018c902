//! The Prometheus text that this node writes itself, as OTLP metrics: one place says which metrics there are.

use std::collections::BTreeMap;

use quorumgate_proto::telemetry::v1::{self as otlp, metric::Data};

use super::text;

const CUMULATIVE: i32 = 2;

/// Labels without `le`, as they are written.
type Labels = String;

#[derive(Default)]
struct Family<'a> {
    help: &'a str,
    kind: &'a str,
    numbers: Vec<(Labels, f64)>,
    histograms: BTreeMap<Labels, Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// Upper bounds with cumulative counts, in the order of the text.
    upto: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

pub fn read(text: &str, now_ns: u64) -> Vec<otlp::Metric> {
    let mut families: Vec<(&str, Family<'_>)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.push((name, Family { help, ..Family::default() }));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            match families.last_mut() {
                Some((last, family)) if *last == name => family.kind = kind,
                _ => families.push((name, Family { kind, ..Family::default() })),
            }
        } else if let (Some((name, family)), Some(sample)) = (families.last_mut(), Sample::read(line)) {
            family.take(name, sample);
        }
    }
    families.into_iter().filter_map(|(name, family)| family.metric(name, now_ns)).collect()
}

struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Self { name, labels, value: value.parse().ok()? })
    }
}

impl Family<'_> {
    fn take(&mut self, name: &str, sample: Sample<'_>) {
        if self.kind != "histogram" {
            return self.numbers.push((sample.labels.to_owned(), sample.value));
        }
        let mut le = None;
        let mut rest = Vec::new();
        for (key, value) in labels(sample.labels) {
            if key == "le" {
                le = value.parse().ok();
            } else {
                rest.push(format!("{key}=\"{}\"", escaped(&value)));
            }
        }
        let buckets = self.histograms.entry(rest.join(",")).or_default();
        match (sample.name.strip_prefix(name), le) {
            (Some("_bucket"), Some(bound)) => buckets.upto.push((bound, sample.value as u64)),
            (Some("_sum"), _) => buckets.sum = sample.value,
            (Some("_count"), _) => buckets.count = sample.value as u64,
            _ => {}
        }
    }

    fn metric(self, name: &str, now_ns: u64) -> Option<otlp::Metric> {
        let points = |numbers: Vec<(Labels, f64)>| -> Vec<otlp::NumberPoint> {
            let point = |(labels, value): (Labels, f64)| otlp::NumberPoint {
                start_time_unix_nano: 0,
                time_unix_nano: now_ns,
                as_double: Some(value),
                attributes: attributes(&labels),
            };
            numbers.into_iter().map(point).collect()
        };
        if self.numbers.is_empty() && self.histograms.is_empty() {
            return None;
        }
        let data = match self.kind {
            "histogram" => Data::Histogram(otlp::Histogram {
                data_points: self.histograms.into_iter().map(|(labels, it)| it.point(&labels, now_ns)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
            "counter" => Data::Sum(otlp::Sum {
                data_points: points(self.numbers),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            _ => Data::Gauge(otlp::Gauge { data_points: points(self.numbers) }),
        };
        Some(otlp::Metric { name: name.to_owned(), description: self.help.to_owned(), data: Some(data) })
    }
}

impl Buckets {
    fn point(self, labels: &str, now_ns: u64) -> otlp::HistogramPoint {
        let mut before = 0;
        let mut counts = Vec::with_capacity(self.upto.len());
        for (_, upto) in &self.upto {
            counts.push(upto.saturating_sub(before));
            before = *upto;
        }
        let bounds = self.upto.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect();
        otlp::HistogramPoint {
            start_time_unix_nano: 0,
            time_unix_nano: now_ns,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: counts,
            explicit_bounds: bounds,
            attributes: attributes(labels),
        }
    }
}

fn attributes(written: &str) -> Vec<otlp::KeyValue> {
    labels(written).into_iter().map(|(key, value)| text(key, &value)).collect()
}

/// `a="b",c="d"`, in which a value may hold `\"`, `\\` and `\n`.
fn labels(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => return found,
                },
                Some((at, '"')) => break at,
                Some((_, other)) => value.push(other),
                None => return found,
            }
        };
        found.push((key.trim_start_matches(','), value));
        rest = &quoted[end + 1..];
    }
    found
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP up 1 where it is.
# TYPE up gauge
up{node=\"n1\",why=\"a \\\"b\\\", c\"} 1
# HELP seen_total Seen.
# TYPE seen_total counter
seen_total 7
# HELP took_seconds Took.
# TYPE took_seconds histogram
took_seconds_bucket{route=\"a\",le=\"0.5\"} 2
took_seconds_bucket{route=\"a\",le=\"1\"} 2
took_seconds_bucket{route=\"a\",le=\"+Inf\"} 3
took_seconds_sum{route=\"a\"} 4.5
took_seconds_count{route=\"a\"} 3
# HELP none_total Never.
# TYPE none_total counter
";

    #[test]
    fn the_text_becomes_gauges_sums_and_histograms() {
        let metrics = read(TEXT, 9);
        let names: Vec<_> = metrics.iter().map(|it| (it.name.as_str(), it.description.as_str())).collect();
        assert_eq!(names, [("up", "1 where it is."), ("seen_total", "Seen."), ("took_seconds", "Took.")]);
        let Some(Data::Gauge(up)) = &metrics[0].data else { panic!("{metrics:?}") };
        let [node, why] = &up.data_points[0].attributes[..] else { panic!("{up:?}") };
        assert_eq!((node, why), (&super::text("node", "n1"), &super::text("why", "a \"b\", c")));
        let Some(Data::Sum(seen)) = &metrics[1].data else { panic!("{metrics:?}") };
        assert_eq!((seen.data_points[0].as_double, seen.is_monotonic), (Some(7.0), true));
        let Some(Data::Histogram(took)) = &metrics[2].data else { panic!("{metrics:?}") };
        let point = &took.data_points[0];
        assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (3, Some(4.5), &[2, 0, 1][..]));
        assert_eq!((&point.explicit_bounds[..], point.attributes.len()), (&[0.5, 1.0][..], 1));
    }
}
