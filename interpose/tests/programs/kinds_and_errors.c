// Property: every operation on every kind of mutex returns what glibc returns and leaves the
// fields that glibc leaves: free, held by another thread, held by the caller, recursion at its
// limit; expired, invalid, negative and short timeouts; valid and invalid clocks; every
// combination of attributes, the delegated kinds included.
// Transcript: equal with and without the preload.
// Catches: a wrong error number anywhere; a timespec or a clock checked at the wrong moment;
// a kind sent down the wrong path (broken_preload: BREAK_ERRNO).
#include "flavours.h"
#include "other.h"

// None of these may change errno, whatever it returns.
static int errno_changes;
#define NAMED(n, call)                                \
    static int n(pthread_mutex_t *m)                  \
    {                                                 \
        errno = 4242;                                 \
        int result_ = call;                           \
        ADD(errno_changes, errno != 4242);            \
        return result_;                               \
    }
#define TIMED(n, s, ns) \
    NAMED(n, pthread_mutex_timedlock(m, &(struct timespec){.tv_sec = s, .tv_nsec = ns}))
#define CLOCKED(n, clock, s, ns) \
    NAMED(n, pthread_mutex_clocklock(m, clock, &(struct timespec){.tv_sec = s, .tv_nsec = ns}))

NAMED(lock, pthread_mutex_lock(m))
NAMED(trylock, pthread_mutex_trylock(m))
NAMED(unlock, pthread_mutex_unlock(m))
NAMED(destroy, pthread_mutex_destroy(m))
NAMED(consistent, pthread_mutex_consistent(m))
TIMED(timed_past, 1, 0)
TIMED(timed_epoch, 0, 0)
TIMED(timed_negative_sec, -1, 0)
TIMED(timed_negative_ns, 1, -1)
TIMED(timed_future_negative_ns, 1ll << 40, -1)
TIMED(timed_big_ns, 1, 1000000000)
TIMED(timed_future_big_ns, 1ll << 40, 1000000000)
TIMED(timed_last_ns, 1, 999999999)
CLOCKED(real_past, CLOCK_REALTIME, 1, 0)
CLOCKED(real_big_ns, CLOCK_REALTIME, 1, 1000000000)
CLOCKED(mono_past, CLOCK_MONOTONIC, 0, 1)
CLOCKED(mono_negative_sec, CLOCK_MONOTONIC, -5, 0)
CLOCKED(mono_negative_ns, CLOCK_MONOTONIC, 1, -1)
CLOCKED(mono_big_ns, CLOCK_MONOTONIC, 1, 1000000000)
CLOCKED(cpu_clock, CLOCK_PROCESS_CPUTIME_ID, 1, 0)
CLOCKED(boot_clock, CLOCK_BOOTTIME, 1, 0)
CLOCKED(raw_clock, CLOCK_MONOTONIC_RAW, 1, 0)
CLOCKED(clock_minus_one, -1, 1, 0)
CLOCKED(clock_99, 99, 1, 0)
CLOCKED(clock_99_big_ns, 99, 1, 1000000000)

// A real wait: the result, and whether it came back before its time.
static int short_wait(pthread_mutex_t *m, clockid_t clock, int by_clocklock)
{
    struct timespec until = from_now(clock, 2000000);
    int result = by_clocklock ? pthread_mutex_clocklock(m, clock, &until)
                              : pthread_mutex_timedlock(m, &until);
    CHECK(result != ETIMEDOUT || is_past(clock, until));
    return result;
}
NAMED(timed_soon, short_wait(m, CLOCK_REALTIME, 0))
NAMED(real_soon, short_wait(m, CLOCK_REALTIME, 1))
NAMED(mono_soon, short_wait(m, CLOCK_MONOTONIC, 1))

#define ENTRY(n) {#n, n}
static const struct {
    const char *name;
    mutex_op op;
} takers[] = {
    ENTRY(trylock),           ENTRY(timed_past),      ENTRY(timed_epoch),
    ENTRY(timed_negative_sec), ENTRY(timed_negative_ns), ENTRY(timed_future_negative_ns),
    ENTRY(timed_big_ns),      ENTRY(timed_future_big_ns), ENTRY(timed_last_ns),
    ENTRY(real_past),         ENTRY(real_big_ns),     ENTRY(mono_past),
    ENTRY(mono_negative_sec), ENTRY(mono_negative_ns), ENTRY(mono_big_ns),
    ENTRY(cpu_clock),         ENTRY(boot_clock),      ENTRY(raw_clock),
    ENTRY(clock_minus_one),   ENTRY(clock_99),        ENTRY(clock_99_big_ns),
    ENTRY(timed_soon),        ENTRY(real_soon),       ENTRY(mono_soon),
};
#define TAKERS (sizeof takers / sizeof takers[0])

static pid_t self;

static void report(const char *what, int result, pthread_mutex_t *m)
{
    say("  %-34s %-10s %s", what, err(result), fields_after_waits(m, self));
    if (LOAD(errno_changes))
        say("    errno changed");
    STORE(errno_changes, 0);
}

// `who` tries every way to take the mutex, and gives back each lock that it gets.
static void try_all(const char *who, int by_other, pthread_mutex_t *m)
{
    for (size_t i = 0; i < TAKERS; i++) {
        char what[96];
        int result = by_other ? other_does(takers[i].op, m) : takers[i].op(m);
        snprintf(what, sizeof what, "%s %s", who, takers[i].name);
        report(what, result, m);
        if (result == 0)
            report("  unlock", by_other ? other_does(unlock, m) : unlock(m), m);
    }
}

static void at_the_recursion_limit(pthread_mutex_t *m)
{
    report("limit: lock", lock(m), m);
    m->__data.__count = UINT_MAX - 1;
    report("limit: last lock", lock(m), m);
    report("limit: lock", lock(m), m);
    report("limit: trylock", trylock(m), m);
    report("limit: timedlock", timed_past(m), m);
    report("limit: clocklock", mono_past(m), m);
    report("limit: unlock", unlock(m), m);
    m->__data.__count = 1;
    report("limit: unlock", unlock(m), m);
}

static void ceilings(pthread_mutex_t *m)
{
    int old = -77;
    report("getprioceiling", pthread_mutex_getprioceiling(m, &old), m);
    say("    ceiling %d", old);
    old = -77;
    report("setprioceiling 5", pthread_mutex_setprioceiling(m, 5, &old), m);
    say("    old ceiling %d", old);
    report("setprioceiling 1000", pthread_mutex_setprioceiling(m, 1000, &old), m);
    report("setprioceiling -1", pthread_mutex_setprioceiling(m, -1, &old), m);
}

static void script(struct flavour f)
{
    pthread_mutex_t m;
    int result = flavour_init(&m, f);
    say("%s: init %s", flavour_name(f), err(result));
    if (result)
        return;
    report("after init", 0, &m);
    unsigned left_over = 0;
    for (size_t i = offsetof(struct __pthread_mutex_s, __spins); i < sizeof m; i++)
        left_over += (unsigned char)((char *)&m)[i];
    say("  bytes after the kind add up to %u", left_over);

    ceilings(&m);
    report("consistent", consistent(&m), &m);
    if (checks_owner(f)) {
        report("unlock a free one", unlock(&m), &m);
        report("other unlocks a free one", other_does(unlock, &m), &m);
    }
    report("lock", lock(&m), &m);
    report("unlock", unlock(&m), &m);
    try_all("free:", 0, &m);

    result = other_does(lock, &m);
    report("other locks", result, &m);
    if (result == 0) {
        try_all("held by other:", 0, &m);
        if (checks_owner(f))
            report("unlock by non-owner", unlock(&m), &m);
        report("destroy", destroy(&m), &m);
        report("consistent", consistent(&m), &m);
        report("other unlocks", other_does(unlock, &m), &m);
    }

    result = lock(&m);
    report("lock", result, &m);
    if (result == 0) {
        try_all("held by self:", 0, &m);
        try_all("held by self, other:", 1, &m);
        if (checks_owner(f))
            report("other unlocks", other_does(unlock, &m), &m);
        if (relock_returns(f)) {
            result = lock(&m);
            report("lock again", result, &m);
            if (result == 0) {
                report("unlock one level", unlock(&m), &m);
                report("other trylock", other_does(trylock, &m), &m);
            }
        }
        report("destroy", destroy(&m), &m);
        report("unlock", unlock(&m), &m);
        if (checks_owner(f))
            report("unlock once too often", unlock(&m), &m);
    }
    if (f.type == PTHREAD_MUTEX_RECURSIVE)
        at_the_recursion_limit(&m);
    report("destroy", destroy(&m), &m);
}

int main(void)
{
    check_start();
    self = tid();
    other_start();
    static const int protocols[] = {PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT,
                                    PTHREAD_PRIO_PROTECT};
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        for (int pshared = 0; pshared < 2; pshared++)
            for (int robust = 0; robust < 2; robust++)
                for (int p = 0; p < 3; p++)
                    script((struct flavour){flavour_types[t], pshared, robust, protocols[p]});
    other_stop();
    // With one thread left in the process glibc takes its single-threaded shortcuts.
    say("single-threaded again");
    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        pthread_mutex_t m;
        OK(flavour_init(&m, (struct flavour){.type = flavour_types[t]}));
        say("%s", type_name(flavour_types[t]));
        try_all("free:", 0, &m);
        report("lock", lock(&m), &m);
        try_all("held by self:", 0, &m);
        report("unlock", unlock(&m), &m);
        report("destroy", destroy(&m), &m);
    }
    // Init without attributes.
    pthread_mutex_t plain;
    memset(&plain, 0xaa, sizeof plain);
    report("init with NULL attributes", pthread_mutex_init(&plain, NULL), &plain);
    report("destroy", destroy(&plain), &plain);
    return 0;
}
