// Property: a mutex made by a static initialiser of any kind, or by zeroed memory, works without
// an init call: its first use may be any operation, by many threads at once, and destroy and init
// may follow.
// Transcript: equal with and without the preload.
// Catches: a lock that counts on something that only init sets up (BREAK_NEEDS_INIT).
#include "flavours.h"
#include <threads.h>

enum { THREADS = 6, ROUNDS = 8000 };

static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER,
                       recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP,
                       errorcheck = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP,
                       adaptive = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP, zeroed, first_try, first_timed,
                       first_clock, first_error = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static const struct {
    const char *name;
    pthread_mutex_t *mutex;
} all[] = {{"plain", &plain},       {"recursive", &recursive}, {"errorcheck", &errorcheck},
           {"adaptive", &adaptive}, {"zeroed", &zeroed}};
#define ALL ((int)(sizeof all / sizeof all[0]))

static pthread_barrier_t barrier;
static long count;
static int inside;

static void *fight(void *arg)
{
    pthread_mutex_t *m = arg;
    // The very first operation on it is this one, from all sides.
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < ROUNDS; i++) {
        OK(pthread_mutex_lock(m));
        CHECK(inside++ == 0);
        count++;
        if (i % 64 == 0)
            sched_yield();
        CHECK(--inside == 0);
        OK(pthread_mutex_unlock(m));
    }
    return NULL;
}

int main(void)
{
    check_start();
    pid_t self = tid();
    struct timespec past = {1, 0};
    OK(pthread_barrier_init(&barrier, NULL, THREADS));
    for (int i = 0; i < ALL; i++) {
        pthread_mutex_t *m = all[i].mutex;
        pthread_t threads[THREADS];
        count = 0;
        say("%s: %s", all[i].name, fields(m, self));
        for (int t = 0; t < THREADS; t++)
            threads[t] = spawn(fight, m);
        for (int t = 0; t < THREADS; t++)
            join(threads[t]);
        say("  after the fight: count %ld, %s", count, fields(m, self));
        CHECK(count == (long)THREADS * ROUNDS);
        say("  lock %s", err(pthread_mutex_lock(m)));
        say("  trylock %s", err(pthread_mutex_trylock(m)));
        say("  timedlock %s", err(pthread_mutex_timedlock(m, &past)));
        say("  held: %s", fields_after_waits(m, self));
        while (m->__data.__owner == self)
            OK(pthread_mutex_unlock(m));
        say("  destroy %s", err(pthread_mutex_destroy(m)));
        OK(pthread_mutex_init(m, NULL));
        say("  init again: %s", fields(m, self));
    }
    say("first use trylock: %s", err(pthread_mutex_trylock(&first_try)));
    say("first use timedlock: %s", err(pthread_mutex_timedlock(&first_timed, &past)));
    say("first use clocklock: %s",
        err(pthread_mutex_clocklock(&first_clock, CLOCK_MONOTONIC, &past)));
    say("first use unlock: %s", err(pthread_mutex_unlock(&first_error)));
    say("%s / %s", fields(&first_try, self), fields(&first_clock, self));
    return 0;
}
