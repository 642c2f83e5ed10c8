//! `millpond restore`: makes a data directory of a backup.

use super::{
    Failure, Global,
    backup::failed,
    key::{Keys, options},
    print,
    verify::many,
};
use clap::Args;
use node::Restored;
use serde_json::json;
use std::path::PathBuf;

/// Make a new data directory of a backup
///
/// The backup is checked first, whole. What happened after it was made is not in it; so that nobody who got a job then passes for one who
/// gets it now, tokens of leases begin anew above all that can have been given out. Stop the server that has the old directory first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond restore /mnt/backup/pond ./new-data
  millpond restore /mnt/backup/pond ./new-data --encryption-key-file keys
  millpond serve --data ./new-data")]
pub(crate) struct Restore {
    /// The folder with the backup
    backup: PathBuf,
    /// The data directory to make; it must not exist, or be empty
    directory: PathBuf,
    #[command(flatten)]
    keys: Keys,
}

impl Restore {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        let config = self.keys.load(Some(&self.directory))?;
        let restored = node::restore(&self.backup, &config.data, &options(&config), print::now())
            .map_err(|error| failed(&error))?;
        let Restored { manifest, jobs, queues } = restored;
        if global.json {
            let value = json!({
                "ok": true, "directory": config.data, "jobs": jobs, "queues": queues,
                "position": manifest.position, "taken": manifest.taken.to_string(),
            });
            print::line(&value.to_string());
            return Ok(());
        }
        print::line(&format!(
            "{}: {} in {}, as of {}",
            config.data.display(),
            many(jobs, "job"),
            many(queues, "queue"),
            manifest.taken
        ));
        Ok(())
    }
}
