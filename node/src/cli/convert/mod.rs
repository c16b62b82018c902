//! `convert`: the configuration of another gateway as ours. What is not translated is told with its place, and no route
//! comes out open that was closed.

mod apisix;
mod common;
mod effects;
mod finish;
mod gateway_api;
mod kong;
mod order;
mod out;
mod reader;
mod report;

#[cfg(test)]
mod tests;

use std::{
    fs::{OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use quorumgate_model::resource::Resource;

use self::{out::Out, reader::Reading, report::Reported};
use super::{
    args::{Convert, ConvertFrom},
    config::{
        Config, canonical,
        source::{self, Source},
    },
    failure::{Exit, Failure, Outcome},
    output,
    shape::visible,
};

pub fn run(verb: &Convert) -> Outcome {
    let (resources, reported) = converted(verb.from, source::read(&verb.files)?, &verb.audience)?;
    for line in &reported.lines {
        eprintln!("{}", visible(&line.to_string()));
    }
    if reported.more > 0 {
        eprintln!("and {} more", reported.more);
    }
    if verb.strict && reported.is_loss {
        return Err(Failure::new(Exit::Negative, "something was not translated, and --strict was said")
            .help("each line above that begins with `left out` or `closed` says what to do by hand"));
    }
    let text = canonical::file(resources.iter())?;
    match &verb.to {
        Some(file) => write(file, &text),
        None => output::stdout(&text),
    }
}

/// The objects, which `validate` takes as they are, and what is to be told.
fn converted(from: ConvertFrom, sources: Vec<Source>, audience: &[String]) -> Outcome<(Vec<Resource>, Reported)> {
    let reading = Reading::of(sources)?;
    let documents: Vec<_> = reading.documents().collect();
    if let Some(wrong) = documents.iter().find(|it| !it.is_map()) {
        return Err(wrong.wrong("a map"));
    }
    if !audience.is_empty() && from != ConvertFrom::Kong {
        return Err(Failure::usage("--audience is for --from kong"));
    }
    let mut out = Out::default();
    match from {
        ConvertFrom::Kong => kong::convert(&documents, &mut out, audience)?,
        ConvertFrom::Apisix => apisix::convert(&documents, &mut out)?,
        ConvertFrom::GatewayApi => gateway_api::convert(&documents, &mut out)?,
    }
    let resources = finish::finish(out);
    let source = Source { name: "what was made".into(), path: None, text: canonical::file(resources.iter())? };
    Config::parse(vec![source]).and_then(|it| it.check_together()).map_err(|failure| {
        Failure::new(Exit::Internal, format!("what was made is not valid, which is a bug of `convert`: {failure}"))
    })?;
    Ok((resources, reading.finish()))
}

/// Private keys may be in it.
fn write(file: &Path, text: &str) -> Outcome {
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut opened =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(wrong)?;
    // One that is there already keeps its mode otherwise.
    opened.set_permissions(Permissions::from_mode(0o600)).map_err(wrong)?;
    opened.write_all(text.as_bytes()).map_err(wrong)
}
