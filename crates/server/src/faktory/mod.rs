//! The second front door: the Faktory work protocol, version 2, so that producers and workers that were written for Faktory need no
//! other change than their URL. See `docs/faktory.md`.
//!
//! It has no rules of its own. What a client sends becomes the commands that HTTP makes, too; what the server has to remember of a client
//! (which of its jobs are leased, by which token) is read from the jobs themselves, so that it survives a restart.

mod accept;
mod answer;
mod hello;
mod info;
mod job;
mod lines;
mod mutate;
mod push;
mod queues;
mod session;
mod sweep;
mod track;
mod work;
mod workers;

pub(crate) use accept::{Gate, serve};
