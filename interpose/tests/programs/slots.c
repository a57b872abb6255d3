// Property: a thread gets one of the kernel's slots when it meets contention, keeps it, and neither it nor its children ever touch one that is not theirs.
// Arguments, in any order and number:
//   alone               threads that meet no contention
//   contend             threads that wait for a mutex whose holder waits for them to sleep
//   churn               many threads, one after the other, that each wait once
//   crowd               more threads at once than a test has slots
//   hold                a thread that never waits, but is waited for
//   fork, _Fork, clone  in a child made so: a wait that times out; after fork(3) all of "contend", too
//   vfork               the same wait in a child of a thread that has no slot yet; then the parent waits
//   exec                starts this program anew with the remaining arguments
// Catches: an errno left behind, a child that touches the parent's area (SIGSEGV), a parent that takes its vfork child's slot for its own.
#include "check.h"
#include <sys/wait.h>

enum { WAITERS = 4, CROWD = 24, CHURN = 100 };

static pthread_mutex_t contended = PTHREAD_MUTEX_INITIALIZER;
static pid_t waiting[CROWD];

static void *wait_once(void *arg)
{
    errno = 4242;
    STORE(waiting[(intptr_t)arg], tid());
    OK(pthread_mutex_lock(&contended));
    OK(pthread_mutex_unlock(&contended));
    CHECK(errno == 4242);
    return NULL;
}

static void contend(int threads)
{
    pthread_t waiters[CROWD];
    memset(waiting, 0, sizeof waiting);
    OK(pthread_mutex_lock(&contended));
    for (intptr_t i = 0; i < threads; i++)
        waiters[i] = spawn(wait_once, (void *)i);
    // They go to sleep, whatever they know.
    for (int i = 0; i < threads; i++)
        WAIT_UNTIL(LOAD(waiting[i]) && thread_state(getpid(), LOAD(waiting[i])) == 'S');
    errno = 4242;
    OK(pthread_mutex_unlock(&contended));
    CHECK(errno == 4242);
    for (int i = 0; i < threads; i++)
        join(waiters[i]);
}

static void *alone(void *arg)
{
    (void)arg;
    pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
    for (int i = 0; i < 1000; i++) {
        OK(pthread_mutex_lock(&own));
        OK(pthread_mutex_unlock(&own));
    }
    return NULL;
}

static void *hold(void *arg)
{
    (void)arg;
    contend(1);
    return NULL;
}

// Nobody will ever release it.
static void *wait_in_vain(void *arg)
{
    (void)arg;
    pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
    OK(pthread_mutex_lock(&held));
    struct timespec until = from_now(CLOCK_REALTIME, 20000000);
    RETURNS(pthread_mutex_timedlock(&held, &until), ETIMEDOUT);
    return NULL;
}

static void *vfork_and_wait(void *arg)
{
    (void)arg;
    pid_t child = vfork();
    if (child == 0) {
        wait_in_vain(NULL);
        _exit(0);
    }
    reap(child);
    wait_in_vain(NULL);
    return NULL;
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc > 1);
    for (char **step = argv + 1; *step; step++) {
        const char *what = *step;
        pid_t child;
        if (!strcmp(what, "alone")) {
            for (int i = 0; i < WAITERS; i++)
                join(spawn(alone, NULL));
        } else if (!strcmp(what, "contend")) {
            contend(WAITERS);
        } else if (!strcmp(what, "churn")) {
            for (int i = 0; i < CHURN; i++)
                contend(1);
        } else if (!strcmp(what, "crowd")) {
            contend(CROWD);
        } else if (!strcmp(what, "hold")) {
            join(spawn(hold, NULL));
        } else if (!strcmp(what, "fork")) {
            child = fork();
            if (child == 0) {
                wait_in_vain(NULL);
                contend(WAITERS);
                child = fork();
                if (child == 0) {
                    contend(WAITERS);
                    _exit(0);
                }
                reap(child);
                _exit(0);
            }
            reap(child);
        } else if (!strcmp(what, "_Fork") || !strcmp(what, "clone")) {
            child = *what == '_' ? _Fork() : (pid_t)syscall(SYS_fork);
            if (child == 0) {
                wait_in_vain(NULL);
                _exit(0);
            }
            reap(child);
        } else if (!strcmp(what, "vfork")) {
            join(spawn(vfork_and_wait, NULL));
        } else if (!strcmp(what, "exec")) {
            char self[PATH_MAX] = "";
            CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
            *step = self;
            execv(self, step);
            FAIL("exec %s: %s", self, strerror(errno));
        } else {
            FAIL("what is %s?", what);
        }
    }
    return 0;
}
