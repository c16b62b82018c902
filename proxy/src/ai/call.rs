//! One request to a model from when it was let in, and what it has cost in the end, however it ends.

use std::{cell::RefCell, rc::Rc};

use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{AiTarget, Name},
};
use serde::Serialize;

use super::{Plan, counted::Counted, endpoint::Endpoint};
use crate::{limits::Tokens, record::Record};

/// Sums of prices are kept in millionths of what is told.
pub(super) const PARTS_OF_MICRO: u128 = 1_000_000;

pub(crate) struct Call {
    plan: Rc<Plan>,
    endpoint: Endpoint,
    /// The model's, in the policy.
    place: usize,
    choices: u64,
    reserved: Tokens,
    target: Option<AiTarget>,
    pub(super) counted: Rc<RefCell<Counted>>,
    pub(super) stand: Stand,
    bill: Option<Bill>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// Nothing is owed to anybody: nothing was sent, or what was answered costs nothing.
    Free,
    /// A provider may be at it, and may charge for it.
    Asked,
}

/// What it has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) tokens: Tokens,
    /// The provider said so. Else it is what was reserved, as far as nothing better is known.
    pub(super) is_told: bool,
    /// It is more than was reserved: a policy that is not strict, or a provider that does not keep to what it was told.
    pub(super) is_over: bool,
    /// In millionths of millionths of a unit of money.
    pub(super) cost: u128,
}

/// For the access log.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    model: &'a str,
    target: Option<&'a str>,
    upstream: Option<&'a Name>,
    input_tokens: u64,
    output_tokens: u64,
    cost_micros: u64,
    /// The provider did not say: it is what was reserved.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

impl Call {
    pub(super) fn new(plan: &Rc<Plan>, endpoint: Endpoint, place: usize, reserved: Tokens, choices: u64) -> Self {
        Self {
            plan: plan.clone(),
            endpoint,
            place,
            choices,
            reserved,
            target: None,
            // Strictly, nobody gets more than was reserved.
            counted: Rc::new(RefCell::new(Counted::new(!plan.words.strict))),
            stand: Stand::Free,
            bill: None,
        }
    }

    /// From here on nobody can say what it costs until the target does.
    pub(super) fn asks(&mut self, target: &AiTarget) {
        self.target = Some(target.clone());
        self.stand = Stand::Asked;
    }

    fn model(&self) -> &str {
        &self.plan.words.models[self.place].name
    }

    /// What is certain, and for the rest what was reserved, or what has passed if that is more: a stream that broke off is not known
    /// to have cost less.
    fn tokens(&self) -> (Tokens, bool) {
        if self.stand == Stand::Free {
            return (Tokens::default(), true);
        }
        let counted = self.counted.borrow();
        match counted.whole() {
            Some(tokens) => (tokens, true),
            None if mutants::is(Mutant::AbortedFree) => (Tokens::default(), true),
            None => {
                let input = counted.input().unwrap_or(self.reserved.input);
                (Tokens { input, output: self.reserved.output.max(counted.passed()) }, false)
            }
        }
    }

    /// Gives back to the budgets what it did not cost, and writes it into the books. Once, at its very end.
    pub(crate) fn settle(&mut self, record: &mut Record) {
        let (tokens, is_told) = self.tokens();
        let shared = &record.conn.worker.shared;
        if let Some(admitted) = &mut record.admitted {
            let settled = if mutants::is(Mutant::ReserveSettled) { self.reserved } else { tokens };
            admitted.settle_tokens(&shared.limits, settled);
        }
        let price = self.target.as_ref().map_or((0, 0), |it| (it.input_price, it.output_price));
        let cost = u128::from(tokens.input) * u128::from(price.0) + u128::from(tokens.output) * u128::from(price.1);
        let is_over = tokens.input > self.reserved.input || tokens.output > self.reserved.output;
        let bill = Bill { tokens, is_told, is_over, cost };
        if self.stand == Stand::Asked && is_told && self.endpoint != Endpoint::Embeddings {
            self.plan.lengths[self.place].borrow_mut().add(tokens.output / self.choices.max(1));
        }
        let consumer = record.identity.as_ref().and_then(|it| {
            let mut callers = it.callers();
            callers.find_map(|caller| caller.consumer.as_ref()).map(|consumer| consumer.name.clone())
        });
        let target = self.target.as_ref().map_or("", |it| &it.model);
        let day = record.conn.worker.wall_ms(std::time::Instant::now()) / super::accounts::DAY_MS;
        record.conn.worker.metrics.models.add(day, consumer, self.model(), target, &bill);
        self.bill = Some(bill);
    }

    pub(crate) fn line(&self) -> Line<'_> {
        let bill = self.bill.unwrap_or(Bill { tokens: self.reserved, is_told: false, is_over: false, cost: 0 });
        Line {
            model: self.model(),
            target: self.target.as_ref().map(|it| &*it.model),
            upstream: self.target.as_ref().and_then(|it| it.upstream.as_ref()),
            input_tokens: bill.tokens.input,
            output_tokens: bill.tokens.output,
            cost_micros: micros(bill.cost),
            estimated: !bill.is_told,
        }
    }
}

/// Rounded up: what costs something never costs nothing.
pub(super) fn micros(cost: u128) -> u64 {
    u64::try_from(cost.div_ceil(PARTS_OF_MICRO)).unwrap_or(u64::MAX)
}
