// Property: a mutex is its bytes. A program may copy a free one (a struct assignment, realloc), clear one, make one anew where one
// was, and hold two copies at once, and every copy is a mutex of its own. POSIX leaves it undefined, and on glibc it works.
// Catches: state beside the mutex that is found by a number in the mutex alone (two copies would share it: the second lock hangs), or by its address
// alone (a mutex in used memory would find another's).
#include "check.h"

enum { MUTEXES = 300, ROUNDS = 2000 };

static pthread_mutex_t *mutexes;
static long counts[MUTEXES];

static void *body(void *arg)
{
    uint64_t random = (intptr_t)arg + 5;
    for (int i = 0; i < ROUNDS; i++) {
        int a = (next_random(&random) >> 32) % MUTEXES, b = (next_random(&random) >> 32) % MUTEXES;
        int first = a < b ? a : b, second = a < b ? b : a;
        OK(pthread_mutex_lock(&mutexes[first]));
        if (second != first)
            OK(pthread_mutex_lock(&mutexes[second]));
        counts[a]++;
        counts[b]++;
        OK(pthread_mutex_unlock(&mutexes[first]));
        if (second != first)
            OK(pthread_mutex_unlock(&mutexes[second]));
    }
    return NULL;
}

static void contend(void)
{
    pthread_t threads[4];
    long sum = 0;
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < 4; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    for (int i = 0; i < 4; i++)
        OK(pthread_join(threads[i], NULL));
    for (int i = 0; i < MUTEXES; i++)
        sum += counts[i];
    CHECK(sum == 2l * 4 * ROUNDS);
}

int main(void)
{
    check_start();
    // One that has been used, then copied to all the others.
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    OK(pthread_mutex_lock(&one));
    OK(pthread_mutex_unlock(&one));
    mutexes = malloc(MUTEXES * sizeof *mutexes);
    CHECK(mutexes);
    for (int i = 0; i < MUTEXES; i++)
        mutexes[i] = one;
    contend();
    // The whole array moves.
    pthread_mutex_t *moved = malloc(2 * MUTEXES * sizeof *moved);
    CHECK(moved);
    memcpy(moved, mutexes, MUTEXES * sizeof *moved);
    memset(mutexes, 0, MUTEXES * sizeof *mutexes);
    contend(); // What was left, cleared: static initialisers.
    pthread_mutex_t *old = mutexes;
    mutexes = moved;
    contend();
    // Made anew without having been destroyed, many times.
    for (int round = 0; round < 50; round++)
        for (int i = 0; i < MUTEXES; i++) {
            OK(pthread_mutex_init(&mutexes[i], NULL));
            OK(pthread_mutex_lock(&mutexes[i]));
            OK(pthread_mutex_unlock(&mutexes[i]));
        }
    contend();
    free(old);
    free(moved);
    say("done");
    return 0;
}
