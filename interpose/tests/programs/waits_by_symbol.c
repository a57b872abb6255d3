// Property: a wait on a condition variable releases and re-acquires its mutex by the symbols
// pthread_mutex_unlock and pthread_mutex_lock, one of C11's by mtx_unlock and mtx_lock, each once;
// so does one that times out, and one that is cancelled, for its clean-up.
// Transcript: for every way to wait, whether libc called the preload's functions. Stock glibc never
// does. Runs under foreign_preload.c.
// Catches: a libc that does the work inside.
#include "check.h"
#include "foreign.h"

#include <threads.h>

static struct libc_calls *calls;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static mtx_t c11_mutex;
static cnd_t c11_cond;

enum way { WAIT, TIMEDWAIT, CLOCKWAIT, C11_WAIT, C11_TIMEDWAIT, WAYS };
static const char *const names[] = {"pthread_cond_wait", "pthread_cond_timedwait",
                                    "pthread_cond_clockwait", "cnd_wait", "cnd_timedwait"};
enum end { SIGNALLED, BROADCAST, TIMED_OUT, CANCELLED, ENDS };
static const char *const ends[] = {"signalled", "broadcast", "timed out", "cancelled"};

static int is_c11(enum way way)
{
    return way >= C11_WAIT;
}

static void lock(enum way way)
{
    if (is_c11(way))
        CHECK(mtx_lock(&c11_mutex) == thrd_success);
    else
        OK(pthread_mutex_lock(&mutex));
}

static void unlock(enum way way)
{
    if (is_c11(way))
        CHECK(mtx_unlock(&c11_mutex) == thrd_success);
    else
        OK(pthread_mutex_unlock(&mutex));
}

static int waiting, ready, rounds, cleaned;

// 1 when it timed out.
static int wait_once(enum way way, const struct timespec *until)
{
    int result, timed_out = is_c11(way) ? thrd_timedout : ETIMEDOUT;
    switch (way) {
    case WAIT: result = pthread_cond_wait(&cond, &mutex); break;
    case TIMEDWAIT: result = pthread_cond_timedwait(&cond, &mutex, until); break;
    case CLOCKWAIT: result = pthread_cond_clockwait(&cond, &mutex, CLOCK_REALTIME, until); break;
    case C11_WAIT: result = cnd_wait(&c11_cond, &c11_mutex); break;
    default: result = cnd_timedwait(&c11_cond, &c11_mutex, until);
    }
    if (result != 0 && result != timed_out)
        FAIL("%s returned %d", names[way], result);
    return result != 0;
}

static void clean_up(void *way)
{
    cleaned = 1;
    unlock((enum way)(intptr_t)way);
}

static void *waits(void *arg)
{
    enum way way = (enum way)(intptr_t)arg;
    struct timespec until = from_now(CLOCK_REALTIME, 600000000000ll);
    lock(way);
    STORE(waiting, 1);
    pthread_cleanup_push(clean_up, arg);
    while (!ready) {
        rounds++;
        CHECK(wait_once(way, &until) == 0);
    }
    pthread_cleanup_pop(0);
    unlock(way);
    return NULL;
}

// Once the waiter has let go of the mutex it can be had, and the waiter waits.
static void *started(enum way way)
{
    waiting = ready = rounds = cleaned = 0;
    pthread_t thread = spawn(waits, (void *)(intptr_t)way);
    WAIT_UNTIL(LOAD(waiting));
    lock(way);
    return (void *)thread;
}

static void wakes(enum way way, enum end end)
{
    pthread_t thread = (pthread_t)started(way);
    ready = end != CANCELLED;
    if (end == CANCELLED)
        OK(pthread_cancel(thread));
    else if (is_c11(way))
        CHECK((end == BROADCAST ? cnd_broadcast(&c11_cond) : cnd_signal(&c11_cond)) == thrd_success);
    else
        OK(end == BROADCAST ? pthread_cond_broadcast(&cond) : pthread_cond_signal(&cond));
    unlock(way);
    void *result = join(thread);
    CHECK((result == PTHREAD_CANCELED) == (end == CANCELLED) && cleaned == (end == CANCELLED));
}

static void times_out(enum way way)
{
    struct timespec past = from_now(CLOCK_REALTIME, -1000000);
    lock(way);
    rounds = 1;
    CHECK(wait_once(way, &past) == 1);
    unlock(way);
}

static const char *how_often(int got)
{
    static char number[2][32];
    static int which;
    if (got == 0 || got == rounds)
        return got ? "once" : "never";
    snprintf(number[which ^= 1], sizeof *number, "%d times in %d waits", got, rounds);
    return number[which];
}

int main(void)
{
    check_start();
    calls = dlsym(RTLD_DEFAULT, "libc_calls");
    if (!calls)
        FAIL("needs foreign_preload");
    CHECK(mtx_init(&c11_mutex, mtx_plain) == thrd_success);
    CHECK(cnd_init(&c11_cond) == thrd_success);
    for (int way = 0; way < WAYS; way++) {
        for (int end = 0; end < ENDS; end++) {
            if (end == TIMED_OUT && (way == WAIT || way == C11_WAIT))
                continue;
            struct libc_calls before = *calls;
            if (end == TIMED_OUT)
                times_out(way);
            else
                wakes(way, end);
            int locks = is_c11(way) ? calls->mtx_locks - before.mtx_locks : calls->locks - before.locks;
            int unlocks = is_c11(way) ? calls->mtx_unlocks - before.mtx_unlocks : calls->unlocks - before.unlocks;
            int all = calls->locks + calls->mtx_locks + calls->unlocks + calls->mtx_unlocks;
            int all_before = before.locks + before.mtx_locks + before.unlocks + before.mtx_unlocks;
            // Nothing by the other family's names.
            CHECK(all - all_before == locks + unlocks);
            say("%s, %s: released by symbol %s, re-acquired %s", names[way], ends[end], how_often(unlocks),
                how_often(locks));
        }
    }
    lock(WAIT), unlock(WAIT), lock(C11_WAIT), unlock(C11_WAIT);
    return 0;
}
