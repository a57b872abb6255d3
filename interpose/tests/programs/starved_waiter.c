// Property: waiters that get almost no CPU leave nobody asleep on a free lock for good. Threads of
// SCHED_IDLE wait for a mutex among ordinary ones, while a busy thread sits on every CPU: whoever
// has to pass a wake-up on, or spins in the name of others, may itself be off the CPU for very
// long. In every round all ordinary threads must get the lock, and in the end the idle ones too.
// Catches: a wake-up owed by a thread that does not run, with nothing to fall back on.
#include "check.h"

enum { ORDINARY = 3, IDLERS = 3, ROUNDS = 40, MAX_CPUS = 64 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int round_number, stop;
static long rounds_done[ORDINARY + IDLERS];
static pid_t tids[ORDINARY + IDLERS];

static void *busy(void *unused)
{
    while (!LOAD(stop))
        burn(1000);
    return unused;
}

static void *waiter(void *arg)
{
    intptr_t me = (intptr_t)arg;
    if (me >= ORDINARY) {
        struct sched_param none = {0};
        OK(pthread_setschedparam(pthread_self(), SCHED_IDLE, &none));
    }
    STORE(tids[me], tid());
    for (int round = 1; round <= ROUNDS; round++) {
        while (LOAD(round_number) < round)
            usleep(200); // leaves the CPU; nothing depends on how long
        OK(pthread_mutex_lock(&mutex));
        ADD(rounds_done[me], 1);
        OK(pthread_mutex_unlock(&mutex));
    }
    return NULL;
}

static int asleep(int i)
{
    pid_t id = LOAD(tids[i]);
    return id && thread_state(getpid(), id) == 'S';
}

int main(void)
{
    check_start();
    pthread_t threads[ORDINARY + IDLERS], hogs[MAX_CPUS];
    cpu_set_t allowed;
    int cpus = 0;
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus < MAX_CPUS; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(cpu, &only);
        hogs[cpus] = spawn(busy, NULL);
        OK(pthread_setaffinity_np(hogs[cpus], sizeof only, &only));
        cpus++;
    }
    for (int i = 0; i < ORDINARY + IDLERS; i++)
        threads[i] = spawn(waiter, (void *)(intptr_t)i);
    for (int round = 1; round <= ROUNDS; round++) {
        OK(pthread_mutex_lock(&mutex));
        STORE(round_number, round);
        // The ordinary ones wait for the lock; of the others, whoever has made it so far.
        for (int i = 0; i < ORDINARY; i++)
            WAIT_UNTIL(LOAD(rounds_done[i]) == round - 1 && is_contended(&mutex) && asleep(i));
        OK(pthread_mutex_unlock(&mutex));
        for (int i = 0; i < ORDINARY; i++)
            WAIT_UNTIL(LOAD(rounds_done[i]) == round);
    }
    // With the CPUs free again the idle ones catch up.
    STORE(stop, 1);
    for (int i = 0; i < ORDINARY + IDLERS; i++)
        join(threads[i]);
    for (int i = 0; i < cpus; i++)
        join(hogs[i]);
    for (int i = 0; i < ORDINARY + IDLERS; i++)
        CHECK(rounds_done[i] == ROUNDS);
    return 0;
}
