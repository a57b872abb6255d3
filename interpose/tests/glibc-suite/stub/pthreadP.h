/* Stands in for glibc's internal pthread header: what the tests marked "internal" use. */
#ifndef AUTOLOCK_GLIBC_SUITE_PTHREADP_H
#define AUTOLOCK_GLIBC_SUITE_PTHREADP_H
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/types.h>
#include <atomic.h>
#include <internal-signals.h>
#include <internaltypes.h>

/* A rwlock's reader count: where it stands in its word and where it is full. */
#define PTHREAD_RWLOCK_READER_SHIFT 3
#define PTHREAD_RWLOCK_READER_OVERFLOW (1U << 31)
#endif
