//! Where the doctor looks: /proc, /sys, /run, /etc below a root, which tests make up. Reads files, writes none.

use std::path::{Path, PathBuf};

use autolock_oncpu::greeting;

/// The root.
#[derive(Debug)]
pub struct Places(PathBuf);

impl Places {
    pub fn below(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// An absolute path, below the root.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub fn socket(&self) -> PathBuf {
        self.at(greeting::SOCKET)
    }

    /// A file's text, without the end of its last line.
    pub fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.at(path)).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// The inode of a namespace of this process: `pid:[4026531836]` is where the link leads.
    pub fn namespace(&self, kind: &str) -> Option<u64> {
        let link = std::fs::read_link(self.at(format!("/proc/self/ns/{kind}"))).ok()?;
        let link = link.to_str()?;
        let inode = link.strip_prefix(kind)?.strip_prefix(":[")?;
        inode.strip_suffix(']')?.parse().ok()
    }

    /// The line of /etc/passwd or /etc/group for a number; users of other sources (LDAP) are not known.
    pub fn account(&self, file: &str, id: u32) -> Option<Vec<String>> {
        let text = self.text(file)?;
        let mut lines = text
            .lines()
            .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        lines.find(|fields| fields.get(2).is_some_and(|field| *field == id.to_string()))
    }
}
