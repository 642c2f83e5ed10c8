//! Backups of real ponds: what was acknowledged is in them, what was restored works, and no token comes twice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::files;
use kit::{Durability, Timestamp};
use model::{Actor, Command, Envelope, JobId, LeaseRef, NewJob, Outcome, QueueName, Reply, Settlement};
use node::{BackupFailure, Handle, Moment, Options, backup, open_folder, read_backup, restore};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};
use storage::{
    AtRest, Key, Keyring,
    backup::{BackupError, Manifest, Saved},
};

fn options() -> Options {
    Options { segment_bytes: 256 << 10, body_budget: 10_000, reserve_bytes: 0, ..Options::default() }
}

fn mail() -> QueueName {
    QueueName::new("mail").unwrap()
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

fn body(at: usize) -> Vec<u8> {
    format!("canary {at} ").repeat(200).into_bytes()
}

async fn push(pond: &Handle, at: usize) {
    let job = NewJob { id: Some(JobId::Text(format!("j{at}").into())), ..NewJob::new(mail(), body(at)) };
    let command = Command::Push { jobs: vec![job] };
    let envelope = Envelope { actor: Actor::new("test"), idempotency_key: None, command };
    pond.call(envelope, Durability::Disk).await.unwrap();
}

async fn fill(dir: &Path, options: Options, jobs: usize) {
    let pond = Handle::open(dir, options).unwrap();
    for at in 0..jobs {
        push(&pond, at).await;
    }
    pond.stop(Duration::from_secs(60)).await.unwrap();
}

/// Takes every job: tokens and bodies by id.
async fn take(pond: &Handle) -> BTreeMap<String, (u64, Vec<u8>)> {
    let mut taken = BTreeMap::new();
    loop {
        let fetched =
            pond.fetch(Actor::new("w"), vec![mail()], 100, 0, Duration::ZERO, Durability::Disk).await;
        let jobs = fetched.unwrap();
        if jobs.is_empty() {
            return taken;
        }
        for job in jobs {
            taken.insert(job.id.to_string(), (job.lease_token, job.body.unwrap().to_vec()));
        }
    }
}

fn save(moment: &Moment, to: &Path) -> (Manifest, Saved) {
    let mut folder = open_folder(to).unwrap();
    let manifest =
        moment.chunks::<BackupError>(now(), &mut |_, chunk| folder.put(&chunk.bytes, chunk.values));
    let manifest = manifest.unwrap();
    let saved = folder.finish(&manifest).unwrap();
    (manifest, saved)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_directory_is_saved_unchanged_and_comes_back_with_every_job() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    fill(&dir, options(), 40).await;
    // More behind the checkpoint, and no clean end.
    let pond = Handle::open(&dir, Options { checkpoint_ms: 1_000_000, ..options() }).unwrap();
    for at in 40..60 {
        push(&pond, at).await;
    }
    drop(pond);
    let before = files(&dir);
    let (manifest, saved) = backup(&dir, &to, &options(), now()).unwrap();
    assert_eq!(files(&dir), before);
    assert!(manifest.plain && manifest.keys.is_empty() && saved.values > 120, "{saved:?}");
    let restored = restore(&to, &new, &options(), now()).unwrap();
    assert_eq!((restored.jobs, restored.queues), (60, 1));
    let verified = node::verify(&new, &options()).unwrap();
    assert_eq!((verified.inspection.damage, verified.state.unwrap().jobs), (vec![], 60));
    let pond = Handle::open(&new, options()).unwrap();
    let taken = take(&pond).await;
    assert_eq!(taken.len(), 60);
    assert!((0..60).all(|at| taken[&format!("j{at}")].1 == body(at)));
    // It goes on like any other.
    push(&pond, 60).await;
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);
    assert_eq!(node::verify(&new, &options()).unwrap().inspection.damage, []);
}

/// F46: what the lost future granted is below all that is granted after the restore.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_after_a_restore_are_above_those_of_the_lost_future() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new, again] = ["dir", "to", "new", "again"].map(|name| place.path().join(name));
    fill(&dir, options(), 300).await;
    backup(&dir, &to, &options(), now()).unwrap();
    let pond = Handle::open(&dir, options()).unwrap();
    let lost = take(&pond).await.values().map(|(token, _)| *token).max().unwrap();
    assert!(lost >= 300);
    drop(pond);

    restore(&to, &new, &options(), now()).unwrap();
    let pond = Handle::open(&new, options()).unwrap();
    let mut last = 0;
    let granted = take(&pond).await;
    assert!(granted.values().all(|(token, _)| *token > lost), "{granted:?} after {lost}");
    last = granted.values().map(|(token, _)| *token).max().unwrap().max(last);
    // Numbers that every language can read.
    assert!(last < 1 << 53);
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);

    // A restore of what was restored, in the same second.
    let third = place.path().join("third");
    backup(&new, &third, &options(), now()).unwrap();
    restore(&third, &again, &options(), now()).unwrap();
    let pond = Handle::open(&again, options()).unwrap();
    push(&pond, 1_000).await;
    assert!(take(&pond).await["j1000"].0 > last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_it() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to] = ["dir", "to"].map(|name| place.path().join(name));
    let pond = Handle::open(&dir, Options { checkpoint_ms: 20, ..options() }).unwrap();
    let (sender, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut pushers = tokio::task::JoinSet::new();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for worker in 0..4 {
        let (pond, sender, stop) = (pond.clone(), sender.clone(), stop.clone());
        pushers.spawn(async move {
            let mut at = worker;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                push(&pond, at).await;
                sender.send(at).unwrap();
                at += 4;
            }
        });
    }
    let mut known = BTreeSet::new();
    for round in 0..4 {
        while known.len() < 150 * (round + 1) {
            known.insert(acknowledged.recv().await.unwrap());
        }
        while let Ok(at) = acknowledged.try_recv() {
            known.insert(at);
        }
        let moment = pond.moment().await.unwrap().unwrap();
        let before = pond.read(|shard| shard.position()).await.unwrap();
        let to = to.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let saved = save(&moment, &to);
            (moment.position(), saved)
        });
        let (position, (manifest, _)) = saved.await.unwrap();
        assert!(position <= before && manifest.position == position);
        let new = place.path().join(format!("new{round}"));
        let restored = restore(&place.path().join("to"), &new, &options(), now()).unwrap();
        assert!(restored.jobs >= known.len() as u64);
        let copy = Handle::open(&new, options()).unwrap();
        let taken = take(&copy).await;
        for at in &known {
            assert_eq!(taken[&format!("j{at}")].1, body(*at), "acknowledged before the backup began");
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    while let Some(pusher) = pushers.join_next().await {
        pusher.unwrap();
    }
    // The pond itself has lost nothing by it.
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);
    assert_eq!(node::verify(&dir, &options()).unwrap().inspection.damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_pond_at_rest_needs_no_new_checkpoint_and_writes_nothing_twice() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to] = ["dir", "to"].map(|name| place.path().join(name));
    let pond = Handle::open(&dir, options()).unwrap();
    for at in 0..30 {
        push(&pond, at).await;
    }
    save(&pond.moment().await.unwrap().unwrap(), &to);
    let (_, saved) = save(&pond.moment().await.unwrap().unwrap(), &to);
    assert_eq!((saved.chunks_written, saved.chunks_kept > 0), (0, true), "{saved:?}");
    assert!(Handle::in_memory(options()).unwrap().moment().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_stays_so_and_needs_its_key() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    let key = Key::generate().unwrap();
    let keys = Keyring::parse(&key).unwrap();
    let secret = Options { at_rest: AtRest { keys: keys.clone(), ..AtRest::default() }, ..options() };
    fill(&dir, secret.clone(), 20).await;
    let (manifest, _) = backup(&dir, &to, &secret, now()).unwrap();
    assert_eq!((manifest.plain, manifest.keys), (false, keys.ids()));
    for (path, bytes) in files(&to) {
        for word in [&b"canary"[..], b"mail", key.as_bytes()] {
            let shown = bytes.windows(word.len()).any(|window| window == word);
            assert!(!shown, "{} shows {}", path.display(), String::from_utf8_lossy(word));
        }
    }
    let refused = restore(&to, &new, &options(), now()).unwrap_err();
    assert!(refused.to_string().contains(&keys.ids()[0].to_string()), "{refused}");
    assert!(!new.exists(), "nothing was begun");
    restore(&to, &new, &secret, now()).unwrap();
    let taken = take(&Handle::open(&new, secret).unwrap()).await;
    assert!((0..20).all(|at| taken[&format!("j{at}")].1 == body(at)));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_a_backup_is_found_before_anything_is_restored() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    fill(&dir, options(), 20).await;
    backup(&dir, &to, &options(), now()).unwrap();
    for (path, bytes) in files(&to).into_iter().filter(|(path, _)| !path.ends_with("lock")) {
        for part in 0..5 {
            let mut bad = bytes.clone();
            bad[(bytes.len() - 1) * part / 4] ^= 0x10;
            fs::write(&path, bad).unwrap();
            let refused = restore(&to, &new, &options(), now()).unwrap_err();
            assert!(matches!(refused, BackupFailure::Backup(BackupError::Damaged { .. })), "{refused}");
            assert!(!new.exists());
        }
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_file(to.join("manifest")).unwrap();
    let refused = read_backup(&to).err().unwrap();
    assert!(matches!(refused, BackupError::Unfinished { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_only_an_empty_directory_and_a_clock_that_is_right() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    fill(&dir, options(), 5).await;
    backup(&dir, &to, &options(), now()).unwrap();
    let before = files(&dir);
    let refused = restore(&to, &dir, &options(), now()).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    assert_eq!(files(&dir), before);
    let early = Timestamp(now().0 - 3_600_000);
    assert!(matches!(restore(&to, &new, &options(), early), Err(BackupFailure::Clock { .. })));
    assert!(!new.exists());
    fs::create_dir(&new).unwrap();
    restore(&to, &new, &options(), now()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_short_is_not_taken_for_a_pond() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    fill(&dir, options(), 5).await;
    backup(&dir, &to, &options(), now()).unwrap();
    restore(&to, &new, &options(), now()).unwrap();
    // The very last step is undone; before it, less is there.
    fs::rename(new.join("identity"), new.join("restoring")).unwrap();
    for part in ["", "checkpoints", "log"] {
        if !part.is_empty() {
            fs::remove_dir_all(new.join(part)).unwrap();
        }
        let Err(refused) = Handle::open(&new, options()) else { panic!("it opened without {part}") };
        assert!(refused.to_string().contains("cut short"), "{refused}");
        assert!(restore(&to, &new, &options(), now()).unwrap_err().to_string().contains("not empty"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_running_at_the_backup_may_still_end() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    let pond = Handle::open(&dir, options()).unwrap();
    push(&pond, 1).await;
    let token = take(&pond).await["j1"].0;
    save(&pond.moment().await.unwrap().unwrap(), &to);
    restore(&to, &new, &options(), now()).unwrap();
    let copy = Handle::open(&new, options()).unwrap();
    let job = model::JobRef { queue: Some(mail()), id: JobId::Text("j1".into()) };
    let settlement = Settlement {
        lease: LeaseRef { job, token },
        outcome: Outcome::Done { result: None },
        push: Vec::new(),
    };
    let command = Command::Settle { settlements: vec![settlement] };
    let envelope = Envelope { actor: Actor::new("w"), idempotency_key: None, command };
    let reply = copy.call(envelope, Durability::Disk).await.unwrap().reply;
    assert!(matches!(&reply, Reply::Settled(settled) if settled[0].is_ok()), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pond_comes_back_empty() {
    let place = tempfile::tempdir().unwrap();
    let [dir, to, new] = ["dir", "to", "new"].map(|name| place.path().join(name));
    fill(&dir, options(), 0).await;
    backup(&dir, &to, &options(), now()).unwrap();
    assert_eq!(restore(&to, &new, &options(), now()).unwrap().jobs, 0);
    let pond = Handle::open(&new, options()).unwrap();
    push(&pond, 1).await;
    assert!(take(&pond).await["j1"].0 > 1 << 40);
}
