//! The machine's programs that are tried, and what each is run with: known, harmless, quick, and the same output each time.
//!
//! Nothing here is an init, starts a server, or changes the machine. What is not installed is left out and named.

/// Where to look for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the PATH, in the system's folders first.
    Path,
    /// A fixed file.
    File(&'static str),
    /// In the toolchain that rustup uses; the one on the PATH is a proxy.
    Rustup,
    /// The first of `~/.pyenv/versions/VERSION*/bin`.
    Pyenv(&'static str),
}

/// A program and its commands.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    pub name: &'static str,
    pub place: Place,
    /// Words of each command after the program itself.
    pub commands: &'static [&'static [&'static str]],
    /// Also part of the short list that CI runs.
    pub short: bool,
}

const VERSION: &[&[&str]] = &[&["--version"]];

/// Run with `--version` alone.
const ONLY_VERSION: &[&str] = &[
    "[",
    "addr2line",
    "ag",
    "ar",
    "as",
    "b2sum",
    "basename",
    "bison",
    "busctl",
    "c++filt",
    "cc",
    "chgrp",
    "chmod",
    "chown",
    "cmake",
    "cmp",
    "comm",
    "cp",
    "cpack",
    "cpio",
    "csplit",
    "ctest",
    "curl",
    "dd",
    "df",
    "diff",
    "diff3",
    "dir",
    "dircolors",
    "dirname",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "du",
    "dwp",
    "elfedit",
    "env",
    "expand",
    "file",
    "find",
    "flex",
    "flock",
    "fmt",
    "free",
    "g++",
    "gcc",
    "gcov",
    "gdbus",
    "gencat",
    "getent",
    "gettext",
    "gio",
    "gpg",
    "gpgconf",
    "gprof",
    "gprofng",
    "grep",
    "groups",
    "hexdump",
    "iconv",
    "install",
    "ionice",
    "ip",
    "join",
    "journalctl",
    "kbxutil",
    "ld.bfd",
    "ld.gold",
    "ld.lld",
    "less",
    "link",
    "ln",
    "locale",
    "localedef",
    "logger",
    "look",
    "ls",
    "lsblk",
    "lscpu",
    "lto-dump",
    "lz4",
    "make",
    "man",
    "manpath",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mold",
    "more",
    "msgfmt",
    "msgmerge",
    "mv",
    "namei",
    "nice",
    "nl",
    "nm",
    "nohup",
    "objcopy",
    "objdump",
    "optscript",
    "patch",
    "patchelf",
    "pathchk",
    "perf",
    "pgrep",
    "pigz",
    "pkg-config",
    "postgres",
    "pr",
    "printenv",
    "prlimit",
    "ps",
    "ptx",
    "qemu-storage-daemon",
    "ranlib",
    "rdma",
    "readelf",
    "readlink",
    "rename.ul",
    "rev",
    "rm",
    "rmdir",
    "scalar",
    "script",
    "sdiff",
    "setpriv",
    "shred",
    "shuf",
    "size",
    "sleep",
    "split",
    "sprof",
    "stat",
    "stdbuf",
    "strace",
    "strings",
    "strip",
    "stty",
    "sync",
    "systemd-escape",
    "systemd-id128",
    "tac",
    "taskset",
    "tee",
    "timeout",
    "top",
    "touch",
    "troff",
    "truncate",
    "tty",
    "ul",
    "uname",
    "unlink",
    "uptime",
    "vdir",
    "vim.basic",
    "vmstat",
    "watch",
    "wget",
    "whereis",
    "who",
    "xargs",
    "xz",
    "zipinfo",
    "zramctl",
    "zstd",
];

/// Run with more than that.
const WITH_WORK: &[Program] = &[
    on_path(
        "bash",
        &[
            &["--version"],
            &[
                "-c",
                "for i in 1 2 3; do (exit $i); echo $?; done; printf '%s\\n' {a..e} | sort -r",
            ],
            &["-c", "exit 37"],
        ],
    ),
    on_path(
        "dash",
        &[&["-c", "x=$(echo a | tr a b); echo $x; ulimit -c"]],
    ),
    on_path("base64", &[&["/etc/services"]]),
    on_path("bc", &[&["--version"]]),
    on_path("busybox", &[&["echo", "a"], &["sort", "/etc/passwd"]]),
    on_path("bzip2", &[&["-c", "/etc/services"]]),
    on_path("cat", &[&["/etc/passwd"], &["/nonexistent"]]),
    on_path("cksum", &[&["/etc/services"]]),
    on_path("cut", &[&["-d:", "-f1", "/etc/passwd"]]),
    on_path(
        "date",
        &[
            &["-d", "@86400", "+%A %d %B %Y %H:%M:%S %Z"],
            &["-d", "nonsense"],
        ],
    ),
    on_path("dc", VERSION),
    on_path("derb", VERSION),
    on_path("echo", &[&["a", "b"]]),
    on_path("expr", &[&["6", "*", "7"], &["a", "=", "b"]]),
    on_path("factor", &[&["1234567890123456789012345678901"]]),
    on_path("false", &[&[]]),
    on_path("fc-list", &[&[], &["--version"]]),
    on_path("fold", &[&["-w", "20", "/etc/services"]]),
    on_path("funzip", &[&["-h"]]),
    on_path(
        "gawk",
        &[&["BEGIN { for (i = 0; i < 5; i++) printf \"%.3f %s\\n\", sin(i), toupper(\"x\" i) }"]],
    ),
    on_path(
        "gdb",
        &[
            &[
                "-nx",
                "-batch",
                "-ex",
                "print 6*7",
                "-ex",
                "python print(sum(range(10)))",
            ],
            &["--version"],
        ],
    ),
    on_path("genrb", &[&["--version"]]),
    on_path("getconf", &[&["LONG_BIT"], &["NO_SUCH_THING"]]),
    on_path("getopt", &[&["-o", "ab:", "--", "-a", "-b", "c", "d"]]),
    on_path(
        "git",
        &[
            &["--version"],
            &["hash-object", "/etc/services"],
            &["config", "--list"],
            &["--exec-path"],
            &["-C", "/nonexistent", "status"],
        ],
    ),
    on_path("gpgv", &[&["--version"]]),
    on_path("gzip", &[&["-cn", "/etc/services"]]),
    on_path("head", &[&["-n", "3", "/etc/services"]]),
    on_path("htsfile", VERSION),
    on_path("hostname", VERSION),
    on_path("icuinfo", &[&["--version"]]),
    on_path("id", &[&[], &["daemon"], &["nobody-of-that-name"]]),
    on_path("infocmp", &[&["-V"], &["xterm"]]),
    on_path("jq", &[&["-n", "[1, 2, 3] | map(. * 2) | add"]]),
    on_path("ldconfig", &[&["--version"]]),
    on_path("llc-14", VERSION),
    on_path("opt-14", VERSION),
    on_path(
        "llvm-objdump-14",
        &[&["--version"], &["-d", "/nonexistent"]],
    ),
    on_path("llvm-readelf-14", &[&["-h", "/bin/true"]]),
    on_path("llvm-mc-14", VERSION),
    on_path("lsof", &[&["-v"]]),
    on_path("m4", &[&["--version"], &["/etc/hostname"]]),
    on_path(
        "mawk",
        &[&["BEGIN { print length(\"abc\"), exp(1), substr(\"abcdef\", 2, 3) }"]],
    ),
    on_path("md5sum", &[&["/etc/services"]]),
    on_path("memcached", &[&["--version"], &["--help"]]),
    on_path("memcstat", VERSION),
    on_path("mksquashfs", &[&["-version"]]),
    on_path(
        "node",
        &[
            &["--version"],
            &[
                "-e",
                "console.log([3,1,2].sort(), require('crypto').createHash('sha256').update('a').digest('hex'))",
            ],
            &[
                "-e",
                "const {Worker} = require('worker_threads'); new Worker('require(\"worker_threads\").parentPort.postMessage(41+1)', {eval: true}).on('message', m => console.log(m))",
            ],
            &[
                "-e",
                "require('dns').lookup('localhost', {family: 4}, (e, a) => console.log(a)); process.exitCode = 5",
            ],
        ],
    ),
    on_path("nproc", &[&[]]),
    on_path("numfmt", &[&["--to=iec", "123456789"]]),
    on_path("od", &[&["-c", "/etc/hostname"]]),
    on_path(
        "openssl",
        &[
            &["version"],
            &["dgst", "-sha256", "/etc/services"],
            &["ciphers"],
        ],
    ),
    on_path("paste", &[&["/etc/passwd", "/etc/passwd"]]),
    on_path("pbzip2", &[&["--version"]]),
    on_path(
        "perl",
        &[
            &["-v"],
            &[
                "-e",
                "print join(',', sort { $b <=> $a } map { $_ ** 2 } 1..9), \"\\n\"; printf '%.6f', atan2(1, 1)",
            ],
            &[
                "-MPOSIX",
                "-MDigest::SHA=sha1_hex",
                "-MEncode",
                "-e",
                "print sha1_hex('a'), floor(2.7), encode('UTF-16BE', 'a')",
            ],
            &[
                "-Mthreads",
                "-e",
                "print threads->create(sub { 6 * 7 })->join",
            ],
            &[
                "-e",
                "print((getpwnam('daemon'))[2], ' ', crypt('a', '$6$salt$'), \"\\n\")",
            ],
            &["-e", "die \"no\\n\""],
        ],
    ),
    on_path("pinky", VERSION),
    on_path("pldd", &[&["--version"]]),
    on_path("printf", &[&["%05.2f %s\\n", "3.14159", "a"]]),
    on_path("pwd", &[&["--version"]]),
    on_path(
        "qemu-system-x86_64",
        &[&["--version"], &["-machine", "help"]],
    ),
    on_path("realpath", &[&["/usr/bin/../lib"]]),
    on_path("rview", VERSION),
    on_path("sed", &[&["-n", "s/root/ROOT/p", "/etc/passwd"]]),
    on_path("seq", &[&["1", "10"], &["1", "0.1", "2"]]),
    on_path("sha1sum", &[&["/etc/services"]]),
    on_path("sha256sum", &[&["/etc/services"]]),
    on_path("sha512sum", &[&["/etc/services"]]),
    on_path(
        "sort",
        &[
            &["/etc/services"],
            &["--parallel=4", "-k2", "/etc/services"],
        ],
    ),
    on_path(
        "sqlite3",
        &[&[":memory:", "select 6*7, sqlite_version(), round(2.5);"]],
    ),
    on_path("ssh", &[&["-V"], &["-Q", "cipher"]]),
    on_path("ssh-keygen", &[&["-l", "-f", "/nonexistent"]]),
    on_path("sum", &[&["/etc/services"]]),
    on_path("tail", &[&["-n", "3", "/etc/services"]]),
    on_path(
        "tar",
        &[
            &["--version"],
            &[
                "--mtime=@0",
                "--owner=0",
                "--group=0",
                "-cf",
                "-",
                "/etc/hostname",
            ],
        ],
    ),
    on_path("tclsh8.6", &[&["/dev/null"]]),
    on_path("test", &[&["a", "=", "a"], &["a", "=", "b"]]),
    on_path("tic", &[&["-V"]]),
    on_path("tmux", &[&["-V"]]),
    on_path("tr", &[&["a", "b"]]),
    on_path("true", &[&[]]),
    on_path("tsort", &[&["/dev/null"]]),
    on_path(
        "uconv",
        &[&["-f", "latin1", "-t", "utf-8", "/etc/services"]],
    ),
    on_path("ugrep", &[&["root", "/etc/passwd"]]),
    on_path("unexpand", &[&["/etc/services"]]),
    on_path("uniq", &[&["-c", "/etc/services"]]),
    on_path("unsquashfs", &[&["-version"]]),
    on_path("unzip", &[&["-v"]]),
    on_path("w", VERSION),
    on_path("wc", &[&["/etc/services"], &["-l", "/nonexistent"]]),
    on_path("xxd", &[&["/etc/hostname"]]),
    on_path("xprop", &[&["-version"]]),
    on_path("yaml2obj-14", VERSION),
    on_path("zdump", &[&["-v", "-c", "1990,1995", "Europe/Berlin"]]),
    on_path("zip", &[&["-v"]]),
    on_path("zutty", &[&["-h"]]),
    on_path("go", &[&["version"], &["env", "GOOS"]]),
    on_path("gofmt", &[&["-h"]]),
    on_path("eu-readelf", &[&["--version"], &["-h", "/bin/true"]]),
    Program {
        name: "python3.11",
        place: Place::File("/usr/bin/python3.11"),
        commands: PYTHON,
        short: true,
    },
    Program {
        name: "python2.7 (pyenv)",
        place: Place::Pyenv("2.7"),
        commands: &[&[
            "-c",
            "import json, math, threading; print json.dumps([math.sqrt(2)]), u'\\xe4'.encode('utf-8')",
        ]],
        short: false,
    },
    Program {
        name: "python3.6 (pyenv)",
        place: Place::Pyenv("3.6"),
        commands: PYTHON,
        short: false,
    },
    Program {
        name: "python3.13 (pyenv)",
        place: Place::Pyenv("3.13"),
        commands: PYTHON,
        short: false,
    },
    Program {
        name: "cargo",
        place: Place::Rustup,
        commands: &[
            &["--version"],
            &["--list"],
            &["build", "--manifest-path", "/nonexistent/Cargo.toml"],
        ],
        short: true,
    },
    Program {
        name: "rustc",
        place: Place::Rustup,
        commands: &[
            &["--version"],
            &["--print", "target-list"],
            &["-vV"],
            &["--print", "cfg"],
        ],
        short: false,
    },
    Program {
        name: "rustdoc",
        place: Place::Rustup,
        commands: VERSION,
        short: false,
    },
    Program {
        name: "cc1",
        place: Place::File("/usr/lib/gcc/x86_64-linux-gnu/12/cc1"),
        commands: &[&["--version"], &["-quiet", "-E", "/dev/null"]],
        short: true,
    },
    Program {
        name: "chromium",
        place: Place::File("/usr/lib/chromium/chromium"),
        commands: VERSION,
        short: false,
    },
    Program {
        name: "java",
        place: Place::File("/usr/lib/jvm/java-17-openjdk-amd64/bin/java"),
        commands: &[&["-version"]],
        short: false,
    },
    Program {
        name: "javac",
        place: Place::File("/usr/lib/jvm/java-17-openjdk-amd64/bin/javac"),
        commands: &[&["-version"]],
        short: false,
    },
];

const PYTHON: &[&[&str]] = &[
    &["--version"],
    &[
        "-c",
        "import sys, json, math, decimal; print(json.dumps([math.sin(1), str(decimal.Decimal(1) / 7)])); sys.exit(3)",
    ],
    &[
        "-c",
        "import ctypes, ctypes.util; print(ctypes.CDLL('libm.so.6').abs(-3), ctypes.CDLL(None).getpagesize())",
    ],
    &[
        "-c",
        "import threading; c = threading.Condition(); r = []\ndef f():\n  with c: r.append(1); c.notify()\nt = threading.Thread(target=f)\nwith c:\n  t.start(); c.wait_for(lambda: r)\nt.join(); print(r)",
    ],
    &[
        "-c",
        "import socket, pwd, zlib, hashlib, sqlite3; print(socket.gethostbyname('localhost'), pwd.getpwnam('daemon').pw_uid, hashlib.sha256(zlib.compress(b'a' * 99)).hexdigest(), sqlite3.connect(':memory:').execute('select 1').fetchall())",
    ],
    &[
        "-c",
        "import locale; print(locale.setlocale(locale.LC_ALL, 'C.UTF-8')); print('\\u00e4\\u4e2d'.encode('euc-jp', 'replace'), locale.localeconv()['decimal_point'])",
    ],
    &[
        "-c",
        "import subprocess, multiprocessing, os; print(subprocess.check_output(['echo', 'a'])); p = os.fork()\nif p == 0: os._exit(7)\nprint(os.waitpid(p, 0)[1])",
    ],
    &["-c", "raise SystemError('no')"],
];

/// Names of [`ONLY_VERSION`] that are on the short list.
const SHORT: &[&str] = &[
    "as",
    "busctl",
    "cmake",
    "curl",
    "file",
    "find",
    "gcc",
    "grep",
    "ld.gold",
    "ld.lld",
    "ls",
    "make",
    "man",
    "mold",
    "objdump",
    "patchelf",
    "perf",
    "strace",
    "vim.basic",
    "xz",
];

/// Names of [`WITH_WORK`] that are on the short list besides those that say so themselves.
const SHORT_WORK: &[&str] = &[
    "bash",
    "cat",
    "date",
    "factor",
    "gdb",
    "git",
    "id",
    "llvm-readelf-14",
    "memcached",
    "node",
    "openssl",
    "perl",
    "sort",
    "sqlite3",
    "tar",
];

const fn on_path(name: &'static str, commands: &'static [&'static [&'static str]]) -> Program {
    Program {
        name,
        place: Place::Path,
        commands,
        short: false,
    }
}

/// All of them, or the short list.
pub fn all(short: bool) -> Vec<Program> {
    let plain = ONLY_VERSION.iter().map(|name| Program {
        short: SHORT.contains(name),
        ..on_path(name, VERSION)
    });
    let working = WITH_WORK.iter().map(|program| Program {
        short: program.short || SHORT_WORK.contains(&program.name),
        ..*program
    });
    let wanted = plain
        .chain(working)
        .filter(|program| !short || program.short);
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_twice() {
        let mut names: Vec<_> = all(false).iter().map(|program| program.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_short_list_names_programs_of_the_long_one() {
        let long: Vec<_> = all(false).iter().map(|program| program.name).collect();
        for name in SHORT.iter().chain(SHORT_WORK) {
            assert!(long.contains(name), "{name}");
        }
    }

    #[test]
    fn nothing_that_ends_or_changes_the_machine() {
        for program in all(false) {
            let never = [
                "init",
                "halt",
                "reboot",
                "poweroff",
                "shutdown",
                "systemctl",
                "telinit",
                "systemd",
            ];
            assert!(!never.contains(&program.name), "{}", program.name);
        }
    }
}
