//! One command, one file, its tests beside it.

mod bulk;
mod cancel;
mod choose;
mod configure;
mod control_bulk;
mod fail;
mod fetch;
mod log;
mod pause;
mod pause_schedule;
mod progress;
mod promote;
mod push;
mod put_schedule;
mod redrive;
mod remove;
mod remove_schedule;
mod renew;
mod restart;
mod resume_schedule;
mod run_schedule;
mod settle;
mod signal;
mod step;
mod tick;
