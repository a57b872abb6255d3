/* Included before everything else when a file of glibc's test suite is compiled
   against the installed glibc. glibc's own build puts include/libc-symbols.h and a
   generated config.h in this place; the tests need only what stands here. */
#ifndef AUTOLOCK_GLIBC_SUITE_GLUE_H
#define AUTOLOCK_GLIBC_SUITE_GLUE_H

#ifndef _GNU_SOURCE
# define _GNU_SOURCE 1
#endif

/* "Seen from outside": glibc's wrapper headers then declare nothing internal. */
#define _ISOMAC 1
#define IS_IN(lib) 0
#define libc_hidden_proto(name)
#define attribute_hidden __attribute__ ((visibility ("hidden")))

/* The suite's per-test time limits are multiplied by this at compile time; the
   harness scales them again through the environment variable of the same name. */
#define TIMEOUTFACTOR 1

#ifndef __ASSEMBLER__
/* glibc's internal headers bring these in everywhere, and some tests rely on it. */
# include <limits.h>
# include <stdbool.h>
# include <sys/cdefs.h>
#endif

#endif
