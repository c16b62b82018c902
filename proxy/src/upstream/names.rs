//! Who is asked for the addresses of a name: the name servers of the node's settings, else those of the system, whose own
//! ways (files, mDNS, whatever nsswitch names) are asked where DNS does not know.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use tokio::time::timeout;

/// What the system's resolver is made from; a change of them makes another.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// For one server's answer, and for whatever the servers say together: the system's own ways have the rest of the time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const DNS_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Found {
    pub addresses: Vec<IpAddr>,
    /// None: nobody said.
    pub ttl: Option<Duration>,
}

#[derive(Clone)]
pub(super) struct Resolver {
    /// None: what the system says of its servers cannot be read, so that only its own ways are left.
    dns: Option<Arc<TokioResolver>>,
    whose: Whose,
}

#[derive(Clone)]
enum Whose {
    Settings,
    /// As its files were.
    System([Option<SystemTime>; SYSTEM_FILES.len()]),
}

impl Resolver {
    pub fn new(servers: &[SocketAddr]) -> Self {
        match servers {
            [] => Self::of_system(),
            servers => Self { dns: of_servers(servers), whose: Whose::Settings },
        }
    }

    fn of_system() -> Self {
        let whose = Whose::System(written());
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            prepare(builder.options_mut());
            builder.build()
        });
        let dns = built.inspect_err(|error| {
            tracing::warn!(%error, "the system's name servers are not known: names are looked up without their times");
        });
        Self { dns: dns.ok().map(Arc::new), whose }
    }

    /// As the system's files are now.
    pub fn current(&mut self) -> Self {
        if let Whose::System(read) = &self.whose
            && *read != written()
        {
            *self = Self::of_system();
        }
        self.clone()
    }

    pub async fn look_up(&self, name: &str) -> anyhow::Result<Found> {
        let told = match &self.dns {
            Some(dns) => match timeout(DNS_TIMEOUT, dns.lookup_ip(name)).await {
                Ok(told) => told.map_err(anyhow::Error::from),
                Err(_) => Err(anyhow::anyhow!("no name server answers")),
            },
            None => Err(anyhow::anyhow!("no name server is known")),
        };
        let system = matches!(self.whose, Whose::System(_));
        match told {
            Ok(answer) => {
                let ttl = answer.valid_until().saturating_duration_since(std::time::Instant::now());
                Ok(Found { addresses: answer.iter().collect(), ttl: Some(ttl) })
            }
            Err(error) if system => {
                let found = tokio::net::lookup_host((name, 0)).await.with_context(|| format!("{error:#}"))?;
                Ok(Found { addresses: found.map(|address| address.ip()).collect(), ttl: None })
            }
            Err(error) => Err(error),
        }
    }
}

fn of_servers(servers: &[SocketAddr]) -> Option<Arc<TokioResolver>> {
    let servers = servers.iter().map(|server| {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (server.port(), server.port());
        NameServerConfig::new(server.ip(), true, vec![udp, tcp])
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    prepare(builder.options_mut());
    builder.build().inspect_err(|error| tracing::error!(%error, "the name servers cannot be used")).ok().map(Arc::new)
}

/// All addresses; how long they hold is for the calendar, so that nothing is kept here.
fn prepare(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    options.timeout = ANSWER_TIMEOUT;
}

fn written() -> [Option<SystemTime>; SYSTEM_FILES.len()] {
    SYSTEM_FILES.map(|file| std::fs::metadata(file).and_then(|it| it.modified()).ok())
}
