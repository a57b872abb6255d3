//! Debian packages that are looked into and not installed: found, downloaded, unpacked, kept.
//!
//! What is kept is named after the hash that apt's signed lists give for the package, lives under
//! the user's cache folder and is only ever put there whole. Without a cache folder that can be
//! written it lives in the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project::{Project, make_folder};
use crate::shell;

/// A package as apt's lists describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Names alone, the first of each group of alternatives.
    pub depends: Vec<String>,
    pub sha256: String,
}

impl Package {
    /// One that is known without asking apt.
    pub fn pinned(name: &str, version: &str, sha256: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            depends: Vec::new(),
            sha256: sha256.to_owned(),
        }
    }
}

/// What apt would install now under that name, or `name=version`.
pub fn find(name: &str) -> Result<Package> {
    let show = || {
        let mut command = Command::new("apt-cache");
        command.args(["show", "--no-all-versions", name]);
        shell::output(&mut command)
    };
    let text = match show() {
        Ok(text) => text,
        // Lists that are empty or old.
        Err(_) => {
            super::update_once(super::privilege().unwrap_or_default());
            show().with_context(|| format!("apt knows no package {name}"))?
        }
    };
    parse(&text).with_context(|| format!("cannot read what `apt-cache show {name}` says"))
}

/// The folder `part` of what the package would install, unpacked.
pub fn unpacked(project: &Project, package: &Package, part: &str) -> Result<PathBuf> {
    let home = project.cache("packages")?;
    let kept = place(&home, package);
    if kept.join(part).is_dir() {
        return Ok(kept.join(part));
    }
    let scratch = tempfile::Builder::new()
        .prefix("unpacking-")
        .tempdir_in(&home)
        .with_context(|| format!("cannot make a folder in {}", home.display()))?;
    eprintln!("   downloading {} {}", package.name, package.version);
    let archive = match download(package, scratch.path()) {
        Ok(archive) => archive,
        // The lists name a version that the mirror has replaced.
        Err(_) => {
            super::update_once(super::privilege().unwrap_or_default());
            download(package, scratch.path())?
        }
    };
    let tree = scratch.path().join("tree");
    shell::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    let (there, wanted) = (tree.join(part), kept.join(part));
    if !there.is_dir() {
        bail!("{} has no /{part}", package.name);
    }
    make_folder(wanted.parent().unwrap_or(&kept))?;
    if let Err(error) = std::fs::rename(&there, &wanted)
        // Another run was faster: its folder holds the same.
        && !wanted.is_dir()
    {
        return Err(error).with_context(|| format!("cannot keep {}", wanted.display()));
    }
    Ok(kept.join(part))
}

/// Has it been unpacked before?
pub fn is_kept(project: &Project, package: &Package, part: &str) -> Result<bool> {
    let home = project.cache("packages")?;
    Ok(place(&home, package).join(part).is_dir())
}

fn place(home: &Path, package: &Package) -> PathBuf {
    let hash = package.sha256.get(..16).unwrap_or(&package.sha256);
    home.join(format!("{}-{hash}", package.name))
}

/// apt checks the hash.
fn download(package: &Package, into: &Path) -> Result<PathBuf> {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "download"])
        .arg(format!("{}={}", package.name, package.version))
        .current_dir(into);
    shell::output(&mut apt)?;
    let files = std::fs::read_dir(into)
        .with_context(|| format!("cannot list {}", into.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let mut archives = files.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    match archives.next() {
        Some(archive) => Ok(archive),
        None => bail!("apt-get download {} left no file", package.name),
    }
}

fn parse(text: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = text.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let first_word = |group: &str| group.split_whitespace().next().map(str::to_owned);
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        depends: field("Depends")
            .unwrap_or_default()
            .split(',')
            .filter_map(first_word)
            .collect(),
        sha256: field("SHA256")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_is_read_and_the_next_one_is_not() {
        let text = "Package: a\nVersion: 1:2-3\nDepends: b (= 1:2-3), c | d\n\
                    SHA256: 00ff\n\nPackage: z\nVersion: 9\nSHA256: 11\n";
        let package = parse(text).expect("a package");
        assert_eq!(package.name, "a");
        assert_eq!(package.version, "1:2-3");
        assert_eq!(package.depends, ["b", "c"]);
        assert_eq!(package.sha256, "00ff");
    }

    #[test]
    fn a_stanza_without_a_hash_is_no_package() {
        assert_eq!(parse("Package: a\nVersion: 1\n"), None);
        assert_eq!(parse(""), None);
    }
}
