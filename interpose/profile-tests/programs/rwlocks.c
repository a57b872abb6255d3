// Readers and writers, apart: counts by every call there is, readers that wait for a writer, a writer that waits for readers.
#include "truth.h"

static pthread_rwlock_t both = PTHREAD_RWLOCK_INITIALIZER;

static struct timespec in_a_while(clockid_t clock)
{
    return from_now(clock, 10000 * MS);
}

static void *cannot_read(void *unused)
{
    (void)unused;
    for (int i = 0; i < 6; i++)
        RETURNS(pthread_rwlock_tryrdlock(&both), EBUSY);
    struct timespec soon = from_now(CLOCK_REALTIME, 2 * MS), later = from_now(CLOCK_MONOTONIC, 4 * MS);
    RETURNS(pthread_rwlock_timedrdlock(&both, &soon), ETIMEDOUT);
    RETURNS(pthread_rwlock_clockrdlock(&both, CLOCK_MONOTONIC, &later), ETIMEDOUT);
    return NULL;
}

static void *cannot_write(void *unused)
{
    (void)unused;
    for (int i = 0; i < 9; i++)
        RETURNS(pthread_rwlock_trywrlock(&both), EBUSY);
    struct timespec soon = from_now(CLOCK_REALTIME, 2 * MS), later = from_now(CLOCK_MONOTONIC, 4 * MS);
    RETURNS(pthread_rwlock_timedwrlock(&both, &soon), ETIMEDOUT);
    RETURNS(pthread_rwlock_clockwrlock(&both, CLOCK_MONOTONIC, &later), ETIMEDOUT);
    struct timespec past = from_now(CLOCK_REALTIME, -MS);
    RETURNS(pthread_rwlock_timedwrlock(&both, &past), ETIMEDOUT);
    return NULL;
}

static void counts(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct bounds read = {0, 0}, written = {0, 0};
    struct timespec until;
    for (int i = 0; i < 10; i++)
        HOLD(read, pthread_rwlock_rdlock(&both), spend(MS), pthread_rwlock_unlock(&both));
    HOLD(read, pthread_rwlock_tryrdlock(&both), spend(MS), pthread_rwlock_unlock(&both));
    until = in_a_while(CLOCK_REALTIME);
    HOLD(read, pthread_rwlock_timedrdlock(&both, &until), spend(MS), pthread_rwlock_unlock(&both));
    until = in_a_while(CLOCK_MONOTONIC);
    HOLD(read, pthread_rwlock_clockrdlock(&both, CLOCK_MONOTONIC, &until), join(spawn(cannot_write, NULL)),
         pthread_rwlock_unlock(&both));
    for (int i = 0; i < 5; i++)
        HOLD(written, pthread_rwlock_wrlock(&both), spend(MS), pthread_rwlock_unlock(&both));
    HOLD(written, pthread_rwlock_trywrlock(&both), spend(MS), pthread_rwlock_unlock(&both));
    until = in_a_while(CLOCK_REALTIME);
    HOLD(written, pthread_rwlock_timedwrlock(&both, &until), spend(MS), pthread_rwlock_unlock(&both));
    until = in_a_while(CLOCK_MONOTONIC);
    HOLD(written, pthread_rwlock_clockwrlock(&both, CLOCK_MONOTONIC, &until),
         (join(spawn(cannot_read, NULL)), pthread_rwlock_wrlock(&both) == EDEADLK && pthread_rwlock_rdlock(&both) == EDEADLK
              ? (void)0 : FAIL("locked twice")),
         pthread_rwlock_unlock(&both));
    truth("lock %p readers kind=readers symbol=both acquisitions=13 failed=6 timeouts=2 waits=0 recursions=0 holds=13 hold=" BOUNDS,
          (void *)&both, BOTH(read));
    truth("lock %p writers kind=writers symbol=both acquisitions=8 failed=9 timeouts=3 waits=0 recursions=0 holds=8 hold=" BOUNDS,
          (void *)&both, BOTH(written));
}

enum { READERS = 3 };
static struct waiter readers[READERS], writer;
static struct bounds readers_waited, writers_waited;

OUT_OF_LINE static void wants_to_read(struct waiter *w)
{
    announce(w);
    OK(pthread_rwlock_rdlock(&both));
    through(w);
    OK(pthread_rwlock_unlock(&both));
    NO_TAIL_CALL();
}

OUT_OF_LINE static void wants_to_write(struct waiter *w)
{
    announce(w);
    OK(pthread_rwlock_wrlock(&both));
    through(w);
    OK(pthread_rwlock_unlock(&both));
    NO_TAIL_CALL();
}

static void *reader_body(void *w)
{
    wants_to_read(w);
    return NULL;
}

static void *writer_body(void *w)
{
    wants_to_write(w);
    return NULL;
}

OUT_OF_LINE static void writes_for_long(void)
{
    pthread_t threads[READERS];
    ns seen[READERS];
    OK(pthread_rwlock_wrlock(&both));
    for (int i = 0; i < READERS; i++)
        threads[i] = spawn(reader_body, &readers[i]);
    for (int i = 0; i < READERS; i++)
        seen[i] = until_waiting(&readers[i]);
    spend(50 * MS);
    ns out = now();
    OK(pthread_rwlock_unlock(&both));
    for (int i = 0; i < READERS; i++) {
        join(threads[i]);
        add(&readers_waited, out - seen[i], readers[i].after - readers[i].before);
    }
}

// Several read at once, each for its own time: the hold time of readers is the sum.
static struct bounds read_at_once;
static pthread_barrier_t all_read;

static void *reads_along(void *unused)
{
    (void)unused;
    HOLD(read_at_once, pthread_rwlock_rdlock(&both),
         (pthread_barrier_wait(&all_read), spend(30 * MS), pthread_barrier_wait(&all_read)), pthread_rwlock_unlock(&both));
    return NULL;
}

OUT_OF_LINE static void reads_for_long(void)
{
    pthread_t thread;
    ns before = now();
    OK(pthread_rwlock_rdlock(&both));
    ns in = now();
    thread = spawn(writer_body, &writer);
    ns seen = until_waiting(&writer);
    spend(50 * MS);
    ns out = now();
    OK(pthread_rwlock_unlock(&both));
    add(&read_at_once, out - in, now() - before);
    join(thread);
    add(&writers_waited, out - seen, writer.after - writer.before);
}

static void beside(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[READERS];
    writes_for_long();
    reads_for_long();
    pthread_barrier_init(&all_read, NULL, READERS);
    for (int i = 0; i < READERS; i++)
        threads[i] = spawn(reads_along, NULL);
    for (int i = 0; i < READERS; i++)
        join(threads[i]);
    // The readers that waited hold it for no time worth mentioning: room for them above.
    truth("lock %p readers kind=readers acquisitions=%d waits=%d most=%d failed=0 wait=" BOUNDS " hold=%lld..%lld"
          " pair=wants_to_read<writes_for_long:%d",
          (void *)&both, 2 * READERS + 1, READERS, READERS, BOTH(readers_waited), read_at_once.least,
          read_at_once.most + readers_waited.most, READERS);
    truth("lock %p writers kind=writers acquisitions=2 waits=1 most=1 failed=0 wait=" BOUNDS " pair=wants_to_write<reads_for_long:1",
          (void *)&both, BOTH(writers_waited));
}

// Everybody at once, counted.
enum { ROUNDS = 20000, THREADS = 4 };
static long reads, writes, failed_reads, failed_writes;

static void *mixes(void *arg)
{
    uint64_t random = 88172645463325252ull + (uintptr_t)arg;
    pthread_barrier_wait(&all_read);
    for (int i = 0; i < ROUNDS; i++) {
        int way = next_random(&random) % 8;
        int result = way == 0   ? pthread_rwlock_wrlock(&both)
                     : way == 1 ? pthread_rwlock_trywrlock(&both)
                     : way == 2 ? pthread_rwlock_tryrdlock(&both)
                                : pthread_rwlock_rdlock(&both);
        if (result == EBUSY) {
            ADD(*(way == 1 ? &failed_writes : &failed_reads), 1);
            continue;
        }
        OK(result);
        ADD(*(way < 2 ? &writes : &reads), 1);
        burn(i % 8 == 0 ? 20000 : 200);
        OK(pthread_rwlock_unlock(&both));
    }
    return NULL;
}

static void mixed(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[THREADS];
    pthread_barrier_init(&all_read, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(mixes, (void *)(intptr_t)(i * 77));
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    truth("lock %p readers kind=readers acquisitions=%ld failed=%ld timeouts=0", (void *)&both, reads, failed_reads);
    truth("lock %p writers kind=writers acquisitions=%ld failed=%ld timeouts=0", (void *)&both, writes, failed_writes);
}

static const struct named_mode modes[] = {{"counts", counts}, {"beside", beside}, {"mixed", mixed}, {NULL, NULL}};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
