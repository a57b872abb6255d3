// Property: condition variables of stock glibc work on our mutexes. glibc releases and re-takes
// the mutex inside libc, past our symbols, so our unlock meets waiters that only glibc knows and
// glibc's unlock meets ours.
// Producers and consumers share a bounded queue; they wait by wait, timedwait and clockwait, and
// wake by signal and broadcast; every item is consumed exactly once.
// Argument: default, normal, recursive, errorcheck or adaptive, and "pshared" if wanted.
// Catches: an unlock that misses a waiter parked by libc (hang; BREAK_FOREIGN_WAITERS), a lock
// that lets two in (lost or doubled items).
#include "flavours.h"

enum { PAIRS = 4, ITEMS = 12000, ROOM = 8 };

static pthread_mutex_t mutex;
static pthread_cond_t not_empty, not_full;
static int queue[ROOM], head, count;
static int next_item, inside;
static unsigned char consumed[PAIRS * ITEMS];
static long taken;

static void enter(void)
{
    OK(pthread_mutex_lock(&mutex));
    CHECK(inside++ == 0);
}

static void leave(void)
{
    CHECK(--inside == 0);
    OK(pthread_mutex_unlock(&mutex));
}

// One wait, by a way that changes from call to call. A timeout is only another wake-up.
static void wait_on(pthread_cond_t *cond, unsigned n)
{
    struct timespec until;
    int result;
    CHECK(--inside == 0);
    switch (n % 5) {
    default:
        result = pthread_cond_wait(cond, &mutex);
        break;
    case 1:
        until = from_now(CLOCK_REALTIME, 60000000000ll);
        result = pthread_cond_timedwait(cond, &mutex, &until);
        break;
    case 2:
        until = from_now(CLOCK_MONOTONIC, 60000000000ll);
        result = pthread_cond_clockwait(cond, &mutex, CLOCK_MONOTONIC, &until);
        break;
    case 3:
        until = from_now(CLOCK_MONOTONIC, 20000);
        result = pthread_cond_clockwait(cond, &mutex, CLOCK_MONOTONIC, &until);
        if (result == ETIMEDOUT)
            result = 0;
        break;
    }
    OK(result);
    CHECK(inside++ == 0);
    CHECK(mutex.__data.__owner == tid());
}

static void wake(pthread_cond_t *cond, unsigned n)
{
    if (n % 16 == 0)
        OK(pthread_cond_broadcast(cond));
    else
        OK(pthread_cond_signal(cond));
}

static void *produce(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < ITEMS; i++) {
        enter();
        for (unsigned n = i; count == ROOM; n++)
            wait_on(&not_full, n);
        queue[(head + count++) % ROOM] = next_item++;
        if (i % 2) {
            wake(&not_empty, i);
            leave();
        } else {
            leave();
            wake(&not_empty, i);
        }
    }
    return NULL;
}

static void *consume(void *unused)
{
    (void)unused;
    for (unsigned i = 0;; i++) {
        enter();
        for (unsigned n = i; count == 0 && taken < PAIRS * ITEMS; n++)
            wait_on(&not_empty, n);
        if (taken == PAIRS * ITEMS) {
            leave();
            OK(pthread_cond_broadcast(&not_empty));
            return NULL;
        }
        int item = queue[head];
        head = (head + 1) % ROOM;
        count--;
        taken++;
        CHECK(item >= 0 && item < PAIRS * ITEMS && !consumed[item]++);
        leave();
        wake(&not_full, i);
    }
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc >= 2);
    struct flavour f = {.type = 77, .pshared = argc > 2 && !strcmp(argv[2], "pshared")};
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        if (!strcmp(type_name(flavour_types[t]), argv[1]))
            f.type = flavour_types[t];
    CHECK(f.type != 77);
    OK(flavour_init(&mutex, f));
    pthread_condattr_t attr;
    OK(pthread_condattr_init(&attr));
    OK(pthread_condattr_setpshared(&attr, f.pshared));
    OK(pthread_cond_init(&not_empty, &attr));
    OK(pthread_cond_init(&not_full, &attr));

    pthread_t threads[2 * PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        threads[2 * i] = spawn(produce, NULL);
        threads[2 * i + 1] = spawn(consume, NULL);
    }
    for (int i = 0; i < 2 * PAIRS; i++)
        join(threads[i]);
    CHECK(taken == PAIRS * ITEMS && count == 0);
    for (int i = 0; i < PAIRS * ITEMS; i++)
        CHECK(consumed[i] == 1);
    OK(pthread_cond_destroy(&not_empty));
    OK(pthread_cond_destroy(&not_full));
    OK(pthread_mutex_destroy(&mutex));
    return 0;
}
