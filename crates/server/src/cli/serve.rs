//! `millpond serve`, and the flags of a server, which come from the table of settings.

use super::{Failure, Global};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, error::Error};
use server::config::{Config, KEYS, Sources};
use std::{path::PathBuf, process::ExitCode};

/// Run a server
///
/// It starts with no configuration: data in ./millpond-data, on http://127.0.0.1:7077. Every setting can stand in a TOML
/// file, in the environment (MILLPOND_NAME) or on the command line, which wins. SIGINT or SIGTERM drains; a second
/// one ends at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond serve
  millpond serve --data /var/lib/millpond --listen 127.0.0.1:7078
  millpond serve --listen 0.0.0.0:7077 --tokens-file tokens --tls-cert cert.pem --tls-key key.pem
  millpond serve --config millpond.toml")]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        Ok(server::serve::run(&self.settings.load(global)?))
    }
}

/// A command line can be seen by others on the machine: keys come from a file or the environment, and the token has a flag already.
fn is_flag(name: &str) -> bool {
    !matches!(name, "token" | "encryption_key")
}

/// What was said of a server's settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) file: Option<PathBuf>,
    flags: Vec<(String, String)>,
}

impl Settings {
    /// File, environment and flags in one, checked.
    pub(crate) fn load(&self, global: &Global) -> Result<Config, Failure> {
        let mut flags = self.flags.clone();
        // The flag --token is the client's on every other command; here it is what callers must show.
        if let Some(token) = &global.token {
            flags.push(("token".to_owned(), token.clone()));
        }
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Config::load(&Sources { file: self.file.as_deref(), environment, flags })
            .map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("MILLPOND_CONFIG")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file of settings");
        KEYS.iter().filter(|key| is_flag(key.name)).fold(command.arg(file), |command, key| {
            let default =
                if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
            let arg = Arg::new(key.name)
                .long(key.name.replace('_', "-"))
                .value_name("VALUE")
                .help(format!("{}{default}", key.help))
                .help_heading("Settings");
            // A switch may stand alone.
            let switch = matches!(key.default, "true" | "false");
            command.arg(if switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |name: &str| matches.get_one::<String>(name).cloned();
        Ok(Self {
            file: matches.get_one::<PathBuf>("config").cloned(),
            flags: KEYS
                .iter()
                .filter(|key| is_flag(key.name))
                .filter_map(|key| Some((key.name.replace('_', "-"), given(key.name)?)))
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
