//! The verbs that make and run nodes on this machine: demo, init, join, run.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use quorumgate_model::{resource::Name, units::Span};

#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// How many nodes to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7), value_name = "N")]
    pub nodes: u8,
    /// Exit after the checks: 0 if all held, else 1.
    #[arg(long)]
    pub once: bool,
    /// Keep the data directories here instead of removing them.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The first of the ports to use; free ones are picked otherwise.
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub struct Init {
    #[command(flatten)]
    pub node: NewNode,
    /// The longest round trip between two voters; every consensus timer follows from it.
    #[arg(long, default_value = "5ms", value_name = "D")]
    pub max_rtt: Span,
    /// Run the node at once.
    #[arg(long)]
    pub run: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Join {
    /// Peer addresses of nodes that are in the cluster, host:port.
    #[arg(required = true, value_name = "SEED")]
    pub seeds: Vec<String>,
    /// A file with the join token; - reads standard input.
    #[arg(long, value_name = "F")]
    pub token_file: PathBuf,
    #[command(flatten)]
    pub node: NewNode,
    /// Voters decide, replicas only serve; the token's role if left out.
    #[arg(long)]
    pub role: Option<NodeRole>,
    /// Run the node at once.
    #[arg(long)]
    pub run: bool,
}

/// What a data directory is prepared with.
#[derive(Debug, Clone, Args)]
pub struct NewNode {
    /// The node's name, unique in the cluster.
    #[arg(long, value_name = "N")]
    pub name: Name,
    /// Where the node stands, such as eu-1.
    #[arg(long, value_name = "R")]
    pub region: String,
    /// The directory for everything this node keeps.
    #[arg(long, value_name = "D")]
    pub data_dir: PathBuf,
    /// Where clients connect.
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "A")]
    pub proxy_listen: SocketAddr,
    /// Where the other nodes connect (UDP).
    #[arg(long, default_value = "127.0.0.1:8400", value_name = "A")]
    pub peer_listen: SocketAddr,
    /// Where operators connect, beside the unix socket in the data directory.
    #[arg(long, default_value = "127.0.0.1:8401", value_name = "A")]
    pub admin_listen: SocketAddr,
    /// Where metrics and health are served.
    #[arg(long, default_value = "127.0.0.1:8402", value_name = "A")]
    pub telemetry_listen: SocketAddr,
    /// The peer address as the other nodes see it, if it differs from --peer-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[group(id = "place", required = true, multiple = true)]
pub struct Run {
    /// The directory that init or join has prepared.
    #[arg(long, value_name = "D", group = "place")]
    pub data_dir: Option<PathBuf>,
    /// A settings file elsewhere; its directory is the data directory unless --data-dir says otherwise.
    #[arg(long, short = 'c', value_name = "F", group = "place")]
    pub config: Option<PathBuf>,
    /// How many proxy threads; 0 is one less than the cores.
    #[arg(long, value_name = "N")]
    pub proxy_workers: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodeRole {
    Voter,
    Replica,
}

impl NodeRole {
    pub fn word(self) -> &'static str {
        match self {
            NodeRole::Voter => "voter",
            NodeRole::Replica => "replica",
        }
    }
}
