//! The one binary.

use server::config::{Config, Sources};
use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("serve") {
        eprintln!(
            "usage: millpond serve [--config FILE] [--listen ADDRESS] [--data DIRECTORY] [--SETTING VALUE]…"
        );
        return ExitCode::from(2);
    }
    let (mut file, mut flags) = (None, Vec::new());
    while let Some(argument) = arguments.next() {
        let flag = argument.trim_start_matches('-');
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None if flag == "memory" => (flag.to_owned(), String::new()),
            None => (flag.to_owned(), arguments.next().unwrap_or_default()),
        };
        if name == "config" {
            file = Some(PathBuf::from(value));
        } else {
            flags.push((name, value));
        }
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match Config::load(&Sources { file: file.as_deref(), environment, flags }) {
        Ok(config) => server::serve::run(&config),
        Err(error) => {
            eprintln!("millpond: {error}");
            ExitCode::from(2)
        }
    }
}
