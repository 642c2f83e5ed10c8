//! The rules of the house that a compiler does not know. Each says what is wrong and what to do instead.

use crate::{Done, Outcome, contract, steps::root};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Who may import whom, tests aside. A crate that is not here may not exist: add it with its reason in ARCHITECTURE.md.
#[rustfmt::skip]
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("kit", &[]),
    ("model", &["kit"]),
    ("millpond-core", &["kit", "model"]),
    ("storage", &["kit"]),
    ("node", &["kit", "model", "millpond-core", "storage"]),
    ("wire", &["kit", "model"]),
    ("workers", &["kit", "model"]),
    ("millpond", &["kit", "model", "node", "storage", "wire", "workers"]),
    ("sandbox", &[]),
    ("server", &["kit", "model", "millpond-core", "storage", "node", "wire", "workers", "sandbox", "millpond", "faults"]),
    ("sim", &["kit", "model", "millpond-core", "storage", "node"]),
    ("rig", &[]),
    ("faults", &["kit", "rig"]),
    ("features", &["rig"]),
    ("bench", &["kit", "model", "millpond-core", "storage", "wire", "node", "millpond", "rig"]),
    ("peers", &["millpond"]),
    ("fuzz", &["kit", "model", "millpond-core", "storage", "node", "wire", "workers", "server"]),
    ("xtask", &[]),
];

/// Looks at every file that git knows.
pub(crate) fn run() -> Outcome {
    let files = tracked()?;
    let mut wrong = Vec::new();
    for path in &files {
        // Fixtures and pictures are not text.
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        let name = path.display().to_string();
        if name.ends_with("Cargo.toml") {
            imports(&name, &text, &mut wrong);
        }
        if name.ends_with(".rs") {
            sources(&name, &text, &mut wrong);
        }
        if name.ends_with(".md") {
            links(path, &text, &mut wrong);
        }
        if !name.ends_with(".lock") {
            machine_paths(&name, &text, &mut wrong);
        }
    }
    contract::check(&files, &mut wrong);
    if wrong.is_empty() { Ok(Done::Passed) } else { Err(format!("not tidy\n{}", wrong.join("\n"))) }
}

fn tracked() -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "-co", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = listed.map_err(|error| format!("git cannot list the files: {error}"))?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    if files.is_empty() { Err("git lists no files; run this in a clone".to_owned()) } else { Ok(files) }
}

fn imports(name: &str, text: &str, wrong: &mut Vec<String>) {
    let mut section = "";
    let mut package = "";
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if section == "[package]" && key == "name" {
            package = line.split('"').nth(1).unwrap_or_default();
        }
        if section != "[dependencies]" || !MAY_IMPORT.iter().any(|(ours, _)| *ours == key) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(ours, _)| *ours == package) else {
            continue;
        };
        if !allowed.contains(&key) {
            wrong.push(format!(
                "{name}: {package} may not import {key}; move the code to where it may, or change the table in xtask/src/tidy.rs with a reason"
            ));
        }
    }
    if !package.is_empty() && !MAY_IMPORT.iter().any(|(ours, _)| *ours == package) {
        wrong.push(format!("{name}: crate {package} is not in the table of imports in xtask/src/tidy.rs"));
    }
}

fn sources(name: &str, text: &str, wrong: &mut Vec<String>) {
    let root_file = ["/lib.rs", "/main.rs", "/mod.rs"].iter().any(|end| name.ends_with(end));
    if root_file && !name.contains("/tests/") && !text.starts_with("//!") && !text.starts_with("#!") {
        wrong.push(format!("{name}: begin with `//!` and say what is here"));
    }
    for open in [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore]"),
    ] {
        if text.contains(open) {
            wrong.push(format!("{name}: `{open}` is left open; finish it or take it out"));
        }
    }
}

fn machine_paths(name: &str, text: &str, wrong: &mut Vec<String>) {
    let above = root().parent().map(|path| format!("{}/", path.display()));
    let home = std::env::var("HOME").ok().map(|home| format!("{home}/"));
    let places = above.into_iter().chain(home).filter(|place| place.len() > 3);
    for place in places.filter(|place| text.contains(place.as_str())) {
        wrong.push(format!("{name}: a path of this machine ({place}); make it relative"));
    }
}

/// Every link to a file leads somewhere.
fn links(path: &Path, text: &str, wrong: &mut Vec<String>) {
    let folder = root().join(path.parent().unwrap_or(Path::new("")));
    for (index, _) in text.match_indices("](") {
        let rest = &text[index + 2..];
        let Some(end) = rest.find(')') else { continue };
        let link = rest[..end].split('#').next().unwrap_or_default();
        if link.is_empty() || link.contains("://") || link.contains(' ') || link.starts_with("mailto:") {
            continue;
        }
        if !folder.join(link).exists() {
            wrong.push(format!("{}: the link to {link} leads nowhere", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_upwards_is_found_and_one_downwards_is_not() {
        let mut wrong = Vec::new();
        let manifest = |name: &str, import: &str| {
            format!(
                "[package]\nname = \"{name}\"\n[dependencies]\n{import} = {{ workspace = true }}\n[dev-dependencies]\nserver = \"1\"\n"
            )
        };
        imports("a", &manifest("node", "storage"), &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
        imports("b", &manifest("storage", "model"), &mut wrong);
        imports("c", &manifest("newcomer", "serde"), &mut wrong);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let mut wrong = Vec::new();
        links(
            Path::new("x.md"),
            "[a](nowhere.md) [b](https://example.org) [c](#here) [d](Cargo.toml)",
            &mut wrong,
        );
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }
}
