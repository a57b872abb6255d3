/* References to glibc's old symbol versions, by the versions of x86-64: everything that
   glibc's sources call older than 2.2.5 is 2.2.5 there. */
#ifndef AUTOLOCK_GLIBC_SUITE_SHLIB_COMPAT_H
#define AUTOLOCK_GLIBC_SUITE_SHLIB_COMPAT_H
#define SUITE_VERSION_GLIBC_2_0 "GLIBC_2.2.5"
#define SUITE_VERSION_GLIBC_2_1 "GLIBC_2.2.5"
#define SUITE_VERSION_GLIBC_2_2 "GLIBC_2.2.5"
#define SUITE_VERSION_GLIBC_2_3_2 "GLIBC_2.3.2"
#define SUITE_VERSION(version) SUITE_VERSION_##version
#define compat_symbol_reference(lib, local, symbol, version) \
  __asm__ (".symver " #local ", " #symbol "@" SUITE_VERSION (version))
#define TEST_COMPAT(lib, introduced, obsoleted) 0
#define SHLIB_COMPAT(lib, introduced, obsoleted) 0
#endif
