//! Receives a backup.

use super::{ANSWER_BYTES_MAX, Client, ClientError, Extras, innermost};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, body::Incoming};
use server::backup_stream::{Frame, HEADER};

/// Payloads are shorter.
const PAYLOAD_MAX: usize = 512 << 20;

/// A backup on its way here.
pub(crate) struct BackupStream {
    client: Client,
    body: Incoming,
    unread: BytesMut,
}

impl Client {
    /// Asks for a backup; `have` says in JSON what need not come.
    pub(crate) async fn backup(&self, have: Bytes) -> Result<BackupStream, ClientError> {
        let request = self.request(Method::POST, "/v1/backup", have, &Extras::default())?;
        let answer = self.pool.request(request).await.map_err(|error| self.broken(&error))?;
        let (parts, body) = answer.into_parts();
        if parts.status.is_success() {
            return Ok(BackupStream { client: self.clone(), body, unread: BytesMut::new() });
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| self.no_answer(&error.to_string()))?.to_bytes();
        Err(self.refusal(parts.status, &parts.headers, &bytes))
    }
}

impl BackupStream {
    /// The next frame; an error if the stream breaks off, which it may not do before [`Frame::End`].
    pub(crate) async fn next(&mut self) -> Result<(Frame, Bytes), ClientError> {
        self.fill(HEADER).await?;
        let mut header = [0; HEADER];
        self.unread.copy_to_slice(&mut header);
        let Some((kind, length)) = Frame::read(header).filter(|(_, length)| *length <= PAYLOAD_MAX) else {
            let reason = "the backup has a part that this release does not know".to_owned();
            return Err(ClientError::Foreign { url: self.client.url().to_owned(), reason });
        };
        self.fill(length).await?;
        Ok((kind, self.unread.split_to(length).freeze()))
    }

    async fn fill(&mut self, length: usize) -> Result<(), ClientError> {
        while self.unread.len() < length {
            match self.body.frame().await {
                None => return Err(self.client.no_answer("the backup broke off")),
                Some(Err(error)) => return Err(self.client.no_answer(&innermost(&error))),
                Some(Ok(frame)) => {
                    self.unread.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
            }
        }
        Ok(())
    }
}
