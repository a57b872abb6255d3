//! Copies to work on: a program in a folder of its own, with what stood beside it within reach, so that it finds its own parts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::programs::{Place, Program};

/// Folders with more in them are the system's own, where nobody looks for parts of one program.
const CROWDED: usize = 300;

/// The file of a program, if it is installed and an ELF file.
pub fn locate(program: &Program) -> Option<PathBuf> {
    let found = match program.place {
        Place::File(path) => PathBuf::from(path),
        Place::Path => ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(program.name))
            .find(|path| path.exists())?,
        Place::Rustup => {
            let which = std::process::Command::new("rustup")
                .args(["which", program.name])
                .output()
                .ok()?;
            PathBuf::from(String::from_utf8(which.stdout).ok()?.trim())
        }
        Place::Pyenv(version) => {
            let versions = Path::new(&std::env::var_os("HOME")?).join(".pyenv/versions");
            let mut found: Vec<_> = std::fs::read_dir(versions)
                .ok()?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(version))
                })
                .collect();
            found.sort();
            found.first()?.join("bin").join(format!("python{version}"))
        }
    };
    let found = found.canonicalize().ok()?;
    is_elf(&found).then_some(found)
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    std::fs::File::open(path)
        .is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && magic == *b"\x7fELF")
}

/// A copy below `folder`, in a folder named as the original's, among links to what stands beside that folder and beside the program.
pub fn copy(original: &Path, folder: &Path) -> Result<PathBuf> {
    let parent = original.parent().context("a program in no folder")?;
    let name = original.file_name().context("a program without a name")?;
    let above = parent.parent().unwrap_or(parent);
    let home = folder.join(parent.file_name().unwrap_or("bin".as_ref()));
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    link_all(above, folder)?;
    link_all(parent, &home)?;
    let copy = home.join(name);
    let _ = std::fs::remove_file(&copy);
    std::fs::copy(original, &copy)
        .with_context(|| format!("cannot copy {}", original.display()))?;
    Ok(copy)
}

fn link_all(from: &Path, to: &Path) -> Result<()> {
    let entries: Vec<_> = std::fs::read_dir(from)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    if entries.len() > CROWDED {
        return Ok(());
    }
    for entry in entries {
        let Some(name) = entry.file_name() else {
            continue;
        };
        let link = to.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(&entry, &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    Ok(())
}
