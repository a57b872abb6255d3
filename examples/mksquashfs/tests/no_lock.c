// A preload whose pthread_mutex_lock excludes nobody, to show that the example notices. What a condition variable's wait has locked
// is unlocked for real, for the next wait would block on it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

static int (*real_unlock)(pthread_mutex_t *);

__attribute__((constructor)) static void start(void)
{
    real_unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    return m->__data.__owner == gettid() ? real_unlock(m) : 0;
}
