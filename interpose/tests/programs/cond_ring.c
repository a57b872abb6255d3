// Property: no wake-up is lost where nothing else would make up for it. A token goes round a ring
// of threads; each waits on its own condition variable with the one shared mutex, and nobody else
// runs. Then all meet at a gate again and again: one broadcast, and every thread has to re-take
// the mutex inside libc, one after the other.
// Catches: an unlock that leaves a waiter asleep (hang: BREAK_FOREIGN_WAITERS, BREAK_NO_WAKE).
#include "check.h"

enum { THREADS = 8, ROUNDS = 1500, GATES = 600 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn[THREADS], gate = PTHREAD_COND_INITIALIZER;
static int token, arrived;
static unsigned opened;
static long passes;

static void *body(void *arg)
{
    int me = (int)(intptr_t)arg;
    for (int round = 0; round < ROUNDS; round++) {
        OK(pthread_mutex_lock(&mutex));
        while (token != me)
            OK(pthread_cond_wait(&turn[me], &mutex));
        token = (me + 1) % THREADS;
        passes++;
        OK(pthread_cond_signal(&turn[token]));
        OK(pthread_mutex_unlock(&mutex));
    }
    for (unsigned g = 0; g < GATES; g++) {
        OK(pthread_mutex_lock(&mutex));
        if (++arrived == THREADS) {
            arrived = 0;
            opened = g + 1;
            OK(pthread_cond_broadcast(&gate));
        }
        while (opened == g)
            OK(pthread_cond_wait(&gate, &mutex));
        CHECK(opened == g + 1);
        OK(pthread_mutex_unlock(&mutex));
    }
    return NULL;
}

int main(void)
{
    check_start();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        OK(pthread_cond_init(&turn[i], NULL));
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    CHECK(passes == (long)THREADS * ROUNDS && opened == GATES);
    CHECK(word(&mutex) == 0 && mutex.__data.__nusers == 0);
    return 0;
}
