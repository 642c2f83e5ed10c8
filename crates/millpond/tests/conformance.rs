//! The cases of the suite on a pond in memory and on one in a directory. The server's tests have the same for `Pond::connect`.
#![allow(missing_docs, clippy::unwrap_used)]

mod suite;

use millpond::Pond;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pond_in_memory_does_what_a_pond_does() {
    for (name, case) in suite::CASES {
        println!("{name}");
        case(Pond::in_memory().await.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pond_in_a_directory_does_what_a_pond_does() {
    for (name, case) in suite::CASES {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        case(Pond::open(folder.path().join("pond")).await.unwrap()).await;
    }
}
