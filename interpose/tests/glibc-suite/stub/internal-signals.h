/* The two signals that glibc keeps for itself. */
#ifndef AUTOLOCK_GLIBC_SUITE_INTERNAL_SIGNALS_H
#define AUTOLOCK_GLIBC_SUITE_INTERNAL_SIGNALS_H
#include <signal.h>
#define SIGCANCEL 32
#define SIGTIMER SIGCANCEL
#define SIGSETXID 33
#endif
