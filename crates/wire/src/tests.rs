//! Every message there and back; bytes that are none; what was written once.

use crate::{
    message::*,
    pack::{Input, Pack, put_number, put_text},
    view::*,
};
use bytes::Bytes;
use kit::{Durability, Timestamp, random::Random};
use model::{Actor, NewJoin, Revocation, testing as any};
use std::{fmt::Debug, fs, path::PathBuf};

const SEEDS: u64 = 300;

fn there_and_back<T: Pack + PartialEq + Debug>(value: &T) {
    let mut out = Vec::new();
    value.pack(&mut out);
    let bytes = Bytes::from(out);
    let mut input = Input::new(&bytes);
    assert_eq!(T::unpack(&mut input).as_ref(), Ok(value));
    assert!(input.is_at_end());
}

fn settlements(random: &mut Random) -> Vec<model::Settlement> {
    let all = (0..any::OUTCOMES).map(|nth| match any::settled_with(random, nth).command {
        model::Command::Settle { settlements } => settlements,
        other => panic!("{other:?}"),
    });
    all.flatten().collect()
}

/// One that waited for a join with a join in it.
fn dispatched_job(random: &mut Random) -> model::DispatchedJob {
    let mut job = loop {
        if let model::Reply::Fetched(jobs) = any::reply(random, 1)
            && let Some(job) = jobs.into_iter().next()
        {
            break job;
        }
    };
    let member = |what| model::MemberView {
        name: "a".into(),
        state: model::MemberState::Completed,
        what,
        result: Some("1".into()),
        result_bytes: 1,
        error: None,
    };
    let join = |members| model::JoinView {
        id: any::job_id(&mut Random::new(1)),
        name: "join".into(),
        state: model::JoinState::Completed,
        policy: model::Policy::KOfN(2),
        on_failure: model::OnFailure::Run,
        rest: model::Rest::Run,
        ignore: model::Ignore::of(&[model::MemberState::Expired]),
        sealed: true,
        created_at: Timestamp(7),
        ended_at: Some(Timestamp(8)),
        then: Some((job.queue.clone(), job.id.clone())),
        counts: [0, 1, 2, 0, 0, 1],
        members,
        next: Some(4),
    };
    let inner = join(vec![member(model::MemberOf::Gone)]);
    let whole = join(vec![
        member(model::MemberOf::Job(job.queue.clone(), job.id.clone())),
        member(model::MemberOf::Join(Box::new(inner))),
    ]);
    (job.sequence, job.steps, job.group) = (0, 3, Some("g".into()));
    job.children = Some(Box::new(whole));
    job
}

/// One of each message, as a seed makes them.
fn from_client(random: &mut Random) -> Vec<FromClient> {
    let lease = any::lease_ref(random);
    let worker = Some(Actor::new("w1"));
    let durability = Some(Durability::Os);
    let resume =
        Resume { session: "s".into(), received: vec![Received { sub: 1, jobs: 300 }], asked: vec![7, 9] };
    let hello = Hello {
        version: 1,
        worker: Actor::new("w"),
        client: "test".into(),
        heartbeat_ms: 400,
        resume: Some(resume),
        host: "".into(),
        pid: 0,
        labels: Vec::new(),
    };
    let subscribe = Subscribe {
        sub: 1,
        queues: vec![any::queue_name(random)],
        credit: 64,
        lease_ms: 30_000,
        worker: worker.clone(),
        durability,
        concurrency: 0,
    };
    let push = Push { jobs: vec![any::new_job(random)], key: Some("k".into()), wait_ms: 9, durability };
    let outcomes = settlements(random);
    let command = any::command(random, 4);
    vec![
        FromClient::Hello(hello),
        FromClient::Subscribe(subscribe.clone()),
        FromClient::Credit(Credit { sub: 1, credit: 100 }),
        FromClient::Unsubscribe(Unsubscribe { sub: 1, received: 2 }),
        FromClient::Push(push),
        FromClient::Outcomes(Outcomes { outcomes, worker: worker.clone(), durability }),
        FromClient::Renew(Renew {
            leases: vec![lease.clone()],
            lease_ms: 1,
            worker: worker.clone(),
            durability,
        }),
        FromClient::Progress(Progress { lease: lease.clone(), value: "1".into(), worker: worker.clone() }),
        FromClient::Log(Log { lease: lease.clone(), lines: vec!["a".into()], worker: worker.clone() }),
        FromClient::StoreStep(StoreStep { lease, name: "n".into(), result: "2".into(), worker, durability }),
        FromClient::Command(Command::of(&command, None, durability)),
        FromClient::Read(Read { id: "x".into(), ..Read::new(What::Job) }),
        FromClient::Withdraw(Empty {}),
        FromClient::Ping(Ping { answered: 12 }),
        FromClient::Bye(Empty {}),
        // What came later.
        FromClient::Hello(Hello {
            version: 1,
            host: "h1".into(),
            pid: 4_711,
            labels: vec!["blue".into()],
            ..Hello::default()
        }),
        FromClient::Subscribe(Subscribe { concurrency: 16, ..subscribe }),
    ]
}

fn from_server(random: &mut Random) -> Vec<FromServer> {
    let refused = Refused::from(&any::reject(random, 3));
    let welcome = Welcome {
        version: 1,
        server: "millpond".into(),
        session: "s".into(),
        resumed: true,
        heartbeat_ms: 400,
        message_bytes_max: 1 << 24,
        durability: Durability::Disk,
        time: Timestamp(1_767_225_600_000),
    };
    let job = dispatched_job(random);
    let pushed = vec![model::Pushed {
        id: any::job_id(random),
        state: model::State::Waiting,
        deduplicated: true,
        forgotten: false,
    }];
    let lost = Lost { lease: any::lease_ref(random), reason: Revocation::Cancelled };
    let settled = model::Settled { state: model::State::Completed, pushed: pushed.clone() };
    vec![
        FromServer::Welcome(welcome),
        FromServer::Jobs(Jobs { sub: 1, jobs: vec![job] }),
        FromServer::Ended(Ended { sub: 1, why: refused.clone() }),
        FromServer::Revoked(Revoked { worker: Actor::new("w"), leases: vec![lost], missed: false }),
        FromServer::Pushed(Pushed { position: 8, durability: Durability::Disk, jobs: pushed }),
        FromServer::Settled(Settled { results: vec![Ok(settled), Err(refused.clone())] }),
        FromServer::Renewed(Renewed {
            results: vec![Ok(model::Renewed { lease_until: Timestamp(5) }), Err(refused.clone())],
        }),
        FromServer::Reply(Reply { reply: "r".into(), position: 1, durability: Durability::Memory }),
        FromServer::Done(Empty {}),
        FromServer::View(View(Bytes::from_static(&[0x93, 1, 2, 0xc0]))),
        FromServer::Refused(refused),
        FromServer::Pong(Empty {}),
        FromServer::Drain(Drain { within_ms: 5 }),
        FromServer::Stop(Stop { worker: Actor::new("w") }),
        FromServer::Bye(Refused::new("stopping", "the server is stopping")),
    ]
}

fn packed<D: Direction>(messages: &[D]) -> Bytes {
    let mut out = Vec::new();
    for (id, message) in messages.iter().enumerate() {
        put_message(&mut out, id as u64, message);
    }
    out.into()
}

fn unpacked<D: Direction>(bytes: &Bytes) -> Result<Vec<(u64, D)>, kit::codec::Malformed> {
    let mut input = Input::new(bytes);
    let mut all = Vec::new();
    while let Some(message) = next(&mut input)? {
        all.push(message);
    }
    Ok(all)
}

#[test]
fn messages_of_both_sides_come_back_as_they_were() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let sent = from_client(&mut random);
        let read: Vec<(u64, FromClient)> = unpacked(&packed(&sent)).unwrap();
        assert!(read.into_iter().eq((0..).zip(sent)), "seed {seed}");
        let sent = from_server(&mut random);
        let read: Vec<(u64, FromServer)> = unpacked(&packed(&sent)).unwrap();
        assert!(read.into_iter().eq((0..).zip(sent)), "seed {seed}");
    }
}

#[test]
fn commands_and_refusals_come_back_as_they_were() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let command = any::command(&mut random, seed % any::COMMANDS);
        assert_eq!(Command::of(&command, None, None).open(), Ok(command));
        let reject = any::reject(&mut random, seed % any::REJECTS);
        assert_eq!(Refused::from(&reject).reject(), Some(reject));
        there_and_back(&any::backoff(&mut random));
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_refused_or_read_but_never_a_panic() {
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let (client, server) = (packed(&from_client(&mut random)), packed(&from_server(&mut random)));
        for bytes in [client, server] {
            for _ in 0..200 {
                let cut = bytes.slice(..random.below(bytes.len() as u64) as usize);
                // Whether a cut falls between two messages is not looked at.
                let _ = unpacked::<FromClient>(&cut);
                let _ = unpacked::<FromServer>(&cut);
                let mut changed = bytes.to_vec();
                let at = random.below(changed.len() as u64) as usize;
                changed[at] = random.next_u64() as u8;
                let changed = Bytes::from(changed);
                let _ = unpacked::<FromClient>(&changed);
                let _ = unpacked::<FromServer>(&changed);
            }
        }
    }
}

#[test]
fn a_length_that_the_rest_cannot_hold_allocates_nothing() {
    for bytes in [
        &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut message = vec![0x93, 0xa4];
        message.extend_from_slice(b"push");
        message.extend_from_slice(&[1, 0x81, 0xa4]);
        message.extend_from_slice(b"jobs");
        message.extend_from_slice(bytes);
        assert!(unpacked::<FromClient>(&message.into()).is_err());
    }
}

#[test]
fn a_value_nested_without_end_costs_no_stack() {
    let mut bytes = vec![0x93];
    put_text(&mut bytes, "of a newer version");
    put_number(&mut bytes, 0);
    bytes.extend(std::iter::repeat_n(0x91, 1_000_000));
    bytes.push(0xc0);
    assert_eq!(unpacked::<FromServer>(&bytes.into()), Ok(vec![(0, FromServer::Unknown)]));
}

#[test]
fn what_is_unknown_is_passed_over_and_what_is_left_out_is_empty() {
    // ["credit", 0, {"sub": 3, "new": {"a": [1.5, -1, bin]}, "credit": 5.0}, "more"] and a message of another name.
    let mut bytes = vec![0x94, 0xa6];
    bytes.extend_from_slice(b"credit\x00\x83\xa3sub\x03\xa3new\x81\xa1a\x93");
    bytes.extend_from_slice(&[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xff, 0xc4, 1, 7]);
    bytes.extend_from_slice(
        b"\xa6credit\xcb\x40\x14\0\0\0\0\0\0\xa4more\x93\xa5later\x00\x80\x93\xa4ping\x00\x80",
    );
    let read: Vec<(u64, FromClient)> = unpacked(&bytes.into()).unwrap();
    assert_eq!(
        read,
        [
            (0, FromClient::Credit(Credit { sub: 3, credit: 5 })),
            (0, FromClient::Unknown),
            (0, FromClient::Ping(Ping { answered: 0 })),
        ]
    );
}

#[test]
fn a_join_that_says_little_is_a_usual_one() {
    // {"name": "a", "members": []}
    let bytes = Bytes::from_static(b"\x82\xa4name\xa1a\xa7members\x90");
    let join = NewJoin::unpack(&mut Input::new(&bytes)).unwrap();
    assert_eq!(join, NewJoin { name: "a".into(), ..NewJoin::default() });
}

#[test]
fn numbers_have_many_forms_but_must_be_whole_and_not_negative() {
    let read = |bytes: &[u8]| Input::new(&Bytes::copy_from_slice(bytes)).number("n");
    for (bytes, value) in [
        (&[0x07][..], 7),
        (&[0xcc, 0xff], 255),
        (&[0xd1, 0x01, 0x00], 256),
        (&[0xd3, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
        (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], u64::MAX),
    ] {
        assert_eq!(read(bytes), Ok(value));
    }
    for bytes in [
        &[0xff][..],
        &[0xd0, 0x80],
        &[0xd2, 0xff, 0xff, 0xff, 0xff],
        &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
        &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0],
        &[0xc0],
        &[0xcd, 1],
    ] {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
}

/// Written once: `MILLPOND_BLESS=1` adds what is missing, and nothing rewrites what is there.
#[test]
fn what_was_written_once_is_read_for_ever() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
    let mut random = Random::new(1);
    let (client, server) = (from_client(&mut random), from_server(&mut random));
    check(&folder, "client", &client);
    check(&folder, "server", &server);
}

fn check<D: Direction + PartialEq + Debug>(folder: &std::path::Path, side: &str, messages: &[D]) {
    let mut names = Vec::new();
    for (nth, message) in messages.iter().enumerate() {
        let mut fields = Vec::new();
        let name = message.name_and_fields(&mut fields);
        names.push(name);
        // With the fields that came later.
        let later = match names.iter().filter(|known| **known == name).count() {
            1 => String::new(),
            times => format!("-{times}"),
        };
        let path = folder.join(format!("{side}-{name}{later}.bin"));
        if !path.exists() && std::env::var_os("MILLPOND_BLESS").is_some() {
            fs::create_dir_all(folder).unwrap();
            fs::write(&path, packed(std::slice::from_ref(message))).unwrap();
        }
        let bytes =
            Bytes::from(fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        let read: Vec<(u64, D)> = unpacked(&bytes).unwrap();
        assert_eq!(&read[0].1, message, "{side} message {nth}");
    }
}

/// Whoever writes a client has only that page.
#[test]
fn the_page_of_the_stream_names_every_message_and_every_field() {
    let page = include_str!("../../../docs/stream.md");
    let mut random = Random::new(1);
    let (client, server) = (packed(&from_client(&mut random)), packed(&from_server(&mut random)));
    for bytes in [client, server] {
        let mut input = Input::new(&bytes);
        while !input.is_at_end() {
            input.array("message").unwrap();
            let name = input.text("name").unwrap();
            let rows: Vec<&str> =
                page.lines().filter(|line| line.starts_with(&format!("| `{name}` |"))).collect();
            assert!(!rows.is_empty(), "the message {name} has no row");
            let row = rows.concat();
            input.number("id").unwrap();
            if name == "view" {
                input.skip().unwrap();
                continue;
            }
            input
                .map("fields", |field, _| {
                    let field = std::str::from_utf8(field).unwrap();
                    let said = |mark| row.contains(&format!("{mark}{field}"));
                    assert!(
                        said('`') || said('{') || said(' '),
                        "the field {field} of {name} is not in its row"
                    );
                    Ok(false)
                })
                .unwrap();
        }
    }
}
