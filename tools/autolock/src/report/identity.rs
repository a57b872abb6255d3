//! What a lock is called, and by what it is known again in another run.
//!
//! The identity is the FNV-1a hash (64 bits, 16 hexadecimal digits) of the lock's kind and of where it is or comes from: for a static lock its
//! module's base name and its offset in it; for any other the same of each return address of the stack of its first use, innermost first. So it
//! does not change with the process, its addresses or the folder of the binaries, and changes when a binary on the way is built anew with other
//! offsets. Addresses outside all modules are not hashed. Locks that were first used at the same place have the same identity.

use super::model::{Frame, Function, Kind, Stack};
use super::symbols::base_name;

/// FNV-1a, 64 bits.
pub struct Identity(u64);

impl Identity {
    pub fn of(kind: Kind) -> Self {
        let mut identity = Self(0xcbf2_9ce4_8422_2325);
        identity.add(kind_name(kind).as_bytes());
        identity
    }

    /// A place in a module.
    pub fn place(&mut self, path: &str, offset: u64) {
        self.add(&[0]);
        self.add(base_name(path).as_bytes());
        self.add(&[0]);
        self.add(&offset.to_le_bytes());
    }

    pub fn digits(&self) -> String {
        format!("{:016x}", self.0)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// As people call it.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Mutex => "mutex",
        Kind::Recursive => "recursive mutex",
        Kind::ErrorCheck => "error-checking mutex",
        Kind::Adaptive => "adaptive mutex",
        Kind::OtherMutex => "robust or priority mutex",
        Kind::Readers => "readers",
        Kind::Writers => "writers",
        Kind::Spin => "spin lock",
    }
}

/// Short: what a lock without a symbol is called.
pub fn first_used(kind: Kind, stack: Option<&Stack>, modules: &[super::model::Module]) -> String {
    let what = match kind {
        Kind::Readers | Kind::Writers => "rwlock",
        Kind::Spin => "spin lock",
        _ => "mutex",
    };
    let Some(function) = stack.and_then(|stack| users(stack, modules)) else {
        return format!("{what} of unknown origin");
    };
    let short = Function {
        name: without_arguments(&function.name).to_owned(),
        ..function.clone()
    };
    format!("{what} first used in {}", brief(&short))
}

/// `Cache::get` of `Cache::get(std::string const&)`.
fn without_arguments(name: &str) -> &str {
    let mut depth = 0;
    for (at, c) in name.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 1 => {
                let before = &name[..at];
                let whole = before.is_empty() || before.ends_with(['(', ':', ' ']);
                return if whole || before.ends_with("operator") {
                    name
                } else {
                    before
                };
            }
            '(' => depth -= 1,
            // Behind the arguments: `const`, or this is not C++.
            _ if depth == 0 && !" const&".contains(c) => return name,
            _ => {}
        }
    }
    name
}

/// `function (file.c:12)`.
pub fn brief(function: &Function) -> String {
    match (&function.file, function.line) {
        (Some(file), Some(line)) => format!("{} ({}:{line})", function.name, base_name(file)),
        (Some(file), None) => format!("{} ({})", function.name, base_name(file)),
        _ => function.name.clone(),
    }
}

/// The innermost function that is the program's: not of a system library, not a wrapper of the language around its locks. Else the innermost.
fn users<'a>(stack: &'a Stack, modules: &[super::model::Module]) -> Option<&'a Function> {
    let theirs = |frame: &Frame| {
        let module = frame.module.and_then(|module| modules.get(module));
        module.is_none_or(|module| !is_system(base_name(&module.path)))
    };
    let functions = || stack.frames.iter().flat_map(|frame| &frame.functions);
    let user = stack.frames.iter().filter(|frame| theirs(frame));
    user.flat_map(|frame| &frame.functions)
        .find(|function| !is_wrapper(&function.name))
        .or_else(|| functions().next())
}

fn is_system(library: &str) -> bool {
    const SYSTEM: [&str; 9] = [
        "libc.so",
        "libpthread.so",
        "ld-linux",
        "libstdc++.so",
        "libc++.so",
        "libc++abi.so",
        "libgcc_s.so",
        "libm.so",
        "librt.so",
    ];
    SYSTEM.iter().any(|name| library.starts_with(name))
}

/// Whether a function is the language's or a library's around its own locks and threads.
pub fn is_wrapper(function: &str) -> bool {
    const WRAPPERS: [&str; 8] = [
        "std::",
        "core::",
        "alloc::",
        "__gnu_cxx::",
        "__gthread",
        "boost::",
        "absl::",
        "parking_lot::",
    ];
    // A return type may stand before the name: `void std::lock<...>(...)`.
    let before_arguments = function.split(['(', '<']).next().unwrap_or(function);
    let name = before_arguments.rsplit(' ').next().unwrap_or(function);
    WRAPPERS.iter().any(|wrapper| name.starts_with(wrapper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_of_kind_base_name_and_offset_only() {
        let id = |kind, path: &str, offset| {
            let mut identity = Identity::of(kind);
            identity.place(path, offset);
            identity.digits()
        };
        let one = id(Kind::Mutex, "/usr/lib/liba.so", 0x40);
        assert_eq!(one, id(Kind::Mutex, "/opt/liba.so", 0x40));
        assert_eq!(one.len(), 16);
        for other in [
            id(Kind::Recursive, "/usr/lib/liba.so", 0x40),
            id(Kind::Mutex, "/usr/lib/libb.so", 0x40),
            id(Kind::Mutex, "/usr/lib/liba.so", 0x41),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn hash_is_fnv_1a() {
        // The test vector "foobar" of the authors' page (isthe.com/chongo/tech/comp/fnv).
        let mut hash = Identity(0xcbf2_9ce4_8422_2325);
        hash.add(b"foobar");
        assert_eq!(hash.digits(), "85944171f73967e8");
    }

    #[test]
    fn arguments_are_left_out_of_names() {
        for (name, short) in [
            ("main", "main"),
            ("store::Shard::put(int)", "store::Shard::put"),
            ("A::b(void (*)(int), C) const", "A::b"),
            (
                "(anonymous namespace)::lock()",
                "(anonymous namespace)::lock",
            ),
            ("A::operator()(int)", "A::operator()"),
            ("A::operator()", "A::operator()"),
            ("server+0x1400", "server+0x1400"),
            (
                "<T as core::fmt::Debug>::fmt",
                "<T as core::fmt::Debug>::fmt",
            ),
            ("f(int) [clone .part.0]", "f(int) [clone .part.0]"),
            ("(anonymous namespace)", "(anonymous namespace)"),
            ("", ""),
        ] {
            assert_eq!(without_arguments(name), short);
        }
    }

    #[test]
    fn wrappers_are_told_from_users() {
        for wrapper in [
            "std::mutex::lock()",
            "void std::lock<std::mutex>(std::mutex&)",
            "__gthread_mutex_lock(pthread_mutex_t*)",
            "core::sync::atomic::AtomicU32::swap",
        ] {
            assert!(is_wrapper(wrapper), "{wrapper}");
        }
        for user in [
            "main",
            "Cache::get(std::string const&)",
            "stdx::lock()",
            "coreless",
        ] {
            assert!(!is_wrapper(user), "{user}");
        }
    }
}
