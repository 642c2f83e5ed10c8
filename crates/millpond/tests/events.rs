//! Hearing what happens, in the same process.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{EventFilter, EventKind, Pond, QueueChange, State, Stream};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

const SOON: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

#[tokio::test]
async fn listeners_hear_what_they_asked_for_until_they_leave() {
    let pond = Pond::in_memory().await.unwrap();
    let (told, mut tells) = mpsc::unbounded_channel();
    let tell = told.clone();
    let listener = pond.on("mail.*", move |event| {
        tell.send(format!("{} {}", event.kind.name(), event.queue)).map_err(|_| "nobody reads")
    });
    let tell = told.clone();
    let paused = pond.on_async(EventKind::Queue(QueueChange::Paused), move |event| {
        let tell = tell.clone();
        async move { tell.send(format!("paused! {}", event.queue)).map_err(|_| "nobody reads") }
    });
    let (mail, films) = (pond.queue::<u32>("mail.eu").unwrap(), pond.queue::<u32>("films").unwrap());
    films.push(&1).await.unwrap();
    mail.push(&1).await.unwrap();
    assert_eq!(soon(tells.recv()).await.unwrap(), "added mail.eu");
    films.pause().await.unwrap();
    assert_eq!(soon(tells.recv()).await.unwrap(), "paused! films");
    drop((listener, paused));
    mail.pause().await.unwrap();
    drop(told);
    assert_eq!(soon(tells.recv()).await, None, "who left hears nothing");
}

#[tokio::test]
async fn once_is_once() {
    let pond = Pond::in_memory().await.unwrap();
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let once =
        pond.once(EventFilter::from("mail").state(State::Waiting), move |_| *counted.lock().unwrap() += 1);
    let mail = pond.queue::<u32>("mail").unwrap();
    mail.push_many(&[1, 2, 3]).await.unwrap();
    soon(once.ended()).await;
    mail.push(&4).await.unwrap();
    assert_eq!(*count.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_listener_that_fails_panics_or_hangs_harms_nobody() {
    let pond = Pond::in_memory().await.unwrap();
    let failing = pond.on("*", |event| match event.id.position % 2 {
        0 => panic!("even"),
        _ => Err::<(), _>("odd"),
    });
    let hanging = pond.events("*").before_others().on_async(|_| std::future::pending::<()>());
    let mut events = pond.events("*");
    let mail = pond.queue::<u32>("mail").unwrap();
    for n in 1..=4 {
        mail.push(&n).await.unwrap();
        assert_eq!(soon(events.next()).await.unwrap().id.position, u64::from(n));
    }
    while failing.failures() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(failing.last_failure().unwrap(), "the listener panicked: even");
    assert_eq!(hanging.heard(), 0);
    soon(pond.close()).await.unwrap();
    soon(failing.ended()).await;
}

#[tokio::test]
async fn who_comes_before_others_hears_first() {
    let pond = Pond::in_memory().await.unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listen = |name: &'static str, order: i32| {
        let heard = heard.clone();
        let events = pond.events(EventKind::Added).order(order);
        events.on_async(move |event| {
            let heard = heard.clone();
            async move {
                // Whoever is early gives the others every chance.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                heard.lock().unwrap().push((event.id.position, name));
            }
        })
    };
    let listeners = [listen("last", 7), listen("second", 0), listen("first", -1)];
    let mail = pond.queue::<u32>("mail").unwrap();
    for n in 1..=3 {
        mail.push(&n).await.unwrap();
    }
    while listeners.iter().map(millpond::Listener::heard).sum::<u64>() < 9 {
        tokio::task::yield_now().await;
    }
    let mut heard = heard.lock().unwrap().clone();
    // In each position the order holds; a listener may be an event ahead of those behind it.
    heard.sort_by_key(|(position, _)| *position);
    let names: Vec<_> = heard.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ["first", "second", "last"].repeat(3));
}

#[tokio::test]
async fn a_stream_that_is_read_too_slowly_is_told_and_goes_on() {
    let pond = Pond::in_memory().await.unwrap();
    let since = Arc::new(Mutex::new(None));
    let told = since.clone();
    let mut events = pond.events("*").on_missed(move |id| *told.lock().unwrap() = Some(id));
    let mail = pond.queue::<u32>("mail").unwrap();
    let bodies = vec![0; 10_000];
    for _ in 0..8 {
        mail.push_many(&bodies).await.unwrap();
    }
    let first = soon(events.next()).await.unwrap();
    assert_eq!((events.missed(), since.lock().unwrap().is_some()), (1, true));
    assert!(first.id > since.lock().unwrap().unwrap());
}

#[tokio::test]
async fn batches_gather_events() {
    let pond = Pond::in_memory().await.unwrap();
    let mut batches = pond.events(EventKind::Added).batch(3, SOON);
    let mail = pond.queue::<u32>("mail").unwrap();
    mail.push_many(&[1, 2, 3, 4]).await.unwrap();
    assert_eq!(soon(batches.next()).await.unwrap().len(), 3);
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    let listener = batches.on(move |events| {
        assert_eq!(events.len(), 1);
        open.notify_one();
    });
    // Closing ends the wait for a full one.
    pond.close().await.unwrap();
    soon(gate.notified()).await;
    soon(listener.ended()).await;
}
