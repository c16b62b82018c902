//! What a listener does with its connections: compiled from the settings of the node or from a resource, swapped whole
//! while its sockets stay.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::Context;
use arc_swap::ArcSwap;
use http::HeaderValue;
use quorumgate_model::{
    canonical::Slashes,
    resource::{self, CertificateAuthority, ListenerProtocol, Name},
};
use tokio_util::sync::CancellationToken;

use crate::{
    settings,
    tls::{Clients, Names, Setup, Shown, TicketKeys},
};

/// How long a client may go on to HTTP/3 by what it was told once.
const ALT_SVC_S: u32 = 86_400;

/// What listeners share over all of a process.
pub(crate) struct Keys {
    pub(crate) tickets: Arc<TicketKeys>,
    #[cfg(feature = "http3")]
    pub(crate) tokens: crate::http3::TokenKey,
}

/// One listener that is open, as its sockets on every worker and its connections share it.
pub(crate) struct Open {
    pub(crate) reception: ArcSwap<Reception>,
    /// Stop accepting here, and ask the clients to go.
    pub(crate) close: CancellationToken,
    /// Its QUIC socket is open too.
    pub(crate) quic: AtomicBool,
}

/// Immutable; a connection keeps the one that it came in by.
pub(crate) struct Reception {
    /// The resource's; None: of the node's own settings.
    pub(crate) name: Option<Name>,
    pub(crate) speaks: Speaks,
    pub(crate) slashes: Slashes,
    /// Peers that begin with a PROXY header.
    pub(crate) proxy_protocol_from: Vec<ipnet::IpNet>,
    /// Says on other protocols that HTTP/3 is spoken here.
    pub(crate) alt_svc: Option<HeaderValue>,
}

pub(crate) enum Speaks {
    Http,
    Https(Setup),
    /// By server name; what no route takes goes to the upstream, if there is one.
    Passthrough(Option<Name>),
    Tcp(Name),
}

impl Open {
    pub(crate) fn new(reception: Reception) -> Arc<Self> {
        let (reception, close) = (ArcSwap::new(Arc::new(reception)), CancellationToken::new());
        Arc::new(Self { reception, close, quic: AtomicBool::new(false) })
    }

    /// Whether a connection may go on that came in by what the listener was then: it may have been waited for (its PROXY header, the
    /// handshake of HTTP/3) while the listener became another, or was closed.
    pub(crate) fn lets_stay(&self, earlier: &Reception) -> bool {
        !self.close.is_cancelled() && self.reception.load().lets_stay(earlier)
    }
}

impl Reception {
    pub(crate) fn tls(&self) -> Option<&Setup> {
        match &self.speaks {
            Speaks::Https(setup) => Some(setup),
            _ => None,
        }
    }

    pub(crate) fn has_http3(&self) -> bool {
        self.alt_svc.is_some()
    }

    /// Whether a connection that came in by an earlier reception may go on: clients were asked for the same, and what it
    /// may speak is still spoken.
    pub(crate) fn lets_stay(&self, earlier: &Self) -> bool {
        let asked = |it: &Self| it.tls().map(|setup| *setup.clients().digest());
        asked(self) == asked(earlier) && (self.has_http3() || !earlier.has_http3())
    }

    /// A listener of the node's own settings, with its certificate in files.
    pub(crate) fn of_settings(it: &settings::Listener, keys: &Arc<TicketKeys>) -> anyhow::Result<Self> {
        let speaks = match &it.tls {
            None => Speaks::Http,
            Some(tls) => {
                let read = |file: &std::path::Path| std::fs::read(file).with_context(|| file.display().to_string());
                let shown = Shown::from_pem(&read(&tls.certificate)?, &read(&tls.key)?).map_err(|invalid| {
                    let (chain, key) = (tls.certificate.display(), tls.key.display());
                    anyhow::anyhow!("certificate {chain} with key {key}: {invalid}")
                })?;
                let auth = match tls.client_auth {
                    settings::ClientAuth::None => resource::ClientAuth::None,
                    settings::ClientAuth::Request => resource::ClientAuth::Request,
                };
                let clients = Clients::new(auth, None).map_err(anyhow::Error::msg)?;
                Speaks::Https(Setup::new(Names::one(shown), clients, keys)?)
            }
        };
        let slashes = slashes(it.merge_slashes);
        Ok(Self { name: None, speaks, slashes, proxy_protocol_from: Vec::new(), alt_svc: None })
    }

    /// `certificates`: those of the listener that this node could read.
    pub(crate) fn of_resource(
        it: &resource::Listener,
        certificates: &[(Arc<resource::Certificate>, Shown)],
        client_ca: Option<&CertificateAuthority>,
        keys: &Keys,
    ) -> anyhow::Result<Self> {
        let speaks = match (it.protocol, &it.upstream) {
            (ListenerProtocol::Http, _) => Speaks::Http,
            (ListenerProtocol::Https, _) => {
                let mut names = Names::default();
                certificates.iter().for_each(|(certificate, shown)| names.add(&certificate.hosts, shown));
                let clients = Clients::new(it.client_auth, client_ca).map_err(anyhow::Error::msg)?;
                let setup = Setup::new(names, clients, &keys.tickets)?;
                #[cfg(feature = "http3")]
                let setup = match it.http3 {
                    true => setup.with_http3(&keys.tickets, &keys.tokens)?,
                    false => setup,
                };
                Speaks::Https(setup)
            }
            (ListenerProtocol::TlsPassthrough, upstream) => Speaks::Passthrough(upstream.clone()),
            (ListenerProtocol::Tcp, Some(upstream)) => Speaks::Tcp(upstream.clone()),
            (ListenerProtocol::Tcp, None) => anyhow::bail!("no upstream"),
        };
        let slashes = slashes(it.merge_slashes);
        let offered = format!("h3=\":{}\"; ma={ALT_SVC_S}", it.address.port());
        let alt_svc = (it.http3 && cfg!(feature = "http3")).then(|| HeaderValue::try_from(offered)).transpose()?;
        let name = Some(it.name.clone());
        Ok(Self { name, speaks, slashes, proxy_protocol_from: it.proxy_protocol_from.clone(), alt_svc })
    }
}

fn slashes(merge: bool) -> Slashes {
    if merge { Slashes::Merge } else { Slashes::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_waited_for_goes_once_its_listener_is_another() {
        let reception = |alt_svc: Option<&'static str>| Reception {
            name: None,
            speaks: Speaks::Http,
            slashes: Slashes::Merge,
            proxy_protocol_from: Vec::new(),
            alt_svc: alt_svc.map(HeaderValue::from_static),
        };
        let open = Open::new(reception(Some("h3")));
        let earlier = open.reception.load_full();
        assert!(open.lets_stay(&earlier));
        open.reception.store(Arc::new(reception(None)));
        assert!(!open.lets_stay(&earlier) && open.lets_stay(&open.reception.load()));
        open.close.cancel();
        assert!(!open.lets_stay(&open.reception.load()));
    }
}
