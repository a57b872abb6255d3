//! What a file has besides its bytes: owner, mode, extended attributes (capabilities and ACLs are such). The times are new.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use xattr::FileExt;

use super::source::Source;
use crate::error::{Error, Result};

/// True: whatever cannot be kept is an error, as the file takes the old one's place. False: a new file beside the old one
/// belongs to who made it, and what cannot be kept is a warning.
#[derive(Debug, Clone, Copy)]
pub struct Strict(pub bool);

/// Hash or signature of the old bytes: with the new ones the kernel would not run the program.
const OF_THE_BYTES: [&str; 2] = ["security.ima", "security.evm"];

/// Given to a new file by its folder's default.
const ACL: &str = "system.posix_acl_access";

/// Copies the attributes of `source`'s file to `to`, whose bytes must be written already: a write takes capabilities away.
/// Returns warnings.
pub fn keep(source: &Source, to: &File, strict: Strict) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let shown = source.given.display();
    let mut lost = |what: &str, error: io::Error| {
        let line = format!("cannot keep {what}: {error}");
        if strict.0 {
            return Err(Error::Io(format!(
                "{shown}: {line}; run as root, or give --output FILE"
            )));
        }
        warnings.push(line);
        Ok(())
    };

    // The owner first: chown takes capabilities away, and setgid with them.
    let (uid, gid) = (source.metadata.uid(), source.metadata.gid());
    let made = to.metadata().map_err(|error| unreadable(source, &error))?;
    if (made.uid(), made.gid()) != (uid, gid) {
        match fchown(to, Some(uid), Some(gid)) {
            Err(error) if strict.0 => lost("its owner", error)?,
            _ => {}
        }
    }

    let names: Vec<_> = match source.file.list_xattr() {
        Ok(names) => names.collect(),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Vec::new(),
        Err(error) => return Err(unreadable(source, &error)),
    };
    if !names.iter().any(|name| name == ACL) {
        // Not there, or not known to the file system: as it should be.
        let _ = to.remove_xattr(ACL);
    }
    for name in &names {
        let shown = name.to_string_lossy();
        if OF_THE_BYTES.iter().any(|of_bytes| name == of_bytes) {
            let error = io::Error::other("it is a signature of the old contents");
            lost(&format!("the attribute {shown}"), error)?;
        } else if let Err(error) = keep_one(&source.file, to, name) {
            lost(&format!("the attribute {shown}"), error)?;
        }
    }

    // Last: an ACL sets the mode as well.
    let mode = Permissions::from_mode(source.metadata.mode() & 0o7777);
    if let Err(error) = to.set_permissions(mode) {
        lost("its mode", error)?;
    }
    Ok(warnings)
}

fn keep_one(from: &File, to: &File, name: &OsStr) -> io::Result<()> {
    let Some(value) = from.get_xattr(name)? else {
        return Ok(());
    };
    // A label that the new file has by itself may be forbidden to set.
    if to
        .get_xattr(name)
        .is_ok_and(|there| there.as_ref() == Some(&value))
    {
        return Ok(());
    }
    to.set_xattr(name, &value)
}

fn unreadable(source: &Source, error: &io::Error) -> Error {
    let shown = source.given.display();
    Error::Io(format!("cannot read the attributes of {shown}: {error}"))
}
