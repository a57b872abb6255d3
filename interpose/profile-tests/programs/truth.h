// What every program here shares: it does something to locks, knows what it did, and says so, one line for each process and lock:
//
//     PID.IMAGE process ending=exit
//     PID.IMAGE lock ADDRESS NAME kind=mutex acquisitions=20 hold=LEAST..MOST
//
// The test compares the profiler's record with these lines, key by key (`src/check.rs`). IMAGE counts the programs that this process has been.
// Times are nanoseconds of CLOCK_MONOTONIC, and bounds: the least is timed inside what the profiler times, the most around it, so that a preempted or slow
// machine widens the bounds instead of failing the test.
#ifndef TRUTH_H
#define TRUTH_H

#include "check.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <threads.h>

#define OUT_OF_LINE __attribute__((noinline, noclone, unused))
// Ends a function that must be seen in stacks: what stands before it is no tail call.
#define NO_TAIL_CALL() __asm__ volatile("" ::: "memory")

typedef long long ns;
#define MS 1000000ll

__attribute__((unused)) static ns now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

// A stretch of time that is the subject of a test, asleep.
__attribute__((unused)) static void spend(ns duration)
{
    struct timespec until = from_now(CLOCK_MONOTONIC, duration);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

// Bounds of a sum of durations.
struct bounds {
    ns least, most;
};

__attribute__((unused)) static void add(struct bounds *b, ns least, ns most)
{
    __atomic_fetch_add(&b->least, least > 0 ? least : 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(&b->most, most, __ATOMIC_RELAXED);
}

#define BOUNDS "%lld..%lld"
#define BOTH(b) (b).least, (b).most

static int image = 1;

__attribute__((format(printf, 1, 2), unused)) static void truth(const char *format, ...)
{
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say("%d.%d %s", (int)syscall(SYS_getpid), image, text);
}

// A held lock of any type, timed from both sides.
#define HOLD(bounds, lock_call, what, unlock_call) \
    do {                                           \
        ns before_ = now();                        \
        OK(lock_call);                             \
        ns in_ = now();                            \
        what;                                      \
        ns out_ = now();                           \
        OK(unlock_call);                           \
        add(&(bounds), out_ - in_, now() - before_); \
    } while (0)

// A thread that is about to wait for a lock, and the proof that it does.
struct waiter {
    pthread_t thread;
    int tid, announced, done;
    ns cpu, before, after;
};

static __thread struct waiter *this_waiter __attribute__((unused));

__attribute__((unused)) static ns cpu_time(pthread_t thread)
{
    clockid_t clock;
    struct timespec t;
    if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &t))
        return 0;
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

// The waiter's last act before the call that waits.
__attribute__((unused)) static void announce(struct waiter *w)
{
    w->tid = tid();
    w->thread = pthread_self();
    w->cpu = cpu_time(w->thread);
    w->before = now();
    STORE(w->announced, 1);
}

// Its first act after it.
__attribute__((unused)) static void through(struct waiter *w)
{
    w->after = now();
    STORE(w->done, 1);
}

__attribute__((unused)) static int is_in_futex(pid_t thread)
{
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 1; // a kernel without this file: the state must do
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 4 && strncmp(text, "202 ", 4) == 0;
}

// Returns once the waiter is asleep in a futex, or has used so much CPU since it announced itself that it must be spinning in the call: it waits, provably.
__attribute__((unused)) static ns until_waiting(struct waiter *w)
{
    WAIT_UNTIL(LOAD(w->announced));
    for (;;) {
        ns at = now();
        if (LOAD(w->done))
            FAIL("the waiter did not wait");
        if (thread_state(getpid(), w->tid) == 'S' && is_in_futex(w->tid) &&
            thread_state(getpid(), w->tid) == 'S')
            return at;
        if (cpu_time(w->thread) - w->cpu > 5 * MS)
            return at;
        struct timespec moment = {0, 100000};
        nanosleep(&moment, NULL);
    }
}

// How often the waiter has given its CPU up by itself so far.
__attribute__((unused)) static long sleeps_of(const struct waiter *w)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", w->tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        FAIL("cannot read %s", path);
    close(fd);
    text[n] = 0;
    const char *at = strstr(text, "\nvoluntary_ctxt_switches:");
    if (!at)
        FAIL("%s says nothing of switches", path);
    return atol(strchr(at, ':') + 1);
}

// Returns once a waiter that slept has woken, and sleeps or spins again: it was asleep `sleeps` times, the sleep from which it wakes included.
__attribute__((unused)) static ns until_waiting_again(struct waiter *w, long sleeps)
{
    ns cpu = cpu_time(w->thread);
    for (;;) {
        ns at = now();
        if (LOAD(w->done))
            FAIL("the waiter did not wait");
        if (sleeps_of(w) > sleeps && thread_state(getpid(), w->tid) == 'S' && is_in_futex(w->tid))
            return at;
        if (cpu_time(w->thread) - cpu > 5 * MS)
            return at;
        struct timespec moment = {0, 100000};
        nanosleep(&moment, NULL);
    }
}

// A lock to use before the test proper: what the profiler does at a process's and a thread's first operation is then over.
static pthread_mutex_t first_lock __attribute__((unused)) = PTHREAD_MUTEX_INITIALIZER;
static int first_uses;

__attribute__((unused)) static void first_use(void)
{
    OK(pthread_mutex_lock(&first_lock));
    first_uses++;
    OK(pthread_mutex_unlock(&first_lock));
}

__attribute__((unused)) static void truth_of_first_lock(void)
{
    truth("lock %p first_lock kind=mutex acquisitions=%d failed=0 timeouts=0", (void *)&first_lock,
          first_uses);
}

struct named_mode {
    const char *name;
    void (*run)(int argc, char **argv);
};

// Runs the mode that the first argument names; the others are its own.
__attribute__((unused)) static int run_mode(const struct named_mode *modes, int argc, char **argv)
{
    check_start();
    for (; modes->name; modes++) {
        if (argc > 1 && strcmp(modes->name, argv[1]) == 0) {
            modes->run(argc - 2, argv + 2);
            return 0;
        }
    }
    FAIL("no such mode: %s", argc > 1 ? argv[1] : "(none)");
}

#endif
