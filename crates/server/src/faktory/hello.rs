//! How a connection begins: the server's `HI`, the client's `HELLO` and what it shows.

use super::answer::Refusal;
use crate::{
    access::{Caller, Keeper, ROUNDS, Refused, SALT},
    registry::About,
};
use model::limits;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// The version of the protocol.
const VERSION: u64 = 2;

/// What a client says of itself.
#[derive(Debug, Default, Deserialize)]
struct Hello {
    #[serde(default)]
    v: Option<u64>,
    #[serde(default)]
    wid: Option<String>,
    #[serde(default)]
    pwdhash: Option<String>,
    // For people only: whatever a client makes of these is no reason to refuse it.
    #[serde(default)]
    hostname: Value,
    #[serde(default)]
    pid: Value,
    #[serde(default)]
    labels: Value,
}

/// Who is there.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) caller: Caller,
    /// The name of the worker process; `None` for a client that only produces.
    pub(super) wid: Option<String>,
    /// What else it says of itself.
    pub(super) about: About,
}

/// The server's first line, without its end.
pub(super) fn greeting(asks: bool) -> String {
    if asks {
        format!("HI {{\"v\":{VERSION},\"i\":{ROUNDS},\"s\":\"{SALT}\"}}")
    } else {
        format!("HI {{\"v\":{VERSION}}}")
    }
}

/// Reads the client's first line.
pub(super) fn admit(line: &[u8], keeper: &Keeper, from: IpAddr) -> Result<Guest, Refusal> {
    let Some(said) = line.strip_prefix(b"HELLO ") else {
        return Err(Refusal::new("the first line is HELLO and a JSON object; does the client use TLS?"));
    };
    let hello: Hello = serde_json::from_slice(said)
        .map_err(|error| Refusal::new(format!("HELLO is followed by a JSON object: {error}")))?;
    if hello.wid.as_ref().is_some_and(|wid| wid.len() > limits::TAG_BYTES_MAX) {
        return Err(Refusal::new(format!("a wid has at most {} bytes", limits::TAG_BYTES_MAX)));
    }
    // Those of the first version hash once, and some never said that they are newer.
    let hashed_once = hello.v.unwrap_or(1) < VERSION;
    let caller = keeper.admit_password(hello.pwdhash.as_deref(), hashed_once, from).map_err(refused)?;
    let about = About {
        host: hello.hostname.as_str().unwrap_or_default().into(),
        pid: hello.pid.as_u64().unwrap_or(0),
        labels: hello
            .labels
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect(),
        ..About::default()
    };
    Ok(Guest { caller, wid: hello.wid.filter(|wid| !wid.is_empty()), about })
}

fn refused(why: Refused) -> Refusal {
    Refusal::new(match why {
        Refused::Missing => {
            "this server asks for a password: put a token in the URL, tcp://:TOKEN@host:7419".to_owned()
        }
        Refused::Wrong => {
            "Invalid password; a token that an older version of `millpond token` made has to be rotated"
                .to_owned()
        }
        Refused::Expired => "the token's time has passed".to_owned(),
        Refused::TooManyWrong { retry_after_ms } => {
            format!("too many wrong passwords came from this address; try again in {retry_after_ms} ms")
        }
    })
}
