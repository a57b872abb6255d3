// Profilers with one thing wrong, made of the real one: a library in front of it, which hides calls from it by making them on libc directly, or shows it others
// than the program made. -DBROKEN=NONE hides nothing, which shows that a failed test is the broken part's.
#include "truth.h"

// The preprocessor asks for these.
#define NONE 0
#define HIDE_CONDITIONS 1 // waits on condition variables are not seen: idle time is hold time
#define HIDE_TRIES 2 // failed tries are not seen
#define HIDE_SOME 3 // every tenth acquisition is not seen
#define HIDE_WAITS 4 // contended acquisitions are not seen
#define HIDE_HOLDERS 5 // uncontended acquisitions are not seen: whoever waits for them waits for nobody
#define HIDE_FIRST_LEVEL 6 // of a recursive mutex
#define READERS_ARE_WRITERS 7
#define COUNT_TIME_OUTS 8 // as acquisitions; with LIAR behind the profiler
#define HIDE_HANDLERS 9 // the program's signal handlers take the place of the profiler's
#define HIDE_EXIT 10 // the process ends behind its back
#define HIDE_DESTROY 11 // every lock lives for ever
#define LIAR 12
#ifndef BROKEN
#define BROKEN NONE
#endif

__attribute__((unused)) static void *libc(const char *name)
{
    static void *handle;
    if (!handle)
        handle = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    void *function = handle ? dlsym(handle, name) : NULL;
    if (!function)
        _exit(99);
    return function;
}

static void *next(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (!function)
        _exit(98);
    return function;
}

#define REAL(name) ((__typeof__(&name))libc(#name))
#define PROFILED(name) ((__typeof__(&name))next(#name))
#define TLS __thread __attribute__((tls_model("initial-exec")))

// Mutexes that this thread holds and the profiler does not know of.
__attribute__((unused)) static TLS pthread_mutex_t *hidden[1024];
__attribute__((unused)) static TLS int hidden_count;
__attribute__((unused)) static TLS unsigned calls;

__attribute__((unused)) static int hide(pthread_mutex_t *m)
{
    if (hidden_count == 1024)
        _exit(97);
    hidden[hidden_count++] = m;
    return 0;
}

__attribute__((unused)) static int was_hidden(pthread_mutex_t *m)
{
    for (int i = hidden_count; i-- > 0;) {
        if (hidden[i] == m) {
            hidden[i] = hidden[--hidden_count];
            return 1;
        }
    }
    return 0;
}

#if BROKEN != LIAR

int pthread_mutex_lock(pthread_mutex_t *m)
{
    switch (BROKEN) {
    case HIDE_SOME:
        if (++calls % 10 == 0 && REAL(pthread_mutex_trylock)(m) == 0)
            return hide(m);
        break;
    case HIDE_WAITS: {
        int result = REAL(pthread_mutex_trylock)(m);
        if (result == EBUSY) {
            REAL(pthread_mutex_lock)(m);
            return hide(m);
        }
        REAL(pthread_mutex_unlock)(m);
        break;
    }
    case HIDE_HOLDERS:
        if (REAL(pthread_mutex_trylock)(m) == 0)
            return hide(m);
        break;
    case HIDE_FIRST_LEVEL:
        if ((m->__data.__kind & 3) == PTHREAD_MUTEX_RECURSIVE && m->__data.__owner != tid()) {
            int result = REAL(pthread_mutex_lock)(m);
            return result ? result : hide(m);
        }
        break;
    }
    int result = PROFILED(pthread_mutex_lock)(m);
    NO_TAIL_CALL();
    return result;
}

int pthread_mutex_trylock(pthread_mutex_t *m)
{
    if (BROKEN == HIDE_TRIES) {
        int result = REAL(pthread_mutex_trylock)(m);
        return result ? result : hide(m);
    }
    return PROFILED(pthread_mutex_trylock)(m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    int level = (m->__data.__kind & 3) == PTHREAD_MUTEX_RECURSIVE ? m->__data.__count : 1;
    if (level == 1 && was_hidden(m))
        return REAL(pthread_mutex_unlock)(m);
    return PROFILED(pthread_mutex_unlock)(m);
}

#if BROKEN == HIDE_CONDITIONS
int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    return REAL(pthread_cond_wait)(c, m);
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
    return REAL(pthread_cond_timedwait)(c, m, until);
}

int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    return REAL(pthread_cond_clockwait)(c, m, clock, until);
}
#elif BROKEN == READERS_ARE_WRITERS
int pthread_rwlock_rdlock(pthread_rwlock_t *l)
{
    return PROFILED(pthread_rwlock_wrlock)(l);
}
#elif BROKEN == COUNT_TIME_OUTS
static int unlie(int result, pthread_mutex_t *m)
{
    int *lied = ((int *(*)(void))next("truth_lied"))();
    if (result || !*lied)
        return result;
    PROFILED(pthread_mutex_unlock)(m);
    return ETIMEDOUT;
}

int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *until)
{
    return unlie(PROFILED(pthread_mutex_timedlock)(m, until), m);
}

int pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    return unlie(PROFILED(pthread_mutex_clocklock)(m, clock, until), m);
}
#elif BROKEN == HIDE_HANDLERS
int sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
    return REAL(sigaction)(signal, action, old);
}
#elif BROKEN == HIDE_EXIT
void _exit(int status)
{
    syscall(SYS_exit_group, status);
    __builtin_unreachable();
}
#elif BROKEN == HIDE_DESTROY
int pthread_mutex_destroy(pthread_mutex_t *m)
{
    return REAL(pthread_mutex_destroy)(m);
}
int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    return REAL(pthread_mutex_init)(m, attr);
}
#endif

#else // behind the profiler: a time-out looks like an acquisition to it, and the release of what was not acquired is none

static TLS int lied;

int *truth_lied(void)
{
    return &lied;
}

int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *until)
{
    int result = PROFILED(pthread_mutex_timedlock)(m, until);
    lied = result == ETIMEDOUT;
    return lied ? 0 : result;
}

int pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    int result = PROFILED(pthread_mutex_clocklock)(m, clock, until);
    lied = result == ETIMEDOUT;
    return lied ? 0 : result;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    if (lied) {
        lied = 0;
        return 0;
    }
    return PROFILED(pthread_mutex_unlock)(m);
}
#endif

