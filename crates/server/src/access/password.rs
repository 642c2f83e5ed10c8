//! Tokens as passwords of Faktory clients, which never send one: they show the SHA-256 of it and a salt, hashed again and again.
//!
//! ```text
//! shown by a client    SHA-256 applied ROUNDS times to token + SALT
//! kept by the server   SHA-256 of that
//! ```
//!
//! Salt and rounds are the same for all, because the server has to name them before it knows who calls, and the file of tokens holds no
//! token to hash anew. So what a client shows is worth as much as the token to who overhears it, as it is with HTTP: hence TLS. Who reads
//! the file of tokens has nothing that a client could show.

use super::secret::Fingerprint;
use sha2::{Digest, Sha256};

/// What is added to a token.
pub(crate) const SALT: &str = "millpond";
/// How often it is hashed. A token cannot be found by trying; a short password of somebody's own choice takes this much longer.
pub(crate) const ROUNDS: u32 = 4_096;

/// What a client of version 1 shows for a token: the first round.
fn first_round(token: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(token).chain_update(SALT).finalize().into()
}

/// What a client of version 2 shows, made of what one of version 1 does.
fn other_rounds(first: [u8; 32]) -> [u8; 32] {
    (1..ROUNDS).fold(first, |hash, _| Sha256::digest(hash).into())
}

impl Fingerprint {
    /// What is kept of a token for clients that show it as a password.
    pub fn of_password(token: &[u8]) -> Self {
        Self::of(&other_rounds(first_round(token)))
    }

    /// Of what a client has shown: 64 hexadecimal digits. One of version 1 has hashed once; the rest is done for it.
    pub(crate) fn of_shown(text: &str, hashed_once: bool) -> Option<Self> {
        let shown = *Self::parse(&text.to_ascii_lowercase())?.as_bytes();
        Some(Self::of(&if hashed_once { other_rounds(shown) } else { shown }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_shows_is_known_and_what_is_kept_is_nothing_to_show() {
        let token = b"millpond_secret";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let kept = Fingerprint::of_password(token);
        let text = hex(&other_rounds(first_round(token)));
        let matches = |text: &str, once| Fingerprint::of_shown(text, once).unwrap().matches(&kept);
        assert!(matches(&text, false) && matches(&text.to_uppercase(), false));
        assert!(matches(&hex(&first_round(token)), true));
        assert!(!matches(&text, true) && !matches(&hex(&first_round(token)), false));
        assert!(!matches(&kept.to_string(), false) && !matches(&kept.to_string(), true));
        assert!(!Fingerprint::of_password(b"millpond_secreT").matches(&kept));
        for wrong in ["", "00", "no digits", &text[1..]] {
            assert!(Fingerprint::of_shown(wrong, false).is_none(), "{wrong}");
        }
    }
}
