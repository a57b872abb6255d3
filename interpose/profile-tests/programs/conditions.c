// Time on a condition variable is idle: no hold and no wait of its mutex. It has a place of its own.
#include "truth.h"

static pthread_mutex_t guarded = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int ready;
static struct waiter sleeper;
static struct bounds held, idle, again;
static int waits, acquisitions, holds;
static ns let_go, signalled, woken;

enum way { PLAIN, TIMED, CLOCK };

static int wait_once(enum way way, ns patience)
{
    struct timespec until = from_now(way == TIMED ? CLOCK_REALTIME : CLOCK_MONOTONIC, patience);
    switch (way) {
    case PLAIN: return pthread_cond_wait(&changed, &guarded);
    case TIMED: return pthread_cond_timedwait(&changed, &guarded, &until);
    default: return pthread_cond_clockwait(&changed, &guarded, CLOCK_MONOTONIC, &until);
    }
}

// Waits until `ready`, and says what it held and what it idled.
OUT_OF_LINE static void idles(enum way way)
{
    ns before = now();
    OK(pthread_mutex_lock(&guarded));
    acquisitions++, holds++;
    announce(&sleeper);
    ns in = sleeper.before;
    ns since = before;
    while (!ready) {
        ns from = now();
        add(&held, from - in, from - since);
        OK(wait_once(way, 60000 * MS));
        in = now();
        // The hold may have begun anywhere in the wait, by this thread's clock; its lower bound is what follows. The upper bound takes the signaller's word:
        // it noted the time before it let go of the mutex.
        since = LOAD(let_go);
        acquisitions++, holds++, waits++;
        idle.most += in - from;
        woken = in;
    }
    ns out = now();
    OK(pthread_mutex_unlock(&guarded));
    add(&held, out - in, now() - since);
    STORE(sleeper.done, 1);
    NO_TAIL_CALL();
}

static void *idles_body(void *way)
{
    first_use();
    idles((enum way)(intptr_t)way);
    return NULL;
}

// argv: plain, timed or clock; how long the condition variable idles, in milliseconds; for how long the signaller goes on holding the mutex after it
// has signalled.
static void idle_time(int argc, char **argv)
{
    CHECK(argc == 3);
    enum way way = argv[0][0] == 'p' ? PLAIN : argv[0][0] == 't' ? TIMED : CLOCK;
    pthread_t thread = spawn(idles_body, (void *)(intptr_t)way);
    ns seen = until_waiting(&sleeper);
    spend(atoi(argv[1]) * MS);
    ns before = now();
    OK(pthread_mutex_lock(&guarded));
    ns in = now();
    acquisitions++, holds++;
    ready = 1;
    signalled = now();
    long sleeps = sleeps_of(&sleeper);
    OK(pthread_cond_signal(&changed));
    idle.least = now() - seen;
    if (atoi(argv[2]))
        again.least = -until_waiting_again(&sleeper, sleeps);
    spend(atoi(argv[2]) * MS);
    ns out = now();
    again.least += again.least ? out : 0;
    STORE(let_go, out);
    OK(pthread_mutex_unlock(&guarded));
    add(&held, out - in, now() - before);
    join(thread);
    again.most = woken - signalled;
    truth_of_first_lock();
    // A libc that re-acquires inside cannot be looked into: its part of the wait is unknown then.
    truth("lock %p guarded kind=mutex symbol=guarded acquisitions=%d failed=0 timeouts=0 waits=0 conds=%d cond=" BOUNDS
          " holds=%d hold=" BOUNDS " cond_at=idles apart.again=" BOUNDS " apart.idle=%lld..%lld%s",
          (void *)&guarded, acquisitions, waits, BOTH(idle), holds, BOTH(held), BOTH(again), signalled - seen,
          idle.most - again.least, again.least ? " apart.again_pair=idles<idle_time:1" : "");
}

// Waits that time out: the mutex is acquired again, which is no time-out of the mutex.
static void times_out(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 10; i++) {
        ns before = now();
        OK(pthread_mutex_lock(&guarded));
        ns from = now();
        RETURNS(wait_once(i % 2 ? TIMED : CLOCK, 20 * MS), ETIMEDOUT);
        ns in = now();
        spend(5 * MS);
        ns out = now();
        OK(pthread_mutex_unlock(&guarded));
        ns after = now();
        add(&held, out - in, (from - before) + (after - in) + 1 * MS);
        add(&idle, (in - from) * 9 / 10, in - from);
    }
    truth("lock %p guarded kind=mutex acquisitions=20 failed=0 timeouts=0 waits=0 conds=10 cond=" BOUNDS
          " holds=20 hold=" BOUNDS,
          (void *)&guarded, BOTH(idle), BOTH(held));
}

// A queue of producers and consumers, with mutexes of several kinds, counted.
enum { ITEMS = 20000, WORKERS = 2 };
static int queued, produced, consumed;
static long queue_acquisitions, queue_waits;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;

static void *produces(void *unused)
{
    (void)unused;
    for (;;) {
        OK(pthread_mutex_lock(&guarded));
        queue_acquisitions++;
        while (queued == 8 && produced < ITEMS) {
            OK(pthread_cond_wait(&not_full, &guarded));
            queue_acquisitions++, queue_waits++;
        }
        int over = produced >= ITEMS;
        if (!over)
            produced++, queued++;
        OK(over ? pthread_cond_broadcast(&not_full) : pthread_cond_signal(&not_empty));
        OK(pthread_mutex_unlock(&guarded));
        if (over)
            return NULL;
    }
}

static void *consumes(void *unused)
{
    (void)unused;
    for (;;) {
        OK(pthread_mutex_lock(&guarded));
        queue_acquisitions++;
        while (queued == 0 && consumed < ITEMS) {
            OK(pthread_cond_wait(&not_empty, &guarded));
            queue_acquisitions++, queue_waits++;
        }
        int over = queued == 0;
        if (!over) {
            queued--;
            if (++consumed == ITEMS)
                OK(pthread_cond_broadcast(&not_empty));
        }
        OK(pthread_cond_signal(&not_full));
        OK(pthread_mutex_unlock(&guarded));
        if (over)
            return NULL;
    }
}

static void queue(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[2 * WORKERS];
    for (int i = 0; i < 2 * WORKERS; i++)
        threads[i] = spawn(i % 2 ? consumes : produces, NULL);
    for (int i = 0; i < 2 * WORKERS; i++)
        join(threads[i]);
    CHECK(produced == ITEMS && consumed == ITEMS);
    truth("lock %p guarded kind=mutex acquisitions=%ld failed=0 timeouts=0 conds=%ld full.holds=%ld", (void *)&guarded, queue_acquisitions,
          queue_waits, queue_acquisitions);
}

// A waiter that is cancelled has the mutex in its clean-up, and gives it up there.
static void gives_back(void *unused)
{
    (void)unused;
    OK(pthread_mutex_unlock(&guarded));
}

static void *is_cancelled(void *unused)
{
    (void)unused;
    OK(pthread_mutex_lock(&guarded));
    pthread_cleanup_push(gives_back, NULL);
    announce(&sleeper);
    for (;;)
        OK(pthread_cond_wait(&changed, &guarded));
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancelled(int argc, char **argv)
{
    (void)argc, (void)argv;
    first_use();
    for (int i = 0; i < 20; i++) {
        memset(&sleeper, 0, sizeof sleeper);
        pthread_t thread = spawn(is_cancelled, NULL);
        until_waiting(&sleeper);
        OK(pthread_cancel(thread));
        CHECK(join(thread) == PTHREAD_CANCELED);
        HOLD(held, pthread_mutex_lock(&guarded), spend(5 * MS), pthread_mutex_unlock(&guarded));
    }
    truth_of_first_lock();
    // The re-acquisition of a cancelled wait is made by libc, for the clean-up: whether it counts is the profiler's affair.
    truth("lock %p guarded kind=mutex acquisitions=40..60 failed=0 timeouts=0 waits=0..20 conds=0..20 hold=%lld..%lld",
          (void *)&guarded, held.least, held.most + 20 * 5 * MS);
    truth("process dropped=holds");
}

// A recursive mutex at depth 1 may be waited with.
static void recursive(int argc, char **argv)
{
    (void)argc, (void)argv;
    static pthread_mutex_t deep = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    struct timespec past = from_now(CLOCK_REALTIME, -MS);
    for (int i = 0; i < 10; i++) {
        OK(pthread_mutex_lock(&deep));
        OK(pthread_mutex_lock(&deep));
        OK(pthread_mutex_unlock(&deep));
        RETURNS(pthread_cond_timedwait(&changed, &deep, &past), ETIMEDOUT);
        OK(pthread_mutex_lock(&deep));
        OK(pthread_mutex_unlock(&deep));
        OK(pthread_mutex_unlock(&deep));
    }
    truth("lock %p deep kind=recursive acquisitions=20 recursions=20 conds=10 waits=0 failed=0 timeouts=0", (void *)&deep);
}

static const struct named_mode modes[] = {
    {"idle", idle_time},      {"times-out", times_out}, {"queue", queue},
    {"cancelled", cancelled}, {"recursive", recursive}, {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
