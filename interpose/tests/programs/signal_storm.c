// Property: waiters whose sleep a signal ends, time and again and sooner than any time-out, get the mutex all the same.
// Each thread has a timer of its own, whose handler looks whether anybody got on since.
// Catches: a lock whose sleepers rely on a time-out that each signal begins anew.
#include "check.h"

#include <signal.h>

enum { THREADS = 16, BATCHES = 200, ROUNDS = 3000, PERIOD_NS = 700000, PATIENCE = 1000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long count;

// So many turns of this thread, and not one of the mutex: who holds it, or should have it, had as many.
static void look(int number)
{
    static __thread long seen, turns;
    (void)number;
    if (LOAD(count) != seen) {
        seen = LOAD(count);
        turns = 0;
    } else if (++turns == PATIENCE) {
        FAIL("nobody got the mutex while this thread was interrupted %d times", PATIENCE);
    }
}

static void *locker(void *arg)
{
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
    event._sigev_un._tid = tid();
    struct itimerspec period = { { 0, PERIOD_NS }, { 0, PERIOD_NS } };
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &period, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        OK(pthread_mutex_lock(&mutex));
        STORE(count, count + 1);
        burn(2000);
        OK(pthread_mutex_unlock(&mutex));
        if (round % 3 == 0)
            sched_yield();
    }
    CHECK(timer_delete(timer) == 0);
    return arg;
}

int main(void)
{
    check_start();
    struct sigaction action = { .sa_handler = look };
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    pthread_t threads[THREADS];
    // Threads that start together contend most.
    for (int batch = 1; batch <= BATCHES; batch++) {
        for (int i = 0; i < THREADS; i++)
            threads[i] = spawn(locker, NULL);
        for (int i = 0; i < THREADS; i++)
            join(threads[i]);
        CHECK(count == (long)batch * THREADS * ROUNDS);
    }
    return 0;
}
