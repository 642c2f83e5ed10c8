//! `millpond config`: what can be set, what is set, and whether a file of settings is right.

use super::{
    Failure, Global,
    print::{self, Style},
    serve::Settings,
};
use clap::{Args, Subcommand};
use server::config::{ByteSize, Config as ServerConfig, KEYS, Sources, Span};
use std::path::PathBuf;

/// A server's settings: check a file, or show what holds
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond config check millpond.toml
  millpond config show --config millpond.toml
  millpond config template > millpond.toml")]
pub(crate) struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a file without starting anything
    Check {
        /// A TOML file
        file: PathBuf,
    },
    /// What holds after file, environment and flags; token and keys are not shown
    Show(Settings),
    /// A file with every setting, its default and what it does
    Template,
}

impl Config {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.verb {
            Verb::Check { file } => {
                let sources = Sources { file: Some(&file), ..Sources::default() };
                ServerConfig::load(&sources).map_err(|error| Failure::Usage(error.to_string()))?;
                let text = format!("{}: good", file.display());
                print::line(&if global.json { "{\"ok\":true}".to_owned() } else { text });
                Ok(())
            }
            Verb::Show(settings) => show(&settings.load(global)?, global),
            Verb::Template => {
                for key in KEYS {
                    print::line(&format!("# {}\n# {} = {:?}\n", key.help, key.name, key.default));
                }
                Ok(())
            }
        }
    }
}

fn show(config: &ServerConfig, global: &Global) -> Result<(), Failure> {
    let values = values(config);
    if global.json {
        let map: serde_json::Map<_, _> =
            values.iter().map(|(name, value)| ((*name).to_owned(), serde_json::json!(value))).collect();
        print::line(&serde_json::Value::Object(map).to_string());
        return Ok(());
    }
    let style = Style::stdout(global.color);
    for (name, value) in values {
        let default = KEYS.iter().any(|key| key.name == name && key.default == value);
        let note = if default { style.dim("  # default") } else { String::new() };
        print::line(&format!("{name} = {value:?}{note}"));
    }
    Ok(())
}

/// Every setting as it would stand in a file. Taken apart field by field, so that a new one cannot be forgotten.
fn values(config: &ServerConfig) -> Vec<(&'static str, String)> {
    let ServerConfig {
        listen,
        faktory,
        faktory_idle,
        faktory_flush,
        data,
        memory,
        durability,
        token,
        token_file,
        tokens_file,
        encryption_key_file,
        encryption_key,
        compress_from,
        compress_dictionaries,
        compress_log_from,
        tls_cert,
        tls_key,
        plain_http,
        hosts,
        log,
        log_format,
        disk_low,
        threads,
        body_max,
        body_timeout,
        header_timeout,
        send_timeout,
        connections_max,
        connections_per_address,
        streams_max,
        wait_max,
        waiters_max,
        pending_max,
        pending_bytes_max,
        body_budget,
        memory_limit,
        flush_window,
        drain,
    } = config;
    let span = |span: &Span| kit::time::format_span(span.0).replace(' ', "");
    vec![
        ("listen", listen.to_string()),
        ("faktory", faktory.map(|address| address.to_string()).unwrap_or_default()),
        ("faktory_idle", span(faktory_idle)),
        ("faktory_flush", faktory_flush.to_string()),
        ("data", data.display().to_string()),
        ("memory", memory.to_string()),
        ("durability", durability.to_string()),
        ("token", if token.is_empty() { String::new() } else { "(set)".to_owned() }),
        ("token_file", token_file.display().to_string()),
        ("tokens_file", tokens_file.display().to_string()),
        ("encryption_key_file", encryption_key_file.display().to_string()),
        ("encryption_key", if encryption_key.is_empty() { String::new() } else { "(set)".to_owned() }),
        ("compress_from", size(compress_from)),
        ("compress_dictionaries", compress_dictionaries.to_string()),
        ("compress_log_from", size(compress_log_from)),
        ("tls_cert", tls_cert.display().to_string()),
        ("tls_key", tls_key.display().to_string()),
        ("plain_http", plain_http.to_string()),
        ("hosts", hosts.0.join(",")),
        ("log", log.to_string()),
        ("log_format", log_format.to_string()),
        ("disk_low", size(disk_low)),
        ("threads", threads.0.to_string()),
        ("body_max", size(body_max)),
        ("body_timeout", span(body_timeout)),
        ("header_timeout", span(header_timeout)),
        ("send_timeout", span(send_timeout)),
        ("connections_max", connections_max.0.to_string()),
        ("connections_per_address", connections_per_address.0.to_string()),
        ("streams_max", streams_max.0.to_string()),
        ("wait_max", span(wait_max)),
        ("waiters_max", waiters_max.0.to_string()),
        ("pending_max", pending_max.0.to_string()),
        ("pending_bytes_max", size(pending_bytes_max)),
        ("body_budget", size(body_budget)),
        ("memory_limit", size(memory_limit)),
        ("flush_window", span(flush_window)),
        ("drain", span(drain)),
    ]
}

fn size(size: &ByteSize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(bytes, _)| size.0 > 0 && size.0.is_multiple_of(*bytes));
    unit.map_or(size.0.to_string(), |(bytes, name)| format!("{}{name}", size.0 / bytes))
}
