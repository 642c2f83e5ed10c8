//! The worker stream: what a pond does over it, and what it does when the link breaks.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../millpond/tests/suite/mod.rs"]
mod suite;
mod support;

use millpond::Pond;
use support::start;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pond_on_a_server_does_what_a_pond_does() {
    for (name, case) in suite::CASES {
        println!("{name}");
        let server = start(&[]).await;
        case(Pond::connect(&server.url()).await.unwrap()).await;
        server.stop().await.unwrap();
    }
}
