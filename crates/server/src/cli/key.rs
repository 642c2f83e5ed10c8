//! `millpond key`: the keys of a data directory. All of it works on files; no server is asked.

use super::{Failure, Global, print, print::Style};
use clap::{Args, Subcommand};
use node::{OpenError, Options, Verified};
use serde_json::{Value, json};
use server::{
    config::{Config, Sources},
    serve::at_rest,
};
use std::{fs, io::Write as _, path::Path, path::PathBuf};
use storage::{AtRest, KeyId, Keyring, at_rest::DICTIONARIES_MAX};

/// Keys of encryption: make one, check a directory, change its key
///
/// A file of keys holds one a line: the first encrypts, all decrypt. To change the key, put a new one on top, restart the server, and
/// later, when it is stopped, run `millpond key rotate`: then the old line can go.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond key generate --out keys
  millpond serve --encryption-key-file keys
  millpond key check ./millpond-data --encryption-key-file keys
  millpond key rotate ./millpond-data --encryption-key-file keys")]
pub(crate) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key: a line of text, to be kept where only the server can read it
    Generate {
        /// Write it to this new file, which only its owner can read, instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Read a data directory whole, and say which keys it needs; its server must be stopped
    Check(Directory),
    /// Write a data directory again under the first key, so that it needs no other; its server must be stopped
    Rotate {
        #[command(flatten)]
        directory: Directory,
        /// Take the encryption away instead
        #[arg(long)]
        plain: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Directory {
    /// The data directory; without it, the one that the server would have
    directory: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

/// Where the keys of a data directory are.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The file of keys; also MILLPOND_ENCRYPTION_KEY_FILE, or the keys themselves in MILLPOND_ENCRYPTION_KEY
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// The server's TOML file of settings
    #[arg(long, value_name = "FILE", env = "MILLPOND_CONFIG")]
    config: Option<PathBuf>,
}

impl Directory {
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        self.keys.load(self.directory.as_deref())
    }
}

impl Keys {
    /// The settings with that data directory, or the one that the server would have.
    pub(crate) fn load(&self, directory: Option<&Path>) -> Result<Config, Failure> {
        let mut flags = Vec::new();
        for (name, path) in
            [("data", directory), ("encryption-key-file", self.encryption_key_file.as_deref())]
        {
            if let Some(path) = path {
                let path =
                    path.to_str().ok_or_else(|| Failure::Usage(format!("{} is not text", path.display())))?;
                flags.push((name.to_owned(), path.to_owned()));
            }
        }
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let file = self.config.as_deref();
        Config::load(&Sources { file, environment, flags }).map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl Key {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.verb {
            Verb::Generate { out } => generate(out.as_deref(), global),
            Verb::Check(directory) => check(&directory.load()?, global),
            Verb::Rotate { directory, plain } => rotate(&directory.load()?, plain, global),
        }
    }
}

fn generate(out: Option<&Path>, global: &Global) -> Result<(), Failure> {
    let usage = |error: storage::KeyError| Failure::Usage(error.to_string());
    let key = storage::Key::generate().map_err(usage)?;
    let ids = Keyring::parse(&key).map_err(usage)?.ids();
    let id = ids.first().map(KeyId::to_string).unwrap_or_default();
    let Some(path) = out else {
        print::line(&key);
        print::note(&format!(
            "key {id}; keep it in a file that only the server can read, and a copy elsewhere"
        ));
        return Ok(());
    };
    write_secret(path, &format!("# key {id}\n{}\n", *key))
        .map_err(|error| Failure::file(path, "write", &error))?;
    let text = format!("key {id} in {}; without it the data is lost: keep a copy elsewhere", path.display());
    print::line(&if global.json { json!({"key": id, "file": path}).to_string() } else { text });
    Ok(())
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn check(config: &Config, global: &Global) -> Result<(), Failure> {
    let Verified { inspection, state } =
        node::verify(&config.data, &options(config)).map_err(|error| refused(config, &error))?;
    if !inspection.damage.is_empty() {
        let text =
            format!("data directory {} is damaged; `millpond verify` says where", config.data.display());
        return Err(Failure::Damaged(text));
    }
    let (values, records) = (inspection.values, inspection.records);
    let dictionaries = state.as_ref().map_or(0, |state| state.dictionaries);
    let encryption = state.and_then(|state| state.encryption);
    let (plain, needed) = encryption.map_or((false, Vec::new()), |found| (found.plain, found.keys));
    if global.json {
        let keys: Vec<String> = needed.iter().map(KeyId::to_string).collect();
        let value = json!({
            "ok": true,
            "values": values,
            "records": records,
            "dictionaries": dictionaries,
            "plain": plain,
            "keys": keys,
        });
        print::line(&value.to_string());
        return Ok(());
    }
    let style = Style::stdout(global.color);
    let read = format!("{} values and {} records read", print::count(values), print::count(records));
    print::line(&format!("{}: {}, {read}", config.data.display(), style.good("good")));
    if dictionaries > 0 {
        print::line(&format!(
            "bodies compressed with {dictionaries} of at most {DICTIONARIES_MAX} dictionaries"
        ));
    }
    for id in needed {
        let current = config.encryption_key.ids().first() == Some(&id);
        let what = if current { "encrypts new data" } else { "needed until `millpond key rotate`" };
        print::line(&format!("key {id}  {what}"));
    }
    if plain {
        let what = match config.encryption_key.is_empty() {
            true => "nothing new is encrypted",
            false => "some of it is not encrypted; `millpond key rotate` changes that",
        };
        print::line(&style.warn(what));
    }
    Ok(())
}

fn rotate(config: &Config, plain: bool, global: &Global) -> Result<(), Failure> {
    let keys = &config.encryption_key;
    let to = match (plain, keys.ids().first()) {
        (true, _) => AtRest { keys: Keyring::default(), ..at_rest(config) },
        (false, Some(_)) => at_rest(config),
        (false, None) => {
            return Err(Failure::Usage(
                "give the keys with --encryption-key-file, the new one first; or say --plain to take the encryption away".to_owned(),
            ));
        }
    };
    let rewritten =
        node::rewrite(&config.data, &options(config), &to).map_err(|error| refused(config, &error))?;
    let current = to.keys.ids().first().map(KeyId::to_string);
    let retired: Vec<String> = rewritten.retired.iter().map(KeyId::to_string).collect();
    if global.json {
        let value: Value =
            json!({"ok": true, "values": rewritten.values, "key": current, "retired": retired});
        print::line(&value.to_string());
        return Ok(());
    }
    let now = current.map_or("not encrypted".to_owned(), |id| format!("encrypted with key {id}"));
    print::line(&format!("{}: {} values are {now}", config.data.display(), print::count(rewritten.values)));
    for id in retired {
        print::line(&format!("key {id}  no longer needed here; backups from before still need it"));
    }
    Ok(())
}

pub(crate) fn options(config: &Config) -> Options {
    Options { at_rest: at_rest(config), ..Options::default() }
}

pub(crate) fn refused(config: &Config, error: &OpenError) -> Failure {
    Failure::Check(format!("data directory {}: {error}", config.data.display()))
}
