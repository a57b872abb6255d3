// Property: a waiter that gives up leaves no other waiter asleep on a free lock. In each round the
// main thread holds the lock, some threads sleep on it without a limit, others wait with limits of
// microseconds, again and again; at a random moment the lock is released, nobody begins to wait any
// more, and every sleeper must get it.
// Catches: a wake-up left to a waiter who times out at that moment (BREAK_TIMED_DUTY).
#include "flavours.h"

enum { SLEEPERS = 2, IMPATIENT = 2, ROUNDS = 1500, THREADS = SLEEPERS + IMPATIENT };
enum state { IDLE, GO, WAITING, DONE };

static pthread_mutex_t mutex;
static int states[THREADS], released, stop;
static pid_t tids[THREADS];
static long timeouts, acquisitions;

static void sleep_in_lock(void)
{
    OK(pthread_mutex_lock(&mutex));
    acquisitions++;
    OK(pthread_mutex_unlock(&mutex));
}

static void give_up(uint64_t *seed)
{
    while (!LOAD(released)) {
        clockid_t clock = next_random(seed) % 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
        struct timespec until = from_now(clock, next_random(seed) % 60000);
        int result = pthread_mutex_clocklock(&mutex, clock, &until);
        if (result == 0) {
            acquisitions++;
            OK(pthread_mutex_unlock(&mutex));
        } else {
            RETURNS(result, ETIMEDOUT);
            ADD(timeouts, 1);
        }
    }
}

static void *body(void *arg)
{
    intptr_t me = (intptr_t)arg;
    uint64_t seed = 8191 + me;
    STORE(tids[me], tid());
    for (;;) {
        WAIT_UNTIL(LOAD(states[me]) == GO || LOAD(stop));
        if (LOAD(stop))
            return NULL;
        STORE(states[me], WAITING);
        if (me < SLEEPERS)
            sleep_in_lock();
        else
            give_up(&seed);
        STORE(states[me], DONE);
    }
}

static void round_of(uint64_t *seed)
{
    OK(pthread_mutex_lock(&mutex));
    released = 0;
    for (int i = 0; i < SLEEPERS; i++) {
        STORE(states[i], GO);
        WAIT_UNTIL(LOAD(states[i]) == WAITING && thread_state(getpid(), LOAD(tids[i])) == 'S');
    }
    for (int i = SLEEPERS; i < THREADS; i++)
        STORE(states[i], GO);
    for (int i = SLEEPERS; i < THREADS; i++)
        WATCH_UNTIL(LOAD(states[i]) == WAITING);
    burn(next_random(seed) % 400000);
    STORE(released, 1);
    OK(pthread_mutex_unlock(&mutex));
    for (int i = 0; i < THREADS; i++)
        WAIT_UNTIL(LOAD(states[i]) == DONE);
}

int main(void)
{
    check_start();
    pthread_t threads[THREADS];
    uint64_t seed = 3;
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        WAIT_UNTIL(LOAD(tids[i]));
    for (int pshared = 0; pshared < 2; pshared++) {
        OK(flavour_init(&mutex, (struct flavour){.type = NO_SETTYPE, .pshared = pshared}));
        acquisitions = 0;
        for (int i = 0; i < ROUNDS; i++)
            round_of(&seed);
        CHECK(acquisitions >= ROUNDS * SLEEPERS);
        OK(pthread_mutex_destroy(&mutex));
    }
    CHECK(timeouts > 0);
    STORE(stop, 1);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    return 0;
}
