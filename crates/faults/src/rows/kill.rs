use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    load::{self, Load},
    pond::Pond,
};
use kit::random::Random;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The load runs between these many milliseconds.
const LOAD_MS: std::ops::Range<u64> = 10..250;

/// F1. Each cycle has a queue of its own, so that what it left can be listed whole; the last start works all of them off.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let mut random = Random::new(plan.seed);
    let mut ledgers: Vec<Arc<Ledger>> = Vec::new();
    let mut left = Vec::new();
    for cycle in 0..plan.count {
        let inside = |breach| format!("cycle {cycle}: {breach}");
        let server = pond.start().map_err(inside)?;
        if let Some(ledger) = ledgers.last() {
            ledger.check(&mut server.client(), false).map_err(inside)?;
            load::repeat(&server, ledger, &left).map_err(inside)?;
            ledger.check(&mut server.client(), false).map_err(inside)?;
        }
        let ledger = Arc::new(Ledger::new(format!("kill-{cycle}")));
        ledgers.push(ledger.clone());
        let load = Load::start(&server, ledger, random.next_u64());
        let wait = LOAD_MS.start + random.below(LOAD_MS.end - LOAD_MS.start);
        let moment = Instant::now() + Duration::from_millis(wait);
        rig::until(Duration::from_millis(wait), || (Instant::now() >= moment).then_some(()));
        server.kill().map_err(|error| error.to_string())?;
        plan.tally.fault();
        left = load.stop()?.unknown;
    }
    let ledgers: Vec<&Ledger> = ledgers.iter().map(AsRef::as_ref).collect();
    pond.heals(&ledgers)?;
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.acknowledged()).sum();
    Ok(Ran::Passed(plan.count, format!("{acknowledged} acknowledged jobs, none lost")))
}
