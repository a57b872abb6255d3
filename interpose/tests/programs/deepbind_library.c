// The library that deepbind.c opens with RTLD_DEEPBIND: its own dependencies, libc first of all,
// come before the preload in its scope, so these are libc's functions.
#include "deepbind.h"

const struct deepbind_calls deepbind_calls = {
    .init = pthread_mutex_init,
    .destroy = pthread_mutex_destroy,
    .lock = pthread_mutex_lock,
    .trylock = pthread_mutex_trylock,
    .timedlock = pthread_mutex_timedlock,
    .clocklock = pthread_mutex_clocklock,
    .unlock = pthread_mutex_unlock,
};
