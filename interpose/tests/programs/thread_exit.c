// Property: mutexes work while a thread ends: in the destructors of its pthread keys, round after
// round as long as glibc calls them, contended, of every plain kind.
// Catches: thread-local state of the preload that is gone by then (BREAK_TLS_DESTRUCTOR).
#include "flavours.h"

enum { THREADS = 8, GENERATIONS = 60, KEYS = 3 };

static pthread_mutex_t locks[FLAVOUR_TYPES];
static long counts[FLAVOUR_TYPES];
static int inside[FLAVOUR_TYPES];
static pthread_key_t keys[KEYS];
static long destructions;

static void use_all(void)
{
    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        OK(pthread_mutex_lock(&locks[t]));
        CHECK(locks[t].__data.__owner == tid());
        CHECK(inside[t]++ == 0);
        counts[t]++;
        sched_yield();
        CHECK(--inside[t] == 0);
        OK(pthread_mutex_unlock(&locks[t]));
    }
}

static void destroyed(void *value)
{
    intptr_t round = (intptr_t)value;
    use_all();
    ADD(destructions, 1);
    // Set again, the destructor is called again, PTHREAD_DESTRUCTOR_ITERATIONS times at most.
    OK(pthread_setspecific(keys[round % KEYS], (void *)(round + KEYS)));
}

static void *body(void *unused)
{
    for (intptr_t k = 0; k < KEYS; k++)
        OK(pthread_setspecific(keys[k], (void *)(k + KEYS)));
    return unused;
}

int main(void)
{
    check_start();
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        OK(flavour_init(&locks[t], (struct flavour){.type = flavour_types[t]}));
    for (int k = 0; k < KEYS; k++)
        OK(pthread_key_create(&keys[k], destroyed));
    for (int g = 0; g < GENERATIONS; g++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
            threads[i] = spawn(body, NULL);
        for (int i = 0; i < THREADS; i++)
            join(threads[i]);
    }
    long calls = (long)THREADS * GENERATIONS * KEYS * PTHREAD_DESTRUCTOR_ITERATIONS;
    CHECK(destructions == calls);
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        CHECK(counts[t] == calls && word(&locks[t]) == 0);
    return 0;
}
