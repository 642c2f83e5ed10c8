use super::*;
use crate::{Command, JobId, NewJob, Outcome, testing};
use kit::{codec::put_u64, random::Random};
use std::{fs, path::PathBuf};

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut out = Vec::new();
    encode_envelope(envelope, &mut out);
    out
}

fn decoded(bytes: &[u8]) -> Result<Envelope, Malformed> {
    let mut reader = Reader::new(bytes);
    let envelope = decode_envelope(&mut reader)?;
    reader.finish("envelope").map(|()| envelope)
}

fn envelopes(count: u64) -> impl Iterator<Item = Envelope> {
    let mut random = Random::new(0xC0DEC);
    (0..count).map(move |n| testing::envelope(&mut random, n))
}

fn replies(count: u64) -> impl Iterator<Item = crate::Reply> {
    let mut random = Random::new(0x2E91);
    (0..count).map(move |n| testing::reply(&mut random, n))
}

#[test]
fn every_command_reads_back_as_it_was_written() {
    for envelope in envelopes(3_000) {
        assert_eq!(decoded(&encoded(&envelope)), Ok(envelope));
    }
}

#[test]
fn every_reply_reads_back_as_it_was_written() {
    for reply in replies(2_000) {
        let mut bytes = Vec::new();
        encode_reply(&reply, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode_reply(&mut reader), Ok(reply));
        assert_eq!(reader.remaining(), 0);
    }
}

#[test]
fn every_refusal_reads_back_as_it_was_written() {
    let mut random = Random::new(3);
    for variant in 0..testing::REJECTS * 20 {
        let reject = testing::reject(&mut random, variant);
        let mut bytes = Vec::new();
        put_reject(&mut bytes, &reject);
        assert_eq!(read_reject(&mut Reader::new(&bytes)), Ok(reject));
    }
}

#[test]
fn a_refusal_with_a_word_that_is_not_listed_keeps_its_encoding_when_it_is_written_again() {
    let odd = crate::Reject::TooMany { what: "unheard-of things", limit: 3 };
    let mut first = Vec::new();
    put_reject(&mut first, &odd);
    let read = read_reject(&mut Reader::new(&first)).unwrap();
    assert_eq!(read, crate::Reject::TooMany { what: "value", limit: 3 });
    let mut second = Vec::new();
    put_reject(&mut second, &read);
    assert_eq!(first, second);
}

#[test]
fn a_cut_at_any_byte_is_malformed() {
    for envelope in envelopes(150) {
        let bytes = encoded(&envelope);
        for end in 0..bytes.len() {
            assert!(decoded(&bytes[..end]).is_err(), "{envelope:?} cut at {end}");
        }
    }
    for reply in replies(80) {
        let mut bytes = Vec::new();
        encode_reply(&reply, &mut bytes);
        for end in 0..bytes.len() {
            assert!(decode_reply(&mut Reader::new(&bytes[..end])).is_err(), "{reply:?} cut at {end}");
        }
    }
}

/// Whatever is read from damaged bytes is a value whose only encoding is exactly these bytes.
#[test]
fn flipped_bits_never_panic_and_never_give_a_second_encoding() {
    for envelope in envelopes(150) {
        let mut bytes = encoded(&envelope);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decoded(&bytes) {
                assert_ne!(other, envelope);
                assert_eq!(encoded(&other), bytes);
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::new(9);
    for _ in 0..20_000 {
        let length = random.below(64) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
        let _ = decode_reply(&mut Reader::new(&bytes));
        let _ = read_command(&mut Reader::new(&bytes));
        bytes.insert(0, VERSION);
        let _ = decoded(&bytes);
    }
}

#[test]
fn a_plain_job_costs_its_queue_its_body_and_three_bytes() {
    let job = NewJob::new(crate::QueueName::new("mail").unwrap(), &b"{}"[..]);
    let mut bytes = Vec::new();
    put_new_job(&mut bytes, &job);
    assert_eq!(bytes, b"\x00\x04mail\x02{}");
}

#[test]
fn a_present_field_that_holds_the_default_is_refused() {
    let mut bytes = Vec::new();
    put_u64(&mut bytes, 1 << 1);
    bytes.extend_from_slice(b"\x04mail\x02{}\x64");
    assert!(read_new_job(&mut Reader::new(&bytes)).is_err(), "priority 100 need not be said");
}

#[test]
fn a_plain_bulk_operation_has_its_first_encoding_and_no_other() {
    let order = crate::NewBulk::new(
        crate::QueueName::new("q").unwrap(),
        crate::BulkAction::Redrive,
        crate::Filter { tags_all: vec!["t".into()], ..Default::default() },
    );
    let mut bytes = Vec::new();
    encode_command(&Command::Bulk(Box::new(order.clone())), &mut bytes);
    assert_eq!(bytes, b"\x0d\x01q\x01\x00\x01\x01t\x00\x00");
    let mut wide = vec![40];
    put_new_bulk(&mut wide, &order);
    assert!(read_command(&mut Reader::new(&wide)).is_err());
}

#[test]
fn bad_names_and_unknown_numbers_are_refused() {
    let bad: [&[u8]; 7] = [
        b"\x02\x00\x00\x0e",              // version 2
        b"\x01\x01\n\x00\x0e",            // an actor with a control character
        b"\x01\x00\x00\x0f",              // command 15
        b"\x01\x00\x00\x0a\x01 ",         // a queue named " "
        b"\x01\x00\x00\x0a\x00",          // a queue without a name
        b"\x01\x00\x00\x0c\x01q\x80\x02", // a setting that does not exist
        b"\x01\x00\x00\x0e\x00",          // a byte too many
    ];
    for bytes in bad {
        assert!(decoded(bytes).is_err(), "{bytes:?}");
    }
    assert!(decoded(b"\x01\x00\x00\x0e").is_ok());
}

/// The state machine refuses it, but the log that holds it must be readable.
#[test]
fn a_command_beyond_the_limits_still_reads_back() {
    let ids = [JobId::Text("".into()), JobId::Text("0192f7a1-7b3c-7def-8123-456789abcdef".into())];
    let jobs = ids.map(|id| crate::JobRef { queue: None, id }).to_vec();
    let many = vec![jobs[0].clone(); crate::limits::BATCH_MAX + 1];
    for jobs in [jobs, many] {
        let envelope = Envelope {
            actor: crate::Actor::default(),
            idempotency_key: Some("k".repeat(1_000).into()),
            command: Command::Remove { jobs },
        };
        assert_eq!(decoded(&encoded(&envelope)), Ok(envelope));
    }
}

/// Spelled out, so that a new command does not compile before it has a name, and so a fixture.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Push { .. } => "push",
        Command::Fetch { .. } => "fetch",
        Command::Renew { .. } => "renew",
        Command::Settle { .. } => "settle",
        Command::Cancel { .. } => "cancel",
        Command::Progress { .. } => "progress",
        Command::Log { .. } => "log",
        Command::Promote { .. } => "promote",
        Command::Redrive { .. } => "redrive",
        Command::Remove { .. } => "remove",
        Command::Pause { .. } => "pause",
        Command::Resume { .. } => "resume",
        Command::Configure { .. } => "configure",
        Command::Bulk(order) if bulk::is_plain(order) => "bulk",
        Command::Tick => "tick",
        Command::Join { .. } => "join",
        Command::Extend { .. } => "extend",
        Command::CancelJoin { .. } => "cancel_join",
        Command::SetLimit { .. } => "set_limit",
        Command::SetGroup { .. } => "set_group",
        Command::PutSchedule { .. } => "put_schedule",
        Command::PauseSchedule { .. } => "pause_schedule",
        Command::ResumeSchedule { .. } => "resume_schedule",
        Command::RunSchedule { .. } => "run_schedule",
        Command::RemoveSchedule { .. } => "remove_schedule",
        Command::Step { .. } => "step",
        Command::Signal { .. } => "signal",
        Command::Restart { .. } => "restart",
        Command::Bulk(_) => "bulk_wide",
        Command::ControlBulk { .. } => "control_bulk",
        Command::Choose(_) => "choose",
        Command::PatchBody { .. } => "patch_body",
        Command::RaiseTokens { .. } => "raise_tokens",
    }
}

/// The same for the outcomes of a settlement, each of which has a fixture: `settle.bin` is older than most of them.
fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "settle_done",
        Outcome::Retry { .. } => "settle_retry",
        Outcome::Fail { .. } => "settle_fail",
        Outcome::Snooze { .. } => "settle_snooze",
        Outcome::Cancel { .. } => "settle_cancel",
        Outcome::RateLimited { .. } => "settle_rate_limited",
        Outcome::Wait { .. } => "settle_wait",
        Outcome::Suspend { .. } => "settle_suspend",
        Outcome::Crash(_) => "settle_crash",
    }
}

fn only_outcome(command: &Command) -> &Outcome {
    let Command::Settle { settlements } = command else { panic!("{command:?}") };
    &settlements[0].outcome
}

/// 32 envelopes of one command or of one outcome, enough for every option to be there and not there.
fn fixture(variant: u64) -> (PathBuf, Vec<Envelope>) {
    let mut random = Random::new(variant);
    let (name, envelopes): (_, Vec<_>) = match variant.checked_sub(testing::COMMANDS) {
        None => {
            let envelopes: Vec<_> = (0..32).map(|_| testing::envelope(&mut random, variant)).collect();
            (name(&envelopes[0].command), envelopes)
        }
        Some(outcome) => {
            let envelopes: Vec<_> = (0..32).map(|_| testing::settled_with(&mut random, outcome)).collect();
            (outcome_name(only_outcome(&envelopes[0].command)), envelopes)
        }
    };
    (PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/v1/{name}.bin")), envelopes)
}

const FIXTURES: u64 = testing::COMMANDS + testing::OUTCOMES;

/// Not compared with the generator, so that it may grow. `every_field_of_a_job_has_its_place` ties bytes to meaning.
#[test]
fn what_version_1_wrote_is_still_read_and_still_written() {
    for variant in 0..FIXTURES {
        let (path, _) = fixture(variant);
        let frozen = fs::read(&path).unwrap();
        let mut reader = Reader::new(&frozen);
        let mut written = Vec::new();
        while reader.remaining() > 0 {
            let envelope = decode_envelope(&mut reader).unwrap();
            let of = if variant < testing::COMMANDS {
                name(&envelope.command)
            } else {
                outcome_name(only_outcome(&envelope.command))
            };
            assert!(path.ends_with(format!("{of}.bin")));
            encode_envelope(&envelope, &mut written);
        }
        assert!(!frozen.is_empty());
        assert_eq!(written, frozen, "{path:?}");
    }
}

#[test]
fn every_field_of_a_job_has_its_place() {
    let job = NewJob {
        id: Some(JobId::Text("i".into())),
        content_type: "c".into(),
        priority: crate::Priority(1),
        delay_ms: 2,
        run_at: Some(kit::Timestamp(3)),
        attempts: Some(4),
        max_crashes: Some(5),
        backoff: Some(kit::Backoff::Exponential { base: 6, cap: 7 }),
        timeout_ms: Some(8),
        expires_ms: Some(9),
        unique: Some(crate::Unique { key: "u".into(), ttl_ms: 10, on_conflict: crate::OnConflict::Replace }),
        tags: vec!["t".into()],
        meta: vec![("m".into(), "v".into())],
        ..NewJob::new(crate::QueueName::new("q").unwrap(), &b"b"[..])
    };
    let mut bytes = Vec::new();
    put_new_job(&mut bytes, &job);
    let parts: [&[u8]; 16] = [
        b"\xff\x3f",       // all 13 fields
        b"\x01q",          // queue
        b"\x01b",          // body
        b"\x01\x01i",      // id
        b"\x01",           // priority
        b"\x02",           // delay
        b"\x04",           // attempts
        b"\x01u\x0a\x02",  // unique
        b"\x01\x01t",      // tags
        b"\x01\x01m\x01v", // meta
        b"\x01c",          // content type
        b"\x03",           // run at
        b"\x05",           // crashes
        b"\x00\x06\x07",   // backoff
        b"\x08",           // timeout
        b"\x09",           // expires
    ];
    assert_eq!(bytes, parts.concat());
}

#[test]
fn every_field_of_a_suspension_has_its_place() {
    use crate::{Outcome, Until};
    let child = NewJob::new(crate::QueueName::new("q").unwrap(), &b"b"[..]);
    let cases: [(Until, &[u8]); 3] = [
        (Until::Time { after_ms: 5 }, b"\x07\x01s\x00\x05"),
        (Until::Signal { name: "go".into(), timeout_ms: 6 }, b"\x07\x01s\x01\x02go\x06"),
        (Until::Child { job: Box::new(child) }, b"\x07\x01s\x02\x00\x01q\x01b"),
    ];
    for (until, expected) in cases {
        let outcome = Outcome::Suspend { step: "s".into(), until };
        let mut bytes = Vec::new();
        put_outcome(&mut bytes, &outcome);
        assert_eq!(bytes, expected);
        assert_eq!(read_outcome(&mut Reader::new(&bytes)), Ok(outcome));
    }
}

#[test]
fn every_field_of_a_crash_has_its_place() {
    use crate::{Crash, Outcome};
    let cases: [(Crash, &[u8]); 3] = [
        (Crash::default(), b"\x0a\x00\x00\x00"),
        (Crash { signal: Some("SIGSEGV".into()), ..Crash::default() }, b"\x0a\x01\x07SIGSEGV\x00\x00"),
        (Crash { exit: Some(3), stderr: "oh".into(), signal: None }, b"\x0a\x00\x01\x03\x02oh"),
    ];
    for (crash, expected) in cases {
        let outcome = Outcome::Crash(crash);
        let mut bytes = Vec::new();
        put_outcome(&mut bytes, &outcome);
        assert_eq!(bytes, expected);
        assert_eq!(read_outcome(&mut Reader::new(&bytes)), Ok(outcome));
    }
}

#[test]
fn every_conflict_rule_has_its_number() {
    use crate::OnConflict::*;
    let rules = [Return, Reject, Replace, Debounce { max_wait_ms: 9 }, Throttle, KeepLast];
    let bytes: [&[u8]; 6] = [b"\x00", b"\x01", b"\x02", b"\x03\x09", b"\x04", b"\x05"];
    for (rule, wanted) in rules.into_iter().zip(bytes) {
        let mut written = Vec::new();
        put_on_conflict(&mut written, rule);
        assert_eq!(written, wanted);
    }
}

/// Writes the fixtures that do not exist yet; one that exists is never written again.
#[test]
#[ignore = "writes into the source tree"]
fn write_missing_fixtures() {
    if std::env::var_os("WRITE_FIXTURES").is_none() {
        return;
    }
    for variant in 0..FIXTURES {
        let (path, envelopes) = fixture(variant);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.exists() {
            fs::write(path, envelopes.iter().flat_map(encoded).collect::<Vec<_>>()).unwrap();
        }
    }
}
