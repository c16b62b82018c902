//! Session tickets (RFC 5077, RFC 8446 section 4.6.1) under keys that all nodes have, so that a client resumes at any of
//! them. A ticket is bound to what its listener asks of clients: elsewhere, or after a change, it is none.

use std::{fmt, sync::Arc, time::Duration};

use ::aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use arc_swap::ArcSwap;
use rustls::server::ProducesTickets;

/// Bytes of a key's secret.
pub const TICKET_KEY_BYTES: usize = 32;
/// What names the key in a ticket.
const ID_BYTES: usize = 16;
/// A client's chain is in it.
const TICKET_BYTES_MAX: usize = 64 << 10;
/// How long clients may count on a ticket: as long as a key is kept after it was last used.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// The keys that tickets are made and read with; swapped whole.
#[derive(Default)]
pub struct TicketKeys(ArcSwap<Ring>);

/// Newest first.
#[derive(Default)]
struct Ring {
    keys: Vec<Key>,
    /// The one that new tickets are made with.
    current: usize,
}

struct Key {
    id: [u8; ID_BYTES],
    seal: LessSafeKey,
}

impl Key {
    fn new(secret: &[u8; TICKET_KEY_BYTES]) -> Self {
        let named = digest(&SHA256, &[b"quorumgate ticket key ".as_slice(), secret].concat());
        let id = named.as_ref()[..ID_BYTES].try_into().expect("SHA-256 has more bytes");
        let key = UnboundKey::new(&AES_256_GCM, secret).expect("the key has the length of AES-256");
        Self { id, seal: LessSafeKey::new(key) }
    }
}

impl TicketKeys {
    /// A key that only this process has: until the cluster's are here.
    pub fn own() -> Arc<Self> {
        let keys = Self::default();
        let mut secret = [0; TICKET_KEY_BYTES];
        if SystemRandom::new().fill(&mut secret).is_ok() {
            keys.set(&[secret]);
        }
        Arc::new(keys)
    }

    /// Newest first. The newest may not be everywhere yet: tickets are made with the one before it, where there is one.
    pub fn set(&self, secrets: &[[u8; TICKET_KEY_BYTES]]) {
        let keys: Vec<Key> = secrets.iter().map(Key::new).collect();
        let current = usize::from(keys.len() > 1);
        self.0.store(Arc::new(Ring { keys, current }));
    }
}

/// Makes and reads the tickets of one listener.
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    binding: [u8; 32],
}

impl Tickets {
    pub(super) fn new(keys: Arc<TicketKeys>, binding: [u8; 32]) -> Arc<Self> {
        Arc::new(Self { keys, binding })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.0.load().keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.keys.0.load();
        let key = ring.keys.get(ring.current)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let bound = Aad::from(self.binding);
        key.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut sealed).ok()?;
        let ticket = [&key.id[..], &nonce, &sealed].concat();
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (id, rest) = ticket.split_at_checked(ID_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let ring = self.keys.0.load();
        let key = ring.keys.iter().find(|key| key.id == id)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let len = key.seal.open_in_place(nonce, Aad::from(self.binding), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

/// Never the keys themselves.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({} keys)", self.keys.0.load().keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn keys(secrets: &[[u8; 32]]) -> Arc<TicketKeys> {
        let keys = Arc::<TicketKeys>::default();
        keys.set(secrets);
        keys
    }

    #[test]
    fn a_ticket_is_good_at_every_node_that_has_its_key() {
        let (here, there) = (keys(&[OLD]), keys(&[NEW, OLD]));
        let tickets = |keys: &Arc<TicketKeys>| Tickets::new(keys.clone(), [0; 32]);
        let ticket = tickets(&here).encrypt(b"state").unwrap();
        assert_eq!(tickets(&there).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        // The newest key is read before it is used: not every node may have it yet.
        let ticket = tickets(&there).encrypt(b"state").unwrap();
        assert!(tickets(&here).decrypt(&ticket).is_some());
        here.set(&[NEW]);
        assert_eq!(tickets(&here).decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_is_bound_to_what_was_asked_of_the_client() {
        let keys = keys(&[OLD]);
        let ticket = Tickets::new(keys.clone(), [0; 32]).encrypt(b"state").unwrap();
        assert_eq!(Tickets::new(keys, [1; 32]).decrypt(&ticket), None);
    }

    #[test]
    fn what_is_no_ticket_is_none() {
        let tickets = Tickets::new(keys(&[OLD]), [0; 32]);
        let mut ticket = tickets.encrypt(b"state").unwrap();
        *ticket.last_mut().unwrap() ^= 1;
        assert_eq!(tickets.decrypt(&ticket), None);
        for len in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..len]), None);
        }
        assert_eq!(tickets.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
        assert!(!Tickets::new(Arc::default(), [0; 32]).enabled());
    }
}
