//! What runs around a handler: one function for what concerns every attempt.

use crate::{Job, Outcome};
use std::{future::Future, pin::Pin, sync::Arc};

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;
pub(crate) type Layer = Arc<dyn Fn(Job, Next) -> Running + Send + Sync>;
pub(crate) type Inner = Arc<dyn Fn(Job) -> Running + Send + Sync>;

/// What a layer wraps: the layers added after it, and in the end the handler. Dropping it leaves the job undone: the layer's own outcome counts.
#[must_use = "the handler only runs if it is asked to"]
pub struct Next {
    layers: Arc<[Layer]>,
    /// The place of the next layer.
    at: usize,
    handler: Inner,
}

impl Next {
    pub(crate) const fn new(layers: Arc<[Layer]>, handler: Inner) -> Self {
        Self { layers, at: 0, handler }
    }

    /// Runs the rest, to the outcome of the attempt.
    pub fn run(mut self, job: Job) -> impl Future<Output = Outcome> + Send {
        match self.layers.get(self.at).cloned() {
            Some(layer) => {
                self.at += 1;
                layer(job, self)
            }
            None => (self.handler)(job),
        }
    }
}
