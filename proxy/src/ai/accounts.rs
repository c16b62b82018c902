//! What models were asked and answered, by consumer, model and day: each worker's own book, of as many rows as there may be.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use quorumgate_model::resource::Name;

use super::call::{Bill, micros};
use crate::metrics::WorkerMetrics;

pub(super) const DAY_MS: u64 = 86_400_000;
/// Of one worker; what is beyond them is counted together, by day.
const ROWS_MAX: usize = 8_192;
/// How many days back there are rows, today's included.
const DAYS_MAX: u64 = 35;
/// Models that metrics tell apart.
const MODELS_MAX: usize = 256;
/// What stands for all that there was no place for.
pub const BEYOND: &str = "*";

/// By one worker. Locked for a moment by its own requests to models as they end, and by who asks for all.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    rows: BTreeMap<Row, Sum>,
    /// By model, since the process started: what metrics are made of never falls.
    totals: BTreeMap<String, Sum>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// Since 1970-01-01, UTC.
    day: u64,
    /// Empty: nobody who is known.
    consumer: String,
    model: String,
    target: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    requests: u64,
    estimated: u64,
    over: u64,
    input: u64,
    output: u64,
    cost: u128,
}

impl Sum {
    fn add(&mut self, other: &Sum) {
        self.requests += other.requests;
        self.estimated += other.estimated;
        self.over += other.over;
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cost = self.cost.saturating_add(other.cost);
    }
}

impl Accounts {
    pub(super) fn add(&self, day: u64, consumer: Option<Name>, model: &str, target: &str, bill: &Bill) {
        let sum = Sum {
            requests: 1,
            estimated: u64::from(!bill.is_told),
            over: u64::from(bill.is_over),
            input: bill.tokens.input,
            output: bill.tokens.output,
            cost: bill.cost,
        };
        let consumer = consumer.map(|it| it.to_string()).unwrap_or_default();
        let row = Row { day, consumer, model: model.to_owned(), target: target.to_owned() };
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.add(row, &sum);
        let known = book.totals.len() < MODELS_MAX || book.totals.contains_key(model);
        let model = if known { model } else { BEYOND };
        book.totals.entry(model.to_owned()).or_default().add(&sum);
    }
}

impl Book {
    fn add(&mut self, row: Row, sum: &Sum) {
        let first = (row.day + 1).saturating_sub(DAYS_MAX);
        if self.rows.first_key_value().is_some_and(|(oldest, _)| oldest.day < first) {
            self.rows.retain(|it, _| it.day >= first);
        }
        let row = match self.rows.len() < ROWS_MAX || self.rows.contains_key(&row) {
            true => row,
            false => {
                let beyond = || BEYOND.to_owned();
                Row { day: row.day, consumer: beyond(), model: beyond(), target: beyond() }
            }
        };
        self.rows.entry(row).or_default().add(sum);
    }
}

/// What a consumer had of a model on one day, on this node since it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Since 1970-01-01, UTC.
    pub day: u64,
    /// Empty: nobody who is known. `*`, and so the models: all that there was no place for.
    pub consumer: String,
    /// As clients ask for it.
    pub model: String,
    /// As the provider calls it; empty: none was asked.
    pub target: String,
    pub requests: u64,
    /// Of which the provider did not say what they cost: what was reserved is counted.
    pub estimated: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Millionths of a unit of money.
    pub cost_micros: u64,
}

pub(crate) fn usage(workers: &[Arc<WorkerMetrics>]) -> Vec<Used> {
    let mut all: BTreeMap<Row, Sum> = BTreeMap::new();
    for worker in workers {
        for (row, sum) in &worker.models.0.lock().unwrap_or_else(PoisonError::into_inner).rows {
            all.entry(row.clone()).or_default().add(sum);
        }
    }
    let used = |(row, sum): (Row, Sum)| Used {
        day: row.day,
        consumer: row.consumer,
        model: row.model,
        target: row.target,
        requests: sum.requests,
        estimated: sum.estimated,
        input_tokens: sum.input,
        output_tokens: sum.output,
        cost_micros: micros(sum.cost),
    };
    all.into_iter().map(used).collect()
}

/// As Prometheus text, once a model was asked.
pub(crate) fn metrics(workers: &[Arc<WorkerMetrics>], out: &mut String) {
    let mut totals: BTreeMap<String, Sum> = BTreeMap::new();
    for worker in workers {
        for (model, sum) in &worker.models.0.lock().unwrap_or_else(PoisonError::into_inner).totals {
            totals.entry(model.clone()).or_default().add(sum);
        }
    }
    // Writing to a String cannot fail.
    let _ = write_all(&totals, out);
}

fn write_all(totals: &BTreeMap<String, Sum>, out: &mut String) -> std::fmt::Result {
    const REQUESTS: &str = "quorumgate_ai_requests_total";
    const OVER: &str = "quorumgate_ai_overruns_total";
    const TOKENS: &str = "quorumgate_ai_tokens_total";
    const COST: &str = "quorumgate_ai_cost_micros_total";
    if totals.is_empty() {
        return Ok(());
    }
    writeln!(out, "# HELP {REQUESTS} Requests to models; estimated: the provider did not say what they cost.")?;
    writeln!(out, "# TYPE {REQUESTS} counter")?;
    for (model, sum) in totals {
        for (settled, count) in [("told", sum.requests - sum.estimated), ("estimated", sum.estimated)] {
            writeln!(out, "{REQUESTS}{{model=\"{model}\",settled=\"{settled}\"}} {count}")?;
        }
    }
    writeln!(out, "# HELP {OVER} Requests to models that cost more than was reserved.\n# TYPE {OVER} counter")?;
    for (model, sum) in totals {
        writeln!(out, "{OVER}{{model=\"{model}\"}} {}", sum.over)?;
    }
    writeln!(out, "# HELP {TOKENS} Tokens that models were asked and answered with.\n# TYPE {TOKENS} counter")?;
    for (model, sum) in totals {
        for (kind, count) in [("input", sum.input), ("output", sum.output)] {
            writeln!(out, "{TOKENS}{{model=\"{model}\",kind=\"{kind}\"}} {count}")?;
        }
    }
    writeln!(out, "# HELP {COST} What they cost, in millionths of a unit of money.\n# TYPE {COST} counter")?;
    for (model, sum) in totals {
        writeln!(out, "{COST}{{model=\"{model}\"}} {}", micros(sum.cost))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Tokens;

    fn bill(input: u64, cost: u128) -> Bill {
        Bill { tokens: Tokens { input, output: 1 }, is_told: true, is_over: false, cost }
    }

    #[test]
    fn books_have_a_bound_in_rows_and_in_days() {
        let accounts = Accounts::default();
        let who = |n: usize| Some(format!("c{n}").parse().unwrap());
        for n in 0..ROWS_MAX + 10 {
            accounts.add(100, who(n), "m", "t", &bill(2, 3));
        }
        accounts.add(100, who(7), "m", "t", &bill(2, 3));
        let rows = |accounts: &Accounts| accounts.0.lock().unwrap().rows.clone();
        assert_eq!(rows(&accounts).len(), ROWS_MAX + 1);
        let beyond = rows(&accounts).into_iter().find(|(row, _)| row.consumer == BEYOND).unwrap();
        assert_eq!((beyond.1.requests, beyond.1.input, beyond.1.cost), (10, 20, 30));
        accounts.add(100 + DAYS_MAX, None, "m", "t", &bill(2, 3));
        assert_eq!(rows(&accounts).into_keys().map(|it| (it.day, it.consumer)).collect::<Vec<_>>(), [(135, "".into())]);
        assert_eq!(accounts.0.lock().unwrap().totals["m"].requests as usize, ROWS_MAX + 12);
    }

    #[test]
    fn a_token_of_a_cheap_model_is_not_free() {
        // 150,000 millionths for a million tokens: a seventh of a millionth each.
        assert_eq!(micros(150_000), 1);
        assert_eq!(micros(150_000 * 1_000_000), 150_000);
        assert_eq!(micros(0), 0);
    }
}
