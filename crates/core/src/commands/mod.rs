//! One command, one file, its tests beside it.

mod bulk;
mod cancel;
mod configure;
mod fail;
mod fetch;
mod log;
mod pause;
mod progress;
mod promote;
mod push;
mod redrive;
mod remove;
mod renew;
mod set_group;
mod set_limit;
mod settle;
mod tick;
