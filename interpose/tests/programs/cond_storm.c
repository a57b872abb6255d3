// Property: condition variables do what they promise with everything going on at once on one
// mutex: items handed over, broadcasts that wake a crowd, waits that time out, waiters that are
// cancelled, and (argument "fork") children that wait with the mutex that their parent held.
// Nothing but the functions' promises is looked at, so it holds for any lock.
// Catches: a wake-up that is lost (hang), a wait that returns without the mutex (two inside), a
// clean-up without it, an item lost or doubled.
#include "check.h"

#include <sys/wait.h>

enum { CROWD = 8, GATES = 150, ITEMS = 4000, HANDS = 2, CANCELLED = 60, TIMED_OUT = 150, CHILDREN = 15 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate = PTHREAD_COND_INITIALIZER, not_empty = PTHREAD_COND_INITIALIZER,
                      not_full = PTHREAD_COND_INITIALIZER, never = PTHREAD_COND_INITIALIZER;
static int inside, arrived, queued, cleaned;
static unsigned opened;
static long produced, consumed;

static void got_in(void)
{
    CHECK(inside++ == 0);
}

static void about_to_leave(void)
{
    CHECK(--inside == 0);
}

static void enter(void)
{
    OK(pthread_mutex_lock(&mutex));
    got_in();
}

static void leave(void)
{
    about_to_leave();
    OK(pthread_mutex_unlock(&mutex));
}

// By a way that changes from call to call; never times out.
static void wait_on(pthread_cond_t *cond, unsigned n)
{
    struct timespec until = from_now(n % 3 == 1 ? CLOCK_REALTIME : CLOCK_MONOTONIC, 600000000000ll);
    about_to_leave();
    switch (n % 3) {
    case 0: OK(pthread_cond_wait(cond, &mutex)); break;
    case 1: OK(pthread_cond_timedwait(cond, &mutex, &until)); break;
    case 2: OK(pthread_cond_clockwait(cond, &mutex, CLOCK_MONOTONIC, &until)); break;
    }
    got_in();
}

static void *meets(void *arg)
{
    for (unsigned g = 0; g < GATES; g++) {
        enter();
        if (++arrived == CROWD) {
            arrived = 0;
            opened = g + 1;
            OK(pthread_cond_broadcast(&gate));
        }
        while (opened == g)
            wait_on(&gate, g + (unsigned)(intptr_t)arg);
        leave();
    }
    return NULL;
}

static void *produces(void *unused)
{
    for (unsigned n = 0;; n++) {
        enter();
        while (queued == 4 && produced < ITEMS)
            wait_on(&not_full, n);
        int over = produced == ITEMS;
        if (!over)
            produced++, queued++;
        OK(over ? pthread_cond_broadcast(&not_full) : pthread_cond_signal(&not_empty));
        leave();
        if (over)
            return unused;
    }
}

static void *consumes(void *unused)
{
    for (unsigned n = 0;; n++) {
        enter();
        while (queued == 0 && consumed < ITEMS)
            wait_on(&not_empty, n);
        int over = queued == 0;
        if (!over)
            queued--, consumed++;
        if (consumed == ITEMS)
            OK(pthread_cond_broadcast(&not_empty));
        OK(pthread_cond_signal(&not_full));
        leave();
        if (over)
            return unused;
    }
}

static void *times_out(void *unused)
{
    for (int i = 0; i < TIMED_OUT; i++) {
        struct timespec soon = from_now(CLOCK_MONOTONIC, i % 2 ? 300000 : -1);
        enter();
        about_to_leave();
        RETURNS(pthread_cond_clockwait(&never, &mutex, CLOCK_MONOTONIC, &soon), ETIMEDOUT);
        got_in();
        leave();
    }
    return unused;
}

static void clean_up(void *unused)
{
    (void)unused;
    got_in();
    cleaned++;
    leave();
}

static void *waits_for_ever(void *waiting)
{
    enter();
    STORE(*(int *)waiting, 1);
    about_to_leave();
    pthread_cleanup_push(clean_up, NULL);
    for (;;)
        OK(pthread_cond_wait(&never, &mutex));
    pthread_cleanup_pop(0);
}

static void *cancels(void *unused)
{
    for (int i = 0; i < CANCELLED; i++) {
        int waiting = 0;
        pthread_t thread = spawn(waits_for_ever, &waiting);
        WAIT_UNTIL(LOAD(waiting));
        if (i % 2) {
            enter();
            OK(pthread_cancel(thread));
            leave();
        } else {
            OK(pthread_cancel(thread));
        }
        CHECK(join(thread) == PTHREAD_CANCELED);
    }
    return unused;
}

static void forks(void)
{
    for (int i = 0; i < CHILDREN; i++) {
        enter();
        pid_t child = fork();
        if (child == 0) {
            pthread_cond_t fresh = PTHREAD_COND_INITIALIZER;
            leave();
            enter();
            struct timespec past = from_now(CLOCK_REALTIME, -1000000);
            about_to_leave();
            RETURNS(pthread_cond_timedwait(&fresh, &mutex, &past), ETIMEDOUT);
            got_in();
            leave();
            _exit(0);
        }
        CHECK(child > 0);
        leave();
        reap(child);
    }
}

int main(int argc, char **argv)
{
    check_start();
    pthread_t threads[CROWD + 2 * HANDS + 2];
    int n = 0;
    for (int i = 0; i < CROWD; i++)
        threads[n++] = spawn(meets, (void *)(intptr_t)i);
    for (int i = 0; i < HANDS; i++) {
        threads[n++] = spawn(produces, NULL);
        threads[n++] = spawn(consumes, NULL);
    }
    threads[n++] = spawn(times_out, NULL);
    threads[n++] = spawn(cancels, NULL);
    if (argc > 1 && strcmp(argv[1], "fork") == 0)
        forks();
    while (n > 0)
        join(threads[--n]);
    CHECK(produced == ITEMS && consumed == ITEMS && queued == 0);
    CHECK(opened == GATES && cleaned == CANCELLED && inside == 0);
    return 0;
}
