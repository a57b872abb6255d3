//! Fetches one file of a Debian source package through the machine's own apt sources, read as
//! `deb-src` in a folder of ours. The system's lists and sources stay as they are, no root is
//! needed, and a mirror that this machine is set up for is used.
//!
//! Only the wanted file is fetched: a mirror may lack the packaging archive beside it.

use crate::process::{bounded, need, output};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCES: &str = "/etc/apt/sources.list";
const SOURCES_FOLDER: &str = "/etc/apt/sources.list.d";
const HELPER: &str = "/usr/lib/apt/apt-helper";
const LIMIT: Duration = Duration::from_secs(180);

/// Fetches `file` of source package `package` to `target`; apt checks it against `sha256`.
pub fn fetch_source(
    package: &str,
    file: &str,
    sha256: &str,
    target: &Path,
    work: &Path,
    progress: &dyn Fn(&str),
) -> Result<()> {
    need("apt-get", "apt")?;
    ensure!(
        Path::new(HELPER).is_file(),
        "{HELPER} is missing: apt is older than Debian 9's"
    );
    let apt = Apt::prepare(&work.join("apt"))?;

    progress("memaslap: reading the list of Debian's sources");
    // One dead repository among several makes this fail although the list that matters has come.
    let update = output(&mut apt.command("apt-get", &["update"]), "apt-get update");
    progress("memaslap: fetching the source archive");
    let uris = output(
        &mut apt.command(
            "apt-get",
            &["--print-uris", "--download-only", "source", package],
        ),
        "apt-get source",
    );
    let uris = match (uris, update) {
        (Ok(uris), _) => uris,
        (Err(_), Err(error)) | (Err(error), Ok(_)) => return Err(error),
    };
    let uri = uri_of(&uris, file)
        .with_context(|| format!("this machine's apt sources have no {file}"))?;
    let download = [
        "download-file",
        uri,
        &target.display().to_string(),
        &format!("SHA256:{sha256}"),
    ];
    output(
        &mut apt.command(HELPER, &download),
        &format!("fetching {file}"),
    )?;
    Ok(())
}

/// apt with its state in a folder of ours.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn prepare(folder: &Path) -> Result<Self> {
        let (parts, lists, cache) = (
            folder.join("sources"),
            folder.join("lists"),
            folder.join("cache"),
        );
        for path in [
            &parts,
            &lists.join("partial"),
            &cache.join("archives/partial"),
        ] {
            fs::create_dir_all(path).context("cannot make a folder for apt")?;
        }
        let found = write_source_lists(&parts)?;
        ensure!(
            found > 0,
            "no apt sources in {SOURCES} and {SOURCES_FOLDER}"
        );
        let set = |name: &str, value: String| format!("{name}={value}");
        let options = vec![
            set("Dir::Etc::sourcelist", "/dev/null".to_string()),
            set("Dir::Etc::sourceparts", parts.display().to_string()),
            set("Dir::State::lists", lists.display().to_string()),
            set("Dir::Cache", cache.display().to_string()),
            set("Acquire::Languages", "none".to_string()),
            // Without it an update that reached nobody passes for one that worked.
            set("APT::Update::Error-Mode", "any".to_string()),
            set("Acquire::http::Timeout", "20".to_string()),
            set("Acquire::Retries", "1".to_string()),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = bounded(LIMIT, program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        if running_as_root() {
            // apt would drop to a user who cannot read our temporary folder.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.args(arguments).env("LC_ALL", "C");
        command
    }
}

fn running_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Copies the machine's sources to `parts`, as `deb-src`; gives how many files have any.
fn write_source_lists(parts: &Path) -> Result<usize> {
    let mut files = vec![PathBuf::from(SOURCES)];
    if let Ok(folder) = fs::read_dir(SOURCES_FOLDER) {
        files.extend(
            folder
                .filter_map(|entry| entry.ok())
                .map(|entry| entry.path()),
        );
    }
    let mut found = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let (Some(name), Some(extension)) = (file.file_name(), file.extension()) else {
            continue;
        };
        let text = match extension.to_str() {
            Some("list") => one_line_style(&text),
            Some("sources") => deb822_style(&text),
            _ => continue,
        };
        if !text.is_empty() {
            fs::write(parts.join(name), text)?;
            found += 1;
        }
    }
    Ok(found)
}

/// `deb URI suite ...` becomes `deb-src URI suite ...`; everything else goes.
fn one_line_style(text: &str) -> String {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("deb "))
        .filter(|rest| !rest.contains("cdrom:"))
        .map(|rest| format!("deb-src {rest}\n"))
        .collect()
}

/// `Types: deb` becomes `Types: deb-src`, the rest of each stanza stays.
fn deb822_style(text: &str) -> String {
    text.lines()
        .map(|line| match line.split_once(':') {
            Some((field, _)) if field.eq_ignore_ascii_case("Types") => {
                "Types: deb-src\n".to_string()
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

/// The URI of `file` in the output of `apt-get --print-uris`: `'URI' name size SHA256:hash`.
fn uri_of<'a>(text: &'a str, file: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        (rest.split(' ').next() == Some(file)).then_some(uri)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_keep_their_options() {
        let text = "# deb http://old.example/ x main\n\
                    deb [signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb cdrom:[Debian]/ bookworm main\n";
        assert_eq!(
            one_line_style(text),
            "deb-src [signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main\n"
        );
    }

    #[test]
    fn deb822_sources_change_their_type_alone() {
        let text = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\nTypes: deb deb-src\nEnabled: no\n";
        let expected = "Types: deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\nTypes: deb-src\nEnabled: no\n";
        assert_eq!(deb822_style(text), expected);
    }

    #[test]
    fn the_wanted_file_is_found_among_the_uris() {
        let text = "Need to get 544 kB of source archives.\n\
                    'http://mirror.example/l/lib_1-1.dsc' lib_1-1.dsc 2475 SHA256:aa\n\
                    'http://mirror.example/l/lib_1.orig.tar.gz' lib_1.orig.tar.gz 530319 SHA256:bb\n";
        assert_eq!(
            uri_of(text, "lib_1.orig.tar.gz"),
            Some("http://mirror.example/l/lib_1.orig.tar.gz")
        );
        assert_eq!(uri_of(text, "lib_2.orig.tar.gz"), None);
    }
}
