//! `millpond backup`: saves a running server's data, or a stopped directory, in a folder.

use super::{
    Context, Failure, Global,
    key::{Keys, options},
    print,
    print::Style,
    verify::many,
};
use crate::client::ClientError;
use clap::Args;
use node::BackupFailure;
use serde_json::json;
use server::backup_stream::Frame;
use std::path::{Path, PathBuf};
use storage::{
    KeyId,
    backup::{BackupError, BackupFolder, ChunkId, Manifest, Saved},
};

/// Save everything in a folder, from a running server or from a stopped directory
///
/// Everything that the server acknowledged before is in it. The same folder again takes only what changed. A backup that was cut short
/// does not count; the one before does. What is encrypted stays encrypted: keep the key elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond backup /mnt/backup/pond
  millpond backup /mnt/backup/pond --from ./millpond-data
  millpond verify /mnt/backup/pond
  millpond restore /mnt/backup/pond ./new-data")]
pub(crate) struct Backup {
    /// The folder for it: new, empty, or with an earlier backup of the same data
    folder: PathBuf,
    /// Save this data directory, whose server is stopped, instead of asking a server
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

impl Backup {
    /// Whether it works on files alone.
    pub(crate) fn is_offline(&self) -> bool {
        self.from.is_some()
    }

    pub(crate) fn offline(self, global: &Global) -> Result<(), Failure> {
        let config = self.keys.load(self.from.as_deref())?;
        let (manifest, saved) = node::backup(&config.data, &self.folder, &options(&config), print::now())
            .map_err(|error| failed(&error))?;
        tell(&self.folder, &manifest, &saved, global.json, Style::stdout(global.color));
        Ok(())
    }

    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let failed = |error: BackupError| failed(&error.into());
        let mut folder = node::open_folder(&self.folder).map_err(failed)?;
        let have: Vec<String> = folder.there().map(ChunkId::to_string).collect();
        let mut stream = context.client.backup(json!({ "have": have }).to_string().into()).await?;
        let foreign = |reason: &str| {
            let url = context.client.url().to_owned();
            Failure::Client(ClientError::Foreign { url, reason: reason.to_owned() })
        };
        loop {
            let (kind, payload) = stream.next().await?;
            match kind {
                Frame::Head => {
                    let id =
                        <[u8; 8]>::try_from(&payload[..]).map_err(|_| foreign("it names no directory"))?;
                    folder.belongs_to(u64::from_le_bytes(id)).map_err(failed)?;
                }
                Frame::Chunk | Frame::Kept => {
                    let (values, rest) =
                        payload.split_first_chunk::<8>().ok_or_else(|| foreign("a chunk is cut short"))?;
                    let values = u64::from_le_bytes(*values);
                    take(&mut folder, kind, rest, values).map_err(failed)?;
                }
                Frame::End => {
                    let manifest = Manifest::parse(&payload).map_err(|reason| foreign(&reason))?;
                    let saved = folder.finish(&manifest).map_err(failed)?;
                    tell(&self.folder, &manifest, &saved, context.json, context.style);
                    return Ok(());
                }
            }
        }
    }
}

fn take(folder: &mut BackupFolder, kind: Frame, bytes: &[u8], values: u64) -> Result<(), BackupError> {
    match (kind, <[u8; 32]>::try_from(bytes)) {
        (Frame::Kept, Ok(id)) => folder.keep(ChunkId(id), values),
        _ => folder.put(bytes, values),
    }
}

fn tell(folder: &Path, manifest: &Manifest, saved: &Saved, json: bool, style: Style) {
    let keys: Vec<String> = manifest.keys.iter().map(KeyId::to_string).collect();
    if json {
        let value = json!({
            "ok": true, "position": manifest.position, "taken": manifest.taken.to_string(),
            "values": saved.values, "bytes": saved.bytes, "chunks_written": saved.chunks_written,
            "bytes_written": saved.bytes_written, "chunks_kept": saved.chunks_kept,
            "plain": manifest.plain, "keys": keys,
        });
        print::line(&value.to_string());
        return;
    }
    print::line(&format!(
        "{}: {} up to position {}; {} of {} written, the rest was there",
        folder.display(),
        many(saved.values, "value"),
        manifest.position,
        print::bytes(saved.bytes_written),
        print::bytes(saved.bytes),
    ));
    for key in keys {
        print::line(&style.warn(&format!("key {key}  is needed to restore it; it is not in the backup")));
    }
}

/// What a script sees of a failure.
pub(crate) fn failed(error: &BackupFailure) -> Failure {
    match error {
        BackupFailure::Backup(BackupError::Damaged { .. } | BackupError::Unfinished { .. }) => {
            Failure::Damaged(error.to_string())
        }
        _ => Failure::Check(error.to_string()),
    }
}
