//! A cron expression and its next slots around a change of clocks.
#![no_main]

use kit::{Timestamp, cron::Cron, zone::Zone};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(cron) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Cron>().ok()) else { return };
    let Some((_, rules)) = kit::zone::find("Europe/Berlin") else { return };
    let Ok(zone) = Zone::read(rules) else { return };
    let mut at = Timestamp(1_774_742_400_000);
    for _ in 0..4 {
        let Some(next) = cron.next(at, &zone) else { return };
        assert!(next > at);
        assert_eq!(cron.previous(next + 1, Timestamp::ZERO, &zone), Some(next));
        at = next;
    }
});
