// What every program here shares: one-line failures, the transcript, small threads, and
// looks at a mutex's raw state. Nothing in this file calls a mutex function, and the threads
// meet through semaphores, barriers and atomics, which glibc builds on futexes alone: a broken
// mutex must show in the property under test, not in the test's own plumbing.
#ifndef CHECK_H
#define CHECK_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Prints one line on stderr and ends the whole process with status 1.
__attribute__((noreturn, format(printf, 3, 4), unused)) static void
fail_at(const char *file, int line, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *base = strrchr(file, '/');
    dprintf(2, "%s:%d: %s\n", base ? base + 1 : file, line, text);
    _exit(1);
}

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                                 \
    do {                                                 \
        if (!(condition))                                \
            FAIL("expected: %s", #condition);            \
    } while (0)

__attribute__((unused)) static const char *err(int code)
{
    const char *name = strerrorname_np(code);
    return name ? name : "(no errno)";
}

// The call must return exactly this error number.
#define RETURNS(call, wanted)                                                              \
    do {                                                                                   \
        int got_ = (call), wanted_ = (wanted);                                             \
        if (got_ != wanted_)                                                               \
            FAIL("%s returned %d (%s), wanted %s", #call, got_, err(got_), err(wanted_));  \
    } while (0)
#define OK(call) RETURNS(call, 0)

// Waits for a child, which must end with status 0.
__attribute__((unused)) static void reap(pid_t child)
{
    int status;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    if (status)
        FAIL("a child ended with status %#x", (unsigned)status);
}

// One line of the transcript. Unbuffered, so that a fork never prints a line twice.
__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text - 1, format, args);
    va_end(args);
    if (n > (int)sizeof text - 2)
        n = sizeof text - 2;
    text[n++] = '\n';
    if (write(1, text, n) != n)
        _exit(1);
}

// True when something else than libc answers to this name.
__attribute__((unused)) static int is_interposed(const char *name)
{
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, name);
    if (!address || !dladdr(address, &info) || !info.dli_fname)
        FAIL("cannot tell which object defines %s", name);
    const char *base = strrchr(info.dli_fname, '/');
    return strncmp(base ? base + 1 : info.dli_fname, "libc.so", 7) != 0;
}

// The libc that this process runs on.
__attribute__((unused)) static const char *libc_path(void)
{
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
    if (!address || !dladdr(address, &info) || !info.dli_fname)
        FAIL("cannot tell which libc this is");
    return info.dli_fname;
}

// First call of every main: the run must be what the harness says that it is, so that a
// preload that the loader ignored, or another glibc, can never pass for a tested one.
__attribute__((unused)) static void check_start(void)
{
    const char *prefix = getenv("TEST_GLIBC");
    if (prefix && strncmp(libc_path(), prefix, strlen(prefix)) != 0)
        FAIL("libc is %s, TEST_GLIBC says otherwise", libc_path());
    const char *wanted = getenv("TEST_PRELOAD");
    if (wanted && is_interposed("pthread_mutex_lock") != (*wanted == 'y'))
        FAIL("pthread_mutex_lock is %s, TEST_PRELOAD says otherwise",
             *wanted == 'y' ? "libc's" : "interposed");
}

// Threads with small stacks; every failure to start one is a failed test.
__attribute__((unused)) static pthread_t spawn(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t attr;
    OK(pthread_attr_init(&attr));
    OK(pthread_attr_setstacksize(&attr, 128 * 1024));
    OK(pthread_create(&thread, &attr, body, arg));
    OK(pthread_attr_destroy(&attr));
    return thread;
}

__attribute__((unused)) static void *join(pthread_t thread)
{
    void *result;
    OK(pthread_join(thread, &result));
    return result;
}

// Waits for a condition that another thread or process is bound to make true. There is no
// limit here: the harness's deadline is the hang detector.
#define WAIT_UNTIL(condition)  \
    do {                       \
        while (!(condition))   \
            sched_yield();     \
    } while (0)

// The same, where the moment matters: for a while without leaving the CPU.
#define WATCH_UNTIL(condition)                    \
    do {                                          \
        for (int n_ = 0; !(condition); n_++)      \
            if (n_ > 100000)                      \
                sched_yield();                    \
    } while (0)

#define LOAD(object) __atomic_load_n(&(object), __ATOMIC_ACQUIRE)
#define STORE(object, value) __atomic_store_n(&(object), (value), __ATOMIC_RELEASE)
#define ADD(object, value) __atomic_fetch_add(&(object), (value), __ATOMIC_ACQ_REL)

__attribute__((unused)) static int word(pthread_mutex_t *m)
{
    return LOAD(m->__data.__lock);
}

// Locked, and a waiter has announced itself: it will need to be woken or is about to sleep.
__attribute__((unused)) static int is_contended(pthread_mutex_t *m)
{
    return (unsigned)word(m) > 1;
}

__attribute__((unused)) static pid_t tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

// The scheduler's letter for a thread: 'S' asleep, 'R' running or runnable, 'T' stopped,
// 'Z' dead, 0 when there is no such thread.
__attribute__((unused)) static char thread_state(pid_t process, pid_t thread)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)process, (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    const char *after_name = strrchr(text, ')');
    return after_name && after_name[1] ? after_name[2] : 0;
}

// A time so far from now on the clock; negative is in the past.
__attribute__((unused)) static struct timespec from_now(clockid_t clock, long long nanoseconds)
{
    struct timespec t;
    clock_gettime(clock, &t);
    long long total = t.tv_sec * 1000000000ll + t.tv_nsec + nanoseconds;
    t.tv_sec = total / 1000000000ll;
    t.tv_nsec = total % 1000000000ll;
    return t;
}

__attribute__((unused)) static int is_past(clockid_t clock, struct timespec when)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec > when.tv_sec || (t.tv_sec == when.tv_sec && t.tv_nsec >= when.tv_nsec);
}

// xorshift64*: repeatable, one state a thread.
__attribute__((unused)) static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 2685821657736338717ull;
}

// Work that the compiler cannot remove and that makes no call.
__attribute__((unused)) static void burn(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        __asm__ volatile("" ::: "memory");
}

#endif
