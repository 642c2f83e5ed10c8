//! Data directories on the disk: verified, damaged, saved and brought back.

use super::World;
use cucumber::{then, when};

#[when("the server is killed")]
fn killed(world: &mut World) {
    world.server.take().expect("a server runs").kill().expect("it can be killed");
}

#[when("the data directory is verified")]
fn verified(world: &mut World) {
    let data = world.path("data").display().to_string();
    world.command(&["verify", &data]);
}

/// In the first record of the newest segment that has one.
#[when("a byte of the log changes")]
fn byte_changes(world: &mut World) {
    let entries = std::fs::read_dir(world.path("data").join("log")).expect("a log");
    let mut segments: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-")))
        .collect();
    segments.sort();
    let path = segments.last().expect("a segment");
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[600] ^= 1;
    std::fs::write(path, bytes).expect("it can be written");
}

#[then(expr = "the command ends with exit code {int}")]
fn ends_with(world: &mut World, code: i32) {
    assert_eq!(world.command.0, Some(code), "{}", world.command.1);
}

#[when(expr = "the server is saved in {string}")]
fn saved(world: &mut World, name: String) {
    let (folder, url) = (world.path(&name).display().to_string(), world.server().url());
    world.command(&["backup", &folder, "--url", &url]);
}

#[when(expr = "the data directory is saved in {string}")]
fn saved_offline(world: &mut World, name: String) {
    let (folder, data) = (world.path(&name).display().to_string(), world.path("data").display().to_string());
    world.command(&["backup", &folder, "--from", &data]);
}

/// In its place: the former one is put aside.
#[when(expr = "{string} is restored as the data directory")]
fn restored(world: &mut World, name: String) {
    let data = world.path("data");
    std::fs::rename(&data, world.path("former")).expect("it can be put aside");
    let (folder, data) = (world.path(&name).display().to_string(), data.display().to_string());
    world.command(&["restore", &folder, &data]);
}

#[when(expr = "the rows {string} of the torture run on {string}")]
fn tortured(world: &mut World, rows: String, name: String) {
    let dir = world.path(&name).display().to_string();
    world.command(&["torture", "--rows", &rows, "--count", "1", "--seed", "7", "--dir", &dir]);
}

#[when("what is left of the data directory is saved in its place")]
fn salvaged(world: &mut World) {
    let (data, former) = (world.path("data"), world.path("former"));
    std::fs::rename(&data, &former).expect("it can be put aside");
    world.command(&["salvage", &former.display().to_string(), "--to", &data.display().to_string()]);
}

#[when(expr = "a byte of the backup {string} changes")]
fn backup_changes(world: &mut World, name: String) {
    let entries = std::fs::read_dir(world.path(&name)).expect("a backup");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let chunk = paths.into_iter().find(|path| path.display().to_string().contains("chunk-"));
    let path = chunk.expect("a chunk");
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("it can be written");
}

#[then("its lease token is larger than the first")]
fn token_is_larger(world: &mut World) {
    let token = |job: &serde_json::Value| job["lease_token"].as_u64().expect("a token");
    let first = world.first.as_ref().map(token).expect("a job was fetched before");
    let now = world.fetched.first().map(token).expect("a job was fetched");
    assert!(now > first, "{now} after {first}");
}
