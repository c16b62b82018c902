//! What the service manager is told (sd_notify(3)): ready, reloading, stopping. Without one nothing happens.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use nix::time::{ClockId, clock_gettime};

const SOCKET: &str = "NOTIFY_SOCKET";

pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}\n"));
}

/// Until `ready` is told again.
pub fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000);
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"));
}

pub fn stopping() {
    tell("STOPPING=1\n");
}

fn tell(words: &str) {
    let Some(place) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = place.into_string().map_err(|_| io::Error::other("not UTF-8")).and_then(|it| send(&it, words)) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// A path, or a name in the abstract namespace behind an @.
fn send(place: &str, words: &str) -> io::Result<()> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_it_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("quorumgate-test-{}", uuid::Uuid::new_v4());
        let at_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (place, manager) in [
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}"), UnixDatagram::bind_addr(&at_name).unwrap()),
        ] {
            send(&place, "READY=1\n").unwrap();
            let mut heard = [0; 64];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\n", "{place}");
        }
    }
}
