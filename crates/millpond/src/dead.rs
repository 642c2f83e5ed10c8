//! The dead letters of a queue: what kills its jobs, and how they are mended and given another life.

use crate::{DeadLetters, Error, Queue, merge_patch};
use compact_str::ToCompactString;
use model::{Command, JobId, Reject, State};
use serde::{Serialize, de::DeserializeOwned};

/// How often a body is edited anew because somebody else changed it meanwhile.
const EDITS_MAX: usize = 8;

impl<T> Queue<T> {
    /// What kills the jobs of the queue, by class of error, where the dead go, and whether there is an alert. `None` if there is no
    /// such queue.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), millpond::Error> {
    /// use millpond::{Alert, DeadLetter, Pond, QueueName, QueuePatch};
    ///
    /// let pond = Pond::in_memory().await?;
    /// let mail = pond.queue::<String>("mail")?;
    /// let alert = Alert { per_minute: 20, ..Alert::default() };
    /// let policy = DeadLetter { queue: Some(QueueName::new("mail.dead")?), alert };
    /// mail.configure(QueuePatch { dead_letter: Some(Box::new(policy)), ..QueuePatch::default() }).await?;
    ///
    /// let letters = mail.dead_letters().await?.expect("a queue that was configured");
    /// assert_eq!((letters.dead, letters.alert_since), (0, None));
    /// for class in letters.classes {
    ///     println!("{} died of {}: {}, the last is {}", class.count, class.kind, class.message, class.sample);
    /// }
    /// # pond.close().await
    /// # }
    /// ```
    pub async fn dead_letters(&self) -> Result<Option<DeadLetters>, Error> {
        self.pond.inner.backend.dead_letters(self.name.clone()).await
    }

    /// Gives one final job another life. For many, and at a rate, see [`Queue::redrive`] and [`Queue::bulk_at_rate`].
    pub async fn redrive_one(&self, id: &JobId) -> Result<(), Error> {
        self.pond.inner.command(Command::Redrive { jobs: vec![self.at(id)] }).await.map(drop)
    }

    /// Changes the body of a job that no worker has by a JSON merge patch ([`crate::merge_patch`]), as the server does: what the patch
    /// does not name stays byte for byte, also what no `T` knows. Returns the job's state. If somebody else changes the body
    /// meanwhile, the patch is made to theirs.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), millpond::Error> {
    /// # let pond = millpond::Pond::in_memory().await?;
    /// use std::collections::BTreeMap;
    ///
    /// let mail = pond.queue::<BTreeMap<String, String>>("mail")?;
    /// let receipt = mail.push(&BTreeMap::from([("to".into(), "an@example.org".into())])).await?;
    /// mail.patch_body(&receipt.id, &BTreeMap::from([("to", "ann@example.org")])).await?;
    /// # let body = mail.job(&receipt.id).await?.unwrap().body.unwrap();
    /// # assert_eq!(body, r#"{"to":"ann@example.org"}"#);
    /// # pond.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `unknown_job`, `wrong_state` for a running job, `invalid` for a body that is not JSON and a patch that is nested too deeply,
    /// `queue_full` for a larger body without room.
    pub async fn patch_body(&self, id: &JobId, patch: &impl Serialize) -> Result<State, Error> {
        let patch = serde_json::to_string(patch)?;
        self.change_body(id, |old| {
            let merged =
                merge_patch(&String::from_utf8_lossy(old), &patch).map_err(|error| no_body(&error))?;
            Ok(merged.into_bytes())
        })
        .await
    }

    async fn change_body(
        &self,
        id: &JobId,
        change: impl Fn(&[u8]) -> Result<Vec<u8>, Error>,
    ) -> Result<State, Error> {
        for _ in 0..EDITS_MAX {
            let view = self.job(id).await?.ok_or(Reject::UnknownJob { id: id.to_compact_string() })?;
            if !view.content_type.is_empty() {
                return Err(Reject::Invalid { field: "body", reason: "is no JSON".into() }.into());
            }
            let body = change(view.body.as_deref().unwrap_or_default())?.into();
            let command = Command::PatchBody { job: self.at(id), expected_crc: view.body_crc, body };
            match self.pond.inner.command(command).await {
                Err(Error::Refused(Reject::BodyChanged { .. })) => {}
                Err(error) => return Err(error),
                Ok(reply) => return crate::pond::state_of(&reply),
            }
        }
        Err(Reject::BodyChanged { id: id.to_compact_string() }.into())
    }
}

impl<T: Serialize + DeserializeOwned> Queue<T> {
    /// Changes the body of a job that no worker has, for example of a dead one before its redrive. Returns the job's state. If
    /// somebody else changes the body meanwhile, theirs is read and edited anew.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), millpond::Error> {
    /// # let pond = millpond::Pond::in_memory().await?;
    /// let mail = pond.queue::<Vec<String>>("mail")?;
    /// let receipt = mail.push(&vec!["an@example.org".into()]).await?;
    /// mail.edit_body(&receipt.id, |to| to[0] = "ann@example.org".into()).await?;
    /// # let body = mail.job(&receipt.id).await?.unwrap().body.unwrap();
    /// # assert_eq!(body, r#"["ann@example.org"]"#);
    /// # pond.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `unknown_job`, `wrong_state` for a running job, `invalid` for a body that is no `T`, `queue_full` for a larger one without room.
    pub async fn edit_body(&self, id: &JobId, edit: impl Fn(&mut T)) -> Result<State, Error> {
        self.change_body(id, |old| {
            let mut body = serde_json::from_slice(old).map_err(|error| no_body(&error))?;
            edit(&mut body);
            Ok(serde_json::to_vec(&body)?)
        })
        .await
    }
}

fn no_body(error: &serde_json::Error) -> Reject {
    Reject::Invalid { field: "body", reason: error.to_compact_string() }
}
