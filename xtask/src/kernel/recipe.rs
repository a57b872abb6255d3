//! What the kernel is built from and with. Data alone; its text is part of the cache key.

/// The package that the series is against, and the SHA-256 of its file.
pub const PACKAGE: &str = "linux-source-6.12";
pub const PACKAGE_VERSION: &str = "6.12.117-1~deb12u1";
pub const PACKAGE_SHA256: &str = "e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703";

/// Folder of the series in linux-patches.
pub const SERIES: &str = "6.12";

/// The archive in the package.
pub const ARCHIVE: &str = "linux-source-6.12.tar.xz";

/// The same source gives the same image.
pub const BUILD_ENV: &[(&str, &str)] = &[
    ("KBUILD_BUILD_TIMESTAMP", "2026-01-01 00:00:00 UTC"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("KBUILD_BUILD_USER", "autolock"),
    ("KBUILD_BUILD_HOST", "autolock"),
];

/// What in the environment would change what the kernel's makefiles do, besides what changes any make.
pub const FOREIGN_ENV: &[&str] = &[
    "ARCH",
    "CROSS_COMPILE",
    "HOSTCC",
    "KAFLAGS",
    "KBUILD_CFLAGS",
    "KBUILD_OUTPUT",
    "KCFLAGS",
    "KCONFIG_ALLCONFIG",
    "KCONFIG_CONFIG",
    "KCPPFLAGS",
    "LLVM",
    "LOCALVERSION",
    "O",
    "V",
    "W",
];
