//! What counting one exchange costs (50 ns are allowed), and what a scrape of ten thousand routes does.

use std::time::Duration;

use http::Method;
use quorumgate_proxy::RouteMetrics;

fn main() {
    divan::main();
}

/// One hot route, and a different route each time.
#[divan::bench(args = [1, 1_000])]
fn one_exchange(bencher: divan::Bencher<'_, '_>, routes: usize) {
    let routes: Vec<RouteMetrics> = (0..routes).map(|_| RouteMetrics::new()).collect();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % routes.len();
        let took = Duration::from_nanos(2_400_000 + next as u64);
        divan::black_box(&routes[next]).ended(divan::black_box(&Method::GET), 200, took, Duration::from_micros(60));
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn scrape_of_ten_thousand_routes(bencher: divan::Bencher<'_, '_>) {
    let workers = quorumgate_proxy::metrics_of(10_000, 2);
    bencher.bench_local(|| workers.text().len());
}
