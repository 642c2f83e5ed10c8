//! The one binary, `millpond`: a server, and the commands that talk to one.

mod cli;
mod client;

/// Jobs are allocated on one thread and freed on another, in their millions; the system's allocator keeps such memory for itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
