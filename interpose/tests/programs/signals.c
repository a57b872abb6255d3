// Property: a signal that interrupts a thread waiting for a lock changes nothing: the wait goes on,
// no call returns EINTR, a timed wait ends at its time and not before, and a handler may itself
// lock and unlock another mutex, contended, while the thread it interrupted waits for the first.
// Catches: a wait ended by EINTR (BREAK_EINTR), a timed wait ended early (BREAK_EARLY_TIMEOUT),
// per-thread wait state that a handler's own wait spoils (BREAK_HANDLER).
#include "flavours.h"
#include <signal.h>

enum { WAITERS = 4, SIGNALS = 200 };

static pthread_mutex_t held, in_handler = PTHREAD_MUTEX_INITIALIZER;
static int started, acquired, stop;
static int handled[WAITERS + 1];
static __thread int slot;
static long handler_count, storm_count;
static int handler_locks;

static void handler(int signal)
{
    (void)signal;
    int saved = errno;
    if (handler_locks) {
        OK(pthread_mutex_lock(&in_handler));
        handler_count++;
        OK(pthread_mutex_unlock(&in_handler));
    }
    ADD(handled[slot], 1);
    errno = saved;
}

static void *wait_for_held(void *arg)
{
    slot = (int)(intptr_t)arg;
    ADD(started, 1);
    switch (slot % 3) {
    case 0: {
        struct timespec until = from_now(CLOCK_REALTIME, 600000000000ll);
        OK(pthread_mutex_timedlock(&held, &until));
        break;
    }
    case 1: {
        struct timespec until = from_now(CLOCK_MONOTONIC, 600000000000ll);
        OK(pthread_mutex_clocklock(&held, CLOCK_MONOTONIC, &until));
        break;
    }
    default:
        OK(pthread_mutex_lock(&held));
    }
    CHECK(LOAD(stop));
    ADD(acquired, 1);
    OK(pthread_mutex_unlock(&held));
    return NULL;
}

// Keeps the handlers' mutex contended.
static void *disturb(void *unused)
{
    while (!LOAD(stop)) {
        OK(pthread_mutex_lock(&in_handler));
        burn(2000);
        OK(pthread_mutex_unlock(&in_handler));
        sched_yield();
        burn(1000);
    }
    return unused;
}

static void waits_go_on(struct flavour f, int locks)
{
    pthread_t threads[WAITERS], disturber = 0;
    OK(flavour_init(&held, f));
    started = acquired = stop = 0;
    handler_locks = locks;
    memset(handled, 0, sizeof handled);
    OK(pthread_mutex_lock(&held));
    for (int i = 0; i < WAITERS; i++)
        threads[i] = spawn(wait_for_held, (void *)(intptr_t)i);
    if (locks)
        disturber = spawn(disturb, NULL);
    WAIT_UNTIL(LOAD(started) == WAITERS);
    // Each signal is seen to be handled before the next: none is merged with another.
    for (int n = 0; n < SIGNALS; n++)
        for (int i = 0; i < WAITERS; i++) {
            int before = LOAD(handled[i]);
            OK(pthread_kill(threads[i], SIGUSR1));
            WAIT_UNTIL(LOAD(handled[i]) > before);
        }
    CHECK(LOAD(acquired) == 0);
    STORE(stop, 1);
    OK(pthread_mutex_unlock(&held));
    for (int i = 0; i < WAITERS; i++)
        join(threads[i]);
    if (locks)
        join(disturber);
    CHECK(acquired == WAITERS);
    OK(pthread_mutex_destroy(&held));
}

// A timed wait under a steady fire of signals.
static int timed_out;
static void *time_out(void *arg)
{
    slot = 0;
    for (int i = 0; i < 10; i++) {
        clockid_t clock = i % 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
        struct timespec until = from_now(clock, 10000000);
        RETURNS(pthread_mutex_clocklock(&held, clock, &until), ETIMEDOUT);
        CHECK(is_past(clock, until));
    }
    STORE(timed_out, 1);
    return arg;
}

static void timeouts_hold(void)
{
    OK(flavour_init(&held, (struct flavour){.type = NO_SETTYPE}));
    OK(pthread_mutex_lock(&held));
    handler_locks = timed_out = 0;
    pthread_t thread = spawn(time_out, NULL);
    while (!LOAD(timed_out)) {
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    join(thread);
    OK(pthread_mutex_unlock(&held));
}

// Locks change hands while a timer interrupts whoever runs.
static void *fight(void *arg)
{
    slot = WAITERS;
    for (int i = 0; i < 40000; i++) {
        OK(pthread_mutex_lock(&held));
        storm_count++;
        OK(pthread_mutex_unlock(&held));
    }
    return arg;
}

static void storm(struct flavour f)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {{0, 50000}, {0, 50000}};
    pthread_t threads[WAITERS];
    OK(flavour_init(&held, f));
    storm_count = 0;
    handler_locks = 1;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
    for (int i = 0; i < WAITERS; i++)
        threads[i] = spawn(fight, NULL);
    for (int i = 0; i < WAITERS; i++)
        join(threads[i]);
    CHECK(timer_delete(timer) == 0);
    CHECK(storm_count == WAITERS * 40000l);
}

int main(void)
{
    check_start();
    // One handler with SA_RESTART, one without: a lock's wait must not care.
    for (int restart = 0; restart < 2; restart++) {
        struct sigaction action = {.sa_handler = handler, .sa_flags = restart ? SA_RESTART : 0};
        CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
        for (int t = 0; t < FLAVOUR_TYPES; t++) {
            struct flavour f = {.type = flavour_types[t], .pshared = t % 2};
            waits_go_on(f, 0);
            waits_go_on(f, 1);
            storm(f);
        }
        timeouts_hold();
    }
    return 0;
}
