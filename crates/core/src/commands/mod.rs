//! One command, one file, its tests beside it.

mod bulk;
mod cancel;
mod cancel_join;
mod configure;
mod extend;
mod fail;
mod fetch;
mod join;
mod log;
mod pause;
mod progress;
mod promote;
mod push;
mod redrive;
mod remove;
mod renew;
mod restart;
mod settle;
mod signal;
mod step;
mod tick;
mod wait;
