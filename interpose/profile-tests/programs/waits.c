// Threads that provably wait: for whom, where, how many at once, how long.
#include "truth.h"

static pthread_mutex_t fought_over = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t meet;
static struct bounds waited, held;
static int total;

OUT_OF_LINE static void first_waiter_wants_it(struct waiter *w)
{
    announce(w);
    OK(pthread_mutex_lock(&fought_over));
    through(w);
    OK(pthread_mutex_unlock(&fought_over));
    NO_TAIL_CALL();
}

OUT_OF_LINE static void second_waiter_wants_it(struct waiter *w)
{
    announce(w);
    OK(pthread_mutex_lock(&fought_over));
    through(w);
    OK(pthread_mutex_unlock(&fought_over));
    NO_TAIL_CALL();
}

struct party {
    struct waiter waiter;
    void (*wants)(struct waiter *);
    int rounds;
};

// The barriers are not locks: each round starts with the mutex held, and ends when the waiter has had it.
static void *waits_each_round(void *arg)
{
    struct party *party = arg;
    for (int i = 0; i < party->rounds; i++) {
        pthread_barrier_wait(&meet);
        party->wants(&party->waiter);
        pthread_barrier_wait(&meet);
    }
    return NULL;
}

static void let_them_wait(struct waiter *waiters[], int count, ns duration, ns *seen)
{
    for (int i = 0; i < count; i++)
        WAIT_UNTIL(LOAD(waiters[i]->announced));
    for (int i = 0; i < count; i++)
        *seen = until_waiting(waiters[i]);
    spend(duration);
}

#define ROUND_AS(name)                                                                \
    OUT_OF_LINE static void name(struct waiter *waiters[], int count, ns duration)    \
    {                                                                                 \
        ns seen = 0, before = now();                                                  \
        OK(pthread_mutex_lock(&fought_over));                                         \
        ns in = now();                                                                \
        pthread_barrier_wait(&meet);                                                  \
        let_them_wait(waiters, count, duration, &seen);                               \
        ns out = now();                                                               \
        OK(pthread_mutex_unlock(&fought_over));                                       \
        add(&held, out - in, now() - before);                                         \
        pthread_barrier_wait(&meet);                                                  \
        for (int i = 0; i < count; i++) {                                             \
            add(&waited, out - seen, waiters[i]->after - waiters[i]->before);         \
            waiters[i]->announced = waiters[i]->done = 0;                             \
        }                                                                             \
        total++;                                                                      \
        NO_TAIL_CALL();                                                               \
    }

ROUND_AS(first_holder_keeps_it)
ROUND_AS(second_holder_keeps_it)

// One waiter, which waits in turn for two different holders.
static void pairs(int argc, char **argv)
{
    (void)argc, (void)argv;
    enum { FIRST = 6, SECOND = 4 };
    struct party party = {.wants = first_waiter_wants_it, .rounds = FIRST + SECOND};
    struct party other = {.wants = second_waiter_wants_it, .rounds = FIRST};
    struct waiter *waiters[] = {&party.waiter, &other.waiter};
    pthread_barrier_init(&meet, NULL, 2);
    pthread_t thread = spawn(waits_each_round, &party);
    for (int i = 0; i < FIRST; i++)
        first_holder_keeps_it(waiters, 1, 20 * MS);
    for (int i = 0; i < SECOND; i++)
        second_holder_keeps_it(waiters, 1, 20 * MS);
    join(thread);
    thread = spawn(waits_each_round, &other);
    for (int i = 0; i < FIRST; i++)
        second_holder_keeps_it(waiters + 1, 1, 20 * MS);
    join(thread);
    // The waiters' own holds are shorter than what `held` leaves room for.
    truth("lock %p fought_over kind=mutex symbol=fought_over acquisitions=%d waits=%d failed=0 most=1 wait=" BOUNDS
          " pair=first_waiter_wants_it<first_holder_keeps_it:%d pair=first_waiter_wants_it<second_holder_keeps_it:%d"
          " pair=second_waiter_wants_it<second_holder_keeps_it:%d full.changed=%d",
          (void *)&fought_over, 2 * total, total, BOTH(waited), FIRST, SECOND, FIRST, 2 * total - 1);
}

enum { CROWD = 5 };
static struct waiter crowd[CROWD];

static void *one_of_the_crowd(void *arg)
{
    first_waiter_wants_it(arg);
    return NULL;
}

// Five wait at once. Some of them may wait for each other after that: five waits in all, one for each.
static void five(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[CROWD];
    OK(pthread_mutex_lock(&fought_over));
    for (int i = 0; i < CROWD; i++)
        threads[i] = spawn(one_of_the_crowd, &crowd[i]);
    ns seen[CROWD];
    for (int i = 0; i < CROWD; i++)
        seen[i] = until_waiting(&crowd[i]);
    spend(50 * MS);
    ns out = now();
    OK(pthread_mutex_unlock(&fought_over));
    for (int i = 0; i < CROWD; i++) {
        join(threads[i]);
        add(&waited, out - seen[i], crowd[i].after - crowd[i].before);
    }
    truth("lock %p fought_over kind=mutex acquisitions=%d waits=%d most=%d failed=0 wait=" BOUNDS, (void *)&fought_over, CROWD + 1,
          CROWD, CROWD, BOTH(waited));
}

// Two threads take turns, by semaphores; then one takes it alone for a while.
enum { TURNS = 200, ALONE = 100 };
static sem_t turn[2];

static void *takes_turns(void *arg)
{
    int me = (int)(intptr_t)arg;
    for (int i = 0; i < TURNS; i++) {
        while (sem_wait(&turn[me])) {
        }
        OK(pthread_mutex_lock(&fought_over));
        OK(pthread_mutex_unlock(&fought_over));
        sem_post(&turn[!me]);
    }
    if (me == 0) {
        while (sem_wait(&turn[0])) {
        }
        for (int i = 0; i < ALONE; i++) {
            OK(pthread_mutex_lock(&fought_over));
            OK(pthread_mutex_unlock(&fought_over));
        }
    }
    return NULL;
}

static void turns(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[2];
    sem_init(&turn[0], 0, 1);
    sem_init(&turn[1], 0, 0);
    for (int i = 0; i < 2; i++)
        threads[i] = spawn(takes_turns, (void *)(intptr_t)i);
    for (int i = 0; i < 2; i++)
        join(threads[i]);
    truth("lock %p fought_over kind=mutex acquisitions=%d waits=0 most=0 full.compared=%d full.changed=%d", (void *)&fought_over,
          2 * TURNS + ALONE, 2 * TURNS + ALONE - 1, 2 * TURNS);
}

// A timed waiter that gives up, with the holder known: a time-out, no acquisition, no wait.
OUT_OF_LINE static void gives_up(struct waiter *w)
{
    for (int i = 0; i < 5; i++) {
        ns before = now();
        struct timespec until = from_now(i % 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME, 20 * MS);
        ns in = now();
        if (i % 2)
            RETURNS(pthread_mutex_clocklock(&fought_over, CLOCK_MONOTONIC, &until), ETIMEDOUT);
        else
            RETURNS(pthread_mutex_timedlock(&fought_over, &until), ETIMEDOUT);
        ns after = now();
        // Real time may be set; what the call took is known only from outside.
        add(&waited, (after - in) * 9 / 10, after - before);
    }
    STORE(w->done, 1);
}

static void *gives_up_body(void *arg)
{
    gives_up(arg);
    return NULL;
}

OUT_OF_LINE static void keeps_it_too_long(void)
{
    struct waiter w = {0};
    ns before = now();
    OK(pthread_mutex_lock(&fought_over));
    ns in = now();
    join(spawn(gives_up_body, &w));
    ns out = now();
    OK(pthread_mutex_unlock(&fought_over));
    add(&held, out - in, now() - before);
    CHECK(w.done);
}

static void time_outs(int argc, char **argv)
{
    (void)argc, (void)argv;
    keeps_it_too_long();
    truth("lock %p fought_over kind=mutex acquisitions=1 waits=0 failed=0 timeouts=5 holds=1 hold=" BOUNDS " timeout=" BOUNDS
          " gave_up=gives_up<keeps_it_too_long:5",
          (void *)&fought_over, BOTH(held), BOTH(waited));
}

// Two threads, two mutexes, each holds one and wants the other's: whoever looks, or kills it, learns who waits for whom.
static pthread_mutex_t left = PTHREAD_MUTEX_INITIALIZER, right = PTHREAD_MUTEX_INITIALIZER;
static struct waiter knights[2];

OUT_OF_LINE static void wants_right(void)
{
    announce(&knights[0]);
    pthread_mutex_lock(&right);
    NO_TAIL_CALL();
}

OUT_OF_LINE static void holds_left(void)
{
    OK(pthread_mutex_lock(&left));
    pthread_barrier_wait(&meet);
    wants_right();
    NO_TAIL_CALL();
}

OUT_OF_LINE static void wants_left(void)
{
    announce(&knights[1]);
    pthread_mutex_lock(&left);
    NO_TAIL_CALL();
}

OUT_OF_LINE static void holds_right(void)
{
    OK(pthread_mutex_lock(&right));
    pthread_barrier_wait(&meet);
    wants_left();
    NO_TAIL_CALL();
}

static void *knight(void *arg)
{
    if (arg)
        holds_left();
    else
        holds_right();
    return NULL;
}

static void deadlock(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_barrier_init(&meet, NULL, 2);
    spawn(knight, "left");
    spawn(knight, NULL);
    until_waiting(&knights[0]);
    until_waiting(&knights[1]);
    truth("lock %p left kind=mutex acquisitions=1 waits=0 waiting=%d<%d:wants_left<holds_left", (void *)&left, knights[1].tid,
          knights[0].tid);
    truth("lock %p right kind=mutex acquisitions=1 waits=0 waiting=%d<%d:wants_right<holds_right", (void *)&right,
          knights[0].tid, knights[1].tid);
    truth("process ending=none");
    kill(getpid(), SIGKILL);
}

static const struct named_mode modes[] = {
    {"pairs", pairs}, {"five", five}, {"turns", turns}, {"time-outs", time_outs}, {"deadlock", deadlock}, {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
