//! The text of a token, and what is kept of it.
//!
//! ```text
//! millpond_ │ 40 hexadecimal digits: 160 random bits │ 8 hexadecimal digits: the first 32 bits of the SHA-256 of what is before
//! ```
//!
//! The prefix lets scanners find a token that got into a repository, the check lets them know it from a lookalike. A secret of that
//! many random bits cannot be found by trying, so a plain hash keeps it: a slow one would only cost every call its time.

use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

const PREFIX: &str = "millpond_";
const RANDOM_BYTES: usize = 20;
const CHECK_BYTES: usize = 4;

/// A token as its holder has it. Never kept, never shown by `Debug`.
pub struct SecretToken(String);

impl SecretToken {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        let body = format!("{PREFIX}{}", hex(&bytes));
        let check = Sha256::digest(body.as_bytes());
        Ok(Self(format!("{body}{}", hex(&check[..CHECK_BYTES]))))
    }

    /// The text, to be handed to its holder once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }

    /// What is kept of it as a password of Faktory clients.
    pub fn password(&self) -> Fingerprint {
        Fingerprint::of_password(self.0.as_bytes())
    }
}

impl fmt::Debug for SecretToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretToken")
    }
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this text.
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Reads 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether both are of the same token, in a time that says nothing of either.
    pub fn matches(&self, other: &Self) -> bool {
        // Eight bytes at a time: each call is compared with all tokens.
        let differs = self.words().iter().zip(other.words()).fold(0, |differs, (a, b)| differs | (a ^ b));
        differs.ct_eq(&0).into()
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn words(&self) -> [u64; 4] {
        std::array::from_fn(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&self.0[8 * at..8 * at + 8]);
            u64::from_ne_bytes(word)
        })
    }

    /// Names the token among others, in eight digits: says nothing of its text.
    pub fn id(&self) -> String {
        hex(&self.0[..4])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_prefix_its_check_and_no_twin() {
        let (one, two) = (SecretToken::generate().unwrap(), SecretToken::generate().unwrap());
        assert_ne!(one.reveal(), two.reveal());
        let (body, check) = one.reveal().split_at(PREFIX.len() + 2 * RANDOM_BYTES);
        assert!(body.starts_with("millpond_"));
        assert_eq!(check, hex(&Sha256::digest(body.as_bytes())[..4]));
        assert_eq!(format!("{one:?}"), "SecretToken");
    }

    #[test]
    fn a_fingerprint_survives_its_text_and_nothing_else_passes_for_one() {
        // From FIPS 180-4: the digest of `abc`.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let print = Fingerprint::of(b"abc");
        assert_eq!((print.to_string().as_str(), print.id().as_str()), (text, "ba7816bf"));
        assert!(Fingerprint::parse(text).unwrap().matches(&print));
        assert!(!Fingerprint::of(b"abd").matches(&print));
        for bit in 0..256 {
            let mut other = print;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!other.matches(&print), "bit {bit}");
        }
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("+{}", &text[1..])] {
            assert!(Fingerprint::parse(wrong).is_none(), "{wrong}");
        }
    }
}
