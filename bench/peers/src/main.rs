//! Millpond side by side with what people use, in one run.
//!
//! ```text
//! cargo run --release --manifest-path bench/peers/Cargo.toml -- [peer ...|all] [--rounds N] [--durability flushed|default|both]
//!     [--cells NAME,...] [--quick] [--huge] [--markdown]
//! ```
//!
//! Each peer is installed from packages into a folder below the target directory, started with a port and a data directory of its
//! own, and killed afterwards. In every round every peer and Millpond do the same, one after the other; a round compares only
//! with itself. The load comes from a client in the same language for both sides.

mod client;
mod driver;
mod error;
mod install;
mod native;
mod peers;
mod plan;
mod process;
mod runner;
mod server;
mod sink;
mod table;

use error::Result;
use install::Store;
use peers::{OURS, PEERS, Peer};
use plan::{Cell, Durability, Plan};
use runner::{Runner, Sizes};
use std::{process::ExitCode, time::Duration};
use table::{Side, Table};
use tokio::signal::unix::{SignalKind, signal};

/// The same as in the server, so that the library is measured with what the documentation advises.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the command line says.
struct Asked {
    plan: Plan,
    peers: Vec<&'static dyn Peer>,
    markdown: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(wrong) => return usage(&wrong),
    };
    // What is dropped kills its servers and removes its data.
    tokio::select! {
        ran = run(&asked) => match ran {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("peers: {error}");
                ExitCode::FAILURE
            }
        },
        () = stopped() => ExitCode::from(130),
    }
}

/// Returns at Ctrl-C and at SIGTERM.
async fn stopped() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Then it ends the process at once, and servers go with it.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn read(mut words: impl Iterator<Item = String>) -> std::result::Result<Asked, String> {
    let (mut rounds, mut quick, mut huge, mut markdown) = (3, false, false, false);
    let mut durabilities = vec![Durability::Flushed, Durability::Default];
    let mut cells: Option<Vec<Cell>> = None;
    let mut named = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--huge" => huge = true,
            "--markdown" => markdown = true,
            "--rounds" => {
                let value = words.next().and_then(|value| value.parse().ok()).filter(|rounds| *rounds > 0);
                rounds = value.ok_or("--rounds needs a number")?;
            }
            "--durability" => match words.next().as_deref() {
                Some("flushed") => durabilities = vec![Durability::Flushed],
                Some("default") => durabilities = vec![Durability::Default],
                Some("both") => {}
                _ => return Err("--durability needs flushed, default or both".into()),
            },
            "--cells" => {
                let names = words.next().ok_or("--cells needs names")?;
                let found = names.split(',').map(|name| {
                    let cell = Cell::ALL.into_iter().find(|cell| cell.name() == name);
                    cell.ok_or(format!("there is no cell {name}"))
                });
                cells = Some(found.collect::<std::result::Result<_, _>>()?);
            }
            "all" => named.extend(PEERS.map(|peer| peer.name().to_owned())),
            name if PEERS.iter().chain(&OURS).any(|peer| peer.name() == name) => named.push(name.to_owned()),
            other => return Err(format!("there is no peer or flag {other}")),
        }
    }
    if named.is_empty() {
        return Err("name a peer, or all".into());
    }
    let wanted = |peer: &&&'static dyn Peer| named.iter().any(|name| name == peer.name());
    let theirs: Vec<&dyn Peer> = PEERS.iter().filter(wanted).copied().collect();
    let beside = |ours: &&&'static dyn Peer| {
        wanted(ours) || theirs.iter().any(|peer| peer.language() == ours.language())
    };
    let peers = OURS.iter().filter(beside).copied().chain(theirs.iter().copied()).collect();
    let cells = cells
        .unwrap_or_else(|| Cell::ALL.into_iter().filter(|cell| huge || *cell != Cell::Backlog).collect());
    let (span, watch) = if quick { (400, 1_000) } else { (1_000, 2_500) };
    let (span, watch) = (Duration::from_millis(span), Duration::from_millis(watch));
    Ok(Asked { plan: Plan { rounds, durabilities, cells, span, watch }, peers, markdown })
}

async fn run(asked: &Asked) -> Result<()> {
    let (store, plan) = (Store::open()?, &asked.plan);
    let (mut table, mut sizes) = (Table::new(), Sizes::default());
    let mut present = Vec::new();
    for peer in &asked.peers {
        match peer.install(&store) {
            Ok(versions) => {
                let ours = OURS.iter().any(|ours| ours.name() == peer.name());
                table.sides.push(Side { name: peer.name(), language: peer.language(), ours, versions });
                present.push(*peer);
            }
            Err(error) => table.skip(peer.name(), &error.to_string()),
        }
    }
    for durability in &plan.durabilities {
        for round in 0..plan.rounds {
            table.round = round;
            for peer in &present {
                eprintln!("round {} of {}, {}, {}", round + 1, plan.rounds, durability.name(), peer.name());
                if let Err(error) = measure(*peer, &store, *durability, plan, &mut sizes, &mut table).await {
                    table.note(peer.name(), *durability, &error.to_string());
                }
            }
            // What changes in the course of a round then changes for the others first.
            present.reverse();
        }
    }
    let setting = |name: &str, durability| {
        asked.peers.iter().find(|peer| peer.name() == name).map_or("", |peer| peer.setting(durability))
    };
    table.print(plan, setting, asked.markdown);
    Ok(())
}

async fn measure(
    peer: &dyn Peer,
    store: &Store,
    durability: Durability,
    plan: &Plan,
    sizes: &mut Sizes,
    table: &mut Table,
) -> Result<()> {
    let folder = tempfile::tempdir_in(store.data())?;
    let session = peer.start(store, durability, folder.path()).await?;
    Runner::new((peer.name(), peer.has_delays()), durability, plan, session, sizes).run(table).await;
    Ok(())
}

fn usage(wrong: &str) -> ExitCode {
    let peers: Vec<&str> = PEERS.iter().chain(&OURS).map(|peer| peer.name()).collect();
    let cells = Cell::ALL.map(Cell::name).join(",");
    eprintln!(
        "peers: {wrong}\nusage: peers [all|{}] [--rounds N] [--durability flushed|default|both] [--cells {cells}] [--quick] [--huge] [--markdown]",
        peers.join("|")
    );
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> std::result::Result<Asked, String> {
        read(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn millpond_is_measured_beside_whatever_is_named() {
        let asked = asked("beanstalkd --rounds 2 --cells one,due --durability flushed").unwrap();
        let names: Vec<&str> = asked.peers.iter().map(|peer| peer.name()).collect();
        assert_eq!(names, ["millpond", "beanstalkd"]);
        assert_eq!((asked.plan.rounds, asked.plan.cells), (2, vec![Cell::One, Cell::Due]));
    }

    #[test]
    fn a_wrong_word_is_named() {
        for line in ["rabbit", "all --rounds 0", "all --cells two", "--markdown"] {
            assert!(asked(line).is_err(), "{line}");
        }
    }
}
