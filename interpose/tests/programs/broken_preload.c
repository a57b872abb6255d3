// A preload with one thing wrong, chosen by -DBROKEN=..., to show that a test can fail. With
// BREAK_NONE nothing is wrong: a plain futex lock that keeps glibc's state, on which every test
// must pass, so that what fails under a variant fails for the variant's reason.
//
// It covers the four plain kinds, private and process-shared, and passes the rest on.
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define BREAK_NONE 0
#define BREAK_EXCLUSION 1     // now and then a contended lock lets a second thread in
#define BREAK_NO_WAKE 2       // unlock wakes nobody
#define BREAK_FOREIGN_WAITERS 3 // unlock wakes only waiters of its own, not glibc's
#define BREAK_PRIVATE_FUTEX 4 // process-shared mutexes wait as private ones
#define BREAK_TOUCH 5         // unlock reads the mutex after it has released it
#define BREAK_STALE_TID 6     // the thread id is cached and never refreshed in a fork child
#define BREAK_EINTR 7         // a signal ends the wait with EINTR
#define BREAK_EARLY_TIMEOUT 8 // a signal ends a timed wait with ETIMEDOUT
#define BREAK_LATE_DLSYM 9    // the real functions are looked up at the first call
#define BREAK_SPINNER_DUTY 10 // unlock leaves the wake to a spinner, who may be dead
#define BREAK_MALLOC 11       // a contended lock allocates
#define BREAK_YIELD 12        // a contended lock calls sched_yield
#define BREAK_NEEDS_INIT 13   // a mutex that was never initialised by a call does not lock
#define BREAK_NEIGHBOUR 14    // unlock writes past the end of the mutex
#define BREAK_ERRNO 15        // trylock by the owner of an ERRORCHECK mutex gives EDEADLK
#define BREAK_NUSERS 16       // timedlock forgets to count its user
#define BREAK_NEEDS_CONSTRUCTOR 17 // does not lock before its constructor has run
#define BREAK_DESTRUCTOR 18   // does not lock after its destructor has run
#define BREAK_HANDLER 19      // one wait record a thread: a lock taken in a signal handler spoils it
#define BREAK_CANCEL 20       // a wait for a lock is a cancellation point
#define BREAK_TLS_DESTRUCTOR 21 // a thread's lock state is gone when its key destructors run

#define BREAK_TOUCH_LATE 22   // unlock reads the mutex after it has woken somebody
#define BREAK_LINGER 23       // unlock lets others run and comes back to the mutex
#define BREAK_TIMED_DUTY 24   // unlock leaves the wake to a timed waiter, who may give up
#define BREAK_KEEPS_ROBUST 25 // robust mutexes are locked as plain ones
#define BREAK_RARE_LOOKS 26   // waiters are not woken, they look once in a second
#define BREAK_SPOILS_ERRNO 27 // a contended lock changes errno

#ifndef BROKEN
#define BROKEN BREAK_NONE
#endif
#define IS_BROKEN(what) (BROKEN == (what))

// Type, process-shared, no-elision.
#define PLAIN_KINDS (3 | 128 | 512 | (IS_BROKEN(BREAK_KEEPS_ROBUST) ? 16 : 0))
#define FN(n) static int (*real_##n)
FN(init)(pthread_mutex_t *, const pthread_mutexattr_t *);
FN(lock)(pthread_mutex_t *);
FN(trylock)(pthread_mutex_t *);
FN(unlock)(pthread_mutex_t *);
FN(clocklock)(pthread_mutex_t *, clockid_t, const struct timespec *);
FN(timedlock)(pthread_mutex_t *, const struct timespec *);

static int running;

static void resolve(void)
{
    real_init = dlsym(RTLD_NEXT, "pthread_mutex_init");
    real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    real_trylock = dlsym(RTLD_NEXT, "pthread_mutex_trylock");
    real_clocklock = dlsym(RTLD_NEXT, "pthread_mutex_clocklock");
    real_timedlock = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    // Last: whoever sees it sees the others.
    __atomic_store_n(&real_unlock, dlsym(RTLD_NEXT, "pthread_mutex_unlock"), __ATOMIC_RELEASE);
}

#define TLS_IE __attribute__((tls_model("initial-exec")))
static __thread int cached_tid TLS_IE;

// Where glibc keeps the thread's id: found by value in the main thread's descriptor.
static size_t tid_offset;

static int my_tid(void)
{
    if (IS_BROKEN(BREAK_STALE_TID)) {
        if (!cached_tid)
            cached_tid = (int)syscall(SYS_gettid);
        return cached_tid;
    }
    if (tid_offset)
        return *(volatile int *)((char *)pthread_self() + tid_offset);
    return (int)syscall(SYS_gettid);
}

static pthread_key_t key;
static __thread int key_state TLS_IE; // 1 while the thread has lock state, 2 once it is gone

static void thread_ends(void *unused)
{
    (void)unused;
    key_state = 2;
}

__attribute__((constructor)) static void start(void)
{
    int id = (int)syscall(SYS_gettid);
    const char *self = (const char *)pthread_self();
    if (*(const int *)(self + 720) == id)
        tid_offset = 720;
    if (!IS_BROKEN(BREAK_LATE_DLSYM))
        resolve();
    if (IS_BROKEN(BREAK_TLS_DESTRUCTOR))
        pthread_key_create(&key, thread_ends);
    running = 1;
}

__attribute__((destructor)) static void end(void)
{
    running = 2;
}

static int is_locking(void)
{
    if (IS_BROKEN(BREAK_NEEDS_CONSTRUCTOR) && running == 0)
        return 0;
    if (IS_BROKEN(BREAK_DESTRUCTOR) && running == 2)
        return 0;
    if (IS_BROKEN(BREAK_TLS_DESTRUCTOR)) {
        if (key_state == 2)
            return 0;
        if (running && !key_state) {
            key_state = 1;
            pthread_setspecific(key, &key);
        }
    }
    return 1;
}

static void before_any(void)
{
    if (!__atomic_load_n(&real_unlock, __ATOMIC_ACQUIRE) &&
        (running || IS_BROKEN(BREAK_LATE_DLSYM)))
        resolve();
}

static int *word_of(pthread_mutex_t *m) { return &m->__data.__lock; }

// Our own use of the last sixteen bytes.
struct extra {
    int own_waiters, spinners;
    uint32_t magic, unused;
};
static struct extra *extra_of(pthread_mutex_t *m)
{
    return (struct extra *)((char *)m + 24);
}
#define MAGIC 0x6d757478u

static int futex(pthread_mutex_t *m, int op, int value, const struct timespec *until)
{
    int shared = m->__data.__kind & 128 && !IS_BROKEN(BREAK_PRIVATE_FUTEX);
    return syscall(SYS_futex, word_of(m), shared ? op : op | FUTEX_PRIVATE_FLAG, value, until, 0,
                   FUTEX_BITSET_MATCH_ANY) < 0
               ? errno
               : 0;
}

static __thread pthread_mutex_t *volatile wait_record TLS_IE;
static __thread unsigned contended_locks TLS_IE;

static int take_contended(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    int saved = errno, result = 0;
    int op = FUTEX_WAIT_BITSET | (clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0);
    if (IS_BROKEN(BREAK_EXCLUSION) && ++contended_locks % 64 == 0)
        return 0;
    if (IS_BROKEN(BREAK_YIELD))
        syscall(SYS_sched_yield);
    if (IS_BROKEN(BREAK_MALLOC)) {
        void *volatile block = malloc(64);
        free(block);
    }
    if (IS_BROKEN(BREAK_SPINNER_DUTY)) {
        __atomic_fetch_add(&extra_of(m)->spinners, 1, __ATOMIC_SEQ_CST);
        for (int i = 0; i < 200000; i++) {
            int free_word = 0;
            if (__atomic_compare_exchange_n(word_of(m), &free_word, 1, 0, __ATOMIC_ACQUIRE,
                                            __ATOMIC_RELAXED)) {
                __atomic_fetch_sub(&extra_of(m)->spinners, 1, __ATOMIC_SEQ_CST);
                return 0;
            }
            __builtin_ia32_pause();
        }
        __atomic_fetch_sub(&extra_of(m)->spinners, 1, __ATOMIC_SEQ_CST);
    }
    if (until && (until->tv_nsec < 0 || until->tv_nsec >= 1000000000))
        return EINVAL;
    if (IS_BROKEN(BREAK_TIMED_DUTY) && until) {
        __atomic_fetch_add(&extra_of(m)->spinners, 1, __ATOMIC_SEQ_CST);
        for (;;) {
            int free_word = 0;
            struct timespec now;
            clock_gettime(clock, &now);
            if (__atomic_compare_exchange_n(word_of(m), &free_word, 2, 0, __ATOMIC_ACQUIRE,
                                            __ATOMIC_RELAXED))
                break;
            if (now.tv_sec > until->tv_sec ||
                (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec)) {
                result = ETIMEDOUT;
                break;
            }
        }
        __atomic_fetch_sub(&extra_of(m)->spinners, 1, __ATOMIC_SEQ_CST);
        errno = saved;
        return result;
    }
    if (IS_BROKEN(BREAK_FOREIGN_WAITERS))
        __atomic_fetch_add(&extra_of(m)->own_waiters, 1, __ATOMIC_SEQ_CST);
    while (__atomic_exchange_n(word_of(m), 2, __ATOMIC_ACQUIRE)) {
        if (until && until->tv_sec < 0) {
            result = ETIMEDOUT;
            break;
        }
        if (IS_BROKEN(BREAK_HANDLER))
            wait_record = m;
        if (IS_BROKEN(BREAK_CANCEL))
            pthread_testcancel();
        if (IS_BROKEN(BREAK_RARE_LOOKS))
            sleep(1);
        int why = IS_BROKEN(BREAK_RARE_LOOKS) ? 0 : futex(m, op, 2, until);
        if (IS_BROKEN(BREAK_HANDLER)) {
            // A handler that took a lock meanwhile has left its own record here.
            if (wait_record != m)
                break;
        }
        if (why == ETIMEDOUT || (IS_BROKEN(BREAK_EINTR) && why == EINTR)) {
            result = why;
            break;
        }
        if (IS_BROKEN(BREAK_EARLY_TIMEOUT) && until && why == EINTR) {
            result = ETIMEDOUT;
            break;
        }
        if (IS_BROKEN(BREAK_CANCEL))
            pthread_testcancel();
    }
    if (IS_BROKEN(BREAK_FOREIGN_WAITERS))
        __atomic_fetch_sub(&extra_of(m)->own_waiters, 1, __ATOMIC_SEQ_CST);
    if (!IS_BROKEN(BREAK_SPOILS_ERRNO))
        errno = saved;
    return result;
}

static int take(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    int free_word = 0;
    if (IS_BROKEN(BREAK_NEEDS_INIT) && extra_of(m)->magic != MAGIC)
        return 0;
    if (!is_locking())
        return 0;
    if (__atomic_compare_exchange_n(word_of(m), &free_word, 1, 0, __ATOMIC_ACQUIRE,
                                    __ATOMIC_RELAXED))
        return 0;
    return take_contended(m, clock, until);
}

static void owned(pthread_mutex_t *m, int counted)
{
    m->__data.__owner = my_tid();
    m->__data.__nusers += counted;
    if ((m->__data.__kind & 3) == PTHREAD_MUTEX_RECURSIVE)
        m->__data.__count = 1;
}

// What the owner of a RECURSIVE or ERRORCHECK mutex gets; -1 for everybody else.
static int mine_already(pthread_mutex_t *m, int errorcheck)
{
    int type = m->__data.__kind & 3;
    if (type != PTHREAD_MUTEX_RECURSIVE && type != PTHREAD_MUTEX_ERRORCHECK)
        return -1;
    if (m->__data.__owner != my_tid())
        return -1;
    if (type == PTHREAD_MUTEX_ERRORCHECK)
        return errorcheck;
    if (m->__data.__count == UINT_MAX)
        return EAGAIN;
    m->__data.__count++;
    return 0;
}

static int is_ours(pthread_mutex_t *m)
{
    before_any();
    return !(m->__data.__kind & ~PLAIN_KINDS);
}

int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    if (!real_init)
        resolve();
    int result = real_init(m, attr);
    if (IS_BROKEN(BREAK_NEEDS_INIT) && is_ours(m))
        extra_of(m)->magic = MAGIC;
    return result;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    if (!is_ours(m)) {
        if (!real_lock)
            resolve();
        return real_lock(m);
    }
    int result = mine_already(m, EDEADLK);
    if (result >= 0)
        return result;
    result = take(m, CLOCK_MONOTONIC, NULL);
    if (result == 0)
        owned(m, 1);
    return result;
}

int pthread_mutex_trylock(pthread_mutex_t *m)
{
    if (!is_ours(m)) {
        if (!real_trylock)
            resolve();
        return real_trylock(m);
    }
    int result = mine_already(m, IS_BROKEN(BREAK_ERRNO) ? EDEADLK : EBUSY), free_word = 0;
    if (result >= 0)
        return result;
    if (!__atomic_compare_exchange_n(word_of(m), &free_word, 1, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED))
        return EBUSY;
    owned(m, 1);
    return 0;
}

int pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock, const struct timespec *until)
{
    if (!is_ours(m)) {
        if (!real_clocklock)
            resolve();
        return real_clocklock(m, clock, until);
    }
    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
        return EINVAL;
    int result = mine_already(m, EDEADLK);
    if (result >= 0)
        return result;
    result = take(m, clock, until);
    if (result == 0)
        owned(m, !IS_BROKEN(BREAK_NUSERS));
    return result;
}

int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *until)
{
    if (is_ours(m))
        return pthread_mutex_clocklock(m, CLOCK_REALTIME, until);
    if (!real_timedlock)
        resolve();
    return real_timedlock(m, until);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    if (!is_ours(m)) {
        if (!real_unlock)
            resolve();
        return real_unlock(m);
    }
    int type = m->__data.__kind & 3, wake = 1;
    if ((type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK) &&
        m->__data.__owner != my_tid())
        return EPERM;
    if (type == PTHREAD_MUTEX_ERRORCHECK && !m->__data.__lock)
        return EPERM;
    if (type == PTHREAD_MUTEX_RECURSIVE && --m->__data.__count)
        return 0;
    m->__data.__owner = 0;
    m->__data.__nusers--;
    if (IS_BROKEN(BREAK_NO_WAKE))
        wake = 0;
    if (IS_BROKEN(BREAK_FOREIGN_WAITERS))
        wake = __atomic_load_n(&extra_of(m)->own_waiters, __ATOMIC_SEQ_CST) > 0;
    if (IS_BROKEN(BREAK_SPINNER_DUTY) || IS_BROKEN(BREAK_TIMED_DUTY))
        wake = __atomic_load_n(&extra_of(m)->spinners, __ATOMIC_SEQ_CST) == 0;
    if (IS_BROKEN(BREAK_NEIGHBOUR))
        ((volatile char *)m)[sizeof *m] = 1;
    int shared = m->__data.__kind & 128 && !IS_BROKEN(BREAK_PRIVATE_FUTEX), saved = errno;
    int was = __atomic_exchange_n(word_of(m), 0, __ATOMIC_RELEASE);
    // From here on the mutex may be gone.
    if (IS_BROKEN(BREAK_TOUCH))
        (void)*(volatile int *)word_of(m);
    if (was > 1 && wake)
        syscall(SYS_futex, word_of(m), shared ? FUTEX_WAKE : FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0,
                0, 0);
    if (IS_BROKEN(BREAK_LINGER))
        usleep(100);
    if ((IS_BROKEN(BREAK_TOUCH_LATE) && was > 1) || IS_BROKEN(BREAK_LINGER))
        (void)*(volatile int *)word_of(m);
    errno = saved;
    return 0;
}

static int c11(int result)
{
    return result == 0 ? thrd_success
           : result == EBUSY ? thrd_busy
           : result == ETIMEDOUT ? thrd_timedout
                                 : thrd_error;
}

int mtx_lock(mtx_t *m)
{
    return c11(pthread_mutex_lock((pthread_mutex_t *)m));
}

int mtx_trylock(mtx_t *m)
{
    return c11(pthread_mutex_trylock((pthread_mutex_t *)m));
}

int mtx_timedlock(mtx_t *m, const struct timespec *until)
{
    return c11(pthread_mutex_timedlock((pthread_mutex_t *)m, until));
}

int mtx_unlock(mtx_t *m)
{
    return c11(pthread_mutex_unlock((pthread_mutex_t *)m));
}
