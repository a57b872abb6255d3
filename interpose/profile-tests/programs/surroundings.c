// Places that are hard to live in: the program does as ever, whether there can be a record or not.
#include "truth.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static pthread_mutex_t used = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t many[20000];

static void use(int times)
{
    for (int i = 0; i < times; i++) {
        OK(pthread_mutex_lock(&used));
        OK(pthread_mutex_unlock(&used));
    }
}

static void tell(int uses)
{
    truth("lock %p used kind=mutex acquisitions=%d waits=0", (void *)&used, uses);
    truth("process ending=exit");
}

static void plain(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(10);
    tell(10);
}

static void never_locks(int argc, char **argv)
{
    (void)argc, (void)argv;
}

static void closed_stderr(int argc, char **argv)
{
    (void)argc, (void)argv;
    close(2);
    // Whoever opens a file now gets this number: nothing may be written to it but what the program writes.
    int fd = open("data", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd == 2);
    CHECK(write(fd, "data\n", 5) == 5);
    use(10);
    tell(10);
}

// A daemon closes all that it does not know, before and after its first lock.
static void closes_all(int argc, char **argv)
{
    (void)argc, (void)argv;
    closefrom(3);
    use(5);
    closefrom(3);
    for (int fd = 3; fd < 20; fd++)
        close(fd);
    int first = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(first == 3);
    use(5);
    for (int i = 0; i < 3000; i++) {
        OK(pthread_mutex_lock(&many[i]));
        OK(pthread_mutex_unlock(&many[i]));
    }
    tell(10);
    truth("process acquisitions=%d", 10 + 3000);
}

// Descriptors are numbered as without a preload.
static void descriptors(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 3; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd != 3 + i)
            FAIL("descriptor %d instead of %d", fd, 3 + i);
        use(2);
    }
    tell(6);
}

// argv: a folder without room. The record cannot grow, and touching what has no page must not kill.
static void no_room(int argc, char **argv)
{
    CHECK(argc == 1);
    if (mount("truth", argv[0], "tmpfs", 0, "size=256k") != 0) {
        dprintf(2, "SKIPPED: cannot mount a tmpfs: %s\n", strerror(errno));
        _exit(77);
    }
    CHECK(chdir(argv[0]) == 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 20000; i++) {
            OK(pthread_mutex_lock(&many[i]));
            OK(pthread_mutex_unlock(&many[i]));
        }
        // What room was left is gone now.
        int fd = open("filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        static char page[4096];
        if (fd >= 0)
            while (write(fd, page, sizeof page) > 0) {
            }
        close(fd);
    }
    say("did all");
}

// A file that may not grow: RLIMIT_FSIZE sends SIGXFSZ to who tries.
static void small_files(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct rlimit limit = {200000, 200000};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    for (int i = 0; i < 20000; i++) {
        OK(pthread_mutex_lock(&many[i]));
        OK(pthread_mutex_unlock(&many[i]));
    }
    say("did all");
}

static void little_memory(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct rlimit limit = {40 << 20, 40 << 20};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    for (int i = 0; i < 20000; i++) {
        OK(pthread_mutex_lock(&many[i]));
        OK(pthread_mutex_unlock(&many[i]));
    }
    say("did all");
}

static void chroots(int argc, char **argv)
{
    CHECK(argc == 1);
    if (chroot(argv[0]) != 0) {
        dprintf(2, "SKIPPED: cannot chroot: %s\n", strerror(errno));
        _exit(77);
    }
    CHECK(chdir("/") == 0);
    use(10);
    tell(10);
}

// After its first lock and first growth the program asks the kernel for nothing but what it needs itself, on pain of death.
static void sandbox(int argc, char **argv)
{
    (void)argc, (void)argv;
    use(5);
    for (int i = 0; i < 10; i++)
        OK(pthread_mutex_lock(&many[i]));
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        // Anything else is refused; libc's exit may ask for more.
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        dprintf(2, "SKIPPED: no seccomp: %s\n", strerror(errno));
        _exit(77);
    }
    use(20);
    for (int i = 0; i < 10; i++)
        OK(pthread_mutex_unlock(&many[i]));
    for (int i = 0; i < 20000; i++) {
        OK(pthread_mutex_lock(&many[i]));
        OK(pthread_mutex_unlock(&many[i]));
    }
    tell(25);
    truth("process dropped=any acquisitions-and-dropped=%d", 25 + 10 + 20000);
}

static const struct named_mode modes[] = {
    {"plain", plain},
    {"never-locks", never_locks},
    {"closed-stderr", closed_stderr},
    {"closes-all", closes_all},
    {"descriptors", descriptors},
    {"no-room", no_room},
    {"small-files", small_files},
    {"little-memory", little_memory},
    {"chroot", chroots},
    {"sandbox", sandbox},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_mode(modes, argc, argv);
}
