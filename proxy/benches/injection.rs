//! What it costs to hold a KiB of a request against the patterns of attacks: texts, JSON values of many kinds, and what looks
//! like an attack here and there.

use divan::{Bencher, black_box, counter::BytesCount};
use quorumgate_proxy::inspect::injection_score;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BYTES: usize = 1 << 10;

fn main() {
    divan::main();
}

/// Every text is scored as one value.
fn score(bencher: Bencher, text: &str) {
    let text = text.repeat(BYTES / text.len() + 1);
    let text = &text.as_bytes()[..BYTES];
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| injection_score(black_box(text)));
}

#[divan::bench]
fn ids_and_tokens(bencher: Bencher) {
    score(bencher, "0190f1c2-7a3b-7c4d-8e5f-001122334455.ABCDabcd0123_-");
}

#[divan::bench]
fn prose(bencher: Bencher) {
    score(bencher, "It's a lovely day, isn't it? Please select an option from the table below; 5 or 6 are fine. ");
}

#[divan::bench]
fn code(bencher: Bencher) {
    score(bencher, "for (let i = 0; i < n; i++) { total += items[i].price; } // see https://example.com/a?b=c ");
}

/// Read once more, as SQL reads it.
#[divan::bench]
fn code_with_comments_of_lines(bencher: Bencher) {
    score(bencher, "total = sum(item.price for item in items)  # with tax\nif total > 5: print(f'{total} -- {x}')\n");
}

#[divan::bench]
fn percent_codes(bencher: Bencher) {
    score(bencher, "caf%C3%A9%20%26%20bar%20%2F%20%22quoted%22%20%3Cb%3E");
}
