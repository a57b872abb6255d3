// Property: no count is lost and nobody is left asleep, whatever the kernel, its administrator and the program's own sandboxes and children do to the kernel's slots.
// Arguments: threads, rounds, and steps, in any order and number:
//   count           so many threads, new ones, count so many rounds each on one mutex
//   crowd           as count, beside a thread for each CPU that takes it away from waiters
//   watch           as crowd, and who holds the mutex looks whether the kernel may park it
//   off, on         0 or 1 into the sysctl kernel.auto_lock
//   toggle          as crowd, and meanwhile 0 and 1 into the sysctl in turn
//   kill, refuse    a seccomp filter that ends the program for a system call of autolocks, or answers EPERM
//   same            from "off" to "same" nobody was parked, as the kernel counts (statistics that may be asked for)
//   fork            a child takes the remaining steps as well, and ends first
//   vfork, spawn    this program is started with the remaining steps by vfork(2), by posix_spawn(3); and ends first
//   exec            this program begins anew with the remaining steps
// Catches: a waiter that forgets that it was parked (hang: BREAK_FORGETS), one that may be parked on the lock that it holds (BREAK_STAYS_ARMED), a system call in a sandbox that forbids it.
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { MAX_THREADS = 64, MAX_CPUS = 64, TOGGLES = 40 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    long first;
    char pad[128];
    long second;
} counter;
static int threads, rounds, running;
static uint64_t parks_when_off;

// auto_lock_create(2): where the calling thread's slot is, and in it the address that it waits for.
static volatile uint64_t *waited_for(void)
{
    struct {
        uint32_t flags, slot;
        uint64_t area, area_size;
        uint32_t slot_size, slot_offset, features, reserved;
    } made = {0};
    CHECK(syscall(1000, &made, sizeof made, 0) == 0);
    uint64_t at = made.area + made.slot_offset + made.slot * (uint64_t)made.slot_size;
    return (volatile uint64_t *)(uintptr_t)(at + 64);
}

static void *compute(void *arg)
{
    while (LOAD(running) > 0)
        burn(10000);
    return arg;
}

static void *count(void *watches)
{
    volatile uint64_t *armed = watches ? waited_for() : NULL;
    for (int i = 0; i < rounds; i++) {
        errno = 4242;
        OK(pthread_mutex_lock(&mutex));
        CHECK(counter.first == counter.second);
        CHECK(!armed || !*armed);
        counter.first++;
        // Long enough to be waited for, and now and then to lose the CPU in.
        burn(i % 16 ? 2000 : 40000);
        counter.second++;
        OK(pthread_mutex_unlock(&mutex));
        CHECK(errno == 4242);
        burn(300);
    }
    ADD(running, -1);
    return NULL;
}

static void set_sysctl(const char *value)
{
    int fd = open("/proc/sys/kernel/auto_lock", O_WRONLY);
    CHECK(fd >= 0);
    CHECK(write(fd, value, 1) == 1);
    close(fd);
}

static void count_all(int crowd, int watches, int toggles)
{
    pthread_t ids[MAX_THREADS], others[MAX_CPUS];
    long cpus = crowd ? sysconf(_SC_NPROCESSORS_ONLN) : 0;
    CHECK(cpus >= 0 && cpus <= MAX_CPUS);
    counter.first = counter.second = 0;
    STORE(running, threads);
    for (int i = 0; i < cpus; i++)
        others[i] = spawn(compute, NULL);
    for (int i = 0; i < threads; i++)
        ids[i] = spawn(count, watches ? &counter : NULL);
    for (int i = 0; i < toggles && LOAD(running); i++) {
        set_sysctl(i % 2 ? "1" : "0");
        struct timespec between = {.tv_nsec = 5000000};
        nanosleep(&between, NULL);
    }
    for (int i = 0; i < threads; i++)
        join(ids[i]);
    for (int i = 0; i < cpus; i++)
        join(others[i]);
    long all = (long)threads * rounds;
    if (counter.first != all || counter.second != all)
        FAIL("%ld and %ld counted, %ld done", counter.first, counter.second, all);
    CHECK(word(&mutex) == 0);
}

// auto_lock_stats(2): the fifth of thirteen numbers. All 0 where there is no slot.
static uint64_t parks(void)
{
    uint64_t figures[13] = {0};
    CHECK(syscall(1002, figures, sizeof figures, 0) == 0);
    return figures[4];
}

static void set_filter(unsigned action)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 1000, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 1002, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0);
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc > 3);
    threads = atoi(argv[1]);
    rounds = atoi(argv[2]);
    CHECK(threads > 0 && threads <= MAX_THREADS && rounds > 0);
    char self[PATH_MAX] = "";
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    for (char **step = argv + 3; *step; step++) {
        const char *what = *step;
        // Where this program begins anew: as it was started, without the steps so far.
        char *rest[64] = {self, argv[1], argv[2]};
        for (int i = 0; step[i] && i < 60; i++)
            rest[3 + i] = step[1 + i];
        if (!strcmp(what, "count")) {
            count_all(0, 0, 0);
        } else if (!strcmp(what, "crowd")) {
            count_all(1, 0, 0);
        } else if (!strcmp(what, "watch")) {
            count_all(1, 1, 0);
        } else if (!strcmp(what, "toggle")) {
            count_all(1, 0, TOGGLES);
            set_sysctl("1");
        } else if (!strcmp(what, "off")) {
            set_sysctl("0");
            parks_when_off = parks();
        } else if (!strcmp(what, "on")) {
            set_sysctl("1");
        } else if (!strcmp(what, "same")) {
            CHECK(parks() == parks_when_off);
        } else if (!strcmp(what, "kill")) {
            set_filter(SECCOMP_RET_KILL_PROCESS);
        } else if (!strcmp(what, "refuse")) {
            set_filter(SECCOMP_RET_ERRNO | EPERM);
        } else if (!strcmp(what, "fork")) {
            pid_t child = fork();
            if (child)
                reap(child);
        } else if (!strcmp(what, "vfork")) {
            pid_t child = vfork();
            if (child == 0) {
                execv(self, rest);
                _exit(1);
            }
            reap(child);
        } else if (!strcmp(what, "spawn")) {
            pid_t child = 0;
            OK(posix_spawn(&child, self, NULL, NULL, rest, environ));
            reap(child);
        } else if (!strcmp(what, "exec")) {
            execv(self, rest);
            FAIL("exec %s: %s", self, strerror(errno));
        } else {
            FAIL("what is %s?", what);
        }
    }
    return 0;
}
