// Property: cancellation works as POSIX has it. A thread that is cancelled in a wait on a condition
// variable holds the mutex when its cleanup handler runs, and the handler's unlock lets others in;
// waiting for a mutex is not a cancellation point: the thread gets the mutex, and dies at the next
// point that is one.
// Catches: a lock that acts on a cancellation (BREAK_CANCEL), a mutex left locked or owned by the
// dead (BREAK_FOREIGN_WAITERS).
#include "flavours.h"

enum { WAITERS = 6, ROUNDS = 60 };

static pthread_mutex_t mutex;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int waiting, cleaned, passed;

static void clean_up(void *unused)
{
    (void)unused;
    CHECK(mutex.__data.__owner == tid());
    cleaned++;
    OK(pthread_mutex_unlock(&mutex));
}

static void *wait_for_ever(void *arg)
{
    OK(pthread_mutex_lock(&mutex));
    pthread_cleanup_push(clean_up, NULL);
    waiting++;
    for (;;) {
        struct timespec until = from_now(CLOCK_REALTIME, 600000000000ll);
        if ((intptr_t)arg % 2)
            OK(pthread_cond_wait(&cond, &mutex));
        else
            OK(pthread_cond_timedwait(&cond, &mutex, &until));
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void *pass(void *unused)
{
    OK(pthread_mutex_lock(&mutex));
    passed++;
    OK(pthread_mutex_unlock(&mutex));
    return unused;
}

static void cancelled_in_a_wait(struct flavour f)
{
    OK(flavour_init(&mutex, f));
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[WAITERS], passers[2];
        waiting = cleaned = passed = 0;
        for (int i = 0; i < WAITERS; i++)
            threads[i] = spawn(wait_for_ever, (void *)(intptr_t)i);
        for (int all_wait = 0; !all_wait; sched_yield()) {
            OK(pthread_mutex_lock(&mutex));
            all_wait = waiting == WAITERS;
            OK(pthread_mutex_unlock(&mutex));
        }
        // Cancelled with the mutex free or held, some signalled at the same time.
        if (round % 2)
            OK(pthread_mutex_lock(&mutex));
        for (int i = 0; i < WAITERS; i++)
            OK(pthread_cancel(threads[i]));
        for (int i = 0; i < 2; i++)
            passers[i] = spawn(pass, NULL);
        if (round % 3 == 0)
            OK(pthread_cond_signal(&cond));
        if (round % 2) {
            CHECK(cleaned == 0);
            OK(pthread_mutex_unlock(&mutex));
        }
        for (int i = 0; i < WAITERS; i++)
            CHECK(join(threads[i]) == PTHREAD_CANCELED);
        for (int i = 0; i < 2; i++)
            join(passers[i]);
        CHECK(cleaned == WAITERS && passed == 2);
    }
    CHECK(word(&mutex) == 0 && mutex.__data.__nusers == 0);
    OK(pthread_mutex_destroy(&mutex));
}

static int acquired;
static pid_t locker_tid;

static void *lock_then_die(void *arg)
{
    struct timespec until = from_now(CLOCK_MONOTONIC, 600000000000ll);
    STORE(locker_tid, tid());
    if (arg)
        OK(pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &until));
    else
        OK(pthread_mutex_lock(&mutex));
    STORE(acquired, 1);
    OK(pthread_mutex_unlock(&mutex));
    pthread_testcancel();
    return NULL;
}

static void cancelled_while_locking(struct flavour f)
{
    OK(flavour_init(&mutex, f));
    for (int round = 0; round < ROUNDS; round++) {
        acquired = 0;
        locker_tid = 0;
        OK(pthread_mutex_lock(&mutex));
        pthread_t thread = spawn(lock_then_die, round % 2 ? &mutex : NULL);
        WAIT_UNTIL(LOAD(locker_tid));
        // Sometimes it sleeps already, sometimes it is on its way.
        if (round % 3)
            WAIT_UNTIL(thread_state(getpid(), LOAD(locker_tid)) == 'S');
        OK(pthread_cancel(thread));
        CHECK(!LOAD(acquired));
        OK(pthread_mutex_unlock(&mutex));
        CHECK(join(thread) == PTHREAD_CANCELED);
        CHECK(LOAD(acquired));
    }
    OK(pthread_mutex_destroy(&mutex));
}

int main(void)
{
    check_start();
    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        struct flavour f = {.type = flavour_types[t], .pshared = t == 1};
        cancelled_in_a_wait(f);
        cancelled_while_locking(f);
    }
    return 0;
}
