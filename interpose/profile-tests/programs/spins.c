// Spin locks: counts, holds, failed tries, and one waiter that provably spins.
#include "truth.h"

static pthread_spinlock_t spin, many;
static struct waiter w;
static pthread_barrier_t both_here;
static struct bounds held, waited;
enum { ROUNDS = 50000 };
static long taken, missed;

OUT_OF_LINE static void spins_for_it(void)
{
    announce(&w);
    OK(pthread_spin_lock(&spin));
    through(&w);
    OK(pthread_spin_unlock(&spin));
    NO_TAIL_CALL();
}

static void *spins_body(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++)
        RETURNS(pthread_spin_trylock(&spin), EBUSY);
    spins_for_it();
    return NULL;
}

OUT_OF_LINE static void keeps_it(void)
{
    ns before = now();
    OK(pthread_spin_lock(&spin));
    ns in = now();
    pthread_t thread = spawn(spins_body, NULL);
    ns seen = until_waiting(&w);
    spend(20 * MS);
    ns out = now();
    OK(pthread_spin_unlock(&spin));
    add(&held, out - in, now() - before);
    join(thread);
    add(&waited, out - seen, w.after - w.before);
}

static void *counts(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&both_here);
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 4 == 0 && pthread_spin_trylock(&many)) {
            ADD(missed, 1);
            continue;
        } else if (i % 4)
            OK(pthread_spin_lock(&many));
        taken++;
        burn(1000);
        OK(pthread_spin_unlock(&many));
    }
    return NULL;
}

int main(void)
{
    check_start();
    OK(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE));
    OK(pthread_spin_init(&many, PTHREAD_PROCESS_PRIVATE));
    for (int i = 0; i < 10; i++)
        HOLD(held, pthread_spin_lock(&spin), spend(2 * MS), pthread_spin_unlock(&spin));
    HOLD(held, pthread_spin_trylock(&spin), spend(2 * MS), pthread_spin_unlock(&spin));
    keeps_it();
    pthread_t threads[2];
    pthread_barrier_init(&both_here, NULL, 2);
    for (int i = 0; i < 2; i++)
        threads[i] = spawn(counts, NULL);
    for (int i = 0; i < 2; i++)
        join(threads[i]);
    truth("lock %p spin kind=spin symbol=spin acquisitions=13 failed=5 waits=1 most=1 hold=%lld..%lld wait=" BOUNDS " pair=spins_for_it<keeps_it:1",
          (void *)&spin, held.least, held.most + 5 * MS, BOTH(waited));
    truth("lock %p many kind=spin symbol=many acquisitions=%ld failed=%ld", (void *)&many, taken, missed);
    OK(pthread_spin_destroy(&spin));
    OK(pthread_spin_destroy(&many));
    return 0;
}
