//! Sockets that whoever started this process has opened for it (sd_listen_fds(3)): a port below 1024 without the right to open
//! one, and none closed while the node restarts. Each is used by the listener that has its address.

use std::net::SocketAddr;

use listenfd::ListenFd;

use crate::settings::Settings;

/// Before anything is bound, once. What no listener asks for is told.
pub fn take(settings: &Settings) {
    let mut given = ListenFd::from_env();
    let mut listeners = Vec::new();
    for at in 0..given.len() {
        match given.take_tcp_listener(at) {
            Ok(Some(listener)) => listeners.push(listener),
            Ok(None) => {}
            Err(error) => tracing::warn!(at, %error, "a socket was handed over that is no TCP listener"),
        }
    }
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|it| it.local_addr().ok()).collect();
    let wanted = wanted(settings);
    for address in &addresses {
        match wanted.contains(address) {
            true => tracing::info!(%address, "a socket was handed over"),
            false => tracing::warn!(%address, "a socket was handed over that no listener of the settings has"),
        }
    }
    quorumgate_proxy::hand_over(listeners);
}

fn wanted(settings: &Settings) -> Vec<SocketAddr> {
    let proxy = settings.proxy.listeners.iter().map(|it| it.address);
    proxy.chain([settings.admin.listen, settings.telemetry.listen]).collect()
}

/// For tokio: the one that was handed over for this address, or one of our own.
pub async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    match quorumgate_proxy::handed(address)? {
        Some(listener) => tokio::net::TcpListener::from_std(listener),
        None => tokio::net::TcpListener::bind(address).await,
    }
}
