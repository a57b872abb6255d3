// One thread at a time, so every count and every hold is known: how often, how long, of which kind; tries and time-outs that fail.
#include "truth.h"

static pthread_mutex_t long_held = PTHREAD_MUTEX_INITIALIZER;

OUT_OF_LINE static void takes_it_for(ns duration, struct bounds *sum)
{
    HOLD(*sum, pthread_mutex_lock(&long_held), spend(duration), pthread_mutex_unlock(&long_held));
    NO_TAIL_CALL();
}

// argv: how many holds, milliseconds of each.
static void long_holds(int argc, char **argv)
{
    CHECK(argc == 2);
    int count = atoi(argv[0]);
    struct bounds sum = {0, 0};
    first_use();
    for (int i = 0; i < count; i++)
        takes_it_for(atoi(argv[1]) * MS, &sum);
    truth_of_first_lock();
    truth("lock %p long_held kind=mutex symbol=long_held acquisitions=%d failed=0 timeouts=0 recursions=0 waits=0 "
          "conds=0 most=0 holds=%d held_at=takes_it_for hold=" BOUNDS,
          (void *)&long_held, count, count, BOTH(sum));
}

// Many locks, each taken a number of times of its own, by several threads one after the other and at once.
enum { COUNTED = 300, COUNTING = 4 };
static pthread_mutex_t counted[COUNTED];
static long tried_in_vain[COUNTED], taken[COUNTED];
static pthread_barrier_t all_here;

static void *counts_them(void *arg)
{
    int me = (int)(intptr_t)arg;
    pthread_barrier_wait(&all_here);
    for (int i = 0; i < COUNTED; i++) {
        int which = (i + me * (COUNTED / COUNTING)) % COUNTED;
        for (int n = 0; n < which * 7 % 50 + 1; n++) {
            int result = n % 3 == 2 ? pthread_mutex_trylock(&counted[which])
                                    : pthread_mutex_lock(&counted[which]);
            if (result == EBUSY) {
                ADD(tried_in_vain[which], 1);
                continue;
            }
            OK(result);
            taken[which]++;
            burn(5000);
            OK(pthread_mutex_unlock(&counted[which]));
        }
    }
    return NULL;
}

static void counts(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[COUNTING];
    for (int i = 0; i < COUNTED; i++)
        OK(pthread_mutex_init(&counted[i], NULL));
    pthread_barrier_init(&all_here, NULL, COUNTING);
    for (int i = 0; i < COUNTING; i++)
        threads[i] = spawn(counts_them, (void *)(intptr_t)i);
    for (int i = 0; i < COUNTING; i++)
        join(threads[i]);
    for (int i = 0; i < COUNTED; i++)
        truth("lock %p counted[%d] kind=mutex symbol=counted acquisitions=%ld failed=%ld timeouts=0 recursions=0 full.holds=%ld",
              (void *)&counted[i], i, taken[i], tried_in_vain[i], taken[i]);
}

static struct {
    const char *name;
    int type, robust, protocol;
    pthread_mutex_t mutex;
} kinds[] = {
    {.name = "mutex", .type = PTHREAD_MUTEX_NORMAL},
    {.name = "recursive", .type = PTHREAD_MUTEX_RECURSIVE},
    {.name = "error-check", .type = PTHREAD_MUTEX_ERRORCHECK},
    {.name = "adaptive", .type = PTHREAD_MUTEX_ADAPTIVE_NP},
    {.name = "other-mutex", .type = PTHREAD_MUTEX_NORMAL, .robust = 1},
    {.name = "other-mutex", .type = PTHREAD_MUTEX_RECURSIVE, .robust = 1},
    {.name = "other-mutex", .type = PTHREAD_MUTEX_NORMAL, .protocol = PTHREAD_PRIO_INHERIT},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void make(pthread_mutex_t *m, int type, int robust, int protocol)
{
    pthread_mutexattr_t attr;
    OK(pthread_mutexattr_init(&attr));
    OK(pthread_mutexattr_settype(&attr, type));
    if (robust)
        OK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
    OK(pthread_mutexattr_setprotocol(&attr, protocol));
    OK(pthread_mutex_init(m, &attr));
    OK(pthread_mutexattr_destroy(&attr));
}

static void *tries_and_fails(void *arg)
{
    pthread_mutex_t *m = arg;
    for (int i = 0; i < 5; i++)
        RETURNS(pthread_mutex_trylock(m), EBUSY);
    struct timespec past = from_now(CLOCK_REALTIME, -MS), soon = from_now(CLOCK_REALTIME, 2 * MS);
    struct timespec later = from_now(CLOCK_MONOTONIC, 4 * MS);
    RETURNS(pthread_mutex_timedlock(m, &past), ETIMEDOUT);
    RETURNS(pthread_mutex_timedlock(m, &soon), ETIMEDOUT);
    if ((m->__data.__kind & 32) == 0)
        RETURNS(pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &later), ETIMEDOUT);
    else
        RETURNS(pthread_mutex_timedlock(m, &soon), ETIMEDOUT);
    struct timespec nonsense = {0, -1};
    RETURNS(pthread_mutex_timedlock(m, &nonsense), EINVAL);
    if ((m->__data.__kind & 3) == PTHREAD_MUTEX_ERRORCHECK)
        RETURNS(pthread_mutex_unlock(m), EPERM);
    return NULL;
}

// Each kind: 10 locks, 1 try, 1 timed and 1 clock lock that succeed; 5 tries and 3 timed locks that fail; a recursive one 2 levels deeper twice.
static void every_kind(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int k = 0; k < KINDS; k++) {
        pthread_mutex_t *m = &kinds[k].mutex;
        struct bounds sum = {0, 0};
        make(m, kinds[k].type, kinds[k].robust, kinds[k].protocol);
        for (int i = 0; i < 10; i++)
            HOLD(sum, pthread_mutex_lock(m), spend(MS), pthread_mutex_unlock(m));
        HOLD(sum, pthread_mutex_trylock(m), spend(MS), pthread_mutex_unlock(m));
        struct timespec soon = from_now(CLOCK_REALTIME, 1000 * MS);
        HOLD(sum, pthread_mutex_timedlock(m, &soon), spend(MS), pthread_mutex_unlock(m));
        int acquisitions = 12, recursions = 0;
        if (!kinds[k].protocol) {
            struct timespec later = from_now(CLOCK_MONOTONIC, 1000 * MS);
            HOLD(sum, pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &later), spend(MS),
                 pthread_mutex_unlock(m));
            acquisitions++;
        }
        ns before = now();
        OK(pthread_mutex_lock(m));
        ns in = now();
        acquisitions++;
        if (kinds[k].type == PTHREAD_MUTEX_RECURSIVE) {
            struct timespec any = from_now(CLOCK_REALTIME, 1000 * MS);
            OK(pthread_mutex_lock(m));
            spend(MS);
            OK(pthread_mutex_trylock(m));
            OK(pthread_mutex_timedlock(m, &any));
            spend(MS);
            OK(pthread_mutex_unlock(m));
            OK(pthread_mutex_unlock(m));
            OK(pthread_mutex_unlock(m));
            spend(MS);
            recursions = 3;
        } else if (kinds[k].type == PTHREAD_MUTEX_ERRORCHECK) {
            RETURNS(pthread_mutex_lock(m), EDEADLK);
            struct timespec any = from_now(CLOCK_REALTIME, 1000 * MS);
            RETURNS(pthread_mutex_timedlock(m, &any), EDEADLK);
        }
        ns wait_before = now();
        join(spawn(tries_and_fails, m));
        ns wait_most = now() - wait_before;
        ns out = now();
        OK(pthread_mutex_unlock(m));
        add(&sum, out - in, now() - before);
        truth("lock %p kind%d kind=%s acquisitions=%d recursions=%d failed=5 timeouts=3 waits=0 conds=0 holds=%d hold=" BOUNDS
              " timeout=%lld..%lld",
              (void *)m, k, kinds[k].name, acquisitions, recursions, acquisitions, BOTH(sum), 1 * MS, wait_most);
    }
}

// A robust mutex whose owner dies is acquired with EOWNERDEAD; one that is given up then is acquired by nobody.
static pthread_mutex_t orphan;

static void *dies_with_it(void *unused)
{
    (void)unused;
    OK(pthread_mutex_lock(&orphan));
    return NULL;
}

static void owner_dead(int argc, char **argv)
{
    (void)argc, (void)argv;
    make(&orphan, PTHREAD_MUTEX_NORMAL, 1, 0);
    for (int i = 0; i < 3; i++) {
        join(spawn(dies_with_it, NULL));
        RETURNS(i == 0 ? pthread_mutex_lock(&orphan) : pthread_mutex_trylock(&orphan), EOWNERDEAD);
        if (i < 2)
            OK(pthread_mutex_consistent(&orphan));
        OK(pthread_mutex_unlock(&orphan));
    }
    for (int i = 0; i < 4; i++)
        RETURNS(pthread_mutex_lock(&orphan), ENOTRECOVERABLE);
    // The last: glibc's leaves the word locked.
    RETURNS(pthread_mutex_trylock(&orphan), ENOTRECOVERABLE);
    truth("lock %p orphan kind=other-mutex acquisitions=6 waits=0 timeouts=0 recursions=0", (void *)&orphan);
    truth("process dropped=any");
}

// Tries while another thread holds it: failures, no acquisitions, and not one wait.
enum { STORM = 5000, STORMERS = 3 };

static void *storms(void *unused)
{
    (void)unused;
    for (int i = 0; i < STORM; i++)
        RETURNS(pthread_mutex_trylock(&long_held), EBUSY);
    return NULL;
}

static void try_storm(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[STORMERS];
    OK(pthread_mutex_lock(&long_held));
    for (int i = 0; i < STORMERS; i++)
        threads[i] = spawn(storms, NULL);
    for (int i = 0; i < STORMERS; i++)
        join(threads[i]);
    OK(pthread_mutex_unlock(&long_held));
    truth("lock %p long_held kind=mutex acquisitions=1 failed=%d waits=0 timeouts=0 most=0", (void *)&long_held,
          STORM * STORMERS);
}

// A recursive mutex is held from the first lock to the last unlock.
static void recursive(int argc, char **argv)
{
    (void)argc, (void)argv;
    static pthread_mutex_t deep = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    struct bounds sum = {0, 0};
    enum { DEPTH = 40, ROUNDS = 3 };
    for (int round = 0; round < ROUNDS; round++) {
        ns before = now();
        OK(pthread_mutex_lock(&deep));
        ns in = now();
        for (int i = 0; i < DEPTH; i++)
            OK(pthread_mutex_lock(&deep));
        spend(20 * MS);
        for (int i = 0; i < DEPTH; i++)
            OK(pthread_mutex_unlock(&deep));
        spend(20 * MS);
        ns out = now();
        OK(pthread_mutex_unlock(&deep));
        add(&sum, out - in, now() - before);
    }
    truth("lock %p deep kind=recursive acquisitions=%d recursions=%d failed=0 waits=0 holds=%d hold=" BOUNDS, (void *)&deep,
          ROUNDS, ROUNDS * DEPTH, ROUNDS, BOTH(sum));
}

// Locked by one thread, unlocked by another, which glibc's normal mutex allows: no hold is seen to end, and nothing else suffers.
enum { HANDED = 50 };
static pthread_mutex_t handed[HANDED];
static sem_t locked, unlocked;

static void *unlocks_them(void *unused)
{
    (void)unused;
    for (int i = 0; i < HANDED; i++) {
        while (sem_wait(&locked)) {
        }
        OK(pthread_mutex_unlock(&handed[i]));
        OK(pthread_mutex_lock(&handed[i]));
        OK(pthread_mutex_unlock(&handed[i]));
        sem_post(&unlocked);
    }
    return NULL;
}

static void handed_over(int argc, char **argv)
{
    (void)argc, (void)argv;
    sem_init(&locked, 0, 0);
    sem_init(&unlocked, 0, 0);
    pthread_t other = spawn(unlocks_them, NULL);
    struct bounds sum = {0, 0};
    for (int i = 0; i < HANDED; i++) {
        OK(pthread_mutex_lock(&handed[i]));
        sem_post(&locked);
        while (sem_wait(&unlocked)) {
        }
        OK(pthread_mutex_lock(&handed[i]));
        OK(pthread_mutex_unlock(&handed[i]));
    }
    join(other);
    for (int i = 0; i < 10; i++)
        takes_it_for(10 * MS, &sum);
    for (int i = 0; i < HANDED; i++)
        truth("lock %p handed[%d] kind=mutex acquisitions=3 waits=0 failed=0", (void *)&handed[i], i);
    truth("lock %p long_held kind=mutex acquisitions=10 waits=0 holds=10 hold=" BOUNDS, (void *)&long_held, BOTH(sum));
    truth("process dropped=holds");
}

// More locks held at once than a thread may remember.
static void many_held(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < HANDED; i++)
        OK(pthread_mutex_lock(&handed[i]));
    for (int i = 0; i < HANDED; i++)
        OK(pthread_mutex_unlock(&handed[i]));
    struct bounds sum = {0, 0};
    for (int i = 0; i < 10; i++)
        takes_it_for(10 * MS, &sum);
    for (int i = 0; i < HANDED; i++)
        truth("lock %p handed[%d] kind=mutex acquisitions=1 waits=0 failed=0", (void *)&handed[i], i);
    truth("lock %p long_held kind=mutex acquisitions=10 waits=0 holds=10 hold=" BOUNDS, (void *)&long_held, BOTH(sum));
    truth("process dropped=holds");
}

// A hundred thousand short holds of many locks by one thread, more than it may time, then long ones: at most the first of these, which come before the thread counts as calm, are missed.
static void burst(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int round = 0; round < 2000; round++)
        for (int i = 0; i < HANDED; i++) {
            OK(pthread_mutex_lock(&handed[i]));
            OK(pthread_mutex_unlock(&handed[i]));
        }
    struct bounds sum = {0, 0};
    for (int i = 0; i < 20; i++)
        takes_it_for(20 * MS, &sum);
    for (int i = 0; i < HANDED; i++)
        truth("lock %p handed[%d] kind=mutex acquisitions=2000 waits=0 failed=0 full.holds=2000 holds=1..2000", (void *)&handed[i], i);
    truth("lock %p long_held kind=mutex acquisitions=20 waits=0 holds=15..20 hold=" BOUNDS, (void *)&long_held, sum.least * 15 / 20, sum.most);
}

// The same place in memory, made and destroyed again and again, once as another kind.
static pthread_mutex_t remade;

OUT_OF_LINE static void makes_and_uses_it(int type, int uses)
{
    make(&remade, type, 0, 0);
    for (int i = 0; i < uses; i++) {
        OK(pthread_mutex_lock(&remade));
        OK(pthread_mutex_unlock(&remade));
    }
    OK(pthread_mutex_destroy(&remade));
}

static void remade_locks(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 200; i++)
        makes_and_uses_it(PTHREAD_MUTEX_NORMAL, 3);
    for (int i = 0; i < 100; i++)
        makes_and_uses_it(PTHREAD_MUTEX_RECURSIVE, 2);
    truth("lock %p remade acquisitions=%d waits=0 failed=0 full.holds=%d", (void *)&remade, 200 * 3 + 100 * 2, 200 * 3 + 100 * 2);
}

static const struct named_mode modes[] = {
    {"long", long_holds},       {"counts", counts},         {"kinds", every_kind},     {"owner-dead", owner_dead},
    {"try-storm", try_storm},   {"recursive", recursive},   {"handed-over", handed_over}, {"many-held", many_held}, {"burst", burst},
    {"remade", remade_locks},   {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
