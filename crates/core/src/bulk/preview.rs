//! What an operation would do, without doing it.

use super::{Bulk, Cursor};
use crate::shard::Shard;
use bytes::Bytes;
use model::{JobId, NewBulk, Reject, State};

/// A walk that only looks. Jobs come and go between two steps, so what it finds is what a moment ago would have been done.
#[derive(Debug)]
pub struct Preview {
    bulk: Bulk,
    states: Vec<State>,
    /// Jobs looked at so far.
    pub examined: u64,
    /// Jobs there are to look at, about.
    pub total: u64,
    /// Whether the walk is over.
    pub done: bool,
}

/// A job that an operation would change, unless its body says otherwise.
#[derive(Debug, Clone)]
pub struct Previewed {
    /// The shard's own number of the job.
    pub sequence: u64,
    /// The id.
    pub id: JobId,
    /// The state.
    pub state: State,
    /// The body, if the filter asks about bodies and it is in memory.
    pub body: Option<Bytes>,
}

impl Shard {
    /// Begins a preview of an operation.
    ///
    /// # Errors
    /// What starting the operation would be refused with.
    pub fn preview(&self, asked: &NewBulk) -> Result<Preview, Reject> {
        let bulk = self.plan_bulk(asked)?;
        Ok(Preview { states: bulk.states(), total: bulk.total, examined: 0, done: false, bulk })
    }

    /// Goes on with a preview: looks at `jobs` jobs at most, and names those that are meant.
    pub fn preview_on(&self, preview: &mut Preview, jobs: usize) -> Vec<Previewed> {
        let Preview { bulk, states, examined, done, .. } = preview;
        let mut found = Vec::new();
        for _ in 0..jobs {
            let mut cursor: Cursor = bulk.cursor;
            let Some(slot) = self.walk(bulk, states, &mut cursor) else {
                *done = true;
                break;
            };
            bulk.cursor = cursor;
            *examined += 1;
            let job = &self.jobs[slot];
            if bulk.wants(job, self.id) {
                let body = job.body.as_deref().filter(|_| !bulk.filter.body.is_empty());
                found.push(Previewed {
                    sequence: job.sequence,
                    id: job.id(self.id),
                    state: job.state,
                    body: body.map(Bytes::copy_from_slice),
                });
            }
        }
        found
    }
}
