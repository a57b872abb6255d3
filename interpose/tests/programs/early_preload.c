// A second preload. Listed before or after the one under test, its constructor runs after or
// before that one's, and its destructor the other way round: mutexes of every kind must work in
// both, with threads that fight.
#include "check.h"
#include <threads.h>

enum { KINDS = 6, THREADS = 4, ROUNDS = 300 };

static pthread_mutex_t locks[KINDS] = {
    PTHREAD_MUTEX_INITIALIZER,
    PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP,
    PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP,
    PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP,
    {{.__kind = 16}}, // robust
    {{.__kind = 32}}, // priority-inheriting
};
static long counts[KINDS];
int early_constructor_ran, early_destructor_ran;

static void *fight(void *unused)
{
    for (int i = 0; i < ROUNDS; i++)
        for (int k = 0; k < KINDS; k++) {
            struct timespec until = from_now(CLOCK_REALTIME, 60000000000ll);
            switch (i % 3) {
            case 0:
                OK(pthread_mutex_lock(&locks[k]));
                break;
            case 1:
                OK(pthread_mutex_timedlock(&locks[k], &until));
                break;
            case 2:
                while (pthread_mutex_trylock(&locks[k]))
                    sched_yield();
            }
            counts[k]++;
            if (i % 32 == 0)
                sched_yield();
            OK(pthread_mutex_unlock(&locks[k]));
        }
    return unused;
}

static void all_kinds(void)
{
    pthread_t threads[THREADS];
    memset(counts, 0, sizeof counts);
    fight(NULL);
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(fight, NULL);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    for (int k = 0; k < KINDS; k++)
        CHECK(counts[k] == (THREADS + 1) * ROUNDS);
    mtx_t mtx;
    CHECK(mtx_init(&mtx, mtx_plain | mtx_recursive) == thrd_success);
    CHECK(mtx_lock(&mtx) == thrd_success && mtx_lock(&mtx) == thrd_success);
    CHECK(mtx_unlock(&mtx) == thrd_success && mtx_unlock(&mtx) == thrd_success);
    mtx_destroy(&mtx);
    pthread_mutex_t made;
    OK(pthread_mutex_init(&made, NULL));
    OK(pthread_mutex_lock(&made));
    RETURNS(pthread_mutex_trylock(&made), EBUSY);
    OK(pthread_mutex_unlock(&made));
    OK(pthread_mutex_destroy(&made));
}

__attribute__((constructor(101))) static void early(void)
{
    all_kinds();
    early_constructor_ran = 1;
}

__attribute__((destructor(101))) static void late(void)
{
    all_kinds();
    say("early_preload: destructor done");
}
