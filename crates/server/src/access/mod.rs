//! Who may do what: tokens with roles, the file that keeps them, and the callers that showed one.

mod caller;
mod file;
mod guesses;
mod keeper;
mod password;
mod role;
mod secret;
mod token;

pub use caller::Caller;
pub use file::{TokenFile, TokenFileError};
pub(crate) use guesses::place;
pub use keeper::{Keeper, Refused};
pub(crate) use password::{ROUNDS, SALT};
pub use role::{Right, Role};
pub use secret::{Fingerprint, SecretToken};
pub use token::{BadToken, QueuePattern, Token};
