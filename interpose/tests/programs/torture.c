// Property: mutual exclusion and progress under everything at once. Threads pick mutexes of every
// plain kind at random and lock, trylock, timedlock and clocklock them, nest two, recurse, wait on
// condition variables with short timeouts, signal, broadcast, yield and burn time inside. Each
// mutex guards counters that no atomic protects, on two cache lines.
// Arguments: threads, mutexes, rounds, and "mixed" or "pure" (only lock and unlock, so that nothing
// but the unlock's own wake-up gets a sleeper going again).
// No call changes errno.
// Catches: a lock that lets two in (BREAK_EXCLUSION), an unlock that wakes nobody (hang:
// BREAK_NO_WAKE), a count of users or a word left behind, an errno that changes
// (BREAK_SPOILS_ERRNO).
#include "flavours.h"

enum { MAX_THREADS = 64, MAX_MUTEXES = 64 };

static struct place {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct flavour flavour;
    int inside;
    long first;
    char pad[128];
    long second;
    char pad2[128];
} places[MAX_MUTEXES];

static int threads, mutexes, rounds, mixed;
static long tallies[MAX_THREADS][MAX_MUTEXES];

static struct timespec soon(uint64_t random, clockid_t clock)
{
    return from_now(clock, (long long)(random % 200000) - 20000);
}

// True when the mutex was taken.
static int take(struct place *p, uint64_t random)
{
    struct timespec until;
    int result;
    errno = 4242;
    switch (mixed ? random % 8 : 7) {
    case 0:
        result = pthread_mutex_trylock(&p->mutex);
        break;
    case 1:
        until = soon(random >> 8, CLOCK_REALTIME);
        result = pthread_mutex_timedlock(&p->mutex, &until);
        break;
    case 2:
        until = soon(random >> 8, CLOCK_MONOTONIC);
        result = pthread_mutex_clocklock(&p->mutex, CLOCK_MONOTONIC, &until);
        break;
    default:
        result = pthread_mutex_lock(&p->mutex);
    }
    CHECK(errno == 4242);
    if (result == 0) {
        CHECK(p->inside++ == 0);
        return 1;
    }
    CHECK(result == EBUSY || result == ETIMEDOUT);
    return 0;
}

static void give_back(struct place *p)
{
    CHECK(--p->inside == 0);
    OK(pthread_mutex_unlock(&p->mutex));
    CHECK(errno == 4242);
}

static void work(struct place *p, uint64_t random, long *tally)
{
    CHECK(p->first == p->second);
    p->first++;
    if (random % 32 == 0)
        sched_yield();
    else
        burn(random % 64 * (random % 16 == 1 ? 32 : 1));
    p->second++;
    ++*tally;
    CHECK(p->inside == 1);
    if (!mixed)
        return;
    // What each kind says to its owner.
    if (p->flavour.type == PTHREAD_MUTEX_RECURSIVE) {
        OK(pthread_mutex_lock(&p->mutex));
        OK(pthread_mutex_unlock(&p->mutex));
    } else if (p->flavour.type == PTHREAD_MUTEX_ERRORCHECK) {
        RETURNS(pthread_mutex_lock(&p->mutex), EDEADLK);
    }
    if (random >> 16 & 1)
        OK(random >> 17 & 7 ? pthread_cond_signal(&p->cond) : pthread_cond_broadcast(&p->cond));
    if ((random >> 24) % 16 == 0) {
        struct timespec until = soon(random >> 28, CLOCK_MONOTONIC);
        p->inside--;
        int result = pthread_cond_clockwait(&p->cond, &p->mutex, CLOCK_MONOTONIC, &until);
        CHECK(result == 0 || result == ETIMEDOUT);
        CHECK(p->inside++ == 0);
    }
}

static void *body(void *arg)
{
    long *tally = arg;
    uint64_t seed = 1000003 * (1 + (tally - tallies[0]) / MAX_MUTEXES);
    for (int i = 0; i < rounds; i++) {
        uint64_t random = next_random(&seed);
        int a = (random >> 40) % mutexes, b = (random >> 48) % mutexes;
        if (!take(&places[a], random))
            continue;
        work(&places[a], random >> 4, &tally[a]);
        // A second one inside the first: always upwards, so that there is an order.
        if (mixed && b > a && random >> 60 == 0 && take(&places[b], random >> 12)) {
            work(&places[b], random >> 7, &tally[b]);
            give_back(&places[b]);
        }
        give_back(&places[a]);
        burn(random >> 52 & 63);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc == 5);
    threads = atoi(argv[1]);
    mutexes = atoi(argv[2]);
    rounds = atoi(argv[3]);
    mixed = !strcmp(argv[4], "mixed");
    CHECK(threads >= 1 && threads <= MAX_THREADS && mutexes >= 1 && mutexes <= MAX_MUTEXES);
    for (int m = 0; m < mutexes; m++) {
        struct place *p = &places[m];
        p->flavour.type = flavour_types[m % FLAVOUR_TYPES];
        p->flavour.pshared = m / FLAVOUR_TYPES % 3 == 2;
        OK(flavour_init(&p->mutex, p->flavour));
        OK(pthread_cond_init(&p->cond, NULL));
    }
    pthread_t ids[MAX_THREADS];
    for (int t = 0; t < threads; t++)
        ids[t] = spawn(body, tallies[t]);
    for (int t = 0; t < threads; t++)
        join(ids[t]);
    for (int m = 0; m < mutexes; m++) {
        struct place *p = &places[m];
        long sum = 0;
        for (int t = 0; t < threads; t++)
            sum += tallies[t][m];
        if (p->first != sum || p->second != sum)
            FAIL("mutex %d (%s): %ld and %ld counted, %ld done", m, flavour_name(p->flavour),
                 p->first, p->second, sum);
        CHECK(word(&p->mutex) == 0 && p->mutex.__data.__nusers == 0);
        CHECK(p->mutex.__data.__owner == 0);
        OK(pthread_cond_destroy(&p->cond));
        OK(pthread_mutex_destroy(&p->mutex));
    }
    return 0;
}
