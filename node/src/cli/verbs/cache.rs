//! `cache purge`: every node lets go of answers that it keeps.

use quorumgate_proto::admin::v1 as admin;

use super::files::with_request_id;
use crate::cli::{
    args::{CacheVerb, Global},
    client::Client,
    failure::{Failure, Outcome},
    write::{self, Wrote},
};

pub async fn run(global: &Global, verb: CacheVerb) -> Outcome {
    let CacheVerb::Purge(verb) = verb;
    let client = Client::connect(global).await?;
    let request_id = verb.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
    let request = admin::PurgeRequest {
        everything: verb.all,
        keys: verb.keys,
        prefixes: verb.prefixes,
        tags: verb.tags,
        message: verb.message,
        request_id: request_id.clone(),
    };
    let sent = client.caches().purge(client.ask(request)).await;
    let answer = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
    write::print(global.output, Wrote::Other("purged"), &answer)
}
