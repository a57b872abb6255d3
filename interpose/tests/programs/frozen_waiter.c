// Property: a waiting thread that gets no CPU at all leaves no other waiter asleep on a free lock.
// A tracer freezes single threads of a child process by ptrace, as a real-time hog, a SCHED_IDLE
// class beside busy threads or a debugger would. The mutex is private. In each round the child's
// first thread holds the lock, the others come to wait, one of them is frozen, the lock is
// released, and every other thread must get it once; nobody makes up for a lost wake-up.
// Argument: "waiting": frozen at a random moment while the lock is held; "woken": frozen right
// after the release, which may just have woken it or counted on it (glibc itself hangs here).
// Exits with 77 where ptrace is not allowed.
// Catches: an unlock that leaves the wake to a spinner without making sure (BREAK_SPINNER_DUTY); a
// sleep without a backstop where the wake-up can get lost with the woken one (BREAK_NONE).
#include "check.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { WAITERS = 4, WAITING_ROUNDS = 600, WOKEN_IN_TIME = 30 };
enum state { IDLE, WAITING, HOLDING, DONE };
enum order { NOTHING, LOCK, UNLOCK };

static struct {
    pthread_mutex_t mutex; // private: used by the child's threads alone, looked at by the tracer
    int order, frozen;
    pid_t tids[WAITERS];
    int states[WAITERS], let_in[WAITERS];
    long count;
} *shared;
static pid_t child;
static int one_cpu;
static uint64_t seed = 99;

static void *waiter(void *arg)
{
    intptr_t me = (intptr_t)arg;
    struct sched_param none = {0};
    OK(pthread_setschedparam(pthread_self(), SCHED_BATCH, &none));
    STORE(shared->tids[me], tid());
    for (;;) {
        WAIT_UNTIL(LOAD(shared->let_in[me]));
        STORE(shared->let_in[me], 0);
        STORE(shared->states[me], WAITING);
        OK(pthread_mutex_lock(&shared->mutex));
        STORE(shared->states[me], HOLDING);
        shared->count++;
        OK(pthread_mutex_unlock(&shared->mutex));
        STORE(shared->states[me], DONE);
    }
    return NULL;
}

// One CPU for all of the child, the others, if there are any, for the tracer.
static void choose_cpus(int for_child)
{
    cpu_set_t all, chosen;
    int cpu = 0;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&chosen);
    CPU_SET(cpu, &chosen);
    if (!for_child && CPU_COUNT(&all) > 1)
        CPU_XOR(&chosen, &chosen, &all);
    CHECK(sched_setaffinity(0, sizeof chosen, &chosen) == 0);
}

// The child's first thread: locks and unlocks when told.
static void child_body(void)
{
    if (one_cpu)
        choose_cpus(1);
    for (intptr_t i = 0; i < WAITERS; i++)
        spawn(waiter, (void *)i);
    for (;;) {
        WAIT_UNTIL(LOAD(shared->order) == LOCK);
        OK(pthread_mutex_lock(&shared->mutex));
        STORE(shared->order, NOTHING);
        WAIT_UNTIL(LOAD(shared->order) == UNLOCK);
        STORE(shared->frozen, 0);
        OK(pthread_mutex_unlock(&shared->mutex));
        STORE(shared->order, NOTHING);
        // Keeps the CPU, so that a woken thread does not run before it is struck.
        while (one_cpu && !LOAD(shared->frozen))
            burn(10);
    }
}

static void give(enum order order)
{
    STORE(shared->order, order);
    WAIT_UNTIL(LOAD(shared->order) == NOTHING);
}

static int state_of(int i)
{
    return LOAD(shared->states[i]);
}

static int all_done_but(int struck)
{
    for (int i = 0; i < WAITERS; i++)
        if (i != struck && state_of(i) != DONE)
            return 0;
    return 1;
}

static int is_asleep(int i)
{
    return state_of(i) == WAITING && thread_state(child, shared->tids[i]) == 'S';
}

static int all_asleep_but(int struck)
{
    for (int i = 0; i < WAITERS; i++)
        if (i != struck && !is_asleep(i))
            return 0;
    return 1;
}

static void begin_freezing(int i)
{
    CHECK(ptrace(PTRACE_INTERRUPT, shared->tids[i], 0, 0) == 0);
}

static void end_freezing(int i)
{
    int status;
    CHECK(waitpid(shared->tids[i], &status, __WALL) == shared->tids[i] && WIFSTOPPED(status));
}

static void thaw(int i)
{
    CHECK(ptrace(PTRACE_CONT, shared->tids[i], 0, 0) == 0);
}

static void begin_round(void)
{
    give(LOCK);
    for (int i = 0; i < WAITERS; i++)
        STORE(shared->states[i], IDLE);
}

static void let_in(int i)
{
    STORE(shared->let_in[i], 1);
}

static void frozen_while_waiting(void)
{
    for (int n = 0; n < WAITING_ROUNDS; n++) {
        int struck = next_random(&seed) % WAITERS;
        begin_round();
        // As in lost_waiter.c.
        for (int i = 0; i < WAITERS; i++)
            if (i != struck)
                let_in(i);
        if (n % 2)
            WAIT_UNTIL(all_asleep_but(struck));
        let_in(struck);
        WATCH_UNTIL(state_of(struck) == WAITING);
        if (n % 3 == 0)
            WAIT_UNTIL(is_asleep(struck));
        else
            burn(next_random(&seed) % (n % 3 == 1 ? 3000 : 300000));
        begin_freezing(struck);
        end_freezing(struck);
        WAIT_UNTIL(all_asleep_but(struck));
        give(UNLOCK);
        WAIT_UNTIL(all_done_but(struck));
        thaw(struck);
        WAIT_UNTIL(state_of(struck) == DONE);
    }
}

// Frozen, it neither has the lock nor will get it; waits until that is certain.
static int is_not_the_holder(int struck)
{
    int waits = 0;
    for (;;) {
        if (state_of(struck) != WAITING)
            return 0;
        if (all_done_but(struck) || word(&shared->mutex) == 0)
            return 1;
        if (LOAD(shared->mutex.__data.__owner) == shared->tids[struck])
            return 0;
        if (all_asleep_but(struck) && ++waits > 100)
            return 0;
        sched_yield();
    }
}

static void frozen_when_woken(void)
{
    int in_time = 0;
    // As many rounds as it takes to strike so often in time; with a lock that hands itself over to a
    // sleeper, that is for ever.
    for (int n = 0; in_time < WOKEN_IN_TIME; n++) {
        int first = next_random(&seed) % WAITERS, struck = n % 4 ? first : n / 4 % WAITERS;
        begin_round();
        for (int i = 0; i < WAITERS; i++) {
            let_in((first + i) % WAITERS);
            WAIT_UNTIL(is_asleep((first + i) % WAITERS));
        }
        give(UNLOCK);
        begin_freezing(struck);
        STORE(shared->frozen, 1);
        end_freezing(struck);
        int counts = is_not_the_holder(struck);
        in_time += counts;
        if (counts)
            WAIT_UNTIL(all_done_but(struck));
        thaw(struck);
        WAIT_UNTIL(all_done_but(-1));
    }
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc == 2);
    one_cpu = !strcmp(argv[1], "woken");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    OK(pthread_mutex_init(&shared->mutex, NULL));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        child_body();
        _exit(0);
    }
    if (one_cpu)
        choose_cpus(0);
    for (int i = 0; i < WAITERS; i++) {
        WAIT_UNTIL(LOAD(shared->tids[i]));
        if (ptrace(PTRACE_SEIZE, shared->tids[i], 0, 0)) {
            fprintf(stderr, "ptrace: %s\n", strerror(errno));
            kill(child, SIGKILL);
            return 77;
        }
    }
    if (one_cpu)
        frozen_when_woken();
    else
        frozen_while_waiting();
    CHECK(kill(child, SIGKILL) == 0);
    return 0;
}
