//! Passwords of Basic users against their Argon2id hashes: on threads of their own, so many at a time, and remembered for
//! a while once they were right.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use quorumgate_model::credential::BasicUser;
use tokio::sync::Semaphore;

use super::{guard::Guard, shown::UserPassword};

/// Each takes some 20 MiB and 30 ms of a core.
const AT_ONCE_MAX: usize = 2;
/// Requests that wait for one; more are turned away.
const WAITING_MAX: usize = 64;
/// Right passwords that are remembered, in two generations, and for how long.
const REMEMBERED_MAX: usize = 16 * 1024;
const REMEMBERED_S: u64 = 300;
/// Stands in for a user that does not exist, who must not be told apart by the time it takes.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cXVvcnVtZ2F0ZS1ub2JvZHk$\
                      k3sNBi1vJ8Cq1f5j0i3yDXG0a1k7sX0qkPZ1sVnYc2E";

pub(crate) struct Passwords {
    guard: Guard,
    /// Keys the memory of right passwords: it is of no use outside this process.
    secret: [u8; 32],
    right: Mutex<Remembered>,
    at_once: Arc<Semaphore>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Remembered {
    young: HashMap<[u8; 32], u64>,
    old: HashMap<[u8; 32], u64>,
}

/// Why a password lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Wrong,
    /// Seconds until the next guess is looked at.
    Guessing(u64),
    Overloaded,
}

impl Default for Passwords {
    fn default() -> Self {
        // Two random UUIDs have 244 random bits.
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        secret[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self {
            guard: Guard::default(),
            secret,
            right: Mutex::default(),
            at_once: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }
}

impl Passwords {
    /// `user`: who has this name, if anybody.
    pub(crate) async fn verify(
        &self,
        user: Option<&BasicUser>,
        shown: UserPassword,
        ip: IpAddr,
        now_s: u64,
    ) -> Result<(), Denied> {
        let hash = user.map_or(NOBODY, |user| &user.password_hash);
        let key = self.key(hash, &shown.password);
        // Whoever was right a moment ago is let in, however many others guess at the name.
        if user.is_some() && self.is_remembered(&key, now_s) {
            return Ok(());
        }
        self.guard.admit(&shown.user, ip, now_s).map_err(Denied::Guessing)?;
        let Ok(_waiting) = self.waiting.try_acquire() else { return Err(Denied::Overloaded) };
        let permit = self.at_once.clone().acquire_owned().await.map_err(|_| Denied::Overloaded)?;
        let (hash, password) = (hash.to_owned(), shown.password);
        let right = tokio::task::spawn_blocking(move || {
            // Held to the end, also where nobody waits any more.
            let _permit = permit;
            is_right(&hash, &password)
        });
        if right.await.unwrap_or(false) && user.is_some() {
            self.remember(key, now_s);
            return Ok(());
        }
        self.guard.failed(&shown.user, ip, now_s);
        Err(Denied::Wrong)
    }

    /// Another hash is another key: a changed password is asked for anew.
    fn key(&self, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&(hash.len() as u64).to_le_bytes()).update(hash.as_bytes()).update(password);
        *hasher.finalize().as_bytes()
    }

    fn is_remembered(&self, key: &[u8; 32], now_s: u64) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let until = right.young.get(key).or_else(|| right.old.get(key));
        until.is_some_and(|until| now_s < *until)
    }

    fn remember(&self, key: [u8; 32], now_s: u64) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.young.len() >= REMEMBERED_MAX / 2 {
            right.old = std::mem::take(&mut right.young);
        }
        right.young.insert(key, now_s + REMEMBERED_S);
    }
}

/// Constant time in what is compared: the hash's own verification does that.
fn is_right(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use argon2::{
        Params,
        password_hash::{PasswordHasher, SaltString},
    };

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn user(password: &str) -> BasicUser {
        let salt = SaltString::encode_b64(b"a salt of tests").unwrap();
        let cheap =
            Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let hash = cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string();
        BasicUser { name: "ann".into(), password_hash: hash }
    }

    fn shown(password: &str) -> UserPassword {
        UserPassword { user: "ann".into(), password: password.as_bytes().into() }
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_and_a_wrong_one_counted() {
        let passwords = Passwords::default();
        let ann = user("right");
        assert_eq!(passwords.verify(Some(&ann), shown("right"), IP, 0).await, Ok(()));
        for _ in 0..10 {
            assert_eq!(passwords.verify(Some(&ann), shown("wrong"), IP, 0).await, Err(Denied::Wrong));
        }
        assert_eq!(passwords.verify(Some(&ann), shown("wrong"), IP, 0).await, Err(Denied::Guessing(60)));
        // The user is not shut out by those who guess.
        assert_eq!(passwords.verify(Some(&ann), shown("right"), IP, 0).await, Ok(()));
        assert_eq!(passwords.verify(Some(&user("other")), shown("right"), IP, 0).await, Err(Denied::Guessing(60)));
        assert_eq!(passwords.verify(Some(&ann), shown("right"), IP, REMEMBERED_S).await, Ok(()));
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        let passwords = Passwords::default();
        assert_eq!(passwords.verify(None, shown("x"), IP, 0).await, Err(Denied::Wrong));
    }
}
