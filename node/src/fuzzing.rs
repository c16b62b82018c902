//! Doors for the crate `fuzz` into words of operators and of peers; nothing here decides anything.

use quorumgate_model::resource::Resource;
use quorumgate_proto::{admin::v1::ConfigSet, peer::v1 as pb};

use crate::{
    cli::{
        config::{Config, source::Source},
        openapi,
    },
    consensus::convert,
};

/// What a configuration file comes to.
pub struct Configuration {
    pub resources: Vec<Resource>,
    pub canonical: String,
    pub message: ConfigSet,
}

/// Err: all complaints, as the operator sees them.
pub fn configuration(text: &str) -> Result<Configuration, String> {
    let source = Source { name: "fuzz.yaml".into(), path: None, text: text.into() };
    let config = Config::parse(vec![source]).map_err(|failure| failure.to_string())?;
    let canonical = config.canonical().map_err(|failure| failure.to_string())?;
    Ok(Configuration { resources: config.resources().cloned().collect(), canonical, message: config.message() })
}

/// The configuration file that an OpenAPI document becomes. Err: what the operator sees.
pub fn imported(document: &str, flags: &[&str]) -> Result<String, String> {
    openapi::file_of(document, flags).map_err(|failure| failure.to_string())
}

pub fn append(message: pb::AppendRequest) -> Result<pb::AppendRequest, String> {
    convert::append_from(message).map(|it| convert::append_to(&it)).map_err(|error| format!("{error:#}"))
}

pub fn appended(message: pb::AppendResponse) -> Result<pb::AppendResponse, String> {
    convert::appended_from(&message).map(|it| convert::appended_to(&it)).map_err(|error| format!("{error:#}"))
}

pub fn vote_request(message: pb::VoteRequest) -> Result<pb::VoteRequest, String> {
    let vote = convert::vote_request_from(&message);
    vote.map(|it| convert::vote_request_to(&it)).map_err(|error| format!("{error:#}"))
}

pub fn vote_response(message: pb::VoteResponse) -> Result<pb::VoteResponse, String> {
    let vote = convert::vote_response_from(&message);
    vote.map(|it| convert::vote_response_to(&it)).map_err(|error| format!("{error:#}"))
}

pub fn transfer_leader(message: pb::TransferLeaderRequest) -> Result<pb::TransferLeaderRequest, String> {
    convert::transfer_from(&message).map(|it| convert::transfer_to(&it)).map_err(|error| format!("{error:#}"))
}
