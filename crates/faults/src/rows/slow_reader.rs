use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    load::{self, Load},
    pond::Pond,
    process::resident_kib,
    talk::{metric, push},
};
use rig::{Client, Server, until};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

const READERS: usize = 20;
/// Jobs that are worked off while nobody reads.
const JOBS: u64 = 8_000;
/// What the server may take more for readers that do not read.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// How long nobody may take nothing of an ordinary answer.
const SEND_TIMEOUT: &str = "1s";
/// Clients who ask for large answers and do not read them: more than the system keeps for a connection.
const DEAF: usize = 5;
const ANSWERS: usize = 60;
const BODY_BYTES: usize = 500 << 10;
const CUT_MAX: Duration = Duration::from_secs(30);

/// F39: clients who ask for much and read nothing are cut off. Listeners of events who do not read: the others are served, memory stays
/// bounded, and who reads at last is told what is missing or gets it all.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut grown = 0;
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        let pond = Pond::new(plan)?;
        let starter = pond.starter().arguments(["--send-timeout", SEND_TIMEOUT]);
        let server = starter.start().map_err(|error| error.to_string())?;
        cut_off(&server).map_err(inside)?;
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut stream = TcpStream::connect(server.address()).map_err(|error| error.to_string())?;
            let head = format!(
                "GET /v1/events HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
                server.address()
            );
            stream.write_all(head.as_bytes()).map_err(|error| error.to_string())?;
            readers.push(stream);
        }
        let before = resident_kib(server.pid());
        let ledger = Arc::new(Ledger::new("read"));
        let load = Load::start(&server, ledger.clone(), plan.seed + trial);
        let reached = until(Duration::from_secs(120), || (ledger.completed() > JOBS).then_some(()));
        let growth =
            resident_kib(server.pid()).zip(before).map(|(after, before)| after.saturating_sub(before));
        let left = load.stop()?;
        reached.ok_or_else(|| {
            inside(format!("{} of {JOBS} jobs in 120 s beside readers that do not read", ledger.completed()))
        })?;
        if let Some(failure) = left.failures.first() {
            return Err(inside(format!("beside readers that do not read a call failed: {failure}")));
        }
        if let Some(growth) = growth {
            grown = grown.max(growth);
            if growth > GROWTH_KIB_MAX {
                return Err(inside(format!(
                    "memory grew by {growth} KiB for {READERS} readers that do not read"
                )));
            }
        }
        // One reads at last: the stream begins as it must.
        let mut stream = readers.swap_remove(0);
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
        let mut bytes = [0; 4_096];
        let count =
            stream.read(&mut bytes).map_err(|error| inside(format!("nothing to read at last: {error}")))?;
        if !bytes[..count].starts_with(b"HTTP/1.1 200") {
            return Err(inside("the stream of events did not begin".to_owned()));
        }
        plan.tally.fault();
        load::repeat(&server, &ledger, &left.unknown)?;
        server.kill().map_err(|error| error.to_string())?;
        pond.heals(&[&ledger])?;
    }
    Ok(Ran::Passed(
        plan.count,
        format!("{DEAF} cut off, {READERS} listeners that do not read, {} MiB more at most", grown >> 10),
    ))
}

/// Connections whose clients take nothing of ordinary answers are closed.
fn cut_off(server: &Server) -> Result<(), Breach> {
    let mut client = server.client();
    push(&mut client, "large", &[json!({"id": "large", "body": "x".repeat(BODY_BYTES)})])?;
    let (before, taken) = connections(&mut client)?;
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        let mut stream = TcpStream::connect(server.address()).map_err(|error| error.to_string())?;
        let ask = format!("GET /v1/queues/large/jobs/large HTTP/1.1\r\nhost: {}\r\n\r\n", server.address());
        stream.write_all(ask.repeat(ANSWERS).as_bytes()).map_err(|error| error.to_string())?;
        deaf.push(stream);
    }
    let cut = until(CUT_MAX, || match connections(&mut client) {
        Ok((now, all)) => (all >= taken + DEAF as u64 && now <= before).then_some(Ok(())),
        Err(breach) => Some(Err(breach)),
    });
    cut.ok_or_else(|| {
        format!("clients who take nothing of their answers are not cut off within {CUT_MAX:?}")
    })?
}

/// Open connections, and connections ever taken.
fn connections(client: &mut Client) -> Result<(u64, u64), Breach> {
    Ok((metric(client, "http_connections")?, metric(client, "http_connections_total")?))
}
