//! What a running pond leaves on the disk when it has a key, and how a directory gets one.
#![allow(clippy::unwrap_used, reason = "tests may")]

use kit::Durability;
use model::{Actor, Command, Envelope, JobId, JobRef, NewJob, QueueName};
use node::{Handle, OpenError, Options, rewrite};
use std::{fs, path::Path, time::Duration};
use storage::{AtRest, Key, KeyError, Keyring};

const CANARY: &str = "canary-that-nobody-may-see";

fn with(keys: &[&str]) -> Options {
    let keys = if keys.is_empty() { Keyring::default() } else { Keyring::parse(&keys.join("\n")).unwrap() };
    Options { at_rest: AtRest { keys, ..AtRest::default() }, segment_bytes: 1 << 20, ..Options::default() }
}

fn key() -> String {
    Key::generate().unwrap().to_string()
}

/// The canary in everything that people write: body, queue, idempotency key, actor, id.
async fn push(pond: &Handle, number: usize) {
    let mut job = NewJob::new(QueueName::new(CANARY).unwrap(), format!("{CANARY} {}", "long ".repeat(200)));
    job.id = Some(JobId::Text(format!("{CANARY}-{number}").into()));
    let key = Some(format!("{CANARY}-key-{number}").as_str().into());
    let envelope = Envelope {
        actor: Actor::new(CANARY),
        idempotency_key: key,
        command: Command::Push { jobs: vec![job] },
    };
    pond.call(envelope, Durability::Disk).await.unwrap();
}

async fn count(pond: &Handle) -> usize {
    let mut found = 0;
    for number in 0..20 {
        let queue = Some(QueueName::new(CANARY).unwrap());
        let id = JobId::Text(format!("{CANARY}-{number}").into());
        let job = pond.job(JobRef { queue, id }).await.unwrap();
        found += usize::from(job.is_some_and(|job| job.body.unwrap().starts_with(CANARY.as_bytes())));
    }
    found
}

fn seen(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(seen(&path));
        } else if fs::read(&path).unwrap().windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn refused_for_a_key(dir: &Path, options: Options) -> bool {
    matches!(Handle::open(dir, options), Err(OpenError::Key(KeyError::Missing { .. })))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_people_wrote_is_seen_in_any_file_before_or_after_a_checkpoint() {
    let place = tempfile::tempdir().unwrap();
    let (first, other) = (key(), key());
    let pond = Handle::open(place.path(), with(&[&first])).unwrap();
    for number in 0..10 {
        push(&pond, number).await;
    }
    assert_eq!(seen(place.path()), Vec::<String>::new());
    pond.stop(Duration::from_secs(20)).await.unwrap();
    assert_eq!(seen(place.path()), Vec::<String>::new());
    assert!(refused_for_a_key(place.path(), with(&[])));
    assert!(refused_for_a_key(place.path(), with(&[&other])));
    let pond = Handle::open(place.path(), with(&[&other, &first])).unwrap();
    assert_eq!(count(&pond).await, 10);
    // The first push again, under its key: the call is remembered.
    push(&pond, 0).await;
    assert_eq!(count(&pond).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_only_in_the_log_is_missed_too() {
    let place = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_ms: 1 << 40, ..with(&[&key()]) };
    let pond = Handle::open(place.path(), options).unwrap();
    push(&pond, 0).await;
    drop(pond);
    assert!(refused_for_a_key(place.path(), with(&[])));
    assert!(refused_for_a_key(place.path(), with(&[&key()])));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_data_gets_a_key_changes_it_and_loses_it_again() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let (first, second) = (key(), key());
    let pond = Handle::open(dir, with(&[])).unwrap();
    for number in 0..10 {
        push(&pond, number).await;
    }
    // Without a checkpoint at the end: the rewriting has to take one.
    drop(pond);
    assert!(!seen(dir).is_empty());

    let pond = Handle::open(dir, with(&[&first])).unwrap();
    for number in 10..20 {
        push(&pond, number).await;
    }
    pond.stop(Duration::from_secs(20)).await.unwrap();
    let pond = Handle::open(dir, with(&[&first])).unwrap();
    assert!(pond.encryption().unwrap().plain, "what was there before is still plain");
    assert_eq!(count(&pond).await, 20);
    drop(pond);

    rewrite(dir, &with(&[&first]), &with(&[&first]).at_rest).unwrap();
    assert_eq!(seen(dir), Vec::<String>::new());
    assert!(refused_for_a_key(dir, with(&[])));

    let rewritten = rewrite(dir, &with(&[&second, &first]), &with(&[&second, &first]).at_rest).unwrap();
    assert_eq!(rewritten.retired, Keyring::parse(&first).unwrap().ids());
    let pond = Handle::open(dir, with(&[&second])).unwrap();
    assert_eq!(count(&pond).await, 20);
    drop(pond);

    rewrite(dir, &with(&[&second]), &with(&[]).at_rest).unwrap();
    let pond = Handle::open(dir, with(&[])).unwrap();
    assert_eq!(count(&pond).await, 20);
}
