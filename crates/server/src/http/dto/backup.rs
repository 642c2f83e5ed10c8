use super::scalar::Text;
use crate::http::problem::Problem;
use serde::Deserialize;
use std::collections::BTreeSet;
use storage::backup::ChunkId;

/// What the caller of a backup has already.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupDto<'a> {
    #[serde(borrow, default)]
    have: Vec<Text<'a>>,
}

impl BackupDto<'_> {
    pub(crate) fn have(&self) -> Result<BTreeSet<ChunkId>, Problem> {
        let wrong = || Problem::invalid("have", "holds ids of chunks, of 64 hexadecimal digits each");
        self.have.iter().map(|id| ChunkId::parse(id).ok_or_else(wrong)).collect()
    }
}
