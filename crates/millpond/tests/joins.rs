//! Joins from Rust.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{Error, Join, Pond, Reject};

#[tokio::test]
async fn a_join_that_is_repeated_with_its_key_is_added_once() {
    let pond = Pond::in_memory().await.unwrap();
    let images = pond.queue::<u32>("images").unwrap();
    let pages = pond.queue::<u32>("pages").unwrap();
    let join = |page: u32| {
        pond.join(Join::all([1, 2].map(|n| images.push(&n))).then(pages.push(&page)))
            .idempotency_key("page-7")
    };
    let first = join(7).await.unwrap();
    let again = join(7).await.unwrap();
    assert_eq!((again.id, again.jobs[0].id.clone()), (first.id, first.jobs[0].id.clone()));
    assert_eq!(images.stats().await.unwrap().unwrap().pushed_total, 2);
    let other = join(8).await;
    assert!(matches!(other, Err(Error::Refused(Reject::IdempotencyConflict { .. }))), "{other:?}");
}
