// Property: ROBUST, PRIO_INHERIT and PRIO_PROTECT mutexes are glibc's and the kernel's whole. An
// owner that dies leaves EOWNERDEAD to the next, consistent repairs it, an unlock without repair
// makes it ENOTRECOVERABLE; a killed process does the same to a process-shared one; condition
// variables and contention work.
// Transcript: equal with and without the preload.
// Catches: a kind that is handled by us and not by glibc, so that nobody learns of the death.
#include "flavours.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static pid_t self;
static pthread_mutex_t *m;

static void line(const char *what, int result)
{
    int owner = m->__data.__owner;
    say("  %-36s %-16s count=%u owner=%s nusers=%u kind=%#x", what, err(result), m->__data.__count,
        owner == 0 ? "none" : owner == self ? "self" : owner == INT_MAX ? "inconsistent" : "other",
        m->__data.__nusers, (unsigned)m->__data.__kind);
}

static void *die_with_lock(void *unused)
{
    int result = pthread_mutex_lock(m);
    CHECK(result == 0 || result == EOWNERDEAD);
    return unused;
}

static void *wait_in_lock(void *result)
{
    *(int *)result = pthread_mutex_lock(m);
    if (*(int *)result == EOWNERDEAD)
        OK(pthread_mutex_consistent(m));
    if (*(int *)result == 0 || *(int *)result == EOWNERDEAD)
        OK(pthread_mutex_unlock(m));
    return NULL;
}

enum taker { LOCK, TRYLOCK, TIMEDLOCK, CLOCKLOCK, TAKERS };
static const char *const taker_names[] = {"lock", "trylock", "timedlock", "clocklock"};

static int take(enum taker how)
{
    struct timespec past = {1, 0};
    switch (how) {
    case TRYLOCK: return pthread_mutex_trylock(m);
    case TIMEDLOCK: return pthread_mutex_timedlock(m, &past);
    case CLOCKLOCK: return pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &past);
    default: return pthread_mutex_lock(m);
    }
}

static void owner_dies(struct flavour f)
{
    for (enum taker how = LOCK; how < TAKERS; how++) {
        OK(flavour_init(m, f));
        say("%s: owner dies, %s", flavour_name(f), taker_names[how]);
        line("consistent on a good one", pthread_mutex_consistent(m));
        join(spawn(die_with_lock, NULL));
        line(taker_names[how], take(how));
        line("consistent", pthread_mutex_consistent(m));
        line("consistent again", pthread_mutex_consistent(m));
        line("unlock", pthread_mutex_unlock(m));
        line("lock", pthread_mutex_lock(m));
        line("unlock", pthread_mutex_unlock(m));
        // Now without repair.
        join(spawn(die_with_lock, NULL));
        line(taker_names[how], take(how));
        line("unlock without consistent", pthread_mutex_unlock(m));
        line(taker_names[how], take(how));
        line("trylock", pthread_mutex_trylock(m));
        line("destroy", pthread_mutex_destroy(m));
    }
    // Somebody waits already when the owner dies.
    OK(flavour_init(m, f));
    say("%s: owner dies under a waiter", flavour_name(f));
    OK(pthread_mutex_lock(m));
    int result = -1;
    pthread_t waiter = spawn(wait_in_lock, &result);
    WAIT_UNTIL(m->__data.__lock & (int)0x80000000u);
    OK(pthread_mutex_unlock(m));
    join(waiter);
    line("waiter", result);
}

// A process dies by SIGKILL with the lock.
static void process_dies(struct flavour f)
{
    f.pshared = 1;
    OK(flavour_init(m, f));
    say("%s: process is killed", flavour_name(f));
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        OK(pthread_mutex_lock(m));
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    line("trylock while it lives", pthread_mutex_trylock(m));
    int result = -1, status;
    pthread_t waiter = spawn(wait_in_lock, &result);
    WAIT_UNTIL(m->__data.__lock & (int)0x80000000u);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    join(waiter);
    line("waiter", result);
    line("lock", pthread_mutex_lock(m));
    line("unlock", pthread_mutex_unlock(m));
    line("destroy", pthread_mutex_destroy(m));
}

enum { THREADS = 4, ROUNDS = 3000 };
static long count;
static pthread_cond_t cond;
static int turn;

static void *fight(void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct timespec until = from_now(CLOCK_REALTIME, 60000000000ll);
        OK(i % 2 ? pthread_mutex_lock(m) : pthread_mutex_timedlock(m, &until));
        count++;
        OK(pthread_mutex_unlock(m));
    }
    return unused;
}

static void *take_turns(void *arg)
{
    for (int i = 0; i < 300; i++) {
        OK(pthread_mutex_lock(m));
        while (turn != (int)(intptr_t)arg)
            OK(pthread_cond_wait(&cond, m));
        turn = (turn + 1) % THREADS;
        count++;
        OK(pthread_cond_broadcast(&cond));
        OK(pthread_mutex_unlock(m));
    }
    return NULL;
}

static void crowd(struct flavour f)
{
    pthread_t threads[THREADS];
    OK(flavour_init(m, f));
    say("%s: crowd", flavour_name(f));
    int result = pthread_mutex_lock(m);
    line("lock", result);
    CHECK(result == 0);
    OK(pthread_mutex_unlock(m));
    count = 0;
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(fight, NULL);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    line("after the fight", 0);
    say("  count %ld", count);
    OK(pthread_cond_init(&cond, NULL));
    turn = 0;
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(take_turns, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    OK(pthread_cond_destroy(&cond));
    line("after the turns", 0);
    say("  count %ld", count);
    line("destroy", pthread_mutex_destroy(m));
}

// By one thread: what a crowd of SCHED_OTHER threads gets from a priority ceiling is glibc's guess.
static void ceiling(struct flavour f)
{
    int old = -1;
    OK(flavour_init(m, f));
    say("%s: ceiling", flavour_name(f));
    line("getprioceiling", pthread_mutex_getprioceiling(m, &old));
    say("  ceiling %d", old);
    for (enum taker how = LOCK; how < TAKERS; how++) {
        int result = take(how);
        line(taker_names[how], result);
        if (result == 0)
            line("unlock", pthread_mutex_unlock(m));
    }
    line("setprioceiling", pthread_mutex_setprioceiling(m, 3, &old));
    say("  old ceiling %d", old);
    line("lock", pthread_mutex_lock(m));
    line("destroy", pthread_mutex_destroy(m));
}

int main(void)
{
    check_start();
    self = tid();
    m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    for (int t = 0; t < FLAVOUR_TYPES; t++) {
        int type = flavour_types[t];
        for (int inherit = 0; inherit < 2; inherit++) {
            struct flavour f = {.type = type,
                                .robust = 1,
                                .protocol = inherit ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE};
            owner_dies(f);
            process_dies(f);
            crowd(f);
        }
        crowd((struct flavour){.type = type, .protocol = PTHREAD_PRIO_INHERIT});
        crowd((struct flavour){.type = type, .protocol = PTHREAD_PRIO_INHERIT, .pshared = 1});
        ceiling((struct flavour){.type = type, .protocol = PTHREAD_PRIO_PROTECT});
    }
    return 0;
}
