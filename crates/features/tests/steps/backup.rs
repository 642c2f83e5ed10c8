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
