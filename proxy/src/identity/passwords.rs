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

use super::{flights::Flights, guard::Guard, shown::UserPassword};

/// Each takes some 20 MiB and 30 ms of a core.
const AT_ONCE_MAX: usize = 2;
/// Different passwords that wait for one; more are turned away.
const WAITING_MAX: usize = 64;
/// Right passwords that are remembered, in two generations, and for how long.
const REMEMBERED_MAX: usize = 16 * 1024;
const REMEMBERED_S: u64 = 300;
/// Stands in for a user that does not exist, who must not be told apart by the time it takes.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cXVvcnVtZ2F0ZS1ub2JvZHk$\
                      k3sNBi1vJ8Cq1f5j0i3yDXG0a1k7sX0qkPZ1sVnYc2E";

pub(crate) struct Passwords {
    /// Keys the memory of right passwords: it is of no use outside this process.
    secret: [u8; 32],
    desk: Arc<Desk>,
    /// Those who show the same at the same time are one guess, and one hash.
    flights: Arc<Flights<[u8; 32], Result<(), Denied>>>,
}

/// What passwords are verified with.
struct Desk {
    guard: Guard,
    right: Mutex<Remembered>,
    at_once: Arc<Semaphore>,
}

/// A password that is looked at.
struct Guess {
    /// Stands for the hash, the user and the password.
    key: [u8; 32],
    hash: String,
    /// Whether there is such a user.
    known: bool,
    shown: UserPassword,
    ip: IpAddr,
    now_s: u64,
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
        let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
        let desk = Arc::new(Desk { guard: Guard::default(), right: Mutex::default(), at_once });
        Self { secret, desk, flights: Flights::new(WAITING_MAX) }
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
        let key = self.key(hash, &shown);
        // Whoever was right a moment ago is let in, however many others guess at the name.
        if user.is_some() && self.desk.is_remembered(&key, now_s) {
            return Ok(());
        }
        let guess = Guess { key, hash: hash.to_owned(), known: user.is_some(), shown, ip, now_s };
        let desk = self.desk.clone();
        self.flights.join(key, || async move { desk.judge(guess).await }).await.unwrap_or(Err(Denied::Overloaded))
    }

    /// Another hash is another key: a changed password is asked for anew.
    fn key(&self, hash: &str, shown: &UserPassword) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        for part in [hash.as_bytes(), shown.user.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        *hasher.update(&shown.password).finalize().as_bytes()
    }
}

impl Desk {
    /// Counted before it is looked at: however many guess at the same time, only so many are looked at.
    async fn judge(&self, guess: Guess) -> Result<(), Denied> {
        let Guess { key, hash, known, shown: UserPassword { user, password }, ip, now_s } = guess;
        self.guard.admit(&user, ip, now_s).map_err(Denied::Guessing)?;
        let permit = self.at_once.clone().acquire_owned().await.map_err(|_| Denied::Overloaded)?;
        let right = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            is_right(&hash, &password)
        });
        if !(right.await.unwrap_or(false) && known) {
            self.guard.was_wrong(ip, now_s);
            return Err(Denied::Wrong);
        }
        self.guard.was_right(&user, now_s);
        self.remember(key, now_s);
        Ok(())
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

    use futures_util::future::join_all;

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
    async fn guesses_at_the_same_time_are_no_more_guesses() {
        let passwords = Passwords::default();
        let ann = user("right");
        let guesses: Vec<String> = (0..60).map(|n| format!("guess-{n}")).collect();
        let tried = guesses.iter().map(|guess| passwords.verify(Some(&ann), shown(guess), IP, 0));
        let looked_at = join_all(tried).await.into_iter().filter(|it| *it == Err(Denied::Wrong)).count();
        assert_eq!(looked_at, 10);
    }

    #[tokio::test]
    async fn many_who_are_right_at_once_are_let_in() {
        let passwords = Passwords::default();
        let ann = user("right");
        for now_s in [0, REMEMBERED_S, 2 * REMEMBERED_S] {
            let all = (0..50).map(|_| passwords.verify(Some(&ann), shown("right"), IP, now_s));
            assert!(join_all(all).await.iter().all(Result::is_ok));
        }
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        let passwords = Passwords::default();
        assert_eq!(passwords.verify(None, shown("x"), IP, 0).await, Err(Denied::Wrong));
    }
}
