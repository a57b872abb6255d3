// Property: no waiter is passed over for ever. Threads that take the mutex again right after they
// let go of it do so until a polite one, which is often elsewhere, has had it fifty times; and a
// thread that comes by trylock alone gets in at times.
// Catches: a lock without bounded bypass (the run would not end).
#include "check.h"

enum { GREEDY = 4, TURNS = 50 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int stop;
static long count, greedy_counts[GREEDY];

static void *greedy(void *arg)
{
    long *mine = arg;
    while (!LOAD(stop)) {
        OK(pthread_mutex_lock(&mutex));
        count++;
        burn(100);
        OK(pthread_mutex_unlock(&mutex));
        ADD(*mine, 1);
    }
    return NULL;
}

int main(void)
{
    check_start();
    pthread_t threads[GREEDY];
    long polite = 0, tried = 0;
    for (int i = 0; i < GREEDY; i++)
        threads[i] = spawn(greedy, &greedy_counts[i]);
    for (int i = 0; i < GREEDY; i++)
        WAIT_UNTIL(LOAD(greedy_counts[i]) > 0);
    for (; polite < TURNS; polite++) {
        OK(pthread_mutex_lock(&mutex));
        count++;
        OK(pthread_mutex_unlock(&mutex));
        burn(100000);
    }
    while (tried < 3) {
        if (pthread_mutex_trylock(&mutex) == 0) {
            count++;
            tried++;
            OK(pthread_mutex_unlock(&mutex));
        }
        burn(777);
    }
    STORE(stop, 1);
    long sum = polite + tried;
    for (int i = 0; i < GREEDY; i++) {
        join(threads[i]);
        sum += greedy_counts[i];
    }
    CHECK(count == sum);
    return 0;
}
