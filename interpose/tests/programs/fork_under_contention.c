// Property: fork works in the middle of a fight for locks. Three atfork handlers lock mutexes that
// other threads contend for; the child unlocks them in its handler, starts threads of its own and
// fights for the very same mutexes, whose words were copied with waiters and spinners that do not
// exist in the child. The parent goes on, and forks many times. Also posix_spawn and vfork+exec.
// Catches: a spinner's or waiter's mark that is inherited and believed (hang: BREAK_SPINNER_DUTY),
// a thread id that is the parent's (BREAK_STALE_TID), a lock of our own held across fork.
#include "flavours.h"
#include <spawn.h>
#include <sys/wait.h>

enum { LOCKS = 3, FIGHTERS = 3, FORKS = 120, CHILD_THREADS = 3, CHILD_ROUNDS = 300 };

static struct {
    pthread_mutex_t mutex;
    long count;
    char pad[64];
} locks[LOCKS];
static int stop, child_runs;
static long rounds[FIGHTERS];

static void one_round(int which)
{
    OK(pthread_mutex_lock(&locks[which].mutex));
    CHECK(locks[which].mutex.__data.__owner == tid());
    locks[which].count++;
    OK(pthread_mutex_unlock(&locks[which].mutex));
}

static void *fight(void *arg)
{
    uint64_t random = 5 + (intptr_t)arg;
    while (!LOAD(stop)) {
        if (LOAD(child_runs)) {
            sched_yield(); // leaves the CPUs to the child
            continue;
        }
        one_round(next_random(&random) % LOCKS);
        ADD(rounds[(intptr_t)arg], 1);
        burn(next_random(&random) % 4096);
    }
    return NULL;
}

// The fight is on when the fork begins; the first lock, which the child will sleep on, is taken
// last, when others have only just come to wait for it.
static void prepare(void)
{
    long before[FIGHTERS];
    for (int i = 0; i < FIGHTERS; i++)
        before[i] = LOAD(rounds[i]);
    STORE(child_runs, 0);
    for (int i = 0; i < FIGHTERS; i++)
        WAIT_UNTIL(LOAD(rounds[i]) >= before[i] + 3);
    for (int i = LOCKS; i-- > 0;)
        OK(pthread_mutex_lock(&locks[i].mutex));
}

static void in_parent(void)
{
    STORE(child_runs, 1);
    for (int i = 0; i < LOCKS; i++)
        OK(pthread_mutex_unlock(&locks[i].mutex));
}

// The child may not unlock an ERRORCHECK or RECURSIVE mutex that its parent's thread locked: as
// portable programs do, it makes them anew. The NORMAL ones it unlocks.
static void in_child(void)
{
    OK(pthread_mutex_unlock(&locks[0].mutex));
    OK(pthread_mutex_unlock(&locks[1].mutex));
    OK(flavour_init(&locks[2].mutex, (struct flavour){.type = PTHREAD_MUTEX_ERRORCHECK}));
}

static void *child_fight(void *arg)
{
    for (int i = 0; i < CHILD_ROUNDS; i++)
        for (int k = 0; k < LOCKS; k++) {
            one_round(k);
            if (i % 16 == (int)(intptr_t)arg)
                sched_yield();
        }
    return NULL;
}

// All of the child's threads have to sleep on a mutex that came from the parent.
static pid_t sleepers[CHILD_THREADS];
static void *child_sleep(void *arg)
{
    STORE(sleepers[(intptr_t)arg], tid());
    one_round(0);
    return NULL;
}

static void child(void)
{
    pthread_t threads[CHILD_THREADS];
    long before[LOCKS];
    for (int k = 0; k < LOCKS; k++)
        before[k] = locks[k].count + (k == 2);
    one_round(2);
    OK(pthread_mutex_lock(&locks[0].mutex));
    CHECK(locks[0].mutex.__data.__owner == tid());
    for (int i = 0; i < CHILD_THREADS; i++)
        threads[i] = spawn(child_sleep, (void *)(intptr_t)i);
    for (int i = 0; i < CHILD_THREADS; i++)
        WAIT_UNTIL(LOAD(sleepers[i]) && thread_state(getpid(), LOAD(sleepers[i])) == 'S');
    OK(pthread_mutex_unlock(&locks[0].mutex));
    for (int i = 0; i < CHILD_THREADS; i++)
        join(threads[i]);
    CHECK(locks[0].count == before[0] + CHILD_THREADS);
    for (int i = 0; i < CHILD_THREADS; i++)
        threads[i] = spawn(child_fight, (void *)(intptr_t)i);
    for (int i = 0; i < CHILD_THREADS; i++)
        join(threads[i]);
    for (int k = 1; k < LOCKS; k++)
        CHECK(locks[k].count == before[k] + CHILD_THREADS * CHILD_ROUNDS);
    _exit(0);
}

static pid_t spawn_true(void)
{
    char *argv[] = {"true", NULL}, *envp[] = {NULL};
    pid_t pid;
    OK(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, envp));
    return pid;
}

__attribute__((noinline)) static pid_t vfork_true(void)
{
    char *argv[] = {"true", NULL}, *envp[] = {NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve("/bin/true", argv, envp);
        _exit(1);
    }
    return pid;
}

int main(void)
{
    check_start();
    OK(flavour_init(&locks[0].mutex, (struct flavour){.type = NO_SETTYPE}));
    OK(flavour_init(&locks[1].mutex, (struct flavour){.type = PTHREAD_MUTEX_ADAPTIVE_NP}));
    OK(flavour_init(&locks[2].mutex, (struct flavour){.type = PTHREAD_MUTEX_ERRORCHECK}));
    OK(pthread_atfork(prepare, in_parent, in_child));
    pthread_t threads[FIGHTERS];
    for (int i = 0; i < FIGHTERS; i++)
        threads[i] = spawn(fight, (void *)(intptr_t)i);
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child();
        reap(pid);
        if (i % 8)
            continue;
        reap(spawn_true());
        pid = vfork_true();
        CHECK(pid > 0);
        reap(pid);
    }
    STORE(child_runs, 0);
    // Nobody was starved for good: each lock still changes hands.
    for (int k = 0; k < LOCKS; k++) {
        long before = __atomic_load_n(&locks[k].count, __ATOMIC_RELAXED);
        WAIT_UNTIL(__atomic_load_n(&locks[k].count, __ATOMIC_RELAXED) > before);
    }
    STORE(stop, 1);
    for (int i = 0; i < FIGHTERS; i++)
        join(threads[i]);
    return 0;
}
