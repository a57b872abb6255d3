// Property: C11's mtx_* return what glibc's return for every type and leave the same fields, and
// work with cnd_* (which release and re-take the mutex inside libc).
// Transcript: equal with and without the preload.
// Catches: a thrd_* result mixed up, a recursive mtx that is not, a cnd_wait that hangs
// (BREAK_FOREIGN_WAITERS).
#include "flavours.h"

#include <threads.h>

static const char *result_name(int result)
{
    switch (result) {
    case thrd_success: return "success";
    case thrd_busy: return "busy";
    case thrd_error: return "error";
    case thrd_nomem: return "nomem";
    case thrd_timedout: return "timedout";
    }
    return "?";
}

static pid_t self;

static void report(const char *what, int result, mtx_t *m)
{
    say("  %-34s %-9s %s", what, result_name(result),
        fields_after_waits((pthread_mutex_t *)m, self));
}

static const struct timespec past = {1, 0}, bad_high = {1, 1000000000}, bad_low = {1, -1},
                             negative = {-1, 0};
static struct timespec soon;

enum op { LOCK, TRYLOCK, PAST, HIGH, LOW, NEGATIVE, SOON, UNLOCK };
static const char *const op_names[] = {"lock",     "trylock", "timedlock past", "timedlock 1e9 ns",
                                       "timedlock -1 ns", "timedlock -1 s", "timedlock soon",
                                       "unlock"};

static int apply(enum op op, mtx_t *m)
{
    switch (op) {
    case LOCK: return mtx_lock(m);
    case TRYLOCK: return mtx_trylock(m);
    case PAST: return mtx_timedlock(m, &past);
    case HIGH: return mtx_timedlock(m, &bad_high);
    case LOW: return mtx_timedlock(m, &bad_low);
    case NEGATIVE: return mtx_timedlock(m, &negative);
    case SOON:
        soon = from_now(CLOCK_REALTIME, 2000000);
        return mtx_timedlock(m, &soon);
    case UNLOCK: return mtx_unlock(m);
    }
    return -1;
}

struct request {
    enum op op;
    mtx_t *m;
    int result;
};

static int run_request(void *arg)
{
    struct request *r = arg;
    r->result = apply(r->op, r->m);
    return 42;
}

static int other_does(enum op op, mtx_t *m)
{
    struct request r = {.op = op, .m = m};
    thrd_t t;
    int code;
    CHECK(thrd_create(&t, run_request, &r) == thrd_success);
    CHECK(thrd_join(t, &code) == thrd_success && code == 42);
    return r.result;
}

static void script(int type)
{
    mtx_t m;
    char what[64];
    memset(&m, 0xaa, sizeof m);
    int result = mtx_init(&m, type);
    say("type %d: init %s", type, result_name(result));
    if (result != thrd_success)
        return;
    for (enum op op = LOCK; op < UNLOCK; op++) {
        result = apply(op, &m);
        report(op_names[op], result, &m);
        if (result == thrd_success)
            report("  unlock", mtx_unlock(&m), &m);
    }
    report("other locks", other_does(LOCK, &m), &m);
    for (enum op op = TRYLOCK; op < UNLOCK; op++) {
        result = apply(op, &m);
        snprintf(what, sizeof what, "held by other: %s", op_names[op]);
        report(what, result, &m);
    }
    if (type & mtx_recursive)
        report("unlock by non-owner", mtx_unlock(&m), &m);
    // The thread that locked it is gone: a plain mutex may still be unlocked, as glibc allows.
    if (!(type & mtx_recursive)) {
        report("unlock", mtx_unlock(&m), &m);
        report("lock", mtx_lock(&m), &m);
        for (enum op op = TRYLOCK; op < UNLOCK; op++) {
            snprintf(what, sizeof what, "held by self: %s", op_names[op]);
            report(what, apply(op, &m), &m);
        }
        report("unlock", mtx_unlock(&m), &m);
    }
    mtx_destroy(&m);
    say("  destroyed: kind %d", ((pthread_mutex_t *)&m)->__data.__kind);
    if (type & mtx_recursive) {
        CHECK(mtx_init(&m, type) == thrd_success);
        for (enum op op = LOCK; op < UNLOCK; op++)
            report(op_names[op], apply(op, &m), &m);
        report("other trylock", other_does(TRYLOCK, &m), &m);
        while (((pthread_mutex_t *)&m)->__data.__owner == self)
            report("unlock", mtx_unlock(&m), &m);
        report("unlock once too often", mtx_unlock(&m), &m);
        report("other trylock", other_does(TRYLOCK, &m), &m);
        mtx_destroy(&m);
    }
}

// Hand-overs through cnd_t, and a contended count.
enum { THREADS = 6, ROUNDS = 2000 };
static mtx_t shared;
static cnd_t changed;
static long value, expected_turn;

static int take_turns(void *arg)
{
    long me = (long)(intptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(mtx_lock(&shared) == thrd_success);
        while (expected_turn % THREADS != me) {
            struct timespec until = from_now(CLOCK_REALTIME, 60000000000ll);
            int result = i % 2 ? cnd_wait(&changed, &shared)
                               : cnd_timedwait(&changed, &shared, &until);
            CHECK(result == thrd_success);
        }
        expected_turn++;
        value++;
        CHECK(cnd_broadcast(&changed) == thrd_success);
        CHECK(mtx_unlock(&shared) == thrd_success);
    }
    return 0;
}

static int count_up(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10000; i++) {
        if (i % 3 == 0) {
            struct timespec until = from_now(CLOCK_REALTIME, 60000000000ll);
            CHECK(mtx_timedlock(&shared, &until) == thrd_success);
        } else if (i % 3 == 1) {
            while (mtx_trylock(&shared) == thrd_busy)
                thrd_yield();
        } else {
            CHECK(mtx_lock(&shared) == thrd_success);
        }
        value++;
        CHECK(mtx_unlock(&shared) == thrd_success);
    }
    return 0;
}

static void crowd(int type, thrd_start_t body, const char *what)
{
    thrd_t threads[THREADS];
    CHECK(mtx_init(&shared, type) == thrd_success && cnd_init(&changed) == thrd_success);
    value = expected_turn = 0;
    for (int i = 0; i < THREADS; i++)
        CHECK(thrd_create(&threads[i], body, (void *)(intptr_t)i) == thrd_success);
    for (int i = 0; i < THREADS; i++)
        CHECK(thrd_join(threads[i], NULL) == thrd_success);
    report(what, thrd_success, &shared);
    say("  value %ld", value);
    cnd_destroy(&changed);
    mtx_destroy(&shared);
}

int main(void)
{
    check_start();
    self = tid();
    script(mtx_plain);
    script(mtx_timed);
    script(mtx_recursive);
    script(mtx_plain | mtx_recursive);
    script(mtx_timed | mtx_recursive);
    static const int types[] = {mtx_plain, mtx_timed, mtx_recursive, mtx_timed | mtx_recursive};
    for (int i = 0; i < 4; i++) {
        say("crowd on type %d", types[i]);
        crowd(types[i], take_turns, "turns");
        crowd(types[i], count_up, "counted");
    }
    return 0;
}
