//! `docs/contract.md` promises only what something proves: every sentence names its proof, or is marked **[not yet]**.
//!
//! A proof stands in italics behind the sentences that it proves, and may name
//!
//! - tests, as a crate and function names: core `a_job_is_dead_after_its_last_attempt`
//! - scenarios by their titles: features: "A lost worker's job goes to another one"
//! - rows of the fault suite: F1
//! - invariants of the simulator by their files: sim: `leases`
//!
//! A sentence marked **[not yet]** needs none, nor does what follows it up to the end of its paragraph or to the next proof; a paragraph
//! whose title is marked needs none at all.

use crate::steps::root;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

const PAGE: &str = "docs/contract.md";
const MARK: &str = "[not yet]";
/// Paragraphs that promise nothing.
const NO_PROMISE: [&str; 2] = ["Not promised.", "Check us."];

/// What there is to prove something with.
#[derive(Default)]
struct Proofs {
    /// By crate.
    tests: BTreeMap<String, BTreeSet<String>>,
    scenarios: BTreeSet<String>,
    rows: BTreeSet<String>,
    invariants: BTreeSet<String>,
}

/// Adds what is wrong with the contract. `files` are all files of the tree.
pub(crate) fn check(files: &[PathBuf], wrong: &mut Vec<String>) {
    let Ok(text) = fs::read_to_string(root().join(PAGE)) else {
        return wrong.push(format!("{PAGE}: it is not there"));
    };
    let mut proofs = Proofs::default();
    for path in files {
        let name = path.display().to_string();
        if !name.ends_with(".rs") && !name.ends_with(".feature") {
            continue;
        }
        if let Ok(text) = fs::read_to_string(root().join(path)) {
            proofs.add(&name, &text);
        }
    }
    let found = proofs.judge(&text);
    wrong.extend(found.into_iter().map(|what| format!("{PAGE}: {what}")));
}

impl Proofs {
    fn add(&mut self, name: &str, text: &str) {
        if name.ends_with(".feature") {
            let titles = text.lines().filter_map(|line| {
                let line = line.trim();
                line.strip_prefix("Scenario:").or_else(|| line.strip_prefix("Scenario Outline:"))
            });
            self.scenarios.extend(titles.map(|title| title.trim().to_owned()));
        }
        if name == "crates/faults/src/rows/mod.rs" {
            let names = text.split("name: \"").skip(1).filter_map(|rest| rest.split('"').next());
            self.rows.extend(names.map(str::to_owned));
        }
        if let Some(file) = name.strip_prefix("crates/sim/src/invariants/") {
            self.invariants.extend(file.strip_suffix(".rs").filter(|file| *file != "mod").map(str::to_owned));
        }
        if let Some(krate) = name.strip_prefix("crates/").and_then(|rest| rest.split('/').next()) {
            self.tests.entry(krate.to_owned()).or_default().extend(tests_of(text));
        }
    }

    /// What is wrong with a page.
    fn judge(&self, page: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut begun = false;
        for paragraph in page.split("\n\n").map(str::trim) {
            let title = paragraph.strip_prefix("**").and_then(|rest| rest.split("**").next());
            begun |= title.is_some();
            let free = title.is_some_and(|title| {
                title.contains(MARK) || NO_PROMISE.contains(&title.replace(MARK, "").trim())
            });
            // Before the first title there are no promises; a table is proved by the paragraph below it.
            if !begun || free || paragraph.starts_with('|') {
                continue;
            }
            let text = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut rest = text.as_str();
            while let Some((_, proof, behind)) = next_proof(rest) {
                self.judge_proof(proof, &mut wrong);
                rest = behind;
            }
            let rest = rest.trim();
            let first = rest.split_inclusive(". ").next().unwrap_or_default();
            if !rest.is_empty() && !first.contains(MARK) {
                wrong.push(format!(
                    "nothing proves \"{rest}\"; name a test behind it in italics, or mark it **{MARK}**"
                ));
            }
        }
        wrong
    }

    fn judge_proof(&self, proof: &str, wrong: &mut Vec<String>) {
        let mut of = "";
        let mut named = 0;
        let mut rest = proof;
        while let Some(next) = rest.chars().next() {
            let quote = match next {
                '`' => Some('`'),
                '"' => Some('"'),
                _ => None,
            };
            let Some(quote) = quote else {
                let end = rest.find([' ', '`', '"']).unwrap_or(rest.len()).max(1);
                let word = rest[..end].trim_end_matches([':', ',', '.', ';']);
                if self.tests.contains_key(word) || ["sim", "features"].contains(&word) {
                    of = self.tests.get_key_value(word).map_or(word, |(name, _)| name);
                } else if self.is_row(word) {
                    named += 1;
                    if !self.rows.contains(word) {
                        wrong.push(format!("there is no row {word} in the fault suite"));
                    }
                }
                if rest[..end].ends_with(['.', ';']) {
                    of = "";
                }
                rest = &rest[end..];
                continue;
            };
            let Some((name, behind)) = rest[1..].split_once(quote) else { break };
            rest = behind;
            let (known, what) = match (of, quote) {
                ("features", '"') => (self.scenarios.contains(name), "scenario"),
                ("sim", '`') => (self.invariants.contains(name), "invariant of the simulator"),
                (krate, '`') if !krate.is_empty() => {
                    (self.tests.get(krate).is_some_and(|tests| tests.contains(name)), "test")
                }
                // A word of the text, such as the name of a level.
                _ if !name.contains(['_', ' ']) => continue,
                _ => (false, "crate, `sim:` or `features:` in front of what should be a proof"),
            };
            named += 1;
            if !known {
                wrong.push(format!("there is no {what} \"{name}\""));
            }
        }
        if named == 0 {
            wrong.push(format!("\"{proof}\" stands where a proof should, and names none"));
        }
    }

    fn is_row(&self, word: &str) -> bool {
        let number = word.strip_prefix(['F', 'K', 'L']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// The functions below a test attribute.
fn tests_of(text: &str) -> Vec<String> {
    let mut waiting = false;
    let mut out = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            waiting = true;
        } else if waiting && let Some((_, rest)) = line.split_once("fn ") {
            waiting = false;
            out.extend(rest.split('(').next().map(str::to_owned));
        }
    }
    out
}

/// Text, what stands in italics behind it, and the rest. Bold is no proof.
fn next_proof(text: &str) -> Option<(&str, &str, &str)> {
    let bytes = text.as_bytes();
    let star = |at: usize| bytes.get(at) == Some(&b'*');
    let single = |at: usize| star(at) && !star(at + 1) && (at == 0 || !star(at - 1));
    let begin = (0..bytes.len()).find(|at| single(*at))?;
    let end = (begin + 1..bytes.len()).find(|at| single(*at))?;
    Some((&text[..begin], &text[begin + 1..end], text[end + 1..].trim_start_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proofs() -> Proofs {
        let mut proofs = Proofs::default();
        let test = "/// Why.\n#[test]\n#[cfg(unix)]\nfn it_holds() {}\nfn helper() {}\n#[tokio::test]\nasync fn it_waits() {}";
        proofs.add("crates/core/src/a.rs", test);
        proofs.add("crates/faults/src/rows/mod.rs", "Row { name: \"F1\", about: \"kill\" }");
        proofs.add("crates/sim/src/invariants/leases.rs", "");
        proofs.add("features/a.feature", "Feature: x\n  Scenario: A lost worker's job");
        proofs
    }

    fn judge(page: &str) -> String {
        proofs().judge(page).join("; ")
    }

    #[test]
    fn a_promise_with_its_proof_is_kept() {
        for page in [
            "Names such as *these* are explained.\n\n**A.** One. Two. *core `it_holds`, `it_waits`.*",
            "**A.** One *F1 tries it; sim: `leases`*. Two. *features: \"A lost worker's job\".*",
            "**A.** *`disk`, always: core `it_holds`. `os`: core `it_waits`.*",
            "**A. [not yet]** Anything. At all.",
            "**A.** One. *F1.* Then **[not yet]** this. And that.",
            "**A.** One. *F1.* (More: **[not yet]**.)\n\n| a | b |\n|---|---|",
            "**Not promised.** The moon.",
        ] {
            assert_eq!(judge(page), "", "{page}");
        }
    }

    #[test]
    fn a_promise_without_a_proof_and_a_proof_that_is_gone_are_found() {
        for (page, part) in [
            ("**A.** One.", "nothing proves \"**A.** One.\""),
            ("**A.** One. *F1.* Two. *F1.* Three.", "nothing proves \"Three.\""),
            ("**A.** One. *F1.* Two. Three **[not yet]**.", "nothing proves \"Two."),
            ("**A.** One. *F1.*\n\nTwo.", "nothing proves \"Two.\""),
            ("**A.** One. *core `it_held`.*", "no test \"it_held\""),
            ("**A.** One. *core `helper`.*", "no test \"helper\""),
            ("**A.** One. *core `it_holds`, `it_held`.*", "no test \"it_held\""),
            ("**A.** One. *node `it_holds`.*", "in front of what should be a proof \"it_holds\""),
            ("**A.** One. *core `it_holds`; `it_waits`.*", "in front of what should be a proof \"it_waits\""),
            ("**A.** One. *sim: `it_holds`.*", "no invariant of the simulator"),
            ("**A.** One. *F2.*", "no row F2"),
            ("**A.** One. *features: \"A found worker\".*", "no scenario"),
            ("**A.** One, *really*.", "names none"),
        ] {
            let found = judge(page);
            assert!(found.contains(part), "{page}: {found}");
        }
    }
}
