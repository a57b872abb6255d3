// Mutex functions that count which of their calls libc makes. By -DSTATE:
// COUNTS passes every call on; FOREIGN is a lock of its own, a ticket lock whose tickets and marks
// stand where glibc has its lock word, owner, kind and list. glibc's own code, let loose on such a
// mutex, returns an error or spoils the marks, and unlock looks at them.
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <threads.h>
#include <unistd.h>

#include "foreign.h"

#define COUNTS 0
#define FOREIGN 1
#ifndef STATE
#define STATE COUNTS
#endif

struct libc_calls libc_calls;
static void *libc_base;

static int (*next_lock)(pthread_mutex_t *), (*next_unlock)(pthread_mutex_t *);
static int (*next_mtx_lock)(mtx_t *), (*next_mtx_unlock)(mtx_t *);

__attribute__((constructor)) static void start(void)
{
    Dl_info info;
    void *function = dlsym(RTLD_NEXT, "gnu_get_libc_version");
    if (!function || !dladdr(function, &info))
        _exit(99);
    libc_base = info.dli_fbase;
    next_lock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    next_unlock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    next_mtx_lock = (int (*)(mtx_t *))dlsym(RTLD_NEXT, "mtx_lock");
    next_mtx_unlock = (int (*)(mtx_t *))dlsym(RTLD_NEXT, "mtx_unlock");
}

static void count(int *calls, void *caller)
{
    Dl_info info;
    if (libc_base && dladdr(caller, &info) && info.dli_fbase == libc_base)
        __atomic_fetch_add(calls, 1, __ATOMIC_SEQ_CST);
}
#define COUNT(calls) count(&libc_calls.calls, __builtin_return_address(0))

#if STATE == COUNTS

int pthread_mutex_lock(pthread_mutex_t *m)
{
    COUNT(locks);
    return next_lock(m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    COUNT(unlocks);
    return next_unlock(m);
}

int mtx_lock(mtx_t *m)
{
    COUNT(mtx_locks);
    return next_mtx_lock(m);
}

int mtx_unlock(mtx_t *m)
{
    COUNT(mtx_unlocks);
    return next_mtx_unlock(m);
}

#else

struct ticket_lock {
    uint32_t next, serving;
    uint8_t marks[32];
};
_Static_assert(sizeof(struct ticket_lock) <= sizeof(pthread_mutex_t), "fits");
#define MARK 0x7e

static void ticket_acquire(void *m)
{
    struct ticket_lock *lock = m;
    uint32_t mine = __atomic_fetch_add(&lock->next, 1, __ATOMIC_RELAXED), now;
    while ((now = __atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE)) != mine) {
        int error = errno;
        syscall(SYS_futex, &lock->serving, FUTEX_WAIT, now, NULL);
        errno = error;
    }
    memset(lock->marks, MARK, sizeof lock->marks);
}

// 0, or EPERM when somebody else has written to the mutex.
static int ticket_release(void *m)
{
    struct ticket_lock *lock = m;
    for (unsigned i = 0; i < sizeof lock->marks; i++)
        if (lock->marks[i] != MARK)
            return EPERM;
    __atomic_fetch_add(&lock->serving, 1, __ATOMIC_RELEASE);
    int error = errno;
    syscall(SYS_futex, &lock->serving, FUTEX_WAKE, INT_MAX);
    errno = error;
    return 0;
}

static int ticket_try(void *m)
{
    struct ticket_lock *lock = m;
    uint32_t serving = __atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE), next = serving;
    if (!__atomic_compare_exchange_n(&lock->next, &next, serving + 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return EBUSY;
    memset(lock->marks, MARK, sizeof lock->marks);
    return 0;
}

int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    (void)attr;
    memset(m, 0, sizeof *m);
    return 0;
}

int pthread_mutex_destroy(pthread_mutex_t *m)
{
    struct ticket_lock *lock = (void *)m;
    return lock->next == lock->serving ? 0 : EBUSY;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    COUNT(locks);
    ticket_acquire(m);
    return 0;
}

int pthread_mutex_trylock(pthread_mutex_t *m)
{
    return ticket_try(m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    COUNT(unlocks);
    return ticket_release(m);
}

int mtx_init(mtx_t *m, int type)
{
    (void)type;
    memset(m, 0, sizeof *m);
    return thrd_success;
}

void mtx_destroy(mtx_t *m)
{
    (void)m;
}

int mtx_lock(mtx_t *m)
{
    COUNT(mtx_locks);
    ticket_acquire(m);
    return thrd_success;
}

int mtx_trylock(mtx_t *m)
{
    return ticket_try(m) ? thrd_busy : thrd_success;
}

int mtx_unlock(mtx_t *m)
{
    COUNT(mtx_unlocks);
    return ticket_release(m) ? thrd_error : thrd_success;
}
#endif
