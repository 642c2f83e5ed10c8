//! Clients that were written for Faktory, as they are published, against the real binary: the tests of the crate `faktory`, and a worker
//! of each of two languages that works, fails, and answers for a job across a `kill -9` of the server. What cannot be had from a registry
//! here is skipped by name.

use crate::{Done, Outcome, steps, tools::present};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const CRATE: (&str, &str) = ("faktory", "0.13.1");
const NPM: &str = "faktory-worker@4.7.1";
const PYPI: [&str; 2] = ["pyfaktory==0.2.13", "faktory==1.0.0"];
/// Tests of the crate that are left out: batches are not spoken here.
const LEFT_OUT: [&str; 4] = ["batch", "callback_will", "test_batch", "test_callback"];
/// How long one client may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run() -> Outcome {
    let folder = steps::target().join("faktory-clients");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut skipped = Vec::new();
    match fetch_crate(&folder) {
        Some(source) => crate_tests(&folder, &source)?,
        None => skipped.push(format!("the crate {} {}", CRATE.0, CRATE.1)),
    }
    match install_node(&folder) {
        Some(modules) => {
            let mut node = Command::new("node");
            client("node", node.arg(script("node.js")).env("NODE_PATH", modules), "node")?;
        }
        None => skipped.push(NPM.to_owned()),
    }
    match install_python(&folder) {
        Some(python) => {
            client("pyfaktory", Command::new(&python).arg(script("pyfaktory_py.py")), "pyfaktory")?;
            client("faktory", Command::new(&python).arg(script("faktory_py.py")), "faktory-py")?;
        }
        None => skipped.push(PYPI.join(", ")),
    }
    if skipped.is_empty() {
        return Ok(Done::Passed);
    }
    Ok(Done::Skipped(format!("not to be had here: {}", skipped.join("; "))))
}

fn script(name: &str) -> PathBuf {
    steps::root().join("crates/server/tests/faktory_clients").join(name)
}

fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

// --- where they come from ---

/// The source of the crate, its tests included, as the registry has it.
fn fetch_crate(folder: &Path) -> Option<PathBuf> {
    let probe = folder.join("probe");
    fs::create_dir_all(probe.join("src")).ok()?;
    let (name, version) = CRATE;
    let manifest = format!(
        "[package]\nname = \"probe\"\nedition = \"2024\"\n[dependencies]\n{name} = \"={version}\"\n[workspace]\n"
    );
    fs::write(probe.join("Cargo.toml"), manifest).ok()?;
    fs::write(probe.join("src/lib.rs"), "").ok()?;
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1"])
        .current_dir(&probe)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let end = text.find(&format!("/{name}-{version}/Cargo.toml\""))?;
    let start = text[..end].rfind('"')? + 1;
    let source = PathBuf::from(format!("{}/{name}-{version}", &text[start..end]));
    let own = folder.join("crate");
    // A copy, because it is to be the root of its own workspace.
    let _ = fs::remove_dir_all(&own);
    works(Command::new("cp").arg("-r").arg(&source).arg(&own)).then_some(())?;
    let manifest = own.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).ok()?;
    fs::write(&manifest, format!("{text}\n[workspace]\n")).ok()?;
    // Its tests need more than the crate does.
    works(Command::new("cargo").args(["fetch", "--locked"]).current_dir(&own)).then_some(own)
}

fn install_node(folder: &Path) -> Option<PathBuf> {
    if !present("node") || !present("npm") {
        return None;
    }
    let prefix = folder.join("node");
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&prefix).arg(NPM);
    works(&mut npm).then(|| prefix.join("node_modules"))
}

fn install_python(folder: &Path) -> Option<PathBuf> {
    let home = folder.join("python");
    let python = home.join("bin/python");
    if !python.is_file() && !works(Command::new("python3").args(["-m", "venv"]).arg(&home)) {
        return None;
    }
    works(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYPI)).then_some(python)
}

// --- what they meet ---

/// A server; killed when dropped.
struct Server {
    child: Child,
    http: String,
    faktory: String,
}

impl Server {
    /// Starts one at these addresses, such as `127.0.0.1:0`.
    fn start(data: &[&str], http: &str, faktory: &str) -> Result<Self, String> {
        let binary = steps::target().join("release").join("millpond");
        let mut child = Command::new(&binary)
            .args(["serve", "--log", "warn", "--listen", http, "--faktory", faktory])
            .args(data)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines().map_while(Result::ok));
        let lines: Vec<String> = lines.into_iter().flatten().take(2).collect();
        let address = |scheme: &str| {
            let (_, rest) = lines.iter().find_map(|line| line.split_once(scheme))?;
            Some(rest.split([',', ' ']).next().unwrap_or(rest).to_owned())
        };
        match (address("http://"), address("tcp://")) {
            (Some(http), Some(faktory)) => Ok(Self { child, http, faktory }),
            _ => {
                let _ = child.kill();
                Err(format!("the server does not say where it listens: {lines:?}"))
            }
        }
    }

    fn kill(mut self) -> (String, String) {
        self.end();
        (self.http.clone(), self.faktory.clone())
    }

    fn end(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn crate_tests(folder: &Path, source: &Path) -> Result<(), String> {
    let server = Server::start(&["--memory"], "127.0.0.1:0", "127.0.0.1:0")?;
    let mut tests = Command::new("cargo");
    tests
        .args(["test", "--locked", "--features", "ent", "--test", "real", "--"])
        .args(LEFT_OUT.iter().flat_map(|name| ["--skip", name]))
        .env("FAKTORY_URL", format!("tcp://{}", server.faktory))
        .env("FAKTORY_ENT", "1")
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .current_dir(source);
    if works(&mut tests) { Ok(()) } else { Err("the tests of the crate `faktory` fail".to_owned()) }
}

/// One client: it says that it holds a job, the server is killed and comes back, it may go on, and says that it is done.
fn client(name: &str, command: &mut Command, queue: &str) -> Result<(), String> {
    println!("--- {name}");
    let folder = std::env::temp_dir().join(format!("millpond-faktory-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let failed = |text: &str| format!("the client {name}: {text}");
    fs::create_dir_all(&folder).map_err(|error| failed(&error.to_string()))?;
    let data = folder.join("data").display().to_string();
    let server = Server::start(&["--data", &data], "127.0.0.1:0", "127.0.0.1:0")?;
    command
        .arg(&folder)
        .env("FAKTORY_URL", format!("tcp://{}", server.faktory))
        .env("MILLPOND_URL", format!("http://{}", server.http))
        .env("MILLPOND_BIN", steps::target().join("release").join("millpond"))
        .stdin(Stdio::null());
    let mut client = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let held = until(|| folder.join("held").exists());
    let (http, faktory) = server.kill();
    let server = Server::start(&["--data", &data], &http, &faktory)?;
    let went = held && fs::write(folder.join("go"), "").is_ok();
    let ended = until(|| client.try_wait().is_ok_and(|status| status.is_some()));
    // It has ended, or hangs.
    let _ = client.kill();
    let _ = client.wait();
    if !(went && ended && folder.join("done").exists()) {
        return Err(failed("it did not come to its end"));
    }
    let jobs = Command::new(steps::target().join("release").join("millpond"))
        .args(["--url", &format!("http://{}", server.http), "--json", "jobs", queue])
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    let jobs = String::from_utf8_lossy(&jobs.stdout).replace(' ', "");
    let count = |state: &str| jobs.matches(&format!("\"state\":\"{state}\"")).count();
    if (count("completed"), count("retrying")) != (2, 1) || jobs.contains("\"attempt\":2") {
        return Err(failed(&format!("two jobs should be done and one should be retried: {jobs}")));
    }
    drop(server);
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

fn until(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}
