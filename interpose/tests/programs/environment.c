// Property: the lock needs little of its surroundings. Threads fight for mutexes, sleep on them and
// are woken, in a process
//   plain          as any other; also used to see what AUTOLOCK_* options print
//   closed-fds     whose standard descriptors are closed (none may be opened or written)
//   small-as       with little address space
//   no-proc        without /proc (exits with 77 where it may not be unmounted)
//   sandbox        whose threads may, by seccomp, do nothing but futex calls
//   secure         that runs in secure-execution mode (checks that it does)
// Catches: a look into /proc, a system call that sandboxes do not know of (BREAK_YIELD), a
// descriptor opened and kept.
#include "flavours.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum { THREADS = 4, ROUNDS = 5000 };
static pthread_mutex_t locks[FLAVOUR_TYPES], held = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t begin, end;
static long counts[FLAVOUR_TYPES];
static int about_to_wait, is_sandbox;
static pid_t tids[THREADS];

static void *body(void *arg)
{
    STORE(tids[(intptr_t)arg], tid());
    pthread_barrier_wait(&begin);
    // Main holds this one until all have had time to sleep.
    ADD(about_to_wait, 1);
    OK(pthread_mutex_lock(&held));
    OK(pthread_mutex_unlock(&held));
    for (int i = 0; i < ROUNDS; i++)
        for (int t = 0; t < FLAVOUR_TYPES; t++) {
            struct timespec far = {.tv_sec = 1ll << 33};
            OK(i % 2 ? pthread_mutex_lock(&locks[t]) : pthread_mutex_timedlock(&locks[t], &far));
            counts[t]++;
            burn(i % 64 * 16);
            OK(pthread_mutex_unlock(&locks[t]));
        }
    pthread_barrier_wait(&end);
    // A thread's end, too, needs more system calls than a lock does.
    if (is_sandbox)
        pthread_barrier_wait(&end);
    return NULL;
}

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    char text[] = "system call 000 in a sandbox\n";
    for (int n = info->si_syscall, i = 14; i >= 12; i--, n /= 10)
        text[i] = (char)('0' + n % 10);
    if (write(2, text, sizeof text - 1) < 0)
        _exit(2);
    _exit(1);
}

// Where the clock is not read in user space, reading it is a system call for everybody.
static int clock_is_a_system_call(void)
{
    char name[32] = "";
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY);
    if (fd >= 0) {
        if (read(fd, name, sizeof name - 1) < 0)
            name[0] = 0;
        close(fd);
    }
    return strncmp(name, "tsc", 3) && strncmp(name, "kvm-clock", 9) && strncmp(name, "hyperv", 6);
}

#define ALLOW(number)                                            \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1),         \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

// For all threads at once. What remains is what glibc's own mutexes use, and the way out.
static void enter_sandbox(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_futex),
        ALLOW(SYS_write),
        ALLOW(SYS_exit_group),
        ALLOW(SYS_rt_sigreturn),
        ALLOW(SYS_restart_syscall),
        ALLOW(clock_is_a_system_call() ? SYS_clock_gettime : SYS_futex),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0);
}

static void exec_again(const char *mode)
{
    setenv("ENVIRONMENT_IS_SET", "1", 1);
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(n > 0);
    path[n] = 0;
    if (!strcmp(mode, "no-proc")) {
        if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            umount2("/proc", MNT_DETACH)) {
            dprintf(2, "cannot unmount /proc: %s\n", strerror(errno));
            _exit(77);
        }
        CHECK(access("/proc/self/maps", F_OK) != 0);
    } else {
        struct rlimit small = {48 << 20, 48 << 20};
        CHECK(setrlimit(RLIMIT_AS, &small) == 0);
    }
    execl(path, "environment", mode, NULL);
    FAIL("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    check_start();
    CHECK(argc == 2);
    const char *mode = argv[1];
    is_sandbox = !strcmp(mode, "sandbox");
    if ((!strcmp(mode, "no-proc") || !strcmp(mode, "small-as")) && !getenv("ENVIRONMENT_IS_SET"))
        exec_again(mode);
    int open_before[64];
    if (!strcmp(mode, "closed-fds"))
        for (int fd = 0; fd < 3; fd++)
            close(fd);
    for (int fd = 0; fd < 64; fd++)
        open_before[fd] = fcntl(fd, F_GETFD) >= 0;
    if (!strcmp(mode, "secure"))
        CHECK(getauxval(AT_SECURE) == 1);

    for (int t = 0; t < FLAVOUR_TYPES; t++)
        OK(flavour_init(&locks[t], (struct flavour){.type = flavour_types[t]}));
    pthread_t threads[THREADS];
    OK(pthread_barrier_init(&begin, NULL, THREADS + 1));
    OK(pthread_barrier_init(&end, NULL, THREADS + 1));
    OK(pthread_mutex_lock(&held));
    for (int i = 0; i < THREADS; i++)
        threads[i] = spawn(body, (void *)(intptr_t)i);
    // A thread's own start needs more system calls than a lock does.
    for (int i = 0; i < THREADS; i++)
        WAIT_UNTIL(LOAD(tids[i]));
    if (is_sandbox)
        enter_sandbox();
    pthread_barrier_wait(&begin);
    while (LOAD(about_to_wait) < THREADS)
        burn(100);
    // Nothing depends on how many sleep by now; in the plain mode all of them do.
    if (!strcmp(mode, "plain"))
        for (int i = 0; i < THREADS; i++)
            WAIT_UNTIL(thread_state(getpid(), tids[i]) == 'S');
    burn(1000000);
    OK(pthread_mutex_unlock(&held));
    pthread_barrier_wait(&end);
    for (int t = 0; t < FLAVOUR_TYPES; t++)
        CHECK(counts[t] == (long)THREADS * ROUNDS);
    if (is_sandbox)
        _exit(0);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    // One that is passed on, for the statistics.
    pthread_mutex_t robust;
    OK(flavour_init(&robust, (struct flavour){.type = NO_SETTYPE, .robust = 1}));
    OK(pthread_mutex_lock(&robust));
    OK(pthread_mutex_unlock(&robust));
    for (int fd = 0; fd < 64; fd++)
        CHECK((fcntl(fd, F_GETFD) >= 0) == open_before[fd]);
    return 0;
}
