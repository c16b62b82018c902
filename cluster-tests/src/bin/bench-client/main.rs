//! What `scripts/bench` needs beside wrk and h2load: an origin for large bodies and gRPC, requests that are due at fixed
//! times, single large bodies, connections that rest, and load over HTTP/3. Each prints one line of JSON.

mod client;
mod content;
mod http3;
mod load;
mod origin;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
struct Words {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answers HTTP/1.1 and cleartext HTTP/2: /bytes/N with N bytes, gRPC calls with an empty message, all else with 1 KiB.
    Origin { listen: SocketAddr },
    /// Requests due at fixed times; each is timed from when it was due, so that one that waits for a slow one counts in full.
    Paced {
        #[command(flatten)]
        at: At,
        /// Requests a second over all connections.
        #[arg(long)]
        rate: u32,
        #[arg(long, default_value_t = 64)]
        connections: u32,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// One body: GET /bytes/N, or PUT /sink with N bytes.
    Body {
        #[command(flatten)]
        at: At,
        #[arg(long)]
        protocol: Protocol,
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        upload: bool,
    },
    /// Opens connections, asks once on each, says `ready`, and keeps them until its input ends.
    Idle {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// As many requests over HTTP/3 as there are answers.
    Http3 {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Requests at once on each connection.
        #[arg(long, default_value_t = 10)]
        streams: usize,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
}

/// Whom to ask, as `bench.test`.
#[derive(Args, Clone)]
struct At {
    address: SocketAddr,
    /// PEM of the authority of its certificate; without it there is no TLS.
    #[arg(long)]
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    H1,
    H2,
    H3,
}

const HOST: &str = "bench.test";

fn main() -> ExitCode {
    let words = Words::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(words.verb))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    let said = match verb {
        Verb::Origin { listen } => return origin::run(listen).await,
        Verb::Idle { at, connections } => return load::idle(&at, connections).await,
        Verb::Paced { at, rate, connections, seconds } => {
            load::paced(&at, rate, connections, Duration::from_secs_f64(seconds)).await?
        }
        Verb::Body { at, protocol: Protocol::H3, bytes, upload } => http3::body(&at, bytes, upload).await?,
        Verb::Body { at, protocol, bytes, upload } => client::body(&at, protocol, bytes, upload).await?,
        Verb::Http3 { at, connections, streams, seconds } => {
            http3::load(&at, connections, streams, Duration::from_secs_f64(seconds)).await?
        }
    };
    println!("{said}");
    Ok(())
}
