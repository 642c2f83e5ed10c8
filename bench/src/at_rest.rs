//! What encryption and compression cost, as a share of the pace without them, measured in turns.

use crate::{
    Plan,
    embedded::{PAYLOADS, handle},
    report::{Report, Result},
};
use millpond::{AtRest, Key, Keyring};
use node::Options;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let keys = Keyring::parse(&Key::generate()?)?;
    let none = AtRest { compress_from: 0, ..AtRest::default() };
    let ways = [
        ("compressed checkpoints", AtRest::default()),
        ("encrypted", AtRest { keys: keys.clone(), ..none.clone() }),
        ("encrypted, compressed checkpoints", AtRest { keys: keys.clone(), ..AtRest::default() }),
        ("encrypted, all compressed", AtRest { keys, compress_log_from: 4 << 10, ..AtRest::default() }),
    ];
    let with = |at_rest: &AtRest| Options { at_rest: at_rest.clone(), ..Options::default() };
    for (bytes, size) in PAYLOADS {
        let mut shares = vec![Vec::new(); ways.len()];
        for _ in 0..plan.rounds {
            for (shares, (_, at_rest)) in shares.iter_mut().zip(&ways) {
                // Beside one without, because the machine is not the same a minute later.
                let without = runtime.block_on(handle(bytes, with(&none)))?;
                shares.push(runtime.block_on(handle(bytes, with(at_rest)))? / without);
            }
        }
        for (shares, (name, _)) in shares.into_iter().zip(&ways) {
            report.add(&format!("at rest: {name}"), &format!("node, disk, {size}"), "x", shares);
        }
    }
    Ok(())
}
