// Property: numbers do not matter: two thousand threads with the smallest stacks there are, which
// all wait for one mutex at once, each get it, again and again; a hundred thousand mutexes in an array keep to their own bytes and their
// own counts.
// Catches: tables of fixed size, ids of threads squeezed into few bits, a write past a mutex's end
// (BREAK_NEIGHBOUR), sleepers forgotten in a long queue (BREAK_NO_WAKE).
#include "flavours.h"

enum { THREADS = 2000, ROUNDS = 10, MUTEXES = 100000, WALKERS = 4 };

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static long count;
static int inside, waiting;

static void *wait_in_line(void *unused)
{
    ADD(waiting, 1);
    for (int i = 0; i < ROUNDS; i++) {
        OK(pthread_mutex_lock(&one));
        CHECK(inside++ == 0);
        CHECK(one.__data.__owner == tid());
        count++;
        CHECK(--inside == 0);
        OK(pthread_mutex_unlock(&one));
    }
    return unused;
}

static void many_threads(void)
{
    static pthread_t threads[THREADS];
    pthread_attr_t attr;
    OK(pthread_attr_init(&attr));
    OK(pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN));
    OK(pthread_mutex_lock(&one));
    for (int i = 0; i < THREADS; i++)
        OK(pthread_create(&threads[i], &attr, wait_in_line, NULL));
    WAIT_UNTIL(LOAD(waiting) == THREADS);
    CHECK(count == 0);
    OK(pthread_mutex_unlock(&one));
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    CHECK(count == (long)THREADS * ROUNDS);
    CHECK(word(&one) == 0 && one.__data.__nusers == 0);
}

static struct cell {
    pthread_mutex_t mutex;
    uint32_t canary; // right behind the mutex
    uint32_t count;
} *cells;

#define CANARY 0x9e3779b9u

static void *walk(void *arg)
{
    uint64_t seed = 31 + (intptr_t)arg;
    // Everyone goes over all of them, two on the same path and two at random.
    for (int i = 0; i < MUTEXES; i++) {
        struct cell *c = &cells[(intptr_t)arg < 2 ? i : (int)(next_random(&seed) % MUTEXES)];
        OK(pthread_mutex_lock(&c->mutex));
        c->count++;
        OK(pthread_mutex_unlock(&c->mutex));
    }
    return NULL;
}

static void many_mutexes(void)
{
    pthread_t threads[WALKERS];
    long sum = 0;
    cells = calloc(MUTEXES, sizeof *cells);
    CHECK(cells != NULL);
    for (int i = 0; i < MUTEXES; i++) {
        OK(flavour_init(&cells[i].mutex,
                        (struct flavour){.type = flavour_types[i % FLAVOUR_TYPES]}));
        cells[i].canary = CANARY;
    }
    for (int i = 0; i < WALKERS; i++)
        threads[i] = spawn(walk, (void *)(intptr_t)i);
    for (int i = 0; i < WALKERS; i++)
        join(threads[i]);
    for (int i = 0; i < MUTEXES; i++) {
        CHECK(cells[i].canary == CANARY);
        CHECK(word(&cells[i].mutex) == 0 && cells[i].mutex.__data.__nusers == 0);
        sum += cells[i].count;
        OK(pthread_mutex_destroy(&cells[i].mutex));
    }
    CHECK(sum == (long)WALKERS * MUTEXES);
}

int main(void)
{
    check_start();
    many_threads();
    many_mutexes();
    return 0;
}
