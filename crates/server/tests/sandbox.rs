//! A hostile program tries what a job must not be able to do: confined, it fails and the job's error says by what; with the
//! confinement off, each attempt succeeds, so that none is refused for another reason.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod cli_support;

use cli_support::{Server, millpond};
use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A worker that is gone when the test is.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What this system cannot do of a whole profile, by the words of the worker.
fn missing() -> String {
    let profile = r#"{"strict":true,"files":{"read":[],"write":[]},"network":{"connect":[1],"bind":[],"udp":false,"unix":false},"limits":{}}"#;
    let out = millpond().args(["__confine", profile]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Whether a measure is there; if not, says that the test is skipped.
fn has(measure: &str) -> bool {
    let there = !missing().contains(measure);
    if !there {
        eprintln!("skipped: this kernel does not confine {measure}");
    }
    there
}

/// That of the system: one that lives in a home folder would itself be out of reach.
const PYTHON: &str = "/usr/bin/python3";

fn python() -> bool {
    let there = Command::new(PYTHON).arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("skipped: there is no {PYTHON}");
    }
    there
}

/// As a user whose powers no kernel honours: root is exempt from some limits.
fn as_somebody(command: &mut Command) -> &mut Command {
    if rustix::process::getuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command.current_dir("/")
}

/// One job, done by the script; the job as JSON text once it is over.
fn attempt(server: &Server, id: &str, options: &[&str], script: &str) -> String {
    server.json(&["push", id, "1", "--id", id, "--attempts", "1"]);
    let arguments = [&["work", id, "--concurrency", "1"], options, &["--", PYTHON, "-c", script]].concat();
    let mut command = server.command(&arguments);
    command.env("MILLPOND_TOKEN", "canary").stdout(Stdio::null());
    let worker = Worker(command.spawn().unwrap());
    let over = wait(server, id);
    drop(worker);
    over
}

fn wait(server: &Server, id: &str) -> String {
    for _ in 0..600 {
        let job = server.json(&["job", id, id]);
        if ["completed", "dead"].iter().any(|state| job["state"] == *state) {
            return job.to_string();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{}", server.json(&["job", id, id]));
}

/// Tries it confined, then with the confinement off.
fn contained(server: &Server, id: &str, options: &[&str], script: &str, by: &str) {
    let confined = attempt(server, id, options, script);
    assert!(confined.contains(r#""state":"dead""#) && confined.contains(by), "{id}: {confined}");
    let free = attempt(server, &format!("{id}-free"), &["--sandbox", "off"], script);
    assert!(free.contains(r#""state":"completed""#), "{id} proves nothing: {free}");
}

const FILES: &str = "sandbox: this may be files or ports";

#[test]
fn files_outside_are_out_of_reach() {
    if !python() || !has("files") {
        return;
    }
    let server = Server::start();
    let secret = server.path().join("secret");
    std::fs::write(&secret, "canary").unwrap();
    let inside = server.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let [secret, inside] = [secret, inside].map(|path| path.display().to_string());
    let write = ["--allow-write", inside.as_str()];
    contained(&server, "read", &write, &format!("open({secret:?}).read()"), FILES);
    contained(&server, "write", &write, &format!("open({secret:?} + '2', 'w')"), FILES);
    contained(&server, "unlink", &write, &format!("import os; os.remove({secret:?} + '2')"), FILES);
    let allowed = attempt(&server, "allowed", &write, &format!("open({inside:?} + '/a', 'w').write('a')"));
    assert!(allowed.contains("completed") && Path::new(&inside).join("a").is_file(), "{allowed}");
}

#[test]
fn a_closed_network_has_no_sockets() {
    if !python() {
        return;
    }
    let server = Server::start();
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port}))");
    let none = ["--allow-connect", "none"];
    contained(&server, "connect", &none, &connect, "a system call that is refused");
    let udp = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)";
    contained(&server, "udp", &none, udp, "a system call that is refused");
    let unix = "import socket; socket.socket(socket.AF_UNIX)";
    contained(&server, "unix", &none, unix, "a system call that is refused");
    let allowed = attempt(&server, "allowed", &["--allow-connect", &port], &connect);
    assert!(allowed.contains("completed"), "{allowed}");
    if has("TCP ports") {
        contained(&server, "other-port", &["--allow-connect", "1"], &connect, FILES);
        let bind = "import socket; socket.create_server(('127.0.0.1', 0))";
        contained(&server, "bind", &["--allow-connect", "1"], bind, FILES);
    }
}

#[test]
fn by_default_nobody_looks_into_the_worker_or_traces_others() {
    if !python() {
        return;
    }
    let server = Server::start();
    let trace = "import ctypes, os; c = ctypes.CDLL(None, use_errno=True)\nif c.ptrace(0, 0, 0, 0): raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))";
    contained(&server, "trace", &[], trace, "a system call that is refused");
    if has("look into the worker") {
        // The only place that still has the token: the program's own environment never does.
        let look = "import os; assert 'MILLPOND_TOKEN' not in os.environ\nopen(f'/proc/{os.getppid()}/environ').read()";
        contained(&server, "look", &[], look, FILES);
        // That one is stopped only by its own kind of check.
        let exe = "import os; os.readlink(f'/proc/{os.getppid()}/exe')";
        contained(&server, "exe", &[], exe, FILES);
    }
}

#[test]
fn what_is_used_up_has_a_limit() {
    if !python() {
        return;
    }
    let server = Server::start();
    let folder = server.path().join("big").display().to_string();
    let memory = "len(bytearray(1 << 30))";
    contained(&server, "memory", &["--limit-memory", "256MiB"], memory, "--limit-memory");
    let disk = format!("open({folder:?}, 'wb').write(bytes(2 << 20))");
    contained(&server, "disk", &["--limit-file-size", "1MiB"], &disk, "--limit-file-size");
    let files = "a = [open('/dev/null') for _ in range(64)]";
    contained(&server, "files", &["--limit-files", "32"], files, "--limit-files");
    let busy = "import time\nwhile time.process_time() < 2.5: pass";
    contained(&server, "busy", &["--limit-cpu", "1s"], busy, "--limit-cpu");
}

#[test]
fn open_files_of_whoever_started_the_worker_are_not_passed_on() {
    let server = Server::start();
    for (id, level, state) in [("closed", "default", "dead"), ("open", "off", "completed")] {
        server.json(&["push", id, "1", "--id", id, "--attempts", "1"]);
        let script = format!(
            r#"exec "$1" --url "$2" work {id} --sandbox {level} --concurrency 1 -- sh -c 'echo >&7' 7>/dev/null"#
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_millpond"), &server.url]);
        let worker = Worker(command.stdout(Stdio::null()).spawn().unwrap());
        let job = wait(&server, id);
        drop(worker);
        assert!(job.contains(&format!(r#""state":"{state}""#)), "{id}: {job}");
    }
}

/// Runs a script behind a profile, as somebody; what it printed.
fn confined(profile: &str, script: &str) -> String {
    let mut command = millpond();
    as_somebody(command.args(["__confine", profile, PYTHON, "-c", script]));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.wait().unwrap();
    out
}

#[test]
fn forks_end_at_the_limit_of_processes() {
    if !python() {
        return;
    }
    // The children end with their pipe, whose other end is their parent's.
    let script = "import os, sys
r, w = os.pipe()
made = 0
try:
    for made in range(40):
        if os.fork() == 0:
            os.close(w); os.close(1); os.read(r, 1); os._exit(0)
except BlockingIOError:
    print('refused after', made < 20)
else:
    print('free')";
    let profile = r#"{"strict":false,"files":null,"network":null,"limits":{"processes":PROCS}}"#;
    assert_eq!(confined(&profile.replace("PROCS", "10"), script), "refused after True\n");
    assert_eq!(confined(&profile.replace("PROCS", "null"), script), "free\n");
}

#[test]
fn strict_programs_have_no_powers_and_cannot_leave_their_group() {
    if !python() {
        return;
    }
    let script = "import os
caps = [line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')]
pid = os.fork()
if pid == 0:
    try: os.setsid(); print('left', caps[0])
    except PermissionError: print('held', caps[0])
else: os.wait()";
    let profile = r#"{"strict":STRICT,"files":null,"network":null,"limits":{}}"#;
    let strict =
        millpond().args(["__confine", &profile.replace("STRICT", "true"), PYTHON, "-c", script]).output();
    assert_eq!(String::from_utf8(strict.unwrap().stdout).unwrap(), "held 0000000000000000\n");
    assert!(confined(&profile.replace("STRICT", "false"), script).starts_with("left"));
}

#[test]
fn strict_starts_only_where_everything_is_there() {
    let server = Server::start();
    server.json(&["push", "q", "1", "--id", "q"]);
    // A program of the system runs in it, with nothing allowed.
    let mut command = server.command(&["work", "q", "--sandbox", "strict", "--", "sort"]);
    as_somebody(&mut command);
    if missing() == "[]\n" {
        let worker = Worker(command.spawn().unwrap());
        assert!(wait(&server, "q").contains("completed"));
        drop(worker);
    } else {
        let refused = command.output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
    if rustix::process::getuid().is_root() {
        let refused = server.run(&["work", "q", "--sandbox", "strict", "--", "sort"]);
        assert!(refused.code == 2 && refused.err.contains("root is not held to it"), "{refused:?}");
        // Without strict it is said, and the work goes on.
        let mut command = server.command(&["work", "q", "--limit-procs", "8", "--", "sort"]);
        let mut worker = Worker(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut said = [0; 32];
        worker.0.stderr.take().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"the sandbox does not cover the n");
    }
}

#[test]
fn a_program_that_is_not_there_does_not_cost_an_attempt() {
    let server = Server::start();
    server.json(&["push", "q", "1", "--id", "q", "--attempts", "1"]);
    let worker = Worker(server.command(&["work", "q", "--", "/nowhere/at-all"]).spawn().unwrap());
    let put_off = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        server.json(&["job", "q", "q"]).to_string().contains(r#""cause":"snooze""#)
    });
    assert!(put_off, "{}", server.json(&["job", "q", "q"]));
    drop(worker);
    assert_ne!(server.json(&["job", "q", "q"])["state"], "dead");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for options in [
        &["--sandbox", "off", "--limit-procs", "1"][..],
        &["--allow-connect", "none", "--allow-connect", "80"],
        &["--allow-connect", "http"],
        &["--limit-memory", "1MB"],
        &["--allow-read", "/nowhere/at-all"],
    ] {
        let server_is_not_asked = ["--url", "http://127.0.0.1:1", "work", "q"];
        let out = millpond().args(server_is_not_asked).args(options).args(["--", "true"]).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{options:?}: {out:?}");
    }
}
