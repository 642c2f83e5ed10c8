//! The configuration of a server: one table of keys with their defaults; a TOML file, the environment and flags lay
//! over it, in this order, all with the same names.

mod value;

pub use value::{ByteSize, Count, Secret, Span, Words};

use kit::Durability;
use serde::{Deserialize, Deserializer};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use storage::Keyring;
use toml::{Table, Value};

/// One setting: its name in the file; `MILLPOND_` and the name in capitals in the environment; `--` and the name with
/// dashes as a flag.
#[derive(Debug)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// What holds where nothing is set.
    pub default: &'static str,
    /// What it does, and its special values.
    pub help: &'static str,
}

/// Every setting with its default.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key { name: "listen", default: "127.0.0.1:7077", help: "Address and port; port 0 takes a free one. An address beyond this machine needs tokens and TLS." },
    Key { name: "faktory", default: "", help: "Address and port for Faktory clients, such as 127.0.0.1:7419; empty for none. The same rules as for `listen`." },
    Key { name: "faktory_idle", default: "1d", help: "A Faktory client that sends nothing for so long is sent away." },
    Key { name: "faktory_flush", default: "false", help: "Faktory clients may empty the whole pond with FLUSH: for tests and development." },
    Key { name: "data", default: "./millpond-data", help: "Directory of the data; made if it is not there." },
    Key { name: "memory", default: "false", help: "Keep everything in memory and write no file: for trying things out." },
    Key { name: "durability", default: "disk", help: "How safe a change is before it is answered, where the call does not say: memory, os, disk." },
    Key { name: "token", default: "", help: "The token that callers must send (`Authorization: Bearer`); empty for none. At least 16 bytes." },
    Key { name: "token_file", default: "", help: "A file that holds the token, instead of `token`." },
    Key { name: "tokens_file", default: "", help: "A file of tokens with roles, made by `millpond token`: read again when it changes." },
    Key { name: "encryption_key_file", default: "", help: "A file of keys, one a line: the first encrypts what is written to the data directory, all decrypt; empty for no encryption." },
    Key { name: "encryption_key", default: "", help: "The keys themselves instead, for the environment; a command line can be seen by others." },
    Key { name: "compress_from", default: "512", help: "Values in the data directory of this many bytes are compressed, if that makes them smaller; 0 for none." },
    Key { name: "compress_dictionaries", default: "true", help: "Learn what the bodies of a queue have in common, and compress smaller ones with it, too; not if `compress_from` is 0." },
    Key { name: "compress_log_from", default: "0", help: "Records of the log of this many bytes are compressed; 0 for none." },
    Key { name: "tls_cert", default: "", help: "A PEM file: the certificate, then those that lead to its issuer. The server then speaks HTTPS only; read again when it changes." },
    Key { name: "tls_key", default: "", help: "The PEM file of the certificate's private key." },
    Key { name: "plain_http", default: "false", help: "Listen beyond this machine without TLS: only where a proxy or a private network keeps what is said." },
    Key { name: "hosts", default: "", help: "More host names by which callers may know this server, separated by commas." },
    Key { name: "log", default: "info", help: "What is logged to stderr: off, error, warn, info, debug, trace." },
    Key { name: "log_format", default: "text", help: "How it is written: text for people, json for programs, one object a line." },
    Key { name: "disk_low", default: "1GiB", help: "A warning is logged when less is left on the disk of the data directory; 0 for none." },
    Key { name: "threads", default: "0", help: "Threads that serve connections; 0 for one or two, by the number of cores." },
    Key { name: "body_max", default: "32MiB", help: "Bytes of one request's body." },
    Key { name: "body_timeout", default: "30s", help: "A request's body must have arrived within this." },
    Key { name: "header_timeout", default: "10s", help: "A request's head must have arrived within this; idle connections are closed after it." },
    Key { name: "send_timeout", default: "30s", help: "A client that takes nothing of its answer for this long is cut off." },
    Key { name: "connections_max", default: "10000", help: "Connections at once; one more is answered 503." },
    Key { name: "connections_per_address", default: "0", help: "Connections at once of one address (of IPv6, of one /64 network); one more is answered 503; 0 for any number." },
    Key { name: "streams_max", default: "200", help: "HTTP/2 requests at once on one connection." },
    Key { name: "wait_max", default: "60s", help: "The longest wait of a fetch or a push; longer ones are cut to it." },
    Key { name: "waiters_max", default: "10000", help: "Fetches that wait at once." },
    Key { name: "pending_max", default: "20000", help: "Commands that wait for the log; one more is refused as overloaded." },
    Key { name: "pending_bytes_max", default: "256MiB", help: "Bytes of commands that wait for the log." },
    Key { name: "body_budget", default: "512MiB", help: "Bytes of job bodies kept in memory; the others wait on the disk." },
    Key { name: "memory_limit", default: "0", help: "Bytes of memory to get along with: budgets are cut to fit, and new work is refused before it is used up; 0 for the limit of the control group, where there is one." },
    Key { name: "flush_window", default: "50ms", help: "A change answered at level `os` reaches the disk within this." },
    Key { name: "drain", default: "20s", help: "After a signal to stop, requests under way have this long to end." },
];

/// A checked configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// See [`KEYS`], as for every field.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Where Faktory clients are served, if they are.
    #[serde(deserialize_with = "address_or_none")]
    pub faktory: Option<SocketAddr>,
    /// How long one of them may say nothing.
    pub faktory_idle: Span,
    /// Whether they may flush.
    #[serde(deserialize_with = "value::switch")]
    pub faktory_flush: bool,
    /// The data directory.
    pub data: PathBuf,
    /// No files at all.
    #[serde(deserialize_with = "value::switch")]
    pub memory: bool,
    /// The default level.
    #[serde(deserialize_with = "level")]
    pub durability: Durability,
    /// The token, from `token` or from `token_file`.
    pub token: Secret,
    /// Where the token is kept.
    pub token_file: PathBuf,
    /// Where tokens with roles are kept.
    pub tokens_file: PathBuf,
    /// Where the keys are kept.
    pub encryption_key_file: PathBuf,
    /// The keys of the data directory, from `encryption_key` or from `encryption_key_file`.
    #[serde(deserialize_with = "keys")]
    pub encryption_key: Keyring,
    /// Values from this size on are compressed.
    pub compress_from: ByteSize,
    /// Bodies of a queue share a dictionary.
    #[serde(deserialize_with = "value::switch")]
    pub compress_dictionaries: bool,
    /// Records of the log from this size on are compressed.
    pub compress_log_from: ByteSize,
    /// The certificate and its chain; empty for no TLS.
    pub tls_cert: PathBuf,
    /// Its key.
    pub tls_key: PathBuf,
    /// No TLS on an address beyond this machine.
    #[serde(deserialize_with = "value::switch")]
    pub plain_http: bool,
    /// More names of ours.
    pub hosts: Words,
    /// The log level.
    #[serde(deserialize_with = "log_level")]
    pub log: tracing::level_filters::LevelFilter,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Free bytes on the disk below which the log warns.
    pub disk_low: ByteSize,
    /// Serving threads.
    pub threads: Count,
    /// Bytes of one request's body.
    pub body_max: ByteSize,
    /// Time for a body.
    pub body_timeout: Span,
    /// Time for a head.
    pub header_timeout: Span,
    /// Time without progress of an answer.
    pub send_timeout: Span,
    /// Connections at once.
    pub connections_max: Count,
    /// Connections at once of one address.
    pub connections_per_address: Count,
    /// HTTP/2 streams of one connection.
    pub streams_max: Count,
    /// The longest wait of a fetch or a push.
    pub wait_max: Span,
    /// Waiting fetches at once.
    pub waiters_max: Count,
    /// Commands waiting for the log.
    pub pending_max: Count,
    /// Bytes of them.
    pub pending_bytes_max: ByteSize,
    /// Bytes of bodies in memory.
    pub body_budget: ByteSize,
    /// Bytes of memory to get along with.
    pub memory_limit: ByteSize,
    /// How long `os` may stay unflushed.
    pub flush_window: Span,
    /// Time to drain.
    pub drain: Span,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// A configuration that cannot be used; the text says where it came from and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why not.
        reason: String,
    },
    /// No setting has this name.
    #[error("{place}: there is no setting `{name}`{hint}; `millpond config` lists them all")]
    Unknown {
        /// Where it stands.
        place: String,
        /// The name.
        name: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// A value is not allowed.
    #[error("{place}: {reason}")]
    Invalid {
        /// Where it stands.
        place: String,
        /// What is wrong and what is right.
        reason: String,
    },
}

/// Where settings come from; later ones win.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Variables of the environment; those that do not begin with `MILLPOND_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags: the name with dashes or underscores, and the value as text.
    pub flags: Vec<(String, String)>,
}

const PREFIX: &str = "MILLPOND_";

impl Config {
    /// Reads, merges and checks.
    pub fn load(sources: &Sources<'_>) -> Result<Config, ConfigError> {
        let mut merged: Vec<(&'static str, String, Value)> = KEYS
            .iter()
            .map(|key| (key.name, "default".to_owned(), Value::String(key.default.to_owned())))
            .collect();
        let mut lay = |place: String, name: &str, value: Value| -> Result<(), ConfigError> {
            let Some(slot) = merged.iter_mut().find(|(known, ..)| *known == name) else {
                return Err(ConfigError::Unknown { place, name: name.to_owned(), hint: hint(name) });
            };
            (slot.1, slot.2) = (place, value);
            Ok(())
        };
        if let Some(path) = sources.file {
            for (name, value) in read_file(path)? {
                lay(format!("{}, `{name}`", path.display()), &name, value)?;
            }
        }
        for (variable, value) in &sources.environment {
            let Some(name) = variable.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            // Clients have variables of their own with this prefix; a near miss is still a mistake.
            if KEYS.iter().any(|key| key.name == name) || strsim_near(&name).is_some_and(|(far, _)| far == 1)
            {
                lay(variable.clone(), &name, Value::String(value.clone()))?;
            }
        }
        for (flag, value) in &sources.flags {
            lay(format!("--{flag}"), &flag.replace('-', "_"), Value::String(value.clone()))?;
        }
        let config = read(&merged)?;
        config.finish()
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        if !self.token_file.as_os_str().is_empty() {
            if !self.token.is_empty() {
                return Err(invalid("token_file", "and `token` exclude each other"));
            }
            self.token = read_token(&self.token_file)?;
        }
        if !self.encryption_key_file.as_os_str().is_empty() {
            if !self.encryption_key.is_empty() {
                return Err(invalid("encryption_key_file", "and `encryption_key` exclude each other"));
            }
            self.encryption_key = Keyring::read(&self.encryption_key_file)
                .map_err(|error| invalid("encryption_key_file", &error.to_string()))?;
        }
        self.validate()?;
        Ok(self)
    }

    /// Checks what no single value shows.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.token.is_empty() && self.token.len() < 16 {
            return Err(invalid("token", "is too short to keep anybody out; use at least 16 bytes"));
        }
        let asks = !self.token.is_empty() || !self.tokens_file.as_os_str().is_empty();
        let open = [("listen", Some(self.listen)), ("faktory", self.faktory)];
        let beyond = open.iter().find(|(_, at)| at.is_some_and(|at| !at.ip().is_loopback()));
        let beyond = beyond.map(|(name, _)| *name);
        if let (false, Some(name)) = (asks, beyond) {
            let reason = "everybody who reaches this address could read and change every job: set `tokens_file` (or `token_file`), or listen on 127.0.0.1";
            return Err(invalid(name, reason));
        }
        let (cert, key) = (self.tls_cert.as_os_str().is_empty(), self.tls_key.as_os_str().is_empty());
        if cert != key {
            let (there, missing) = if cert { ("tls_key", "tls_cert") } else { ("tls_cert", "tls_key") };
            return Err(invalid(missing, &format!("is needed beside `{there}`")));
        }
        if let (true, false, Some(name)) = (cert, self.plain_http, beyond) {
            let reason = "tokens and jobs could be read on their way to this address: set `tls_cert` and `tls_key`; or `plain_http`, where a proxy or a private network keeps them";
            return Err(invalid(name, reason));
        }
        if self.durability == Durability::Quorum {
            return Err(invalid(
                "durability",
                "quorum is not kept by a single server; disk is the strongest",
            ));
        }
        if self.data.as_os_str().is_empty() && !self.memory {
            return Err(invalid("data", "must not be empty"));
        }
        let positive = [
            ("body_max", self.body_max.0),
            ("body_timeout", self.body_timeout.0),
            ("header_timeout", self.header_timeout.0),
            ("send_timeout", self.send_timeout.0),
            ("faktory_idle", self.faktory_idle.0),
            ("connections_max", self.connections_max.0),
            ("streams_max", self.streams_max.0),
            ("pending_max", self.pending_max.0),
            ("pending_bytes_max", self.pending_bytes_max.0),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(invalid(name, "must be more than 0")),
            None if self.body_max.0 > 256 << 20 => Err(invalid("body_max", "is at most 256MiB")),
            None => Ok(()),
        }
    }
}

impl Default for Config {
    /// The defaults of [`KEYS`].
    fn default() -> Self {
        match Self::load(&Sources::default()) {
            Ok(config) => config,
            Err(error) => unreachable!("a default is not allowed: {error}"),
        }
    }
}

fn invalid(name: &str, reason: &str) -> ConfigError {
    ConfigError::Invalid { place: name.to_owned(), reason: reason.to_owned() }
}

fn read(merged: &[(&'static str, String, Value)]) -> Result<Config, ConfigError> {
    let table: Table = merged.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone())).collect();
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let name = error.path().to_string();
        let place = merged.iter().find(|(known, ..)| *known == name);
        let place = place.map_or(name.clone(), |(_, place, _)| place.clone());
        let reason = error.inner().to_string();
        ConfigError::Invalid { place, reason: reason.lines().next().unwrap_or_default().to_owned() }
    })
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| unreadable(format!("is not TOML: {error}")))
}

fn read_token(path: &Path) -> Result<Secret, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    if text.trim().is_empty() {
        return Err(unreadable("holds no token".to_owned()));
    }
    Ok(Secret::new(text.trim()))
}

fn hint(name: &str) -> String {
    strsim_near(name).map_or(String::new(), |(_, meant)| format!(": did you mean `{meant}`?"))
}

fn strsim_near(name: &str) -> Option<(usize, &'static str)> {
    let near = KEYS.iter().map(|key| (strsim::damerau_levenshtein(name, key.name), key.name));
    near.filter(|(distance, known)| *distance <= (known.len() / 3).max(1)).min()
}

fn address<'de, D: Deserializer<'de>>(input: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(input)?;
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    local
        .map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .or_else(|| text.parse().ok())
        .ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not an address with a port, such as 127.0.0.1:7077"
            ))
        })
}

fn address_or_none<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(input)?;
    if text.is_empty() {
        return Ok(None);
    }
    address(serde::de::value::StringDeserializer::<D::Error>::new(text)).map(Some)
}

fn level<'de, D: Deserializer<'de>>(input: D) -> Result<Durability, D::Error> {
    String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
}

fn keys<'de, D: Deserializer<'de>>(input: D) -> Result<Keyring, D::Error> {
    let text = String::deserialize(input)?;
    if text.trim().is_empty() {
        return Ok(Keyring::default());
    }
    // The refusal never repeats what it was given.
    Keyring::parse(&text).map_err(serde::de::Error::custom)
}

fn log_level<'de, D: Deserializer<'de>>(input: D) -> Result<tracing::level_filters::LevelFilter, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format_args!("{text:?} is not one of off, error, warn, info, debug, trace"))
    })
}

#[cfg(test)]
mod tests;
