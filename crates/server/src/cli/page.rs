//! `docs/options.md` lists every command with its options, in the words of its help.

use super::Arguments;
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/options.md");

const HEAD: &str = "# Every command and its options

The words are those of `millpond COMMAND --help`, which also has examples; a test keeps them the same. [cli.md](cli.md) says what the commands are for, what holds for all of them
(`--url`, `--token`, `--json`, `--color`), and how spans and times are written; [configuration.md](configuration.md) has the settings of `serve`.
";

fn section(command: &Command, above: &str, out: &mut String) {
    let name = format!("{above} {}", command.get_name());
    let mut shown: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    shown.sort_by_key(|arg| (!arg.is_positional(), arg.get_index()));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    writeln!(out, "\n## `{name}`\n{about}.").unwrap();
    if !shown.is_empty() {
        out.push_str("\n| | |\n|---|---|\n");
    }
    for arg in shown {
        let values =
            arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>();
        let values = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
        let name = match arg.get_long() {
            Some(long) => format!("--{long} {values}"),
            None => values,
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match default.is_empty() || !arg.get_action().takes_values() {
            true => String::new(),
            false => format!(" (`{}` if not said)", default.join(" ")),
        };
        writeln!(out, "| `{}` | {}{default} |", name.trim(), help.replace('|', "\\|")).unwrap();
    }
    for inner in command.get_subcommands() {
        section(inner, &name, out);
    }
}

#[test]
fn the_page_of_options_lists_every_command() {
    let mut page = HEAD.to_owned();
    for command in Arguments::command().get_subcommands() {
        section(command, "millpond", &mut page);
    }
    if std::env::var_os("MILLPOND_BLESS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(PAGE).unwrap_or_default(),
        page,
        "MILLPOND_BLESS=1 writes the page anew"
    );
}

/// Every `millpond …` that a page shows, in the text or on a line of its own in an example.
fn commands_of(page: &str) -> impl Iterator<Item = &str> {
    let in_text = page.split('`').skip(1).step_by(2);
    let alone = page.lines().map(|line| line.trim_start().trim_start_matches("$ "));
    in_text.chain(alone).filter_map(|piece| piece.strip_prefix("millpond "))
}

#[test]
fn the_pages_name_only_commands_that_there_are() {
    let arguments = Arguments::command();
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let pages = std::fs::read_dir(docs).unwrap().map(|page| page.unwrap().path());
    let readme = std::path::PathBuf::from(docs).join("../README.md");
    let mut seen = 0;
    // The contract names what is still to come as well.
    let named = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|kind| kind == "md") && !path.ends_with("contract.md")
    };
    for path in pages.chain([readme]).filter(named) {
        let page = std::fs::read_to_string(&path).unwrap();
        for line in commands_of(&page) {
            let word = line.split_whitespace().next().unwrap_or_default();
            let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            if is_word && line.lines().count() == 1 {
                seen += 1;
                assert!(arguments.find_subcommand(word).is_some(), "{}: millpond {line}", path.display());
            }
        }
    }
    assert!(seen > 100, "only {seen} were found");
}
