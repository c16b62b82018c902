//! The Ai service: what models were asked and what it cost, on all nodes.

use std::{cmp::Reverse, collections::BTreeMap};

use quorumgate_model::units::Moment;
use quorumgate_proto::{
    admin::v1::{self as admin, ai_server::Ai},
    peer::v1 as pb,
};
use tonic::{Request, Response, Status};

use super::{
    config::taken,
    desk::{Desk, ROWS_WITHIN, heard},
    failure,
};

const TOP_DEFAULT: u32 = 10_000;
const TOP_MAX: u32 = 100_000;
const DAY_MS: u64 = 86_400_000;
/// `2026-11-27`
const DAY_CHARS: usize = 10;

#[tonic::async_trait]
impl Ai for Desk {
    async fn list_ai_usage(
        &self,
        request: Request<admin::ListAiUsageRequest>,
    ) -> Result<Response<admin::ListAiUsageResponse>, Status> {
        let (_, request) = taken(request)?;
        let top = failure::top(request.top, TOP_DEFAULT, TOP_MAX)?;
        let day = match &*request.day {
            "" => None,
            text => Some(day_of(text).ok_or_else(|| {
                failure::bad_field("day", &format!("found {text:?}; allowed: a day such as 2026-11-27"))
            })?),
        };
        let consensus = &self.consensus;
        let state = consensus.state();
        let mut sums: BTreeMap<(u64, String, String, String), pb::AiUsed> = BTreeMap::new();
        let (mut unanswered, mut not_told) = (Vec::new(), 0u32);
        let asked = pb::AiUsageRequest { consumer: request.consumer, model: request.model, day };
        let answers = consensus.ai_usage(&asked, ROWS_WITHIN + 2 * state.timing().max_rtt).await;
        for answer in heard(&state, answers, &mut unanswered) {
            not_told = not_told.saturating_add(answer.left_out);
            for it in answer.used {
                let key = (it.day, it.consumer.clone(), it.model.clone(), it.target.clone());
                add(sums.entry(key).or_default(), &it);
            }
        }
        let mut usage: Vec<_> = sums.into_iter().collect();
        usage.sort_by_key(|((day, ..), it)| Reverse((*day, it.input_tokens.saturating_add(it.output_tokens))));
        let left_out = (usage.len().saturating_sub(top) as u32).saturating_add(not_told);
        usage.truncate(top);
        let shown = |((day, consumer, model, target), it): ((u64, String, String, String), pb::AiUsed)| {
            let (requests, estimated, cost_micros) = (it.requests, it.estimated, it.cost_micros);
            let (input_tokens, output_tokens, day) = (it.input_tokens, it.output_tokens, day_text(day));
            admin::AiUsage {
                day,
                consumer,
                model,
                target,
                requests,
                estimated,
                input_tokens,
                output_tokens,
                cost_micros,
            }
        };
        let usage = usage.into_iter().map(shown).collect();
        Ok(Response::new(admin::ListAiUsageResponse { header: Some(self.header()), usage, left_out, unanswered }))
    }
}

fn add(sum: &mut pb::AiUsed, it: &pb::AiUsed) {
    for (sum, more) in [
        (&mut sum.requests, it.requests),
        (&mut sum.estimated, it.estimated),
        (&mut sum.input_tokens, it.input_tokens),
        (&mut sum.output_tokens, it.output_tokens),
        (&mut sum.cost_micros, it.cost_micros),
    ] {
        *sum = sum.saturating_add(more);
    }
}

/// Since 1970-01-01; None: it is none.
fn day_of(text: &str) -> Option<u64> {
    let moment: Moment = format!("{text}T00:00:00Z").parse().ok()?;
    (text.len() == DAY_CHARS).then_some(moment.0 / DAY_MS)
}

fn day_text(day: u64) -> String {
    Moment(day.saturating_mul(DAY_MS)).to_string().chars().take(DAY_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        for text in ["1970-01-01", "2024-02-29", "2026-11-27"] {
            assert_eq!(day_text(day_of(text).unwrap()), text);
        }
        for wrong in ["2026-02-30", "today", "2026-11-27T00:00:00Z", "2026-1-1"] {
            assert_eq!(day_of(wrong), None, "{wrong}");
        }
    }
}
