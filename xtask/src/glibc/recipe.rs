//! What the build of glibc is made with: configure's options and variables. Data alone; its text is part of the cache key.

/// The version that the patches are for.
pub const VERSION: &str = "2.36";

/// As Debian configures, less what the system has already (libcrypt, nscd). The manual's text is not in Debian's archive, so nothing may want makeinfo.
pub const CONFIGURE: &[&str] = &[
    "--without-selinux",
    "--disable-crypt",
    "--disable-nscd",
    "--disable-build-nscd",
    "--disable-werror",
    "--enable-stack-protector=strong",
    "--enable-multi-arch",
    "libc_cv_complocaledir=/usr/lib/locale",
    "CC=gcc",
    "CXX=g++",
];
pub const CONFIGURE_ENV: &[(&str, &str)] = &[("AUTOCONF", "false"), ("MAKEINFO", ":")];

/// Locales and time zones are the system's. Libraries are looked for in the prefix, then in the system's folders: there is no ld.so.cache
/// below the prefix to find them by, and the system's would find the system's libm.
pub const CONFIGPARMS: &str = "\
complocaledir = /usr/lib/locale
zonedir = /usr/share/zoneinfo
localtime-file = /etc/localtime
user-defined-trusted-dirs = /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib64 /usr/lib64 /lib /usr/lib
";

/// Of these the debug information is kept, for gdb; libc.so.6 is 12 MB with it and 2 MB without.
pub const UNSTRIPPED: &[&str] = &["libc.so.6", "ld-linux-x86-64.so.2", "libthread_db.so.1"];

/// What in the environment would change what make and configure do.
pub const FOREIGN_ENV: &[&str] = &[
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
    "LIBS",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH",
    // cargo sets it for what it runs; configure refuses it.
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LD_RUN_PATH",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "CARGO_MAKEFLAGS",
    "GLIBC_TUNABLES",
    "DESTDIR",
];
