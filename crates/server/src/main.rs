//! The one binary, `millpond`: a server, and the commands that talk to one.

mod cli;
mod client;

fn main() -> std::process::ExitCode {
    cli::main()
}
