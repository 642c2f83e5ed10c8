//! `millpond verify`: reads a data directory whole, and changes nothing. It works on files; no server is asked.

use super::{
    Failure, Global,
    backup::failed,
    key::{Directory, options, refused},
    print,
    print::Style,
};
use clap::Args;
use node::{Contents, Verified};
use serde_json::{Value, json};
use std::path::Path;
use storage::{Damage, KeyId};

/// Read every byte of a data directory and say what is damaged; its server must be stopped
///
/// Nothing is written there. Besides each file by itself, it is checked that the log continues the checkpoint, that the state can be
/// restored and does not contradict itself, and that the body of every job is there. Exit code 0 if all is well, 5 if something is
/// damaged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond verify ./millpond-data
  millpond verify ./millpond-data --json
  millpond verify ./millpond-data --encryption-key-file keys")]
pub(crate) struct Verify {
    #[command(flatten)]
    directory: Directory,
    /// Print the damage and the sum only, not every file
    #[arg(long, short)]
    quiet: bool,
}

impl Verify {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        let config = self.directory.load()?;
        if is_backup(&config.data) {
            return verify_backup(&config.data, global);
        }
        let verified =
            node::verify(&config.data, &options(&config)).map_err(|error| refused(&config, &error))?;
        if global.json {
            print::line(&json(&verified).to_string());
        } else {
            show(&verified, self.quiet, Style::stdout(global.color));
        }
        let path = config.data.display();
        match verified.inspection.damage.len() {
            0 if global.json => {}
            0 => print::line(&format!("{path}: {}", sum(&verified))),
            count => {
                let places = many(count as u64, "place");
                return Err(Failure::Damaged(format!("{path} is damaged in {places}")));
            }
        }
        Ok(())
    }
}

fn is_backup(path: &Path) -> bool {
    path.join("manifest").is_file() && !path.join("identity").exists()
}

fn verify_backup(path: &Path, global: &Global) -> Result<(), Failure> {
    let backup = node::read_backup(path).map_err(|error| failed(&error.into()))?;
    let manifest = backup.manifest();
    if global.json {
        let keys: Vec<_> = manifest.keys.iter().map(KeyId::to_string).collect();
        let value = json!({
            "ok": true, "values": manifest.values(), "bytes": manifest.bytes(), "position": manifest.position,
            "taken": manifest.taken.to_string(), "plain": manifest.plain, "keys": keys,
        });
        print::line(&value.to_string());
        return Ok(());
    }
    let values = many(manifest.values(), "value");
    let mut text = format!(
        "{}: a whole backup; {values} up to position {}, made at {}",
        path.display(),
        manifest.position,
        manifest.taken
    );
    for id in &manifest.keys {
        text.push_str(&format!("; needs key {id}"));
    }
    print::line(&text);
    Ok(())
}

fn show(verified: &Verified, quiet: bool, style: Style) {
    for part in verified.inspection.files.iter().filter(|_| !quiet) {
        let bytes = style.dim(&print::bytes(part.bytes));
        print::line(&format!("{}  {bytes}  {}", print::clean(&part.file), print::clean(&part.holds)));
    }
    for damage in &verified.inspection.damage {
        let reason = print::clean(&damage.reason);
        print::line(&format!("{} {}: {reason}", style.bad("damaged:"), print::clean(&place(damage))));
        print::line(&format!("  {}", print::clean(&damage.means)));
    }
}

fn place(damage: &Damage) -> String {
    match (damage.file.as_str(), damage.offset) {
        ("", _) => "the directory".to_owned(),
        (file, None) => file.to_owned(),
        (file, Some(offset)) => format!("{file} at byte {offset}"),
    }
}

fn sum(verified: &Verified) -> String {
    let read = &verified.inspection;
    let mut text = format!("whole; {} and {} read", many(read.records, "record"), many(read.values, "value"));
    if let Some(Contents { jobs, queues, position, encryption, .. }) = &verified.state {
        text.push_str(&format!(
            "; {} in {}, up to position {position}",
            many(*jobs, "job"),
            many(*queues, "queue")
        ));
        for id in encryption.iter().flat_map(|encryption| &encryption.keys) {
            text.push_str(&format!("; needs key {id}"));
        }
    }
    text
}

pub(super) fn many(count: u64, what: &str) -> String {
    format!("{} {what}{}", print::count(count), if count == 1 { "" } else { "s" })
}

fn json(verified: &Verified) -> Value {
    let Verified { inspection, state } = verified;
    let files: Vec<_> = inspection
        .files
        .iter()
        .map(|part| json!({"file": part.file, "bytes": part.bytes, "holds": part.holds}))
        .collect();
    let damage: Vec<_> = inspection
        .damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.file, "offset": damage.offset, "reason": damage.reason, "means": damage.means,
            })
        })
        .collect();
    let state = state.as_ref().map(|state| {
        let keys = state.encryption.iter().flat_map(|encryption| &encryption.keys);
        json!({
            "jobs": state.jobs, "queues": state.queues, "position": state.position,
            "time": state.time.to_string(), "checkpoint_position": state.checkpoint,
            "plain": state.encryption.as_ref().is_none_or(|encryption| encryption.plain),
            "keys": keys.map(KeyId::to_string).collect::<Vec<_>>(),
        })
    });
    json!({
        "ok": inspection.damage.is_empty(), "records": inspection.records, "values": inspection.values,
        "state": state, "damage": damage, "files": files,
    })
}
