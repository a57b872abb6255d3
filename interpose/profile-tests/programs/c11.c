// C11's locks and condition variables: the same truth by other names.
#include "truth.h"

static mtx_t plain, timed, deep;
static cnd_t changed;
static int ready;
static struct waiter w;
static struct bounds held, waited;

OUT_OF_LINE static void wants_it(void)
{
    announce(&w);
    CHECK(mtx_lock(&plain) == thrd_success);
    through(&w);
    CHECK(mtx_unlock(&plain) == thrd_success);
}

static int wants_it_body(void *unused)
{
    (void)unused;
    wants_it();
    return 0;
}

static int fails(void *unused)
{
    (void)unused;
    for (int i = 0; i < 7; i++)
        CHECK(mtx_trylock(&timed) == thrd_busy);
    for (int i = 0; i < 3; i++) {
        struct timespec soon = from_now(CLOCK_REALTIME, 3 * MS);
        CHECK(mtx_timedlock(&timed, &soon) == thrd_timedout);
    }
    return 0;
}

OUT_OF_LINE static void keeps_it(void)
{
    thrd_t thread;
    ns before = now();
    CHECK(mtx_lock(&plain) == thrd_success);
    ns in = now();
    CHECK(thrd_create(&thread, wants_it_body, NULL) == thrd_success);
    ns seen = until_waiting(&w);
    spend(50 * MS);
    ns out = now();
    CHECK(mtx_unlock(&plain) == thrd_success);
    add(&held, out - in, now() - before);
    CHECK(thrd_join(thread, NULL) == thrd_success);
    add(&waited, out - seen, w.after - w.before);
}

static struct waiter sleeper;

static int sleeps(void *unused)
{
    (void)unused;
    CHECK(mtx_lock(&timed) == thrd_success);
    announce(&sleeper);
    while (!ready)
        CHECK(cnd_wait(&changed, &timed) == thrd_success);
    CHECK(mtx_unlock(&timed) == thrd_success);
    return 0;
}

int main(void)
{
    thrd_t thread;
    check_start();
    CHECK(mtx_init(&plain, mtx_plain) == thrd_success);
    CHECK(mtx_init(&timed, mtx_timed) == thrd_success);
    CHECK(mtx_init(&deep, mtx_plain | mtx_recursive) == thrd_success);
    CHECK(cnd_init(&changed) == thrd_success);
    keeps_it();

    struct bounds hold_of_timed = {0, 0};
    for (int i = 0; i < 4; i++) {
        ns before = now();
        struct timespec soon = from_now(CLOCK_REALTIME, 1000 * MS);
        CHECK((i % 2 ? mtx_timedlock(&timed, &soon) : mtx_trylock(&timed)) == thrd_success);
        ns in = now();
        CHECK(thrd_create(&thread, fails, NULL) == thrd_success);
        CHECK(thrd_join(thread, NULL) == thrd_success);
        ns out = now();
        CHECK(mtx_unlock(&timed) == thrd_success);
        add(&hold_of_timed, out - in, now() - before);
    }
    CHECK(thrd_create(&thread, sleeps, NULL) == thrd_success);
    until_waiting(&sleeper);
    spend(100 * MS);
    ns before = now();
    CHECK(mtx_lock(&timed) == thrd_success);
    ready = 1;
    CHECK(cnd_signal(&changed) == thrd_success);
    CHECK(mtx_unlock(&timed) == thrd_success);
    CHECK(thrd_join(thread, NULL) == thrd_success);
    add(&hold_of_timed, 0, 2 * (now() - before) + 10 * MS);
    struct timespec past = from_now(CLOCK_REALTIME, -MS);
    CHECK(mtx_lock(&timed) == thrd_success);
    CHECK(cnd_timedwait(&changed, &timed, &past) == thrd_timedout);
    CHECK(mtx_unlock(&timed) == thrd_success);

    for (int i = 0; i < 5; i++)
        CHECK(mtx_lock(&deep) == thrd_success);
    for (int i = 0; i < 5; i++)
        CHECK(mtx_unlock(&deep) == thrd_success);

    truth("lock %p plain kind=mutex symbol=plain acquisitions=2 waits=1 failed=0 timeouts=0 most=1 wait=" BOUNDS
          " pair=wants_it<keeps_it:1",
          (void *)&plain, BOTH(waited));
    truth("lock %p timed kind=mutex symbol=timed acquisitions=9 failed=28 timeouts=12 waits=0 conds=2 hold=%lld..%lld",
          (void *)&timed, hold_of_timed.least, hold_of_timed.most);
    truth("lock %p deep kind=recursive symbol=deep acquisitions=1 recursions=4 failed=0 timeouts=0 waits=0", (void *)&deep);
    return 0;
}
