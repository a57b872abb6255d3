//! One name to one file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::object::{Object, Opened};
use super::system::Loader;

/// How a search ended.
#[derive(Debug)]
pub enum Found {
    Object(Box<Object>),
    Nowhere,
    /// The loader finds this file and gives up because of it.
    Broken(PathBuf, String),
}

/// Searches for a name that no loaded object has. `chain`: the requester, whoever asked for that one first, and so on up to the program.
///
/// Paths are tried in the order of ld.so(8): `DT_RPATH` along the chain (unless the requester has a `DT_RUNPATH`), the requester's
/// `DT_RUNPATH`, `ld.so.cache`, the default directories. Each directory's hwcaps folders come before the directory.
pub fn find(loader: &Loader, name: &[u8], chain: &[&Object]) -> Found {
    let Some(requester) = chain.first() else {
        return Found::Nowhere;
    };
    if name.contains(&b'/') {
        let Some(path) = expand(name, requester, loader) else {
            return Found::Nowhere;
        };
        return attempt(path).unwrap_or(Found::Nowhere);
    }
    if requester.runpath.is_none() {
        for object in chain {
            if let Some(found) = in_run_path(loader, name, object, object.rpath.as_deref()) {
                return found;
            }
        }
    }
    if let Some(found) = in_run_path(loader, name, requester, requester.runpath.as_deref()) {
        return found;
    }
    let default = |path: &Path| {
        let mut folders = loader.default_folders.iter();
        folders.any(|folder| path.starts_with(folder))
    };
    if let Some(path) = loader.cache.find(name, &loader.hwcaps)
        && !(requester.no_default_libraries && default(path))
        && let Some(found) = attempt(path.to_path_buf())
    {
        return found;
    }
    if !requester.no_default_libraries {
        for folder in &loader.default_folders {
            if let Some(found) = in_folder(loader, name, folder) {
                return found;
            }
        }
    }
    Found::Nowhere
}

/// The directories of a run path; a relative one is left as it is, for the working directory of whoever starts the program.
pub fn folders(loader: &Loader, object: &Object, run_path: &[u8]) -> Vec<PathBuf> {
    if run_path.is_empty() {
        return Vec::new();
    }
    let folders = run_path.split(|&byte| byte == b':');
    folders
        .filter_map(|folder| {
            if folder.is_empty() {
                return Some(PathBuf::from("."));
            }
            expand(folder, object, loader)
        })
        .collect()
}

fn in_run_path(
    loader: &Loader,
    name: &[u8],
    object: &Object,
    run_path: Option<&[u8]>,
) -> Option<Found> {
    folders(loader, object, run_path?)
        .iter()
        .find_map(|folder| in_folder(loader, name, folder))
}

fn in_folder(loader: &Loader, name: &[u8], folder: &Path) -> Option<Found> {
    let name = OsStr::from_bytes(name);
    let mut below = loader.subfolders.iter();
    below
        .find_map(|subfolder| attempt(folder.join(subfolder).join(name)))
        .or_else(|| attempt(folder.join(name)))
}

/// None: the search goes on.
fn attempt(path: PathBuf) -> Option<Found> {
    match Object::open(&path) {
        Opened::Object(object) => Some(Found::Object(object)),
        Opened::Absent | Opened::Foreign => None,
        Opened::Broken(why) => Some(Found::Broken(path, why)),
    }
}

/// `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces. None if one of them stands for nothing: the loader leaves the path out.
fn expand(text: &[u8], object: &Object, loader: &Loader) -> Option<PathBuf> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'$') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let tokens: [(&[u8], Option<&[u8]>); 3] = [
            (b"ORIGIN", Some(object.origin().as_os_str().as_bytes())),
            (b"PLATFORM", loader.platform.as_deref().map(str::as_bytes)),
            (b"LIB", Some(loader.lib.as_bytes())),
        ];
        let token = tokens
            .iter()
            .find_map(|(token, value)| Some((after(rest, token)?, value)));
        match token {
            Some((after, value)) => {
                out.extend_from_slice((*value)?);
                rest = after;
            }
            None => out.push(b'$'),
        }
    }
    out.extend_from_slice(rest);
    if out.is_empty() {
        return None;
    }
    Some(PathBuf::from(OsString::from_vec(out)))
}

/// What follows a token, if the text begins with it and it ends there.
fn after<'t>(text: &'t [u8], token: &[u8]) -> Option<&'t [u8]> {
    if let Some(inner) = text.strip_prefix(b"{") {
        return inner.strip_prefix(token)?.strip_prefix(b"}");
    }
    let rest = text.strip_prefix(token)?;
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    (!rest.first().is_some_and(goes_on)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_where_an_identifier_would() {
        assert_eq!(after(b"ORIGIN/x", b"ORIGIN"), Some(b"/x".as_slice()));
        assert_eq!(after(b"{LIB}64", b"LIB"), Some(b"64".as_slice()));
        assert_eq!(after(b"LIB64", b"LIB"), None);
        assert_eq!(after(b"LIB_", b"LIB"), None);
        assert_eq!(after(b"{LIB", b"LIB"), None);
        assert_eq!(after(b"lib", b"LIB"), None);
    }
}
