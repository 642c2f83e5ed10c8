//! A backup of the running pond, as a stream: the caller keeps it, the server writes no file for it.
//!
//! ```text
//! frame      kind (1) | length of the payload (4, little-endian) | payload
//! head    1  id of the data directory (8, little-endian)
//! chunk   2  values (8, little-endian) | the chunk
//! kept    3  values (8, little-endian) | id of a chunk that the caller has (32)
//! end     4  the manifest
//! ```
//!
//! A stream without its end is no backup. What a chunk and a manifest are: `storage::backup`.

use super::Answered;
use crate::{
    backup_stream::{Frame, frame},
    http::{
        app::App,
        dto::BackupDto,
        extract::Payload,
        problem::{self, Problem},
        reply,
    },
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
};
use bytes::Bytes;
use futures_util::stream::unfold;
use node::Moment;
use std::{collections::BTreeSet, io, time::Duration};
use storage::{
    CheckpointError,
    backup::{Chunk, ChunkId},
};
use tokio::{runtime, sync::mpsc, time::timeout};

/// A caller that takes nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(60);

type Piece = Result<Bytes, io::Error>;

/// POST /v1/backup. One at a time; memory for a few chunks, as fast as the caller reads.
pub(crate) async fn stream(State(app): State<App>, payload: Payload) -> Answered {
    let have: BTreeSet<ChunkId> = payload.optional::<BackupDto>()?.have()?;
    let Ok(permit) = app.backups.clone().try_acquire_owned() else {
        return Err(Problem::new(&problem::BACKUP_RUNNING, "another backup is being made"));
    };
    let Some(moment) = app.node.moment().await? else {
        return Err(Problem::new(&problem::NOTHING_KEPT, "this server keeps everything in memory"));
    };
    let (sender, pieces) = mpsc::channel(1);
    let outlet = Outlet { app, sender, runtime: runtime::Handle::current() };
    tokio::task::spawn_blocking(move || {
        if let Err(Cut::Failed(error)) = outlet.send_all(&moment, &have) {
            tracing::error!("a backup was cut short: {error}");
            // The caller sees a stream that breaks off.
            let _ = outlet.send(Err(io::Error::other(error.to_string())));
        }
        drop(permit);
    });
    let stream =
        unfold(
            pieces,
            |mut pieces: mpsc::Receiver<Piece>| async move { Some((pieces.recv().await?, pieces)) },
        );
    let mut response = reply::bytes(StatusCode::OK, "application/octet-stream", Body::from_stream(stream));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Outlet {
    app: App,
    sender: mpsc::Sender<Piece>,
    runtime: runtime::Handle,
}

/// Why a stream broke off.
enum Cut {
    /// The caller is gone or too slow, or the server is stopping.
    Left,
    /// The data could not be read.
    Failed(CheckpointError),
}

impl From<CheckpointError> for Cut {
    fn from(error: CheckpointError) -> Self {
        Self::Failed(error)
    }
}

impl Outlet {
    fn send_all(&self, moment: &Moment, have: &BTreeSet<ChunkId>) -> Result<(), Cut> {
        self.send(Ok(frame(Frame::Head, &[&moment.directory().to_le_bytes()])))?;
        let put = &mut |id: ChunkId, chunk: Chunk| {
            let values = chunk.values.to_le_bytes();
            self.send(Ok(match have.contains(&id) {
                true => frame(Frame::Kept, &[&values, &id.0]),
                false => frame(Frame::Chunk, &[&values, &chunk.bytes]),
            }))
        };
        let manifest = moment.chunks::<Cut>(crate::now(), put)?;
        self.send(Ok(frame(Frame::End, &[manifest.render().as_bytes()])))
    }

    fn send(&self, piece: Piece) -> Result<(), Cut> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.app.stopping() => Err(Cut::Left),
                sent = timeout(PATIENCE, self.sender.send(piece)) => match sent {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(Cut::Left),
                },
            }
        })
    }
}
