//! The tokens that count now: read at the start, again whenever their file changes.

use super::{
    Caller, Role,
    file::{TokenFile, TokenFileError},
    guesses::{self, Guesses},
    secret::Fingerprint,
    token::Token,
};
use crate::{config::Secret, now, watched::Watched};
use compact_str::CompactString;
use kit::{Millis, Timestamp};
use std::{
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Addresses that a token is remembered to have come from.
const SEEN: usize = 4;
/// A timer that runs longer is set again: the clock may have been changed meanwhile.
const RECHECK: Duration = Duration::from_secs(60);

/// Why nobody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No token was shown.
    Missing,
    /// It is none of ours.
    Wrong,
    /// Its time has passed.
    Expired,
    /// Too many wrong ones came from this address: this one was not looked at.
    TooManyWrong {
        /// When one is looked at again.
        retry_after_ms: Millis,
    },
}

#[derive(Debug)]
struct Entry {
    token: Arc<Token>,
    /// The places where it was used last, so that whoever guesses from the same address does not shut its holder out.
    seen: [AtomicU64; SEEN],
    turn: AtomicU64,
}

impl Entry {
    fn new(token: Token) -> Self {
        Self { token: Arc::new(token), seen: Default::default(), turn: AtomicU64::new(0) }
    }

    fn was_seen(&self, place: u64) -> bool {
        self.seen.iter().any(|seen| seen.load(Relaxed) == place)
    }

    fn see(&self, place: u64) {
        let turn = self.turn.fetch_add(1, Relaxed) as usize % SEEN;
        self.seen[turn].store(place, Relaxed);
    }
}

type Entries = Arc<[Arc<Entry>]>;

/// Keeps the tokens, and says who shows one.
#[derive(Debug)]
pub struct Keeper {
    /// Who calls where nobody is asked.
    everybody: Arc<Token>,
    /// `None` lets everybody in.
    entries: Option<watch::Sender<Entries>>,
    own: Option<Arc<Entry>>,
    file: Option<Watched>,
    guesses: Guesses,
    since: Instant,
}

impl Keeper {
    /// The token of the configuration, which may do everything, and those of a file. Without both, everybody may do everything.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(own: Option<&Secret>, file: Option<&Path>) -> Result<Self, TokenFileError> {
        let own = own.map(|secret| {
            let (fingerprint, password) =
                (Fingerprint::of(secret.as_bytes()), Fingerprint::of_password(secret.as_bytes()));
            let token = Token { fingerprint, password: Some(password), ..everybody() };
            Arc::new(Entry::new(token))
        });
        let entries = (own.is_some() || file.is_some()).then(|| watch::Sender::new(Entries::default()));
        let keeper = Self {
            everybody: Arc::new(everybody()),
            entries,
            own,
            file: file.map(Watched::new),
            guesses: Guesses::default(),
            since: Instant::now(),
        };
        keeper.read()?;
        Ok(keeper)
    }

    /// Whether anybody has to show a token.
    pub fn asks(&self) -> bool {
        self.entries.is_some()
    }

    /// Who shows this token, from this address.
    pub fn admit(&self, shown: Option<&[u8]>, from: IpAddr) -> Result<Caller, Refused> {
        self.admit_at(shown, from, now(), self.elapsed())
    }

    /// Who shows this hash of a token, as Faktory clients do, from this address. `hashed_once`: as those of version 1 do.
    pub(crate) fn admit_password(
        &self,
        shown: Option<&str>,
        hashed_once: bool,
        from: IpAddr,
    ) -> Result<Caller, Refused> {
        // What is no hash at all is as wrong as any other.
        let shown =
            shown.map(|text| Fingerprint::of_shown(text, hashed_once).unwrap_or(Fingerprint::of(b"")));
        self.admit_by(|token| token.password, shown, from, now(), self.elapsed())
    }

    fn admit_at(
        &self,
        shown: Option<&[u8]>,
        from: IpAddr,
        now: Timestamp,
        elapsed: Millis,
    ) -> Result<Caller, Refused> {
        self.admit_by(|token| Some(token.fingerprint), shown.map(Fingerprint::of), from, now, elapsed)
    }

    fn admit_by(
        &self,
        kept: impl Fn(&Token) -> Option<Fingerprint>,
        shown: Option<Fingerprint>,
        from: IpAddr,
        now: Timestamp,
        elapsed: Millis,
    ) -> Result<Caller, Refused> {
        let Some(entries) = &self.entries else { return Ok(Caller(Arc::clone(&self.everybody))) };
        let shown = shown.ok_or(Refused::Missing)?;
        let place = guesses::place(from);
        // All of them are compared, so that the time says nothing of which.
        let found = entries.borrow().iter().fold(None, |found, entry| {
            let is_it = kept(&entry.token).is_some_and(|kept| kept.matches(&shown));
            if is_it { Some(Arc::clone(entry)) } else { found }
        });
        if let Some(entry) = found.as_ref().filter(|entry| entry.was_seen(place)) {
            return let_in(entry, now);
        }
        if let Some(retry_after_ms) = self.guesses.blocked(place, elapsed) {
            return Err(Refused::TooManyWrong { retry_after_ms });
        }
        match found {
            Some(entry) => {
                entry.see(place);
                let_in(&entry, now)
            }
            None => {
                if self.guesses.wrong(place, elapsed) {
                    tracing::warn!(%from, "too many wrong tokens: this address has to wait");
                }
                Err(Refused::Wrong)
            }
        }
    }

    /// Resolves when the caller's token no longer counts, or no longer for the same.
    pub async fn ended(&self, caller: &Caller) {
        let Some(entries) = &self.entries else { return std::future::pending().await };
        let mut entries = entries.subscribe();
        loop {
            let now = now();
            let left = {
                let entries = entries.borrow_and_update();
                let known = entries.iter().find(|entry| entry.token.fingerprint == caller.0.fingerprint);
                let same = known.filter(|entry| {
                    let (old, new) = (&caller.0, &entry.token);
                    (&old.name, &old.roles, &old.queues) == (&new.name, &new.roles, &new.queues)
                });
                let Some(entry) = same.filter(|entry| !entry.token.is_over(now)) else { return };
                entry.token.expires.map_or(RECHECK, |expires| Duration::from_millis(expires.0 - now.0))
            };
            tokio::select! {
                changed = entries.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(left.min(RECHECK)) => {}
            }
        }
    }

    /// Reads the file again if it has changed. A file that cannot be used changes nothing, and is complained of once.
    pub fn refresh(&self) {
        if self.file.as_ref().is_some_and(Watched::has_changed) {
            self.reload();
        }
    }

    /// Reads the file again.
    pub fn reload(&self) {
        match self.read() {
            Ok(count) if self.file.is_some() => tracing::info!(count, "tokens were read"),
            Ok(_) => {}
            Err(error) => tracing::error!("the tokens stay as they were: {error}"),
        }
    }

    fn read(&self) -> Result<usize, TokenFileError> {
        let Some(entries) = &self.entries else { return Ok(0) };
        let mut read = Vec::new();
        if let Some(file) = &self.file {
            file.note();
            read.extend(TokenFile::read(file.path())?.tokens().cloned());
        }
        let count = read.len();
        let before = entries.borrow().clone();
        let kept = |token: Token| {
            let known = before.iter().find(|entry| *entry.token == token);
            known.map_or_else(|| Arc::new(Entry::new(token)), Arc::clone)
        };
        entries.send_replace(self.own.iter().cloned().chain(read.into_iter().map(kept)).collect());
        Ok(count)
    }

    fn elapsed(&self) -> Millis {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn let_in(entry: &Entry, now: Timestamp) -> Result<Caller, Refused> {
    if entry.token.is_over(now) {
        return Err(Refused::Expired);
    }
    Ok(Caller(Arc::clone(&entry.token)))
}

fn everybody() -> Token {
    Token {
        name: CompactString::default(),
        roles: vec![Role::Admin],
        queues: Vec::new(),
        expires: None,
        fingerprint: Fingerprint::of(b""),
        password: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;
    use std::fs;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn keeper(lines: &[(&str, &str)]) -> (Keeper, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, lines);
        let own = Secret::new("the token of the configuration");
        (Keeper::new(Some(&own), Some(&folder.path().join("tokens"))).unwrap(), folder)
    }

    fn write(folder: &tempfile::TempDir, lines: &[(&str, &str)]) {
        let mut file = TokenFile::default();
        for (line, secret) in lines {
            file.add(format!("{line} {}", Fingerprint::of(secret.as_bytes())).parse().unwrap());
        }
        file.write(&folder.path().join("tokens")).unwrap();
    }

    fn admit(keeper: &Keeper, token: &str, from: IpAddr) -> Result<Caller, Refused> {
        keeper.admit_at(Some(token.as_bytes()), from, Timestamp(1_000), 0)
    }

    #[test]
    fn a_token_is_known_by_its_text_until_its_time_has_passed() {
        let (keeper, _folder) = keeper(&[
            ("web producer mail never", "of web"),
            ("old producer mail 1970-01-01T00:00:01Z", "of old"),
            ("new producer mail 1970-01-01T00:00:02Z", "of new"),
        ]);
        assert_eq!(admit(&keeper, "of web", HERE).unwrap().name(), "web");
        assert_eq!(admit(&keeper, "of new", HERE).unwrap().name(), "new");
        assert_eq!(admit(&keeper, "of old", HERE).unwrap_err(), Refused::Expired);
        assert_eq!(admit(&keeper, "of we", HERE).unwrap_err(), Refused::Wrong);
        let none = keeper.admit_at(None, HERE, Timestamp(0), 0);
        assert_eq!(none.unwrap_err(), Refused::Missing);
        let own = admit(&keeper, "the token of the configuration", HERE).unwrap();
        assert!(own.may(Right::Admin) && own.name().is_empty() && !own.is_confined());
    }

    #[test]
    fn whoever_guesses_waits_and_shuts_nobody_out_who_was_here_before() {
        let (keeper, _folder) =
            keeper(&[("web producer mail never", "of web"), ("ops admin * never", "of ops")]);
        admit(&keeper, "of web", HERE).unwrap();
        for _ in 0..guesses::BURST {
            assert_eq!(admit(&keeper, "a guess", HERE).unwrap_err(), Refused::Wrong);
        }
        let wait = Refused::TooManyWrong { retry_after_ms: 1_000 };
        assert_eq!(admit(&keeper, "a guess", HERE).unwrap_err(), wait);
        assert_eq!(admit(&keeper, "of ops", HERE).unwrap_err(), wait, "a right guess looks like a wrong one");
        assert_eq!(admit(&keeper, "of web", HERE).unwrap().name(), "web");
        assert_eq!(admit(&keeper, "of ops", THERE).unwrap().name(), "ops");
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once_and_a_broken_one_not_at_all() {
        let (keeper, folder) =
            keeper(&[("web producer mail never", "of web"), ("ops admin * never", "of ops")]);
        let (web, ops) = (admit(&keeper, "of web", HERE).unwrap(), admit(&keeper, "of ops", HERE).unwrap());
        let path = folder.path().join("tokens");
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, "nonsense\n").unwrap();
        keeper.refresh();
        assert!(admit(&keeper, "of web", HERE).is_ok());
        fs::write(&path, good).unwrap();
        write(&folder, &[("ops admin * never", "of ops"), ("next worker mail never", "of next")]);
        keeper.refresh();
        assert_eq!(admit(&keeper, "of web", HERE).unwrap_err(), Refused::Wrong);
        assert!(admit(&keeper, "of next", HERE).is_ok());
        keeper.ended(&web).await;
        let still = tokio::select! {
            biased;
            () = keeper.ended(&ops) => false,
            () = std::future::ready(()) => true,
        };
        assert!(still, "the token of somebody else ended with it");
    }
}
