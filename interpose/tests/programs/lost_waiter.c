// Property: a waiter that is killed or stopped leaves no other waiter asleep on a free lock. The
// mutex is process-shared, the waiters are processes. In each round the parent holds the lock, the
// children come to wait, one of them is struck, the parent lets go, and every other child must get
// the lock once; nobody else is there to make up for a lost wake-up.
// Argument:
//   kill-waiting, stop-waiting   struck while the parent holds the lock: at a random moment of its
//                                spinning, on its way to sleep, or asleep
//   kill-woken, stop-woken       struck right after the parent's unlock, which may just have woken
//                                it or counted on it to take over (glibc itself hangs here)
// The one struck is never the holder: before the unlock the parent is, and after it the child is
// stopped and looked at first.
// Catches: an unlock that leaves the wake to a spinner without making sure (BREAK_SPINNER_DUTY); a
// sleep without a backstop where the wake-up can die with the woken one (BREAK_NONE).
#include "flavours.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { CHILDREN = 4, WAITING_ROUNDS = 600, WOKEN_IN_TIME = 30 };
enum state { IDLE, WAITING, HOLDING, DONE };

static struct {
    pthread_mutex_t mutex;
    long count;
    struct {
        int state, let_in;
        char pad[56];
    } children[CHILDREN];
} *shared;
static pid_t pids[CHILDREN];
static uint64_t seed = 12345;

static void child_body(int me)
{
    for (;;) {
        WAIT_UNTIL(LOAD(shared->children[me].let_in));
        STORE(shared->children[me].let_in, 0);
        STORE(shared->children[me].state, WAITING);
        OK(pthread_mutex_lock(&shared->mutex));
        STORE(shared->children[me].state, HOLDING);
        shared->count++;
        OK(pthread_mutex_unlock(&shared->mutex));
        STORE(shared->children[me].state, DONE);
    }
}

static void start_child(int i)
{
    pids[i] = fork();
    CHECK(pids[i] >= 0);
    if (pids[i] == 0) {
        struct sched_param none = {0};
        CHECK(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
        child_body(i);
    }
}

static int state_of(int i)
{
    return LOAD(shared->children[i].state);
}

static int all_done_but(int struck)
{
    for (int i = 0; i < CHILDREN; i++)
        if (i != struck && state_of(i) != DONE)
            return 0;
    return 1;
}

static int is_asleep(int i)
{
    return state_of(i) == WAITING && thread_state(pids[i], pids[i]) == 'S';
}

static int all_asleep_but(int struck)
{
    for (int i = 0; i < CHILDREN; i++)
        if (i != struck && !is_asleep(i))
            return 0;
    return 1;
}

static void stop(int i)
{
    int status;
    CHECK(kill(pids[i], SIGSTOP) == 0);
    CHECK(waitpid(pids[i], &status, WUNTRACED) == pids[i] && WIFSTOPPED(status));
}

static void let_go_on(int i)
{
    CHECK(kill(pids[i], SIGCONT) == 0);
}

static void bury(int i)
{
    int status;
    CHECK(kill(pids[i], SIGKILL) == 0);
    CHECK(waitpid(pids[i], &status, 0) == pids[i] && WIFSIGNALED(status));
    STORE(shared->children[i].state, IDLE);
}

static void let_in(int i)
{
    STORE(shared->children[i].let_in, 1);
}

// The parent holds the lock and nobody waits yet.
static void begin_round(void)
{
    OK(pthread_mutex_lock(&shared->mutex));
    for (int i = 0; i < CHILDREN; i++)
        STORE(shared->children[i].state, IDLE);
}

static void struck_while_waiting(int kills)
{
    for (int n = 0; n < WAITING_ROUNDS; n++) {
        int struck = next_random(&seed) % CHILDREN;
        begin_round();
        // Sometimes all come at once, sometimes the struck one comes last; sometimes it sleeps when
        // it is struck, sometimes it has barely arrived.
        for (int i = 0; i < CHILDREN; i++)
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
        if (kills)
            bury(struck);
        else
            stop(struck);
        WAIT_UNTIL(all_asleep_but(struck));
        OK(pthread_mutex_unlock(&shared->mutex));
        WAIT_UNTIL(all_done_but(struck));
        if (kills) {
            start_child(struck);
        } else {
            let_go_on(struck);
            WAIT_UNTIL(state_of(struck) == DONE);
        }
    }
}

// After its stop: it did not get the lock and will not get it before it is let go on. Waits until
// that is certain; says no when the struck one seems to be the holder.
static int is_not_the_holder(int struck)
{
    int waits = 0;
    for (;;) {
        if (state_of(struck) != WAITING)
            return 0;
        if (all_done_but(struck) || word(&shared->mutex) == 0)
            return 1;
        if (LOAD(shared->mutex.__data.__owner) == pids[struck])
            return 0;
        // Taken, but the owner not yet noted: only when nobody else moves.
        if (all_asleep_but(struck) && ++waits > 100)
            return 0;
        sched_yield();
    }
}

static void struck_when_woken(int kills)
{
    int struck_in_time = 0;
    // One CPU for all, and children whose wake-up preempts nobody: a woken child cannot run before
    // its waker leaves the CPU.
    cpu_set_t allowed;
    int cpu = 0;
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    CHECK(sched_setaffinity(0, sizeof allowed, &allowed) == 0);
    for (int i = 0; i < CHILDREN; i++)
        CHECK(sched_setaffinity(pids[i], sizeof allowed, &allowed) == 0);

    // As many rounds as it takes to strike so often in time; with a lock that hands itself over to a
    // sleeper, that is for ever.
    for (int n = 0; struck_in_time < WOKEN_IN_TIME; n++) {
        // Who is woken first is the lock's choice. They come one by one, from a different one on
        // every time, and mostly the first comer is struck.
        int first = next_random(&seed) % CHILDREN, struck = n % 4 ? first : n / 4 % CHILDREN;
        begin_round();
        for (int i = 0; i < CHILDREN; i++) {
            let_in((first + i) % CHILDREN);
            WAIT_UNTIL(is_asleep((first + i) % CHILDREN));
        }
        OK(pthread_mutex_unlock(&shared->mutex));
        stop(struck);
        if (!is_not_the_holder(struck)) {
            let_go_on(struck);
            WAIT_UNTIL(all_done_but(-1));
            continue;
        }
        struck_in_time++;
        if (kills)
            bury(struck);
        WAIT_UNTIL(all_done_but(struck));
        if (kills) {
            start_child(struck);
        } else {
            let_go_on(struck);
            WAIT_UNTIL(state_of(struck) == DONE);
        }
    }
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc == 2);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    OK(flavour_init(&shared->mutex, (struct flavour){.type = NO_SETTYPE, .pshared = 1}));
    for (int i = 0; i < CHILDREN; i++)
        start_child(i);
    int kills = !strncmp(argv[1], "kill", 4);
    if (strstr(argv[1], "-waiting"))
        struck_while_waiting(kills);
    else if (strstr(argv[1], "-woken"))
        struck_when_woken(kills);
    else
        FAIL("what is %s?", argv[1]);
    for (int i = 0; i < CHILDREN; i++)
        bury(i);
    return 0;
}
