// Property: under the preload the mutex functions are the preload's, and the ones that a preload
// must leave alone are libc's. Prints each name and the object that answers to it; the test knows
// which it should be.
#include "check.h"

int main(void)
{
    static const char *const names[] = {
        "pthread_mutex_init",      "pthread_mutex_destroy",    "pthread_mutex_lock",
        "pthread_mutex_trylock",   "pthread_mutex_timedlock",  "pthread_mutex_clocklock",
        "pthread_mutex_unlock",    "pthread_mutex_consistent", "pthread_mutex_getprioceiling",
        "pthread_mutex_setprioceiling", "mtx_init",            "mtx_destroy",
        "mtx_lock",                "mtx_trylock",              "mtx_timedlock",
        "mtx_unlock",              "pthread_cond_wait",        "pthread_cond_signal",
        "pthread_rwlock_wrlock",   "pthread_create",           "malloc",
        "cnd_wait",                "cnd_timedwait",            "cnd_signal",
        "pthread_cond_timedwait",  "pthread_cond_clockwait",   "fork",
        "dlsym",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Dl_info info;
        void *address = dlsym(RTLD_DEFAULT, names[i]);
        CHECK(address && dladdr(address, &info) && info.dli_fname);
        const char *base = strrchr(info.dli_fname, '/');
        say("%s %s", names[i], base ? base + 1 : info.dli_fname);
    }
    return 0;
}
