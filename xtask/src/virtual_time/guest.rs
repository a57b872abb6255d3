//! What the virtual machine boots: Debian's kernel and a small initramfs with `driver`, the
//! preload, what both link to, and a shell.
//!
//! The archive depends on nothing but the files' contents: names in order, no times.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cpio::newc;

use crate::packages::fetch;
use crate::project::Project;
use crate::shell;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// The package that depends on the newest kernel of the version that our patches are for.
pub const KERNEL: &str = "linux-image-6.12-amd64";

pub struct Kernel {
    /// None for an image of the user's.
    package: Option<fetch::Package>,
    pub image: PathBuf,
    /// Package and version, or what the image says of itself.
    pub version: String,
}

/// The image at that path, or the kernel that the package of that name depends on.
pub fn kernel(project: &Project, name: &str) -> Result<Kernel> {
    if name.contains('/') {
        let image = PathBuf::from(name);
        return Ok(Kernel {
            package: None,
            version: version(&read(&image)?)
                .with_context(|| format!("{name} is no image of a kernel"))?,
            image,
        });
    }
    kernel_of(project, name)
}

/// As the boot protocol has it: 0x200 less than where the text begins stands at 0x20e, of images that say "HdrS" at 0x202.
fn version(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let low = *image.get(0x20e)?;
    let high = *image.get(0x20f)?;
    let text = image.get(usize::from(u16::from_le_bytes([low, high])) + 0x200..)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    Some(format!("Linux {}", String::from_utf8_lossy(&text[..end])))
}

fn kernel_of(project: &Project, metapackage: &str) -> Result<Kernel> {
    let meta = fetch::find(metapackage)?;
    let is_image = |name: &&String| name.starts_with("linux-image-");
    let name = meta.depends.iter().find(is_image).with_context(|| {
        format!(
            "{metapackage} does not depend on a kernel: name a package such as linux-image-amd64"
        )
    })?;
    let package = fetch::find(name)?;
    let boot = fetch::unpacked(project, &package, "boot")?;
    Ok(Kernel {
        image: the_kernel_in(&boot)?,
        version: format!("{} {}", package.name, package.version),
        package: Some(package),
    })
}

impl Kernel {
    /// Folder with the package's modules somewhere below.
    pub fn modules(&self, project: &Project) -> Result<PathBuf> {
        let package = self.package.as_ref();
        let package = package.context("an image alone has no modules")?;
        fetch::unpacked(project, package, "lib/modules")
    }
}

fn the_kernel_in(boot: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(boot)
        .with_context(|| format!("cannot list {}", boot.display()))?
        .filter_map(|entry| entry.ok());
    let mut images = entries.filter(|e| e.file_name().to_string_lossy().starts_with("vmlinuz"));
    let image = images.next().map(|entry| entry.path());
    image.with_context(|| format!("no kernel in {}", boot.display()))
}

/// Writes the initramfs to `to`.
pub fn initramfs(project: &Project, lib: &Path, to: &Path) -> Result<()> {
    let busybox = fetch::unpacked(project, &fetch::find("busybox-static")?, "bin")?;
    let driver = project.program("driver");
    let mut files = BTreeMap::new();
    files.insert("init".to_owned(), include_bytes!("init.sh").to_vec());
    files.insert("bin/busybox".to_owned(), read(&busybox.join("busybox"))?);
    files.insert("bin/driver".to_owned(), read(&driver)?);
    // Where driver looks for it.
    files.insert("lib/libautolock.so".to_owned(), read(lib)?);
    for program in [&driver, lib] {
        for library in libraries(program)? {
            let name = library.trim_start_matches('/').to_owned();
            files.insert(name, read(Path::new(&library))?);
        }
    }
    write(&files, &["dev", "proc", "sys"], to)
}

/// Writes an archive of files and empty folders.
pub fn write(files: &BTreeMap<String, Vec<u8>>, folders: &[&str], to: &Path) -> Result<()> {
    let mut archive = Vec::new();
    pack(files, folders, &mut archive).context("cannot pack the initramfs")?;
    std::fs::write(to, archive).with_context(|| format!("cannot write {}", to.display()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// All shared objects that `program` is loaded with, the loader included.
pub fn libraries(program: &Path) -> Result<Vec<String>> {
    let listing = shell::output(Command::new("ldd").arg(program))?;
    if listing.contains("not found") {
        bail!("{} lacks a library: see `ldd {0}`", program.display());
    }
    Ok(loaded(&listing))
}

/// Paths in ldd's listing.
fn loaded(listing: &str) -> Vec<String> {
    let words = listing.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

/// A newc archive: folders first, then files.
fn pack(
    files: &BTreeMap<String, Vec<u8>>,
    folders: &[&str],
    mut to: impl Write,
) -> std::io::Result<()> {
    let mut all: BTreeSet<String> = folders.iter().map(|&folder| folder.to_owned()).collect();
    for name in files.keys() {
        let above = Path::new(name).ancestors().skip(1);
        all.extend(above.filter_map(|it| Some(it.to_str()?.to_owned())));
    }
    all.remove("");
    let contents = all.iter().map(|folder| (folder, FOLDER, &[][..])).chain(
        files
            .iter()
            .map(|(name, bytes)| (name, PROGRAM, &bytes[..])),
    );
    for (number, (name, mode, bytes)) in (1..).zip(contents) {
        let size = u32::try_from(bytes.len())
            .map_err(|_| std::io::Error::other(format!("{name} is too large")))?;
        let entry = newc::Builder::new(name).ino(number).mode(mode);
        let mut entry = entry.write(&mut to, size);
        entry.write_all(bytes)?;
        entry.finish()?;
    }
    newc::trailer(to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_its_version_and_another_file_does_not() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x150_u16.to_le_bytes());
        image[0x350..0x356].copy_from_slice(b"6.12-x");
        assert_eq!(version(&image).as_deref(), Some("Linux 6.12-x"));
        assert_eq!(version(&vec![0; 0x400]), None);
        assert_eq!(version(b"MZ"), None);
    }

    #[test]
    fn ldd_is_read_with_the_loader_and_without_the_vdso() {
        let listing = "\tlinux-vdso.so.1 (0x00007f52)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f51)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f53)\n";
        assert_eq!(
            loaded(listing),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_nothing_gets_lost() {
        let files = BTreeMap::from([
            ("init".to_owned(), b"#!".to_vec()),
            ("lib/a/b.so".to_owned(), vec![7; 1001]),
        ]);
        let mut archive = Vec::new();
        pack(&files, &["dev"], &mut archive).expect("packed");
        let mut names = Vec::new();
        let mut rest = &archive[..];
        loop {
            let mut reader = newc::Reader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            let name = reader.entry().name().to_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut bytes).expect("its bytes");
            assert_eq!(
                bytes,
                files.get(&name).cloned().unwrap_or_default(),
                "{name}"
            );
            names.push(name);
            rest = reader.finish().expect("the next entry");
        }
        assert_eq!(names, ["dev", "lib", "lib/a", "init", "lib/a/b.so"]);
    }
}
